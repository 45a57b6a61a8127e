"""Memory for shards, taken once and used again: fresh pages cost five times what the cipher costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stook.merkle import UNIT_BYTES
from stook.shards.geometry import MAX_SHARDS, SEGMENT_BUDGET_BYTES, SegmentShape

_ROW_GAP_BYTES = 4096 + 64
"""Rows a power of two apart would meet in the same cache sets; a page and a line between them keep them apart."""
GROUP_BYTES = 2 << 20
"""Bytes worked on at a time: few calls, and still in the cache from stage to stage (`docs/decisions/0021`)."""
_LAYOUTS_KEPT = 8


class Rows:
    """Equal rows of whole units in one buffer: views made once, and data units in stripe order by one strided copy."""

    __slots__ = ("_array", "rows", "stage", "units")

    def __init__(self, buffer: npt.NDArray[np.uint8], count: int, row_bytes: int, stage: memoryview) -> None:
        stride = row_bytes + _ROW_GAP_BYTES
        view = buffer.data
        self._array = np.lib.stride_tricks.as_strided(buffer, (count, row_bytes), (stride, 1))
        self.rows: Sequence[memoryview] = tuple(view[at : at + row_bytes] for at in range(0, count * stride, stride))
        self.units: Sequence[Sequence[memoryview]] = tuple(
            tuple(row[at : at + UNIT_BYTES] for at in range(0, row_bytes, UNIT_BYTES)) for row in self.rows
        )
        self.stage = stage
        """Room for the units of one group of stripes in stripe order, as the cipher sees them."""

    def scatter(self, k: int, first: int, end: int) -> None:
        """Lay the stage's units out over the first `k` rows, as stripes `first` up to `end`."""
        staged, rows = self._strides(k, first, end)
        np.copyto(rows, staged)

    def gather(self, k: int, first: int, end: int) -> None:
        """Fill the stage with stripes `first` up to `end` of the first `k` rows."""
        staged, rows = self._strides(k, first, end)
        np.copyto(staged, rows)

    def _strides(self, k: int, first: int, end: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        count = end - first
        staged = np.frombuffer(self.stage, np.uint8, count * k * UNIT_BYTES).reshape(count, k, UNIT_BYTES)
        rows = self._array[:k, first * UNIT_BYTES : end * UNIT_BYTES].reshape(k, count, UNIT_BYTES)
        return staged, rows.transpose(1, 0, 2)


def group_stripes(rows: int) -> int:
    """How many stripes to work on at a time when each takes `rows` units."""
    return max(1, GROUP_BYTES // (rows * UNIT_BYTES))


class ShardArena:
    """One buffer for all shards of a segment, for any shape of at most `capacity_bytes`.

    What lies in it is good until the next use; one sealing, or one download, at a time. Raises `ValueError` when asked
    for more than the segment budget.
    """

    def __init__(self, capacity_bytes: int = SEGMENT_BUDGET_BYTES, *, max_shards: int = MAX_SHARDS) -> None:
        if not UNIT_BYTES <= capacity_bytes <= SEGMENT_BUDGET_BYTES:
            raise ValueError(f"an arena has one unit to {SEGMENT_BUDGET_BYTES} bytes, not {capacity_bytes}")
        self.capacity_bytes = capacity_bytes
        self.max_shards = max_shards
        self._buffer = np.empty(capacity_bytes + max_shards * _ROW_GAP_BYTES, dtype=np.uint8)
        self._stage = np.empty(max(GROUP_BYTES, max_shards * UNIT_BYTES), dtype=np.uint8).data
        self._laid: dict[SegmentShape, Rows] = {}

    @classmethod
    def of(cls, shape: SegmentShape) -> ShardArena:
        """An arena just large enough for `shape`."""
        return cls(shape.coded_bytes, max_shards=shape.total)

    def lay(self, shape: SegmentShape) -> Rows:
        """The rows for `shape`. Raises `ValueError` when it does not fit."""
        laid = self._laid.get(shape)
        if laid is None:
            if shape.coded_bytes > self.capacity_bytes or shape.total > self.max_shards:
                raise ValueError(f"{shape} does not fit an arena of {self.capacity_bytes} bytes")
            if len(self._laid) >= _LAYOUTS_KEPT:
                self._laid.clear()
            laid = self._laid[shape] = Rows(self._buffer, shape.total, shape.shard_bytes, self._stage)
        return laid


class Scratch:
    """Room for one group of stripes while shards are opened or rebuilt; grows to what is asked and stays there.

    One call at a time may use it.
    """

    def __init__(self) -> None:
        self._buffer = np.empty(0, dtype=np.uint8)
        self._stage = np.empty(0, dtype=np.uint8).data
        self._laid: dict[tuple[int, int], Rows] = {}

    def lay(self, rows: int, stripes: int) -> Rows:
        """At least `rows` rows of `stripes` units."""
        laid = self._laid.get((rows, stripes))
        if laid is None:
            row_bytes = stripes * UNIT_BYTES
            needed, staged = rows * (row_bytes + _ROW_GAP_BYTES), rows * row_bytes
            if needed > len(self._buffer) or staged > len(self._stage):
                self._buffer = np.empty(max(needed, len(self._buffer)), dtype=np.uint8)
                self._stage = np.empty(max(staged, len(self._stage)), dtype=np.uint8).data
                self._laid.clear()
            if len(self._laid) >= _LAYOUTS_KEPT:
                self._laid.clear()
            laid = self._laid[rows, stripes] = Rows(self._buffer, rows, row_bytes, self._stage)
        return laid
