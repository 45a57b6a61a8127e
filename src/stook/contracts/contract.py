"""What a renter and a farmer agreed about one shard: the terms, their id, and both signatures.

`Terms` is the signed text; `Contract` adds the two signatures. The id is the tagged hash of the first terms and stays
through every renewal (`docs/formats/contract.md`; SIP-4 for what a renewal may change).
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.hashing import Tag, tagged_hash
from stook.ids import (
    ContractId,
    NetworkIdField,
    PublicKeyField,
    ShardRootField,
    Signature,
    SignatureField,
    U32Field,
    U63Field,
)

CONTRACT_VERSION = 1
MAX_ABSENCES = 16
MAX_MEMO_BYTES = 128
MAX_CONTRACT_BYTES = 2048


class Settlement(enum.IntEnum):
    """How the parties pay each other."""

    LEDGER = 0
    EVM = 1


class AuditStrategy(enum.IntEnum):
    """How possession is proved (`docs/formats/contract.md`)."""

    SAMPLED = 0
    SALTED = 1


class AuditTerms(Record):
    """What the renter may ask for without paying: `leaves_per_interval` units every `interval_ms`."""

    strategy: AuditStrategy
    interval_ms: U63Field
    leaves_per_interval: U32Field


class Absence(Record):
    """A planned absence of the farmer, announced when the contract was made."""

    begin_ms: U63Field
    end_ms: U63Field


class Terms(Record):
    """Everything both sides need to know about one shard. Field order is the format."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    renter_key: PublicKeyField
    renter_index: U32Field
    farmer_key: PublicKeyField
    farmer_index: U32Field
    shard_root: ShardRootField
    shard_size_bytes: U63Field
    begin_ms: U63Field
    end_ms: U63Field
    consign_by_ms: U63Field
    audit: AuditTerms
    storage_price_per_gib_hour: U63Field
    download_price_per_gib: U63Field
    settlement: Settlement
    payment_destination: Annotated[bytes, Meta(max_length=64)]
    criteria: Annotated[bytes, Meta(min_length=4, max_length=4)]
    absences: Annotated[tuple[Absence, ...], Meta(max_length=MAX_ABSENCES)]
    collateral: U63Field
    grace_ms: U63Field
    memo: Annotated[bytes, Meta(max_length=MAX_MEMO_BYTES)]
    """The renter's own note, encrypted, so that a lost agent database can be rebuilt from LIST_CONTRACTS."""
    revision: U32Field
    origin: Annotated[bytes, Meta(max_length=32)]
    """Empty in revision 0; the contract's id in every later revision."""

    @property
    def digest(self) -> bytes:
        """What both parties sign."""
        return tagged_hash(Tag.CONTRACT, encode(self))

    @property
    def contract_id(self) -> ContractId:
        """The id, stable through renewals."""
        return ContractId(self.origin or self.digest)


class Contract(Record):
    """Terms with both signatures over `Terms.digest`."""

    terms: Terms
    farmer_signature: SignatureField
    renter_signature: Annotated[Signature, Meta(max_length=64)]
    """Empty until countersigned."""

    @property
    def contract_id(self) -> ContractId:
        """The id, stable through renewals."""
        return self.terms.contract_id
