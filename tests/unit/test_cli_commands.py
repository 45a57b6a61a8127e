"""Commands that need no farmer, run as a person runs them: through `main`, with exit codes and output."""

from __future__ import annotations

import io
import json
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from stook.audits.score import Beat, Entry, Heartbeat
from stook.cli import main as main_module
from stook.ids import NodeId
from stook.storage.agent_store import SqlAgentStore

PHRASE = "abandon " * 23 + "art"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Stook = Callable[..., Ran]


@pytest.fixture
def stook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Stook]:
    def call(*words: str, typed: str = "", home: Path = tmp_path / "home") -> Ran:
        monkeypatch.setattr(sys, "argv", ["stook", "--home", str(home), *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        try:
            main_module.main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    monkeypatch.delenv("STOOK_PASSPHRASE", raising=False)
    monkeypatch.chdir(tmp_path)
    yield call
    structlog.reset_defaults()  # commands log to the standard error of their own test, which is closed after it


@pytest.fixture
def renter(stook: Stook) -> Stook:
    assert stook("init").code == 0
    return stook


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_shows_24_words_and_says_to_write_them_down(stook: Stook, tmp_path: Path) -> None:
    ran = stook("init")
    assert ran.code == 0
    assert "WRITE THEM DOWN" in ran.out
    assert [int(word) for word in ran.out.split() if word.isdigit() and int(word) < 24] != []
    assert stat.S_IMODE((tmp_path / "home/keys.stook").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    again = stook("init")
    assert again.code == 2
    assert "holds a node" in again.err


def test_init_from_words_gives_the_same_identity_and_shows_no_word(stook: Stook, tmp_path: Path) -> None:
    first = stook("init", "--json", home=tmp_path / "one").json
    second = stook("init", "--words", "--json", typed=first["words"].upper() + "\n", home=tmp_path / "two")
    assert second.json["node_id"] == first["node_id"]
    assert second.json["words"] is None
    third = stook("init", "--words", typed=first["words"], home=tmp_path / "three")
    assert first["words"].split()[0] not in third.out.split()
    assert "agent sync" in third.out


def test_init_refuses_what_it_cannot_use_and_leaves_nothing(stook: Stook, tmp_path: Path) -> None:
    for words, message in (
        (("--code", "9/4"), "1 <= k"),
        (("--code", "many"), "K/N"),
        (("--seed", "http://x"), "stook://"),
        (("--network", "Not OK"), "network"),
        (("--spread", "wide"), "spread"),
        (("--spares", "1000"), "spares"),
    ):
        ran = stook("init", *words)
        assert ran.code == 2, words
        assert message in ran.err, ran.err
        assert not (tmp_path / "home").exists()
    ran = stook("init", "--words", typed="one two three")
    assert ran.code == 2
    assert not (tmp_path / "home").exists()


def test_an_encrypted_home_asks_for_its_passphrase(stook: Stook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOOK_PASSPHRASE", "right")
    assert stook("init", "--passphrase", "--json").code == 0
    assert stook("mb", "photos").code == 0
    monkeypatch.setenv("STOOK_PASSPHRASE", "wrong")
    ran = stook("ls", "--json")
    assert (ran.code, ran.json["error"]) == (2, "WrongPassphraseError")
    monkeypatch.delenv("STOOK_PASSPHRASE")
    assert stook("ls", "--json").json["error"] == "PassphraseNeededError"


def test_without_a_home_every_command_says_what_to_do(stook: Stook) -> None:
    for words in (
        ("mb", "b"),
        ("rb", "b"),
        ("ls",),
        ("put", "-", "b/x"),
        ("get", "b/x"),
        ("cat", "b/x"),
        ("cp", "stook:b/x", "y"),
        ("stat", "b/x"),
        ("rm", "b/x"),
        ("status",),
        ("farmers",),
        ("farmers", "show", "ab"),
        ("repair",),
        ("agent", "run"),
        ("agent", "sync"),
        ("agent", "export", "d"),
    ):
        ran = stook(*words)
        assert ran.code == 2, words
        assert "stook init" in ran.err, words
        assert "Traceback" not in ran.err


# --- buckets and listing ---------------------------------------------------------------------------------------------


def test_buckets_come_and_go(renter: Stook) -> None:
    assert renter("mb", "b", "stook:a/").code == 0
    assert renter("mb", "a").code == 4
    assert [json.loads(line)["bucket"] for line in renter("ls", "--json").out.splitlines()] == ["a", "b"]
    assert renter("rb", "a").code == 0
    assert renter("rb", "--force", "b", "--json").json == {
        "ok": True,
        "removed": "b",
        "objects": 0,
        "erasures_waiting": 0,
    }
    assert renter("rb", "b").code == 3
    assert "No bucket yet" in renter("ls").err
    assert renter("mb", "").code == 2
    assert renter("mb", "x" * 64).code == 2


def test_errors_are_sentences_codes_and_json(renter: Stook) -> None:
    renter("mb", "b")
    for words, code in (
        (("ls", "nowhere"), 3),
        (("ls", "b/nothing"), 3),
        (("stat", "b/nothing"), 3),
        (("get", "b/nothing"), 3),
        (("cat", "b/nothing"), 3),
        (("rm", "b/nothing"), 3),
        (("rm", "nowhere/x"), 3),
        (("put", "no-such-file", "b/x"), 3),
        (("put", "no-such-file", "nowhere/x"), 3),
        (("cp", "no-such-file", "stook:b/x"), 3),
        (("cp", "stook:b/nothing", "x"), 3),
        (("cp", "-r", "stook:b", "x"), 3),
        (("rm", "b"), 2),
        (("rm", "b/folder/"), 2),
        (("cp", "a", "b"), 2),
        (("cp", "stook:b/x", "stook:b/y"), 2),
        (("cp", "--delete", "stook:b/x", "y"), 2),
        (("cp", ".", "stook:b"), 2),
        (("put", "-", "b"), 2),
        (("put", "-", "b/folder/"), 2),
        (("put", ".", "b/x"), 5),
    ):
        ran = renter(*words, "--json")
        assert ran.code == code, (words, ran)
        assert ran.json["exit_code"] == code
        assert ran.json["message"] in ran.err
        assert "Traceback" not in ran.err
    assert renter("cat", "b/x", "--range", "9:1").code == 2
    assert renter("stat", "b").code == 2


def test_put_without_any_farmer_says_so(renter: Stook, tmp_path: Path) -> None:
    renter("mb", "b")
    (tmp_path / "file").write_bytes(b"x")
    ran = renter("put", "file")
    assert ran.code == 7
    assert "no farmer is known" in ran.err
    assert renter("ls", "b").out == ""


def test_a_target_left_out_needs_exactly_one_bucket(renter: Stook, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert renter("put", "file").code == 2
    renter("mb", "a", "b")
    assert "exactly one bucket" in renter("put", "file").err


def test_status_without_farmers_still_tells(renter: Stook) -> None:
    renter("mb", "b")
    ran = renter("status")
    assert ran.code == 0
    assert "nothing is stored" in ran.out
    assert "cannot be stored: no farmer is known" in ran.out
    assert renter("status", "--json").json["policy"] is None
    assert "No farmer is known" in renter("farmers").err
    assert renter("status", "--json").json["audits_last_day"] == {"passed": 0, "failed": 0, "silent": 0}


def test_repair_with_nothing_to_do_says_so(renter: Stook) -> None:
    assert "0 segments repaired" in renter("repair").out
    assert renter("repair", "--json").json["segments_repaired"] == 0
    assert renter("repair", "--dry-run").code == 0


def test_one_farmer_is_shown_by_the_beginning_of_its_id(renter: Stook, tmp_path: Path) -> None:
    store = SqlAgentStore.open(tmp_path / "home" / "agent.db")
    for first in (0xAB, 0xAC):
        store.note_events([(NodeId(bytes([first]) * 20), Entry(1_700_000_000_000, Heartbeat(Beat.ANSWERED)))])
    store.close()
    assert renter("farmers", "show", "ff").code == 3
    assert renter("farmers", "show", "a").code == 2
    ran = renter("farmers", "show", "ABAB")
    assert (ran.code, ran.out.split()[0]) == (0, "ab" * 20)
    assert "availability 75.0% to 75.3%: there" in ran.out
    assert renter("farmers", "show", "ab", "--json").json["silence"]["state"] == "clear"


def test_an_agent_can_be_carried_away_and_reads_nothing(renter: Stook, tmp_path: Path) -> None:
    away = tmp_path / "away"
    assert renter("agent", "export", str(away)).code == 0
    assert renter("agent", "export", str(away)).code == 4
    assert not (away / "catalog.db").exists()
    once = renter("agent", "run", "--once", "--json", home=away)
    assert (once.code, once.json["event"]) == (0, "round")
    ran = renter("ls", home=away)
    assert ran.code == 2
    assert "agent's credential" in ran.err


def test_only_one_agent_at_a_time(renter: Stook, tmp_path: Path) -> None:
    from stook.cli.cmd_agent import only_agent

    with only_agent(tmp_path / "home"):
        ran = renter("agent", "run", "--once")
    assert ran.code == 4
    assert "already" in ran.err


def test_help_needs_no_home_and_names_every_command(stook: Stook) -> None:
    ran = stook("--help")
    assert ran.code == 0
    for name in main_module.COMMANDS:
        assert f"\n  {name} " in ran.out
    assert stook("no-such-command").code == 2
