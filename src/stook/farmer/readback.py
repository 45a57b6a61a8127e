"""Reading a stored shard in blocks, each checked against its leaves before anybody sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stook.errors import CorruptionError, NotFoundError
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES, leaf_hash
from stook.storage.ports import ShardStore

LEAF_BYTES = 32


class DamagedError(Exception):
    """Bytes on our disk are not what their leaves say, twice in a row."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of whole units, moved in one piece."""

    first_unit: int
    size_bytes: int


def blocks_of(first_unit: int, end_byte: int, block_bytes: int) -> Iterator[Block]:
    """Cut the units from `first_unit` to `end_byte` into blocks."""
    at = first_unit * UNIT_BYTES
    while at < end_byte:
        size = min(block_bytes, end_byte - at)
        yield Block(at // UNIT_BYTES, size)
        at += size


def read_block(
    shards: ShardStore, root: ShardRoot, block: Block, leaves: bytes, into: memoryview, *, check: bool = True
) -> None:
    """Fill `into` with one block. One that fails its check is read once more: one bad read may be a cable.

    Blocks. Raises `DamagedError`, and what `ShardStore.read_units` raises.
    """
    for attempt in (1, 2):
        got = shards.read_units(root, block.first_unit, into)
        if got == len(into) and (not check or _matches(block, leaves, into)):
            return
        if attempt == 2:
            raise DamagedError(f"units from {block.first_unit}: {got} of {len(into)} bytes, or another hash")


def _matches(block: Block, leaves: bytes, data: memoryview) -> bool:
    at = block.first_unit * LEAF_BYTES
    for offset in range(0, len(data), UNIT_BYTES):
        if leaf_hash(data[offset : offset + UNIT_BYTES]) != leaves[at : at + LEAF_BYTES]:
            return False
        at += LEAF_BYTES
    return True


def is_damaged(shards: ShardStore, root: ShardRoot) -> bool:
    """Whether a shard fails its check twice: one bad read may be a cable, two are a loss. Blocks."""
    return _fails(shards, root) and _fails(shards, root)


def _fails(shards: ShardStore, root: ShardRoot) -> bool:
    try:
        return bool(shards.bad_units(root))
    except (CorruptionError, NotFoundError):
        return True
