"""Settings: every mistake is named with the file, the setting and what to write instead."""

from pathlib import Path

import pytest

from stook.config import (
    FarmSettings,
    NodeSettings,
    load_settings,
    parse_address,
    parse_duration_ms,
    parse_size,
    write_settings,
)
from stook.errors import ConfigError, EnvironmentFault


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("4096", 4096), ("1KiB", 1024), ("1.5 GiB", 3 * 2**29), ("100 MB", 10**8), (" 2 tib ", 2**41)],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 parsec", "1.2.3 MB", "1e9", "٣ GiB x", "٣ GiB", "9" * 5000])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="no size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "expected"), [("90 d", 90 * 86_400_000), ("1.5h", 5_400_000), ("10 ms", 10)])
def test_durations(text: str, expected: int) -> None:
    assert parse_duration_ms(text) == expected


def test_addresses() -> None:
    assert parse_address("example.org:7071") == ("example.org", 7071)
    assert parse_address("[::1]:7071") == ("::1", 7071)
    for bad in ("example.org", "example.org:", "example.org:99999", "x:-1", "x:٣", "x:" + "1" * 5000):
        with pytest.raises(ConfigError, match="host:port"):
            parse_address(bad)


def test_a_home_without_settings_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stook init"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[farm]\ncapasity = '1 GiB'", "capasity"),
        ("[farm]\ncapacity = '1 parsec'", "parsec"),
        ("[node]\nlisten = 'nowhere'", "nowhere"),
        ("[node]\nnetwork = 'UPPER'", "network"),
        ("[rent]\nspread = 'wide'", "spread"),
        ("[rent]\ncode = '10/4'", "policy"),
        ("[node]\nseeds = ['here']", "stook://"),
        ("[farm]\nallowed_renters = ['me']", "allowed_renters"),
        ("not toml at all", "config.toml"),
        pytest.param("a = " + "[" * 5000, "recursion|nested", id="nested too deep"),
        pytest.param("a = " + "9" * 5000, "config.toml", id="number too long"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=word):
        load_settings(tmp_path)


def test_an_existing_node_is_never_overwritten(tmp_path: Path) -> None:
    write_settings(tmp_path, {"farm": FarmSettings()})
    with pytest.raises(ConfigError, match="exists already"):
        write_settings(tmp_path, {"farm": FarmSettings()})


@pytest.mark.parametrize("operator", ["", '"\\', "Zoë\x7f\x00\n\u2028", "]\n[node]", "\U0001f9a2"])
def test_whatever_is_written_is_read_back(tmp_path: Path, operator: str) -> None:
    farm = FarmSettings(operator=operator)
    write_settings(tmp_path, {"farm": farm})
    assert load_settings(tmp_path).farm == farm


@pytest.mark.parametrize("farm", [FarmSettings(operator="\udcff"), FarmSettings(capacity="lots")])
def test_nothing_is_written_that_does_not_load(tmp_path: Path, farm: FarmSettings) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml"):
        write_settings(tmp_path, {"farm": farm})
    assert not list(tmp_path.iterdir())


def test_a_home_serves_the_role_it_was_made_for(tmp_path):
    write_settings(tmp_path / "farm", {"node": NodeSettings(), "farm": FarmSettings()})
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.toml").write_text('[node]\nnetwork = "n"\n')
    load_settings(tmp_path / "farm", "farm")
    load_settings(tmp_path / "plain", "rent")
    with pytest.raises(ConfigError, match="the home of a farmer, not of a renter"):
        load_settings(tmp_path / "farm", "rent")


def test_a_disk_that_refuses_is_no_fault_of_the_person(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentFault, match=r"Not a directory|File exists"):
        write_settings(tmp_path / "file" / "home", {"node": NodeSettings()})
