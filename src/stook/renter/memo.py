"""The renter's own note inside every contract, readable by its agent alone. Pure.

It says which shard of which segment a contract is about. Farmers keep it with the contract and give it back with
LIST_CONTRACTS, so that an agent that lost its database finds all its segments again (`docs/protocol/placement.md`).
"""

from __future__ import annotations

from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.contracts.contract import MAX_MEMO_BYTES
from stook.errors import MalformedError
from stook.ids import NetworkId, SegmentIdField, U32Field, U63Field
from stook.shards.derive import Purpose, derive_key

MEMO_VERSION = 1
_ROW = Meta(ge=0, le=255)


class Memo(Record):
    """One shard's place: segment, code row and copy, and the segment's shape and policy. Field order is the format."""

    version: Annotated[int, Meta(ge=MEMO_VERSION, le=MEMO_VERSION)]
    segment_id: SegmentIdField
    index: Annotated[int, _ROW]
    copy: Annotated[int, Meta(ge=0, le=2**16 - 1)]
    k: Annotated[int, _ROW]
    r: Annotated[int, _ROW]
    o: Annotated[int, _ROW]
    n: Annotated[int, _ROW]
    total: Annotated[int, _ROW]
    shard_bytes: U32Field
    created_ms: U63Field


class MemoSealer:
    """Seals and opens memos with a key derived from the mask root. AES-SIV: one memo has one sealed form."""

    def __init__(self, mask_root: bytes, network: NetworkId) -> None:
        self._cipher = AESSIV(derive_key(mask_root, Purpose.MEMO, size=64))
        self._context = [network.encode()]

    def seal(self, memo: Memo) -> bytes:
        """At most `MAX_MEMO_BYTES` that say nothing to anyone else."""
        return self._cipher.encrypt(encode(memo), self._context)

    def open(self, sealed: bytes) -> Memo:
        """The memo. Raises `MalformedError` when it is not one that this renter sealed for this network."""
        if not 16 < len(sealed) <= MAX_MEMO_BYTES:
            raise MalformedError(f"a memo has 17 to {MAX_MEMO_BYTES} bytes, not {len(sealed)}")
        try:
            plain = self._cipher.decrypt(sealed, self._context)
        except InvalidTag:
            raise MalformedError("the memo was not sealed by this renter") from None
        return decode(Memo, plain)
