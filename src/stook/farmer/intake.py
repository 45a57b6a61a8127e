"""One shard on its way from the network to the store."""

from __future__ import annotations

from stook.errors import BugError
from stook.ids import ShardRoot
from stook.merkle import unit_count
from stook.storage.ports import ShardStore, ShardWriter

LEAF_BYTES = 32


class Intake:
    """Takes the leaf list, then blocks, then the contract. Every method blocks.

    The store hears of the shard with the first block, not before: a shard that fits one block is opened, written and
    published in one piece of work, and each piece costs a hand-over to a thread and back.
    """

    def __init__(self, shards: ShardStore, root: ShardRoot, size_bytes: int, first_unit: int) -> None:
        self._shards = shards
        self._root = root
        self._size_bytes = size_bytes
        self._first_unit = first_unit
        self._writer: ShardWriter | None = None
        self.leaves = memoryview(bytearray(unit_count(size_bytes) * LEAF_BYTES))
        """Where the leaf list goes before the first block."""

    def write(self, data: memoryview) -> None:
        """Verify and keep whole units; raises what `ShardWriter.write` and `ShardStore.open_writer` raise."""
        self._open().write(data)

    def publish(self, contract: bytes) -> None:
        """Make the shard durable and visible; raises what `ShardWriter.publish` raises."""
        self._open().publish(contract)

    def close(self) -> None:
        """Stop, keeping verified units for a resume. Nothing to do after `publish`."""
        if self._writer is not None:
            self._writer.close(keep=True)

    def _open(self) -> ShardWriter:
        if self._writer is None:
            self._writer = self._shards.open_writer(self._root, self._size_bytes, bytes(self.leaves))
            if self._writer.next_unit != self._first_unit:
                raise BugError(f"a partial shard had {self._first_unit} units and now has {self._writer.next_unit}")
        return self._writer
