"""The renter's databases under a killed process, and under two at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stook.ids import SegmentId
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import Bucket

pytestmark = pytest.mark.system

BATCH = 40

WRITER = """
import sys
from pathlib import Path
from stook.ids import SegmentId
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import ObjectEntry, SegmentEntry

catalog = SqlCatalog.open(Path(sys.argv[1]))
batch = max(catalog.next_versions("x", ["000"]).values())
while True:
    sid = SegmentId(batch.to_bytes(16, "big"))
    entries = [
        ObjectEntry("x", f"{n:03}", batch, batch, 0, bytes(32), b"r" * 200, (sid,)) for n in range(int(sys.argv[2]))
    ]
    catalog.commit(entries, [SegmentEntry(sid, b"s" * 300, 1, bytes(32), 4, 12, 65536)])
    print(batch, flush=True)
    batch += 1
    if batch % 3 == 0:
        catalog.confirm_released(catalog.garbage(100))
"""

RAISER = """
import sys
from pathlib import Path
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import ObjectEntry, VersionConflictError

catalog = SqlCatalog.open(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
conflicts = 0
for _ in range(int(sys.argv[2])):
    while True:
        held = catalog.get("x", "tally")
        version = 0 if held is None else held.version
        entry = ObjectEntry("x", "tally", version + 1, version + 1, 0, bytes(32), b"", ())
        try:
            catalog.commit([entry])
            break
        except VersionConflictError:
            conflicts += 1
print(conflicts, flush=True)
catalog.close()
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    catalog = SqlCatalog.open(path)
    catalog.create_bucket(Bucket("x", bytes(16), bytes(32), 0))
    catalog.close()
    dice = random.Random(7)
    said = 0
    for _ in range(8):
        with start(WRITER, path, BATCH) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(1, 12)):
                said = int(child.stdout.readline())
            os.kill(child.pid, signal.SIGKILL)
            rest = child.stdout.read().split()
            said = int(rest[-1]) if rest else said
            child.wait()
        catalog = SqlCatalog.open(path)
        held = catalog.get_many("x", [f"{number:03}" for number in range(BATCH)])
        versions = {each.version for each in held.values()}
        assert len(held) == BATCH
        assert len(versions) == 1, "a batch was kept by halves"
        newest = versions.pop()
        assert newest in (said, said + 1), "a batch that was said to be kept is gone"
        live = SegmentId(newest.to_bytes(16, "big"))
        known = catalog.known_segments([SegmentId(number.to_bytes(16, "big")) for number in range(newest + 2)])
        assert known - set(catalog.garbage(1000)) == {live}
        catalog.close()


def test_two_processes_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    catalog = SqlCatalog.open(path)
    catalog.create_bucket(Bucket("x", bytes(16), bytes(32), 0))
    rounds = 60
    with start(RAISER, path, rounds) as one, start(RAISER, path, rounds) as two:
        for child in (one, two):
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in (one, two):
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in (one, two):
            assert child.stdout is not None
            child.stdout.read()
            assert child.wait() == 0
    held = catalog.get("x", "tally")
    assert held is not None
    assert held.size_bytes == 2 * rounds
    catalog.close()


def test_processes_that_open_a_new_file_together_all_get_it(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from stook.storage.catalog import SqlCatalog;"
        "sys.stdin.readline(); c = SqlCatalog.open(Path(sys.argv[1])); print(len(c.buckets())); c.close()"
    )
    children = [start(script, tmp_path / "catalog.db") for _ in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        out, _ = child.communicate()
        assert out == "0\n"
        assert child.returncode == 0
