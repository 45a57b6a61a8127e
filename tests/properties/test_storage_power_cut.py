"""The power goes after every single system call of a farmer's day: what was acknowledged is there, nothing is torn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from power_cut import Event, Recorder, after_cut
from stook.merkle import UNIT_BYTES
from stook.storage import shard_store
from stook.storage.ports import StoredShard
from stook.storage.shard_store import FileShardStore
from storage_samples import read_all, sample

SEED = 2014
SHARDS = [sample(2 * UNIT_BYTES + 77, 1), sample(UNIT_BYTES, 2), sample(700, 3)]


class Day:
    """Work on a store, announced and acknowledged in the recorder's log."""

    def __init__(self, store: FileShardStore, recorder: Recorder) -> None:
        self.store, self.recorder = store, recorder

    def receive(self, number: int, contract: bytes, *, stop_after: int = 99) -> None:
        shard = SHARDS[number]
        writer = self.store.open_writer(shard.root, shard.size, shard.leaves)
        for unit in range(writer.next_unit, min(stop_after, shard.units)):
            writer.write(shard.data[unit * UNIT_BYTES : (unit + 1) * UNIT_BYTES])
        if stop_after < shard.units:
            writer.close(keep=True)
            return
        self.recorder.note("will", number, contract)
        writer.publish(contract)
        self.recorder.note("did", number, contract)

    def renew(self, number: int, contract: bytes) -> None:
        self.recorder.note("will", number, contract)
        self.store.append_contract(SHARDS[number].root, contract)
        self.recorder.note("did", number, contract)

    def erase(self, number: int) -> None:
        self.recorder.note("will", number, None)
        self.store.erase(SHARDS[number].root)
        self.recorder.note("did", number, None)


def a_day(day: Day) -> None:
    day.receive(0, b"first", stop_after=1)
    day.receive(1, b"one" * 300)
    day.receive(0, b"zero" * 100)
    for revision in range(12):  # enough to draw the log together, twice
        day.renew(1, b"%d" % revision * 900)
    day.renew(0, b"zero again")
    day.receive(2, b"two")
    day.erase(2)
    day.receive(2, b"two again", stop_after=0)
    day.receive(2, b"two again")
    day.erase(0)
    day.receive(0, b"back")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    monkeypatch.setattr(shard_store, "LOG_LIMIT_BYTES", 8192)
    with FileShardStore(tmp_path / "store") as store:
        recorder = Recorder(tmp_path / "store")
        with monkeypatch.context() as patch:
            recorder.watch(patch)
            a_day(Day(store, recorder))
    return recorder.events


def allowed(events: list[Event]) -> list[set[bytes | None]]:
    """For each shard the contracts under which it may be found: the last acknowledged, and one announced since."""
    states: list[set[bytes | None]] = [{None} for _ in SHARDS]
    for event in events:
        match event:
            case ("note", "will", number, contract):
                states[number].add(contract)
            case ("note", "did", number, contract):
                states[number] = {contract}
    return states


def lay_out(folder: Path, files: dict[str, bytes], recorded: Path) -> None:
    for old in (*folder.glob("shards/*/*"), *folder.glob("incoming/*")):
        old.unlink()
    for path, content in files.items():
        (folder / Path(path).relative_to(recorded)).write_bytes(content)


def cuts(log: list[Event], dice: random.Random) -> Iterator[tuple[int, dict[str, bytes]]]:
    for count in range(len(log) + 1):
        for _ in range(5):
            yield count, after_cut(log[:count], dice)


def test_a_power_cut_anywhere(log: list[Event], tmp_path: Path) -> None:
    dice = random.Random(SEED)
    folder = tmp_path / "after"
    resumed = 0
    with FileShardStore(folder) as store:
        for count, files in cuts(log, dice):
            lay_out(folder, files, tmp_path / "store")
            where = f"seed {SEED}, cut after call {count}: {log[count - 1 : count]!r:.100}"
            survey = list(store.survey())
            assert all(isinstance(found, StoredShard) for found in survey), (where, survey)
            found = {item.root: item.contract for item in survey if isinstance(item, StoredShard)}
            for shard, states in zip(SHARDS, allowed(log[:count]), strict=True):
                assert found.get(shard.root) in states, where
                if shard.root in found:
                    assert store.bad_units(shard.root) == [], where
                    assert read_all(store, shard) == shard.data, where
            if any("incoming" in path for path in files):
                resumed += resume_all(store, found)
    assert resumed > 10


def resume_all(store: FileShardStore, found: dict[bytes, bytes]) -> int:
    """Bring in every shard that is not there, from whatever was left of it; how many went on in the middle."""
    resumed = 0
    for shard in SHARDS:
        if shard.root not in found:
            writer = store.open_writer(shard.root, shard.size, shard.leaves)
            resumed += writer.next_unit > 0
            writer.write(shard.data[writer.next_unit * UNIT_BYTES :])
            writer.publish(b"resumed")
            assert store.find(shard.root).contract == b"resumed"  # type: ignore[union-attr]
            assert store.bad_units(shard.root) == []
    store.sweep_partials(frozenset())
    assert not list(store.directory.glob("incoming/*"))
    return resumed


@pytest.mark.parametrize("forgotten", ["sync", "rename after sync"])
def test_the_test_notices_a_store_that_forgets(log: list[Event], forgotten: str) -> None:
    """Without its syncs, or with the name before the bytes, the same day does lose or tear a shard in some state."""
    if forgotten == "sync":
        log = [event for event in log if event[0] != "sync"]
    else:
        for at, event in enumerate(log):
            if event[0] == "rename":
                log[at - 1], log[at] = log[at], log[at - 1]
    dice = random.Random(SEED)
    for count, files in islice(cuts(log, dice), 2000):
        for shard, states in zip(SHARDS, allowed(log[:count]), strict=True):
            content = next((data for path, data in files.items() if path.endswith(f"{shard.root.hex()}.shard")), None)
            if content is None and None not in states:
                return
            if content is not None and shard.data.tobytes() not in content:
                return
    pytest.fail("no state was wrong")
