"""The renter's note in each contract, so that the agent's database can be rebuilt from what farmers list.

Encrypted with AES-256-SIV under a key of the mask root: the agent reads it without content keys, a farmer learns
nothing from it (`docs/formats/record.md`).
"""

from __future__ import annotations

from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import CorruptionError, MalformedError
from stook.ids import SegmentIdField
from stook.shards.derive import Purpose, derive_key
from stook.shards.geometry import MAX_SHARDS

MEMO_VERSION = 1
MAX_MEMO_BYTES = 128
_Index = Annotated[int, Meta(ge=0, lt=MAX_SHARDS)]
_ShardCount = Annotated[int, Meta(ge=1, le=MAX_SHARDS)]


class Memo(Record):
    """Which shard of which segment a contract is about. Field order is the format."""

    version: Annotated[int, Meta(ge=1, le=255)]
    segment_id: SegmentIdField
    index: _Index
    copy: Annotated[int, Meta(ge=0, lt=1 << 16)]
    k: _ShardCount
    total: _ShardCount
    shard_bytes: Annotated[int, Meta(ge=1, le=8 << 20)]


def _cipher(mask_root: bytes) -> AESSIV:
    return AESSIV(derive_key(mask_root, Purpose.MEMO, size=64))


def seal_memo(mask_root: bytes, memo: Memo) -> bytes:
    """The memo as it stands in `Terms.memo`: synthetic IV of 16 bytes, then the ciphertext."""
    return _cipher(mask_root).encrypt(encode(memo), None)


def open_memo(mask_root: bytes, sealed: bytes) -> Memo:
    """The memo. Raises `CorruptionError` when it is not one of this owner's, or was changed."""
    if not 16 < len(sealed) <= MAX_MEMO_BYTES:
        raise CorruptionError("no memo")
    try:
        return decode(Memo, _cipher(mask_root).decrypt(sealed, None))
    except (InvalidTag, MalformedError):
        raise CorruptionError("a memo is not one of this owner's, or was changed") from None
