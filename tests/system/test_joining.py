"""Joining with real processes: a private grid grown by invites, kills in between, and neighbours on the local link."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from stook.cli.local_network import free_loopback_ports
from stook.cli.main import main
from stook.joining import list_invites

pytestmark = pytest.mark.system
STOOK = [sys.executable, "-m", "stook.cli.main"]
DEADLINE = 120


def stook(home: Path, *words: str, code: int = 0) -> Any:
    """The last line of a command's JSON, or its words on standard error when it fails. Run in this process."""
    before, told, said = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["stook", "--home", str(home), *words, "--json"]
    ended: object = 0
    try:
        with redirect_stdout(told), redirect_stderr(said):
            main()
    except SystemExit as exit_:
        ended = exit_.code
    finally:
        sys.argv = before
    assert ended == code, (words, ended, told.getvalue(), said.getvalue())
    assert "Traceback" not in said.getvalue(), said.getvalue()
    return json.loads(told.getvalue().splitlines()[-1]) if not code else said.getvalue()


@contextmanager
def running(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The farmer of a home, until the block ends."""
    with (home / "farmer.log").open("ab") as log:
        process = subprocess.Popen(
            [*STOOK, "--home", str(home), "farm", "run", "--json", "--with-parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert json.loads(process.stdout.readline())["event"] == "ready", (home / "farmer.log").read_text()
        yield process
    finally:
        process.stdin.close()
        process.wait(DEADLINE)
        process.stdout.close()


def founded(home: Path, port: int, *more: str) -> None:
    stook(
        home, "farm", "init", "--listen", f"127.0.0.1:{port}", "--min-free-disk", "64 MiB", "--capacity", "1 GiB", *more
    )


def joined(home: Path, code: str, port: int) -> None:
    stook(home, "join", code, "--farm", "--listen", f"127.0.0.1:{port}", "--capacity", "1 GiB")
    text = (home / "config.toml").read_text().replace('min_free_disk = "1 GiB"', 'min_free_disk = "64 MiB"')
    (home / "config.toml").write_text(text)


def invited(home: Path, *more: str) -> str:
    return str(stook(home, "invite", "create", *more)["code"])


def test_a_private_grid_grows_by_invites_and_ignores_strangers(tmp_path: Path) -> None:
    owner, second, renter, stranger = (tmp_path / name for name in ("owner", "second", "renter", "stranger"))
    ports = free_loopback_ports(2)
    founded(owner, ports[0], "--private", "--operator", "owner")
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    with ExitStack() as stack:
        first = stack.enter_context(running(owner))
        code = invited(owner, "--may-invite", "--label", "second")
        joined(second, code, ports[1])
        # The answer may have been lost: the same node is told the same again, even over a kill of its issuer.
        first.kill()
        first.wait(DEADLINE)
        stack.enter_context(running(owner))
        membership = (second / "membership.stook").read_bytes()
        config = (second / "config.toml").read_text()
        (second / "config.toml").unlink()
        (second / "membership.stook").unlink()
        joined(second, code, ports[1])
        assert (second / "membership.stook").read_bytes() == membership
        assert (second / "config.toml").read_text().split("seeds")[0] == config.split("seeds")[0]
        stack.enter_context(running(second))
        assert "INVITE_SPENT" in stook(stranger, "join", code, code=6)
        assert not (stranger / "keys.stook").exists()

        # By the second farmer's invite, with nothing else said, a renter can store.
        stook(renter, "join", invited(second))
        stook(renter, "mb", "photos")
        stook(renter, "put", str(tmp_path / "file"), "photos/file")
        stook(renter, "get", "photos/file", str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == data

        # Somebody who knows the name and the addresses of everybody is nobody here.
        facts = stook(owner, "farm", "status")
        seeds = [
            f"stook://127.0.0.1:{port}/{stook(home, 'farm', 'status')['node_id']}"
            for home, port in zip((owner, second), ports, strict=True)
        ]
        stook(stranger, "init", "--network", facts["network"], "--seed", seeds[0], "--seed", seeds[1])
        stook(stranger, "mb", "photos")
        assert "farmer" in stook(stranger, "put", str(tmp_path / "file"), "photos/file", code=7)
        assert _states(owner) == ["used"]


def _states(home: Path) -> list[str]:
    return sorted(one.state(0) for one in list_invites(home))


def test_of_two_processes_with_one_code_exactly_one_joins(tmp_path: Path) -> None:
    owner = tmp_path / "owner"
    founded(owner, free_loopback_ports(1)[0], "--private")
    with running(owner):
        code = invited(owner)
        taken = stook(owner, "invite", "create")
        stook(owner, "invite", "revoke", taken["invite"][:8])

        def attempt(number: int) -> int:
            command = [*STOOK, "--home", str(tmp_path / f"renter-{number}"), "join", code, "--json"]
            return subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False).returncode

        with ThreadPoolExecutor(3) as pool:
            assert sorted(pool.map(attempt, range(3))) == [0, 6, 6]
        assert "INVITE_UNKNOWN" in stook(tmp_path / "late", "join", taken["code"], code=6)
        assert "mistyped" in stook(tmp_path / "late", "join", code[:-1] + ("a" if code[-1] != "a" else "b"), code=2)
    assert _states(owner) == ["taken back", "used"]


def test_neighbours_on_one_link_need_no_seed(tmp_path: Path) -> None:
    """Two farmers and a renter that were told of nobody, on the link of the loopback interface."""
    network = f"lan-{os.urandom(6).hex()}"
    homes = [tmp_path / "one", tmp_path / "two"]
    for home, port in zip(homes, free_loopback_ports(2), strict=True):
        founded(home, port, "--network", network, "--lan", "127.0.0.1")
    renter = tmp_path / "renter"
    stook(renter, "init", "--network", network, "--lan", "127.0.0.1", "--spread", "farmers", "--code", "1/2")
    (tmp_path / "file").write_bytes(b"x" * 50_000)
    with running(homes[0]), running(homes[1]):
        stook(renter, "mb", "photos")
        stook(renter, "put", str(tmp_path / "file"), "photos/file")
        assert all(stook(home, "farm", "status")["overlay"]["contacts"] == 1 for home in homes)


def test_the_demo_starts_from_one_seed_and_finds_its_farmers(tmp_path: Path) -> None:
    words = ("--farmers", "4", "--kill", "1", "--size", "1 MiB", "--path", str(Path(__file__).parent))
    figures = stook(tmp_path / "none", "demo", *words)
    assert figures["ok"]
    assert 0 < figures["discovery_seconds"] < DEADLINE


@pytest.mark.parametrize("farmers", [5, pytest.param(30, marks=pytest.mark.soak)])
def test_a_network_outlives_its_seed(farmers: int) -> None:
    """`bench.network`: one seed in all settings, which is then killed for good."""
    command = [sys.executable, "-m", "bench.network", "--farmers", str(farmers), "--size", "2 MiB"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    figures = json.loads(ran.stdout.splitlines()[-1])
    assert figures["ok"]
    assert figures["contacts_min_after"] >= 1
