"""The farmer's stores in a process killed at random moments: what was acknowledged is there, nothing is torn."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import storage_crash
from stook.merkle import UNIT_BYTES
from stook.storage import fsck
from stook.storage.contract_store import SqliteContractStore
from stook.storage.ports import StoredShard
from stook.storage.shard_store import FileShardStore
from storage_crash import SHARDS, THREADS, index_state, shard_state
from storage_samples import read_all

pytestmark = pytest.mark.system

Model = dict[tuple[str, int], object]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["storage_crash"])


def run_and_kill(directory: Path, seed: int, dice: random.Random) -> list[tuple[str, int, str, object]]:
    """Let a child work, kill it after some steps and a moment; everything it said."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=storage_crash.live, args=(directory, seed, theirs))
    child.start()
    theirs.close()
    said = [ours.recv() for _ in range(dice.randrange(1, 200))]
    for _ in range(dice.randrange(20_000)):
        pass
    child.kill()
    said += rest_of(ours)
    child.join()
    assert child.exitcode == -9
    child.close()
    ours.close()
    return said


def rest_of(pipe: Connection) -> list[tuple[str, int, str, object]]:
    said = []
    try:
        while True:
            said.append(pipe.recv())
    except (EOFError, OSError):  # the last message may be torn
        return said


def check_steps(said: list[tuple[str, int, str, object]], model: Model, actual: Model) -> None:
    """What is there now is what was acknowledged last, or what was announced after that."""
    announced: Model = {}
    for kind, number, phase, value in said:
        key = (kind, number)
        if phase == "will":
            announced[key] = value
        else:
            assert announced.pop(key) == value
            model[key] = model.get(key, 0) + value if kind == "spent" else value
    for key, now in actual.items():
        before = model.get(key, 0 if key[0] == "spent" else None)
        if now == before:
            continue
        assert key in announced, f"{key}: {before} was acknowledged, {now} is there"
        after = announced[key]
        if key[0] == "spent":
            assert now == before + after
        elif now != after:  # some units of a write may have come in
            first = before[1] if before else 0
            assert now[0] == after[0] == "partial", f"{key}: {before}, then {after}, but {now} is there"
            assert first <= now[1] <= after[1]


def spent(path: Path) -> dict[bytes, int]:
    connection = sqlite3.connect(path)
    try:
        return dict(connection.execute("SELECT serial, spent_bytes FROM spending").fetchall())
    finally:
        connection.close()


def check_after_kill(directory: Path, said: list[tuple[str, int, str, object]], model: Model) -> Model:
    """All promises, after one kill; the new model."""
    path = directory / "contracts.db"
    with FileShardStore(directory / "store") as shards, SqliteContractStore(path) as index:
        spending = spent(path)
        actual: Model = {("spent", worker): spending.get(bytes((worker,)) * 16, 0) for worker in range(THREADS)}
        for number in range(len(SHARDS)):
            actual["shard", number] = shard_state(shards, number)
            actual["index", number] = index_state(index, number)
        check_steps(said, model, actual)

        survey = list(shards.survey())
        assert all(isinstance(found, StoredShard) for found in survey), "a torn shard is visible"
        published = {number for number in range(len(SHARDS)) if (actual["shard", number] or "?")[0] == "published"}
        assert {found.root for found in survey} == {SHARDS[number].root for number in published}
        for number in published:
            assert shards.bad_units(SHARDS[number].root) == []
            assert read_all(shards, SHARDS[number]) == SHARDS[number].data
        files = (directory / "store" / "shards").glob("*/*")
        assert sum(found.disk_bytes for found in survey) == sum(file.stat().st_blocks * 512 for file in files)

        mended = fsck.rebuild(shards, index)
        assert not mended.restored
        assert not mended.quarantined
        report = fsck.check(shards, index, deep=True)
        assert report.clean
        totals = index.totals()
        assert (totals.stored_count, totals.stored_bytes) == (report.shard_count, report.size_bytes)
        assert totals.stored_bytes == sum(SHARDS[number].size for number in published)
        resume_one(shards, actual)
        return {
            **{("spent", worker): actual["spent", worker] for worker in range(THREADS)},
            **{("shard", number): shard_state(shards, number) for number in range(len(SHARDS))},
            **{("index", number): index_state(index, number) for number in range(len(SHARDS))},
        }


def resume_one(shards: FileShardStore, actual: Model) -> None:
    """A partial shard goes on at its next unit; here one more unit of it, if one is missing."""
    for number, shard in enumerate(SHARDS):
        state = actual["shard", number]
        if state and state[0] == "partial":
            writer = shards.open_writer(shard.root, shard.size, shard.leaves)
            assert writer.next_unit == state[1]
            writer.write(shard.data[writer.next_unit * UNIT_BYTES :][:UNIT_BYTES])
            writer.close(keep=True)
            return


def kill_again_and_again(directory: Path, seed: int, rounds: int) -> None:
    print(f"seed {seed}, {rounds} rounds")
    dice = random.Random(seed)
    model: Model = {}
    steps = 0
    for number in range(rounds):
        said = run_and_kill(directory, dice.randrange(2**32), dice)
        steps += len(said)
        print(f"round {number}: killed after {len(said)} messages")
        model = check_after_kill(directory, said, model)
    assert steps > rounds * 20


def test_killed_thirty_times(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, seed=2014, rounds=30)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_killed_a_hundred_times(tmp_path: Path, seed: int) -> None:
    kill_again_and_again(tmp_path, seed=seed, rounds=100)
