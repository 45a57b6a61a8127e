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
"""Above the largest encoding there is (a test measures it), below what a page of them may take."""


class Settlement(enum.IntEnum):
    """How the parties pay each other."""

    LEDGER = 0
    """A running account within a credit limit, no chain."""
    EVM = 1
    """Cheques of an ERC-20 chequebook; the payment destination is an account there."""


class AuditStrategy(enum.IntEnum):
    """How possession is proved (`docs/formats/contract.md`)."""

    SAMPLED = 0
    """Units drawn by a nonce, answered with Merkle paths to the shard root; without end."""
    SALTED = 1
    """The white paper's own: whole-shard hashes salted and committed to beforehand."""


class AuditTerms(Record):
    """What the renter may ask for without paying: `leaves_per_interval` units every `interval_ms`."""

    strategy: AuditStrategy
    interval_ms: U63Field
    leaves_per_interval: U32Field


class Absence(Record):
    """A planned absence of the farmer, from begin up to, not including, end. Several are in order and disjoint."""

    begin_ms: U63Field
    end_ms: U63Field


class Terms(Record):
    """Everything both sides need to know about one shard. Field order is the format.

    Lengths and number ranges are enforced by decoding; what the values must be is `negotiation.check_terms`.
    """

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    renter_key: PublicKeyField
    """The owner: the key that claims, grants, renews and cancels. Its node id follows from it."""
    renter_index: U32Field
    """The child number of that key in the owner's tree (SIP-32), so that a restored phrase finds it again."""
    farmer_key: PublicKeyField
    farmer_index: U32Field
    shard_root: ShardRootField
    shard_size_bytes: U63Field
    """Exactly so many bytes are stored and paid for; a step of the ladder, 16 KiB to 8 MiB."""
    begin_ms: U63Field
    """Storage is paid from here."""
    end_ms: U63Field
    """From here on the farmer may erase."""
    consign_by_ms: U63Field
    """The space is kept free until here, and no longer if the shard did not come."""
    audit: AuditTerms
    storage_price_per_gib_hour: U63Field
    download_price_per_gib: U63Field
    settlement: Settlement
    payment_destination: Annotated[bytes, Meta(max_length=64)]
    """Empty for LEDGER, the 20 bytes of an account for EVM."""
    criteria: Annotated[bytes, Meta(min_length=4, max_length=4)]
    """What kind of contract it is (`stook.contracts.topics`)."""
    absences: Annotated[tuple[Absence, ...], Meta(max_length=MAX_ABSENCES)]
    collateral: U63Field
    """What the farmer would forfeit for a loss. Nothing takes it yet, so it is 0 for now."""
    grace_ms: U63Field
    """How long the farmer goes on serving while unpaid."""
    memo: Annotated[bytes, Meta(max_length=MAX_MEMO_BYTES)]
    """The renter's own note, encrypted, so that a lost agent database can be rebuilt from LIST_CONTRACTS."""
    revision: U32Field
    """0 in a new contract, one more with each renewal; the higher revision counts."""
    origin: Annotated[bytes, Meta(max_length=32)]
    """Empty in revision 0; the contract's id in every later revision."""

    @property
    def digest(self) -> bytes:
        """What both parties sign."""
        return tagged_hash(Tag.CONTRACT, encode(self))

    @property
    def consent_digest(self) -> bytes:
        """What the owner before signs to hand the contract over to the owner these terms name."""
        return tagged_hash(Tag.RENEWAL, encode(self))

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
