"""Seal plaintext into masked shards, and open it again from any `k` of them: the road every byte takes.

A segment goes through all stages a cache-sized group of stripes at a time: encrypt, lay out over the data rows, encode
the parity rows, mask each row, hash its units. Nothing large is allocated; the caller brings the buffers. Calls block
and use one core; run them through `stook.clock.Offload`. Repair without content keys is `stook.shards.rebuild`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

from stook.errors import ReasonCode
from stook.hashing import Tag
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES, leaf_hash
from stook.shards.arena import Arena, Rows, Scratch, group_stripes
from stook.shards.cipher import segment_cipher
from stook.shards.erasure import Codec, encode_matrix
from stook.shards.geometry import SegmentShape, stripe_groups, units_of
from stook.shards.keystream import Xor
from stook.shards.mask import shard_mask
from stook.shards.padding import padded_copy
from stook.shards.rebuild import (
    NO_COPIES,
    DamagedShardError,
    SealedShard,
    check_shard,
    choose_rows,
    finish_shard,
    unmasked_groups,
)


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A sealed segment. `shards[i]` is code row `i`; their data is good until the arena is used again."""

    shape: SegmentShape
    plain_bytes: int
    plain_hash: bytes
    """Tagged hash (PLAINTEXT) of the data without padding."""
    shards: tuple[SealedShard, ...]

    @property
    def roots(self) -> tuple[ShardRoot, ...]:
        """The roots of all shards, in order of index."""
        return tuple(shard.root for shard in self.shards)


def plain_hash(data: memoryview) -> bytes:
    """What `SealedSegment.plain_hash` would be for `data`, to see whether a file changed since it was sealed."""
    return blake3(data, key=Tag.PLAINTEXT.key).digest()


def seal(
    plain: memoryview,
    *,
    key: bytes,
    mask_key: bytes,
    shape: SegmentShape,
    arena: Arena,
    codec: Codec,
) -> SealedSegment:
    """Encrypt, encode, mask and hash one segment into the arena.

    `key` is 32 fresh random bytes, used for no other bytes ever; `mask_key` is `mask.segment_mask_key`. Raises
    `ValueError` when `plain` is empty, larger than the shape's capacity, or the arena or a key does not fit.
    """
    if not 1 <= len(plain) <= shape.capacity:
        raise ValueError(f"{len(plain)} bytes do not fit a segment of {shape.capacity}")
    laid = arena.lay(shape)
    encrypt = segment_cipher(key)
    masks = [shard_mask(mask_key, index) for index in range(shape.total)]
    encode = (
        codec.bind(encode_matrix(shape.k, shape.total), laid.rows[: shape.k], laid.rows[shape.k :])
        if shape.total > shape.k
        else None
    )
    hasher = blake3(key=Tag.PLAINTEXT.key)
    leaves: list[list[bytes]] = [[] for _ in range(shape.total)]
    columns = list(zip(laid.rows, laid.units, masks, leaves, strict=True))
    for first, end in stripe_groups(shape.stripes, group_stripes(shape.total + shape.k)):
        _encrypt_group(plain, shape, first, end, encrypt, hasher, laid)
        begin, length = first * UNIT_BYTES, (end - first) * UNIT_BYTES
        if encode is not None:
            encode(begin, length)
        for row, units, mask, row_leaves in columns:
            run = row[begin : begin + length]
            mask(run, run)
            row_leaves += [leaf_hash(unit) for unit in units[first:end]]
    shards = tuple(finish_shard(index, 0, laid.rows[index], leaves[index]) for index in range(shape.total))
    return SealedSegment(shape, len(plain), hasher.digest(), shards)


def _encrypt_group(
    plain: memoryview, shape: SegmentShape, first: int, end: int, encrypt: Xor, hasher: blake3, laid: Rows
) -> None:
    """Encrypt the stripes `first` up to `end`, padded, and lay them out over the data rows."""
    begin, length = first * shape.stripe_bytes, (end - first) * shape.stripe_bytes
    stage, data = laid.stage[:length], plain[begin : begin + length]
    if len(data):
        hasher.update(data)
    if len(data) == length:
        encrypt(data, stage)
    else:
        padded_copy(plain, begin, stage)
        encrypt(stage, stage)
    laid.scatter(shape.k, first, end)


def unseal(
    shards: Mapping[int, memoryview],
    *,
    key: bytes,
    mask_key: bytes,
    shape: SegmentShape,
    into: memoryview,
    codec: Codec,
    scratch: Scratch,
    begin: int = 0,
    copies: Mapping[int, int] = NO_COPIES,
    roots: Sequence[ShardRoot] | None = None,
) -> None:
    """Fill `into` with the segment's plaintext from byte `begin` on.

    `shards` holds, by code row, the masked units that `geometry.units_of(shape, begin, len(into))` names: of the data
    shards listed there, or of any `k` shards. More units behind them are ignored, so that whole shards do whenever the
    range begins in the first stripe. They are left as they are. A changed byte gives changed plaintext, so they must
    have been verified leaf by leaf as they came; or give `roots`, by code row, and whole shards are checked here.

    Raises `NotEnoughError` with too few shards, `DamagedShardError` for one that is too short or has another root,
    `ValueError` for a range outside the segment, or for `roots` with a range behind the first stripe.
    """
    needed = units_of(shape, begin, len(into))
    used, missing = choose_rows(shape.k, shards, needed.data_indices)
    if roots is not None and needed.first:
        raise ValueError("a root is checked against a whole shard only")
    runs: dict[int, memoryview] = {}
    for index in used:
        if roots is not None:
            check_shard(index, shards[index], roots[index], shape.shard_bytes)
        runs[index] = shards[index][: needed.run_bytes]
        if len(runs[index]) != needed.run_bytes:
            raise DamagedShardError(index, ReasonCode.TRUNCATED, f"{len(runs[index])} bytes, not {needed.run_bytes}")
    decrypt = segment_cipher(key, needed.first * shape.k)
    for group in unmasked_groups(
        runs,
        used,
        missing,
        k=shape.k,
        mask_key=mask_key,
        copies=copies,
        first_unit=needed.first,
        codec=codec,
        scratch=scratch,
    ):
        group.rows.gather(shape.k, 0, group.end - group.first)
        stage = group.rows.stage[: (group.end - group.first) * shape.stripe_bytes]
        at = (needed.first + group.first) * shape.stripe_bytes - begin
        if at >= 0 and at + len(stage) <= len(into):
            decrypt(stage, into[at : at + len(stage)])
        else:
            decrypt(stage, stage)
            low, high = max(at, 0), min(at + len(stage), len(into))
            into[low:high] = stage[low - at : high - at]
