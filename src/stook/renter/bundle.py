"""Small objects and tails of large ones share segments, so that their padding and contracts are shared too.

A bundle is filled in the plaintext half of one slot and sealed when it is full or when the batch ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stook.renter.slots import Slot
from stook.shards.geometry import SegmentShape, smallest_shape

T = TypeVar("T")


@dataclass(slots=True)
class Bundle(Generic[T]):
    """One segment being filled. `members` are what to tell when it is durable: whose bytes, from where, how many."""

    slot: Slot
    shape: SegmentShape
    used_bytes: int = 0
    members: list[tuple[T, int, int]] = field(default_factory=list)

    def room_for(self, size_bytes: int) -> bool:
        """Whether so many bytes still fit."""
        return self.used_bytes + size_bytes <= self.shape.capacity

    def add(self, owner: T, size_bytes: int, fill: Callable[[memoryview], int]) -> int:
        """Let `fill` write up to `size_bytes` bytes and keep as many as it says; returns that number.

        Blocks while `fill` reads; when it raises, nothing was added.
        """
        begin = self.used_bytes
        got = fill(self.slot.plain[begin : begin + size_bytes])
        if got:
            self.members.append((owner, begin, got))
            self.used_bytes += got
        return got

    def final_shape(self) -> SegmentShape:
        """The smallest shape that holds what came together."""
        return smallest_shape(self.used_bytes, self.shape.k, self.shape.total)
