"""The laptop is lost, with real processes: put, kill, delete the home, type the words, compare."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stook.assembly import CATALOG_FILE, RECOVERING, create_renter_home
from stook.cli.local_network import LocalNetwork
from stook.config import NodeSettings, RentSettings
from stook.storage.catalog import SqlCatalog

pytestmark = pytest.mark.system

DEADLINE = 120


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("grid"), farmers=5, capacity="1 GiB") as made:
        made.start()
        yield made


class Person:
    """Words, and a home that can be lost."""

    def __init__(self, network: LocalNetwork, work: Path) -> None:
        self.network, self.work, self.home = network, work, work / "home"
        node = NodeSettings(seeds=network.seeds, max_nodes_per_network=0, log_level="error")
        self.words = create_renter_home(self.home, node, RentSettings(spread="farmers"))

    def start(self, *words: str, home: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stook.cli.main", "--home", str(home or self.home), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )

    def run(self, *words: str, home: Path | None = None, feed: str = "", code: int = 0) -> dict[str, Any]:
        process = self.start(*words, "--json", home=home)
        out, err = process.communicate(feed, timeout=DEADLINE)
        assert process.returncode == code, (words, out, err)
        last = out.splitlines()[-1] if out.strip() else "{}"
        answer: dict[str, Any] = json.loads(last)
        return answer | {"stderr": err}

    def names(self, home: Path | None = None) -> dict[str, tuple[int, bytes]]:
        catalog = SqlCatalog.open((home or self.home) / CATALOG_FILE)
        try:
            return {
                f"{bucket.name}/{each.name}": (each.version, each.content_hash)
                for bucket in catalog.buckets()
                for each in catalog.list_objects(bucket.name).objects
            }
        finally:
            catalog.close()


@pytest.fixture
def person(network: LocalNetwork, tmp_path: Path) -> Person:
    return Person(network, tmp_path)


def test_words_and_one_farmer_bring_everything_back(person: Person) -> None:
    tree = person.work / "tree"
    tree.mkdir()
    contents = {f"file {number} é.txt": os.urandom(50 * 10**number) for number in range(5)}
    for name, data in contents.items():
        (tree / name).write_bytes(data)
    person.run("mb", "papers", "empty")
    person.run("cp", "-r", str(tree), "stook:papers")
    put = person.run("put", str(tree / "file 0 é.txt"), "papers/again", "--wait", "recoverable")
    assert put["recoverable"]
    status = person.run("status")
    assert status["catalog"]["recoverable"]
    assert status["catalog"]["unsaved_objects"] == 0
    verified = person.run("catalog", "verify")
    assert verified["differences"] == []
    before = person.names()
    shutil.rmtree(person.home)

    # Interrupted in the middle, as often as it likes, it leaves nothing that hinders the next one.
    for seconds in (1.2,):
        process = person.start("recover", "--seed", person.network.seeds[-1])
        assert process.stdin is not None
        process.stdin.write(person.words)
        process.stdin.close()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        if (person.home / "config.toml").exists():  # it was quicker than we were
            shutil.rmtree(person.home)
    came = person.run("recover", "--seed", person.network.seeds[-1], feed=person.words)
    assert (came["buckets"], came["objects"], came["segments_missing"], came["segments_unnamed"]) == (2, 6, 0, 0)
    assert not (person.home / RECOVERING).exists()
    assert person.names() == before
    back = person.work / "back"
    person.run("cp", "-r", "stook:papers", str(back))
    for name, data in contents.items():
        assert (back / name).read_bytes() == data
    assert (back / "again").read_bytes() == contents["file 0 é.txt"]
    assert 'spread = "farmers"' in (person.home / "config.toml").read_text()
    # A home that is there is not recovered into.
    person.run("recover", "--seed", person.network.seeds[-1], feed=person.words, code=2)


def test_what_was_durable_only_is_named_before_and_counted_after(person: Person) -> None:
    data = person.work / "data"
    data.write_bytes(os.urandom(20_000))
    person.run("mb", "b")
    person.run("put", str(data), "b/safe")
    assert not person.run("put", str(data), "b/loose", "--wait", "durable")["recoverable"]
    catalog = person.run("status")["catalog"]
    assert (catalog["unsaved_objects"], catalog["unsaved_names"], catalog["recoverable"]) == (1, ["b/loose"], False)
    shutil.rmtree(person.home)
    came = person.run("recover", "--seed", person.network.seeds[-1], feed=person.words)
    assert (came["objects"], came["segments_unnamed"]) == (1, 1)
    assert person.run("catalog", "verify", "--give-up")["given_up"] == 1
    assert person.run("catalog", "verify")["segments_unnamed"] == 0


def test_a_revoked_key_stays_revoked_when_the_machine_is_lost(person: Person) -> None:
    data = person.work / "data"
    data.write_bytes(b"x")
    person.run("mb", "b")
    person.run("put", str(data), "b/x")
    made = person.run("keys", "create", "--read")["access_key"]
    assert person.run("status")["catalog"]["recoverable"]
    person.run("keys", "revoke", made)
    assert person.run("status")["catalog"]["recoverable"]
    shutil.rmtree(person.home)
    person.run("recover", "--seed", person.network.seeds[-1], feed=person.words)
    (key,) = person.run("keys", "list")["keys"]
    assert key["revoked_ms"]


def test_the_device_before_is_told_and_one_can_take_over(person: Person) -> None:
    data = person.work / "data"
    data.write_bytes(b"x" * 9000)
    person.run("mb", "b")
    person.run("put", str(data), "b/one")
    second = person.work / "second"
    person.run("recover", "--seed", person.network.seeds[-1], home=second, feed=person.words)
    told = person.run("put", str(data), "b/two")
    assert not told["recoverable"]
    assert "ALARM" in told["stderr"]
    assert "another device has recovered" in person.run("status")["catalog"]["alarm"]
    person.run("put", str(data), "b/three", "--wait", "recoverable", code=4)
    person.run("catalog", "take-over")
    assert "ALARM" in person.run("put", str(data), "b/four", home=second)["stderr"]


def test_what_was_removed_comes_back_as_far_as_its_bytes_are_there(person: Person) -> None:
    (person.work / "tiny").write_bytes(b"tiny")
    (person.work / "large").write_bytes(os.urandom(30_000))
    person.run("mb", "b")
    for name in ("tiny", "large"):
        person.run("put", str(person.work / name), f"b/{name}")
    (snapshot, *_) = reversed(person.run("catalog", "snapshots")["snapshots"])
    person.run("rm", "b/tiny", "b/large")
    person.run("put", str(person.work / "tiny"), "b/other")
    at = f"@{snapshot['saved_ms']}"
    undone = person.run("catalog", "restore", "--at", at, "--exactly", code=7)
    assert (undone["restored"], undone["lost"], undone["lost_names"], undone["newer"]) == (1, 1, ["b/large"], 1)
    assert set(person.names()) == {"b/tiny"}
