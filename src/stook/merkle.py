"""The Merkle tree that makes a shard's id, and the paths that prove one unit of it.

Leaves are tagged hashes of 16 KiB *units*; a node is the tagged hash of its two children. The shape is that of RFC 6962
section 2.1: the left subtree holds the largest power of two of leaves that is smaller than the whole. A shard's root is
the tagged hash of its size (8 bytes, big-endian) and the top, so that the size fixes the shape
(`docs/formats/shard.md`).
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3
from typing_extensions import Buffer

from stook.hashing import DIGEST_BYTES, Tag, tagged_hash
from stook.ids import ShardRoot

UNIT_BYTES = 16 * 1024
_LEAF_KEY = Tag.LEAF.key
_NODE_KEY = Tag.NODE.key


def leaf_hash(unit: Buffer) -> bytes:
    """The leaf of one unit."""
    return blake3(unit, key=_LEAF_KEY).digest()


def unit_count(size_bytes: int) -> int:
    """How many units a shard of `size_bytes` has; the last may be short. Raises `ValueError` below one byte."""
    if size_bytes < 1:
        raise ValueError("a shard has at least one byte")
    return -(-size_bytes // UNIT_BYTES)


def leaves_of(shard: memoryview) -> list[bytes]:
    """The leaf list of a shard."""
    return [blake3(shard[at : at + UNIT_BYTES], key=_LEAF_KEY).digest() for at in range(0, len(shard), UNIT_BYTES)]


def split_leaves(blob: bytes) -> list[bytes]:
    """Cut a leaf list as it stands on the wire and on disk. Raises `ValueError` unless a multiple of 32 bytes."""
    if len(blob) % DIGEST_BYTES:
        raise ValueError(f"a leaf list is a multiple of {DIGEST_BYTES} bytes, not {len(blob)}")
    return [blob[at : at + DIGEST_BYTES] for at in range(0, len(blob), DIGEST_BYTES)]


def _node(left: bytes, right: bytes) -> bytes:
    return tagged_hash(Tag.NODE, left + right)


def tree_top(leaves: Sequence[bytes]) -> bytes:
    """The top of the tree over `leaves`. Raises `ValueError` when there is none.

    Pairing level by level and carrying an odd last node up gives exactly the RFC 6962 shape.
    """
    if not leaves:
        raise ValueError("a tree has at least one leaf")
    level = list(leaves)
    while len(level) > 1:
        # `_node` written out: every shard has a node for each unit, and this halves what they cost.
        paired = [blake3(a + b, key=_NODE_KEY).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def shard_root(size_bytes: int, leaves: Sequence[bytes]) -> ShardRoot:
    """The id of a shard. Raises `ValueError` when the number of leaves does not fit the size."""
    if len(leaves) != unit_count(size_bytes):
        raise ValueError(f"{size_bytes} bytes have {unit_count(size_bytes)} leaves, not {len(leaves)}")
    return ShardRoot(tagged_hash(Tag.SHARD, size_bytes.to_bytes(8, "big") + tree_top(leaves)))


def merkle_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The sibling hashes from leaf `index` to the top, lowest first. Raises `IndexError` outside the tree."""
    return merkle_paths(leaves, (index,))[0]


def merkle_paths(leaves: Sequence[bytes], indices: Sequence[int]) -> list[list[bytes]]:
    """The path of each of `indices`, the tree built once for all. Raises `IndexError` outside the tree."""
    for index in indices:
        if not 0 <= index < len(leaves):
            raise IndexError(f"leaf {index} of {len(leaves)}")
    paths: list[list[bytes]] = [[] for _ in indices]
    level, at = list(leaves), list(indices)
    while len(level) > 1:
        for path, index in zip(paths, at, strict=True):
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
        paired = [blake3(a + b, key=_NODE_KEY).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            paired.append(level[-1])
        level, at = paired, [index // 2 for index in at]
    return paths


def path_top(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """The top that `path` leads to from `leaf` at `index` of `count` leaves; None when the path has the wrong length.

    The depth and every left/right turn follow from `index` and `count`, never from the path, so an inner node cannot
    pass for a leaf (white paper 5.7, "defeated audit").
    """
    if not 0 <= index < count:
        return None
    at, width, used, digest = index, count, 0, leaf
    while width > 1:
        if at ^ 1 < width:
            if used == len(path):
                return None
            sibling = path[used]
            digest = _node(sibling, digest) if at & 1 else _node(digest, sibling)
            used += 1
        at, width = at // 2, (width + 1) // 2
    return digest if used == len(path) else None
