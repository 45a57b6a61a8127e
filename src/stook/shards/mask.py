"""Masks: every shard and every copy of it its own bytes, so that nobody but the agent can make one from others.

Without a mask any k shards rebuild the rest: k colluding identities could store k and be paid for n, and one mirror
could answer for all. Masking is XOR with a key stream, so doing it twice undoes it (`docs/formats/shard.md`). Mask
keys open nothing: under the mask lies ciphertext. They belong to the agent, which repairs and audits.
"""

from __future__ import annotations

from stook.ids import SegmentId
from stook.shards.derive import Purpose, derive_key
from stook.shards.keystream import Xor, xor_stream


def segment_mask_key(mask_root: bytes, segment_id: SegmentId) -> bytes:
    """The 32-byte key from which the masks of one segment's shards come. Raises `ValueError` on wrong lengths."""
    if len(segment_id) != 16:
        raise ValueError(f"a segment id has 16 bytes, not {len(segment_id)}")
    return derive_key(mask_root, Purpose.SEGMENT_MASK, segment_id)


def shard_mask_key(segment_key: bytes, index: int, copy: int = 0) -> bytes:
    """The key of the mask of code row `index`, copy `copy` (0 is the first). Raises `ValueError` out of range."""
    if not (0 <= index < 255 and 0 <= copy < 1 << 16):
        raise ValueError(f"no shard has index {index} and copy {copy}")
    return derive_key(segment_key, Purpose.SHARD_MASK, index.to_bytes(1, "big") + copy.to_bytes(2, "big"))


def shard_mask(segment_key: bytes, index: int, copy: int = 0, first_unit: int = 0) -> Xor:
    """XOR with one shard's mask, from unit `first_unit` on. Raises `ValueError` as `shard_mask_key` does."""
    return xor_stream(shard_mask_key(segment_key, index, copy), first_unit)
