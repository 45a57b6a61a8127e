"""How much more a farmer can promise: arithmetic over what it holds and what its disk has left.

Used space is never counted up and down beside the stores; a `CapacityView` is made anew from the totals that the
contract store derives from the contracts themselves. The rules are in `docs/protocol/farmer.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stook.merkle import UNIT_BYTES
from stook.storage.ports import Totals

LEAF_BYTES = 32
FILE_OVERHEAD_BYTES = 8 * 1024
"""Header, contracts, and the slack of the last file-system block of one shard file, rounded up."""


def disk_bytes(size_bytes: int, count: int = 1) -> int:
    """What `count` shards of `size_bytes` together may take on disk: bytes, leaf lists, file overheads."""
    return size_bytes + -(-size_bytes // UNIT_BYTES) * LEAF_BYTES + count * (FILE_OVERHEAD_BYTES + LEAF_BYTES)


@dataclass(frozen=True, slots=True)
class CapacityLimits:
    """What the operator allows.

    `reserve_bytes` of the allocation are never promised: they are room for overheads and for partial shards whose
    transfer broke off. `min_free_disk_bytes` stay free on the disk whatever the allocation says.
    """

    allocated_bytes: int
    min_free_disk_bytes: int
    reserve_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CapacityView:
    """One moment's picture. Sizes are shard sizes; `free_disk_bytes` is what the disk has left now."""

    limits: CapacityLimits
    stored_bytes: int
    unfilled_bytes: int
    unfilled_count: int
    free_disk_bytes: int

    @classmethod
    def of(cls, limits: CapacityLimits, totals: Totals, free_disk_bytes: int) -> CapacityView:
        """The picture that follows from a store's totals and the disk."""
        return cls(limits, totals.stored_bytes, totals.reserved_bytes, totals.reserved_count, free_disk_bytes)

    @property
    def promised_bytes(self) -> int:
        """Stored, or reserved for shards that have not come yet."""
        return self.stored_bytes + self.unfilled_bytes

    @property
    def allocation_left_bytes(self) -> int:
        """What the allocation still allows to promise; never negative."""
        return max(0, self.limits.allocated_bytes - self.limits.reserve_bytes - self.promised_bytes)

    @property
    def disk_left_bytes(self) -> int:
        """What the disk can still take once every reservation is filled; never negative.

        Bytes of a shard on its way in are counted twice (on the disk already, and reserved); they are few, and the
        error is on the safe side.
        """
        unfilled = disk_bytes(self.unfilled_bytes, self.unfilled_count)
        return max(0, self.free_disk_bytes - self.limits.min_free_disk_bytes - unfilled)

    @property
    def available_bytes(self) -> int:
        """What may be announced as free."""
        return min(self.allocation_left_bytes, self.disk_left_bytes)

    def fits_allocation(self, size_bytes: int) -> bool:
        """Whether the operator's allocation has room for one more shard."""
        return size_bytes <= self.allocation_left_bytes

    def fits_disk(self, size_bytes: int) -> bool:
        """Whether the disk has room for one more shard with its overheads."""
        return disk_bytes(size_bytes) <= self.disk_left_bytes

    def with_reservation(self, size_bytes: int) -> CapacityView:
        """The picture after one more reservation."""
        return replace(self, unfilled_bytes=self.unfilled_bytes + size_bytes, unfilled_count=self.unfilled_count + 1)
