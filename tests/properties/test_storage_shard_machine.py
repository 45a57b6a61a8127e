"""Random lives of a shard store, file and memory, against a dictionary; the file store is also closed and reopened."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stook.errors import BugError, ConflictError, MisbehaviourError, NotFoundError
from stook.merkle import UNIT_BYTES
from stook.storage.memory import MemoryShardStore
from stook.storage.ports import ShardWriter
from stook.storage.shard_store import FileShardStore
from storage_samples import Sample, read_all, sample

SHARDS = [sample(size, 7) for size in (1, UNIT_BYTES, 3 * UNIT_BYTES + 1, 4 * UNIT_BYTES)]
SHARD = st.sampled_from(SHARDS)
CONTRACT = st.binary(min_size=1, max_size=2048)


class ShardMachine(RuleBasedStateMachine):
    """The model: published contracts, units of partials, open writers."""

    def __init__(self) -> None:
        super().__init__()
        self.published: dict[bytes, bytes] = {}
        self.partial: dict[bytes, int] = {}
        self.writers: dict[bytes, ShardWriter] = {}
        self.store: FileShardStore | MemoryShardStore = self.open()

    def open(self) -> FileShardStore | MemoryShardStore:
        return MemoryShardStore()

    @rule(shard=SHARD)
    def begin(self, shard: Sample) -> None:
        if shard.root in self.published or shard.root in self.writers:
            with pytest.raises(ConflictError):
                self.store.open_writer(shard.root, shard.size, shard.leaves)
            return
        expected = self.partial.setdefault(shard.root, 0)
        assert self.store.resumable_units(shard.root, shard.size) == expected
        writer = self.writers[shard.root] = self.store.open_writer(shard.root, shard.size, shard.leaves)
        assert writer.next_unit == expected

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), units=st.integers(0, 5), flaw=st.none() | st.integers(0, 4))
    def write(self, data: st.DataObject, units: int, flaw: int | None) -> None:
        shard, writer = self.pick(data)
        first = self.partial[shard.root]
        piece = bytearray(shard.data[first * UNIT_BYTES : (first + units) * UNIT_BYTES])
        count = -(-len(piece) // UNIT_BYTES)
        if flaw is not None and flaw < count:
            piece[flaw * UNIT_BYTES] ^= 1
            with pytest.raises(MisbehaviourError):
                writer.write(memoryview(piece))
            count = flaw
        else:
            writer.write(memoryview(piece))
        self.partial[shard.root] += count
        assert writer.next_unit == first + count

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), contract=CONTRACT)
    def publish(self, data: st.DataObject, contract: bytes) -> None:
        shard, writer = self.pick(data)
        if self.partial[shard.root] < shard.units:
            with pytest.raises(BugError):
                writer.publish(contract)
            return
        stored = writer.publish(contract)
        assert stored == self.store.find(shard.root)
        del self.writers[shard.root], self.partial[shard.root]
        self.published[shard.root] = contract

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), keep=st.booleans())
    def close_writer(self, data: st.DataObject, keep: bool) -> None:
        shard, writer = self.pick(data)
        writer.close(keep=keep)
        writer.close(keep=not keep)
        del self.writers[shard.root]
        if not (keep and self.partial[shard.root]):
            del self.partial[shard.root]

    @rule(shard=SHARD, contract=CONTRACT)
    def renew(self, shard: Sample, contract: bytes) -> None:
        if shard.root in self.published:
            self.store.append_contract(shard.root, contract)
            self.published[shard.root] = contract
        else:
            with pytest.raises(NotFoundError):
                self.store.append_contract(shard.root, contract)

    @rule(shard=SHARD)
    def erase(self, shard: Sample) -> None:
        freed = self.store.erase(shard.root)
        if shard.root in self.published or self.partial.get(shard.root):
            assert freed >= min(shard.size, UNIT_BYTES)
        elif shard.root not in self.partial:
            assert freed == 0
        for part in (self.published, self.partial):
            part.pop(shard.root, None)
        writer = self.writers.pop(shard.root, None)
        if writer is not None:
            with pytest.raises(ConflictError):
                writer.write(shard.data)

    @rule(keep=st.frozensets(SHARD))
    def sweep(self, keep: frozenset[Sample]) -> None:
        roots = frozenset(shard.root for shard in keep)
        self.store.sweep_partials(roots)
        self.partial = {root: units for root, units in self.partial.items() if root in roots or root in self.writers}

    @invariant()
    def agrees(self) -> None:
        found = list(self.store.scan())
        assert [(item.root, item.contract) for item in found] == sorted(self.published.items())
        for shard in SHARDS:
            stored = self.store.find(shard.root)
            if shard.root in self.published:
                assert stored in found
                assert read_all(self.store, shard) == shard.data
                assert self.store.bad_units(shard.root) == []
            else:
                assert stored is None
            if shard.root not in self.writers:
                assert self.store.resumable_units(shard.root, shard.size) == self.partial.get(shard.root, 0)

    def pick(self, data: st.DataObject) -> tuple[Sample, ShardWriter]:
        root = data.draw(st.sampled_from(sorted(self.writers)))
        return next(shard for shard in SHARDS if shard.root == root), self.writers[root]


class FileShardMachine(ShardMachine):
    """The same, with files, which outlive the store."""

    def open(self) -> FileShardStore:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        return FileShardStore(self.path)

    @rule()
    def reopen(self) -> None:
        assert isinstance(self.store, FileShardStore)
        self.store.close()
        self.partial = {root: units for root, units in self.partial.items() if units}
        self.writers.clear()
        self.store = FileShardStore(self.path)

    @invariant()
    def used_space_is_that_of_the_files(self) -> None:
        files = {path: path.stat().st_blocks * 512 for path in self.path.glob("shards/*/*")}
        assert sum(files.values()) == sum(item.disk_bytes for item in self.store.scan())
        assert len(list(self.path.glob("incoming/*"))) == len(self.partial)

    def teardown(self) -> None:
        assert isinstance(self.store, FileShardStore)
        self.store.close()
        self.folder.cleanup()


TestMemoryShardStore = ShardMachine.TestCase
TestMemoryShardStore.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestFileShardStore = FileShardMachine.TestCase
TestFileShardStore.settings = settings(
    max_examples=10, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
