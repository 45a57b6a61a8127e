"""Memory for shards, taken once and used again: fresh pages cost five times what the cipher costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stook.buffers import reused_memory
from stook.merkle import UNIT_BYTES
from stook.shards.geometry import MAX_SHARDS, SEGMENT_BUDGET_BYTES, SegmentShape

ROW_GAP_BYTES = 4096 + 64
"""Rows a power of two apart would meet in the same cache sets; a page and a line between them keep them apart."""
GROUP_BYTES = 2 << 20
"""Bytes worked on at a time: few calls, and still in the cache from stage to stage (`docs/decisions/0021`)."""
_LAYOUTS_KEPT = 8


class Row:
    """Whole units of memory, with views of each made once."""

    __slots__ = ("data", "grid", "units")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.units: Sequence[memoryview] = tuple(
            data[at : at + UNIT_BYTES] for at in range(0, len(data) - UNIT_BYTES + 1, UNIT_BYTES)
        )
        self.grid: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8, len(self.units) * UNIT_BYTES).reshape(
            -1, UNIT_BYTES
        )


class Rows:
    """The first `row_bytes` of some rows, and data units in stripe order by one copy a row."""

    __slots__ = ("_grids", "rows", "stage", "units")

    def __init__(self, rows: Sequence[Row], row_bytes: int, stage: memoryview) -> None:
        self._grids = [row.grid for row in rows]
        self.rows: Sequence[memoryview] = tuple(row.data[:row_bytes] for row in rows)
        self.units: Sequence[Sequence[memoryview]] = tuple(row.units for row in rows)
        self.stage = stage
        """Room for the units of one group of stripes in stripe order, as the cipher sees them."""

    def scatter(self, k: int, first: int, end: int) -> None:
        """Lay the stage's units out over the first `k` rows, as stripes `first` up to `end`."""
        staged = self._staged(k, end - first)
        for index in range(k):
            self._grids[index][first:end] = staged[:, index]

    def gather(self, k: int, first: int, end: int) -> None:
        """Fill the stage with stripes `first` up to `end` of the first `k` rows."""
        staged = self._staged(k, end - first)
        for index in range(k):
            staged[:, index] = self._grids[index][first:end]

    def _staged(self, k: int, count: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self.stage, np.uint8, count * k * UNIT_BYTES).reshape(count, k, UNIT_BYTES)


class Arena(Protocol):
    """Where a segment is sealed."""

    def lay(self, shape: SegmentShape) -> Rows:
        """The rows for `shape`. Raises `ValueError` when it does not fit."""
        ...


def group_stripes(rows: int) -> int:
    """How many stripes to work on at a time when each takes `rows` units."""
    return max(1, GROUP_BYTES // (rows * UNIT_BYTES))


def stage_bytes(rows: int) -> int:
    """The room that a group of stripes of so many rows takes at most."""
    return max(GROUP_BYTES, rows * UNIT_BYTES)


def _carve(memory: memoryview, count: int, row_bytes: int) -> list[Row]:
    stride = row_bytes + ROW_GAP_BYTES
    return [Row(memory[at : at + row_bytes]) for at in range(0, count * stride, stride)]


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
        self._memory = reused_memory(capacity_bytes + max_shards * ROW_GAP_BYTES)
        self._stage = reused_memory(stage_bytes(max_shards))
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
            rows = _carve(self._memory, shape.total, shape.shard_bytes)
            laid = self._laid[shape] = Rows(rows, shape.shard_bytes, self._stage)
        return laid


class RowArena:
    """The same over rows that come and go one by one; each shard lies in a row of its own."""

    def __init__(self, rows: Sequence[Row], stage: memoryview) -> None:
        self._rows = rows
        self._stage = stage

    def lay(self, shape: SegmentShape) -> Rows:
        """The rows for `shape`. Raises `ValueError` when it does not fit."""
        rows = self._rows[: shape.total]
        if len(rows) < shape.total or any(len(row.data) < shape.shard_bytes for row in rows):
            raise ValueError(f"{shape} does not fit {len(rows)} rows")
        return Rows(rows, shape.shard_bytes, self._stage)


class Scratch:
    """Room for one group of stripes while shards are sealed, opened or rebuilt; grows to what is asked and stays there.

    One call at a time may use it.
    """

    def __init__(self) -> None:
        self._memory = self._stage = memoryview(b"")
        self._laid: dict[tuple[int, int], Rows] = {}

    def stage(self, size_bytes: int) -> memoryview:
        """At least `size_bytes` for units in stripe order."""
        if size_bytes > len(self._stage):
            self._stage = reused_memory(size_bytes)
            self._laid.clear()
        return self._stage

    def lay(self, rows: int, stripes: int) -> Rows:
        """At least `rows` rows of `stripes` units."""
        laid = self._laid.get((rows, stripes))
        if laid is None:
            row_bytes = stripes * UNIT_BYTES
            needed = rows * (row_bytes + ROW_GAP_BYTES)
            stage = self.stage(rows * row_bytes)
            if needed > len(self._memory):
                self._memory = reused_memory(needed)
                self._laid.clear()
            if len(self._laid) >= _LAYOUTS_KEPT:
                self._laid.clear()
            laid = self._laid[rows, stripes] = Rows(_carve(self._memory, rows, row_bytes), row_bytes, stage)
        return laid
