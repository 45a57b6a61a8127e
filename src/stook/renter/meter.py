"""Counting a transfer's progress for whoever watches."""

from __future__ import annotations

from collections import Counter

from stook.ids import NodeId
from stook.renter.ports import OnProgress, Progress


class Meter:
    """Adds up and reports. Reports are cheap values; the watcher decides how often to draw."""

    def __init__(self, watcher: OnProgress | None = None, bytes_total: int | None = None) -> None:
        self._watcher = watcher
        self.bytes_total = bytes_total
        self._accepted = 0
        self._durable = 0
        self._objects = 0
        self._shards = 0
        self._moved = 0
        self._farmers: Counter[NodeId] = Counter()

    def accepted(self, size_bytes: int) -> None:
        """So many plain bytes are sealed and under contract."""
        self._accepted += size_bytes
        self._report()

    def durable(self, size_bytes: int) -> None:
        """So many plain bytes are in segments with enough receipts (or, on the way back, verified and written)."""
        self._durable += size_bytes
        self._report()

    def shard(self, farmer: NodeId, size_bytes: int) -> None:
        """One shard, or run of units, has moved."""
        self._shards += 1
        self._moved += size_bytes
        self._farmers[farmer] += 1
        self._report()

    def objects(self, count: int) -> None:
        """So many objects are done."""
        self._objects += count
        self._report()

    def _report(self) -> None:
        if self._watcher is not None:
            self._watcher(self.value())

    def value(self) -> Progress:
        """Where it stands."""
        return Progress(
            bytes_total=self.bytes_total,
            bytes_accepted=self._accepted,
            bytes_durable=self._durable,
            objects_done=self._objects,
            shards_done=self._shards,
            shard_bytes_moved=self._moved,
            farmer_shards=dict(self._farmers),
        )
