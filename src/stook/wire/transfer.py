"""Shard bytes over an exchange: the leaf list first, then units, each checked before anyone uses it.

On the wire (`docs/protocol/transfer.md`): the whole leaf list, 32 bytes a unit, then the units from the first one asked
for. The request named the root, so the list is bound by it and every unit by the list: a transfer that breaks off goes
on at the last verified unit. This module knows neither contracts nor grants; both travel in the request, opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from stook.clock import Offload
from stook.errors import BugError, MisbehaviourError, ReasonCode
from stook.hashing import DIGEST_BYTES
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES, leaf_hash, shard_root, split_leaves, unit_count
from stook.wire.exchange import Exchange

BLOCK_BYTES = 1 << 20
"""A good size for one piece: large enough for the cipher, small enough to overlap network, hash and disk."""

OnBlock = Callable[[memoryview, int], None]
"""Gets a run of verified units and the number of its first unit; runs off the event loop, in order."""


async def push_shard(exchange: Exchange, leaves: bytes, shard: memoryview, first_unit: int = 0) -> None:
    """Send the leaf list and the units from `first_unit` on, and say END."""
    await exchange.send(leaves)
    await exchange.send(shard[first_unit * UNIT_BYTES :])
    await exchange.finish()


async def receive_leaves(exchange: Exchange, root: ShardRoot, size_bytes: int) -> bytes:
    """The leaf list of a shard, checked against its root. Raises `MisbehaviourError` (HASH_MISMATCH)."""
    leaves = bytearray(unit_count(size_bytes) * DIGEST_BYTES)
    await exchange.receive_into(memoryview(leaves))
    if shard_root(size_bytes, split_leaves(bytes(leaves))) != root:
        raise MisbehaviourError(
            ReasonCode.HASH_MISMATCH, "the leaf list does not lead to the root", peer=exchange.peer_id.hex()
        )
    return bytes(leaves)


async def receive_units(
    exchange: Exchange,
    *,
    leaves: bytes,
    first_unit: int,
    size_bytes: int,
    blocks: Sequence[memoryview],
    offload: Offload,
    on_block: OnBlock | None = None,
) -> None:
    """Receive `size_bytes` from unit `first_unit` on and verify them against `leaves` as they come.

    `blocks` are buffers of whole units, filled one after the other and used again from the first when `on_block` has
    done with it: give one buffer per megabyte to keep the bytes, or two to pass them on. Later blocks fill while an
    earlier one is hashed. Raises `MisbehaviourError` (HASH_MISMATCH, TRUNCATED) and what `Exchange.filled` and
    `on_block` raise; blocks before the failing one have been passed on.
    """
    if not blocks or any(len(block) % UNIT_BYTES or not len(block) for block in blocks):
        raise BugError("units are received into buffers of whole units")
    pieces: list[memoryview] = []
    left = size_bytes
    while left:
        block = blocks[len(pieces) % len(blocks)]
        pieces.append(block[: min(left, len(block))])
        left -= len(pieces[-1])
    arrivals = [exchange.post(piece) for piece in pieces[: len(blocks)]]
    unit = first_unit
    try:
        for number, piece in enumerate(pieces):
            await exchange.filled(arrivals[number])
            await offload(partial(_take, exchange, piece, leaves, unit, on_block))
            unit += unit_count(len(piece))
            if number + len(blocks) < len(pieces):
                arrivals.append(exchange.post(pieces[number + len(blocks)]))
    finally:
        for arrival in arrivals:
            arrival.cancel()  # the buffers go back to their owner; nothing to do for those that are full


def _take(exchange: Exchange, piece: memoryview, leaves: bytes, first_unit: int, on_block: OnBlock | None) -> None:
    at = first_unit * DIGEST_BYTES
    for offset in range(0, len(piece), UNIT_BYTES):
        if leaf_hash(piece[offset : offset + UNIT_BYTES]) != leaves[at : at + DIGEST_BYTES]:
            unit = first_unit + offset // UNIT_BYTES
            raise MisbehaviourError(
                ReasonCode.HASH_MISMATCH, f"unit {unit} is not its leaf", peer=exchange.peer_id.hex()
            )
        at += DIGEST_BYTES
    if on_block is not None:
        on_block(piece, first_unit)
