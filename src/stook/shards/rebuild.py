"""Work on masked shards without content keys: check them, rebuild missing ones, make another copy.

This is what an agent's repair uses. The same shard comes out byte for byte, so its root stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from stook.errors import MisbehaviourError, NotEnoughError, ReasonCode
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES, leaves_of, shard_root, split_leaves
from stook.shards.arena import Rows, Scratch, group_stripes
from stook.shards.erasure import Codec, decode_matrix
from stook.shards.geometry import stripe_groups
from stook.shards.mask import shard_mask

NO_COPIES: Mapping[int, int] = {}
"""Every shard is copy 0."""


class DamagedShardError(MisbehaviourError):
    """Shard `index` is not what its root says, or too short. Drop it and use another."""

    def __init__(self, index: int, code: ReasonCode, message: str) -> None:
        super().__init__(code, f"shard {index}: {message}")
        self.index = index


@dataclass(frozen=True, slots=True)
class SealedShard:
    """One masked shard: what a farmer gets. `data` lies in the caller's arena and is good until that is used again."""

    index: int
    copy: int
    root: ShardRoot
    leaves: bytes
    data: memoryview


def finish_shard(index: int, copy: int, data: memoryview, leaves: list[bytes]) -> SealedShard:
    """A shard whose leaves are known, with its root."""
    return SealedShard(index, copy, shard_root(len(data), leaves), b"".join(leaves), data)


def check_shard(index: int, data: memoryview, root: ShardRoot, size_bytes: int) -> None:
    """Raises `DamagedShardError` unless `data` is the shard of `size_bytes` that `root` names."""
    if len(data) != size_bytes:
        raise DamagedShardError(index, ReasonCode.TRUNCATED, f"{len(data)} bytes, not {size_bytes}")
    if shard_root(size_bytes, leaves_of(data)) != root:
        raise DamagedShardError(index, ReasonCode.HASH_MISMATCH, "its bytes do not lead to its root")


def check_units(index: int, data: memoryview, leaves: bytes, first_unit: int = 0) -> None:
    """Raises `DamagedShardError` unless `data` is whole units that are the leaves from `first_unit` on."""
    expected = split_leaves(leaves)[first_unit : first_unit + -(-len(data) // UNIT_BYTES)]
    if leaves_of(data) != expected:
        raise DamagedShardError(index, ReasonCode.HASH_MISMATCH, f"a unit from {first_unit} on is not its leaf")


@dataclass(frozen=True, slots=True)
class UnmaskedGroup:
    """Stripes `first` up to `end` (counted from the start of the run) of the rows asked for, in `rows[slot]`."""

    first: int
    end: int
    rows: Rows


def choose_rows(k: int, present: Collection[int], wanted: Collection[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which shards to read and which rows to compute so that all `wanted` are there, data shards preferred.

    Raises `NotEnoughError` when fewer than `k` shards are present and a wanted one is not among them.
    """
    if set(wanted) <= set(present):
        return tuple(sorted(set(wanted))), ()
    used = tuple(sorted(set(present))[:k])
    if len(used) < k:
        raise NotEnoughError(f"{len(used)} of the {k} shards that are needed are here")
    return used, tuple(sorted(set(wanted) - set(used)))


def unmasked_groups(
    shards: Mapping[int, memoryview],
    used: tuple[int, ...],
    missing: tuple[int, ...],
    *,
    k: int,
    mask_key: bytes,
    copies: Mapping[int, int],
    first_unit: int,
    codec: Codec,
    scratch: Scratch,
) -> Iterator[UnmaskedGroup]:
    """Unmask `used` and compute `missing`, a cache-sized group of stripes at a time, in slots as `slots_of` says.

    Raises `DamagedShardError` when a shard is not whole units, or shorter than another.
    """
    size = max((len(shards[index]) for index in used), default=0)
    for index in used:
        if len(shards[index]) != size or not size or size % UNIT_BYTES:
            raise DamagedShardError(index, ReasonCode.TRUNCATED, f"{len(shards[index])} bytes, not {size}")
    slots = slots_of(k, used, missing)
    stripes = size // UNIT_BYTES
    group = min(group_stripes(2 * len(slots)), stripes)
    rows = scratch.lay(max(k, max(slots.values()) + 1), group)
    masks = [
        (shard_mask(mask_key, index, copies.get(index, 0), first_unit), shards[index], rows.rows[slots[index]])
        for index in used
    ]
    rebuild = (
        codec.bind(
            decode_matrix(k, used, missing),
            [rows.rows[slots[index]] for index in used],
            [rows.rows[slots[index]] for index in missing],
        )
        if missing
        else None
    )
    for first, end in stripe_groups(stripes, group):
        begin, length = first * UNIT_BYTES, (end - first) * UNIT_BYTES
        for mask, shard, row in masks:
            mask(shard[begin : begin + length], row)
        if rebuild is not None:
            rebuild(0, length)
        yield UnmaskedGroup(first, end, rows)


def slots_of(k: int, used: tuple[int, ...], missing: tuple[int, ...]) -> dict[int, int]:
    """Where each row lies in a group: data row `i` in slot `i`, all others behind slot ``k - 1`` in order."""
    others = [index for index in (*used, *missing) if index >= k]
    return {index: index for index in (*used, *missing) if index < k} | {
        index: k + position for position, index in enumerate(others)
    }


def rebuild_units(
    shards: Mapping[int, memoryview],
    targets: Mapping[int, memoryview],
    *,
    k: int,
    mask_key: bytes,
    codec: Codec,
    scratch: Scratch,
    copies: Mapping[int, int] = NO_COPIES,
    target_copies: Mapping[int, int] = NO_COPIES,
    first_unit: int = 0,
) -> dict[int, list[bytes]]:
    """Fill each target with the masked units of its index that match those of `shards`; the leaves, by index.

    All memory holds the same run of whole units from `first_unit` on. Raises `NotEnoughError` with fewer than `k`
    shards, `DamagedShardError` when a shard is shorter than another, `ValueError` when a target's length is wrong.
    """
    used, missing = choose_rows(k, shards, targets)
    size = len(shards[used[0]]) if used else 0
    if any(len(target) != size for target in targets.values()):
        raise ValueError(f"targets must have {size} bytes like the shards")
    slots = slots_of(k, used, missing)
    masks = {index: shard_mask(mask_key, index, target_copies.get(index, 0), first_unit) for index in targets}
    leaves: dict[int, list[bytes]] = {index: [] for index in targets}
    for group in unmasked_groups(
        shards,
        used,
        missing,
        k=k,
        mask_key=mask_key,
        copies=copies,
        first_unit=first_unit,
        codec=codec,
        scratch=scratch,
    ):
        begin, length = group.first * UNIT_BYTES, (group.end - group.first) * UNIT_BYTES
        for index, target in targets.items():
            run = target[begin : begin + length]
            masks[index](group.rows.rows[slots[index]][:length], run)
            leaves[index] += leaves_of(run)
    return leaves


def rebuild(
    shards: Mapping[int, memoryview],
    targets: Mapping[int, memoryview],
    *,
    k: int,
    mask_key: bytes,
    codec: Codec,
    scratch: Scratch,
    copies: Mapping[int, int] = NO_COPIES,
    target_copies: Mapping[int, int] = NO_COPIES,
) -> dict[int, SealedShard]:
    """Make whole masked shards from any `k` others (or another copy of one that is here), without content keys.

    `shards` are masked, whole and trusted: check them on arrival. Raises as `rebuild_units` does.
    """
    leaves = rebuild_units(
        shards,
        targets,
        k=k,
        mask_key=mask_key,
        codec=codec,
        scratch=scratch,
        copies=copies,
        target_copies=target_copies,
    )
    return {
        index: finish_shard(index, target_copies.get(index, 0), target, leaves[index])
        for index, target in targets.items()
    }
