"""Batches: what one stretch of time owes, drawn up by the payer, gone through by the payee. Records and their checks.

The formats are `docs/formats/statement.md`; what follows from a batch in the books is in `posting`.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import SigningKey
from stook.identity.keys import verify as verify_signature
from stook.ids import (
    Bytes32Field,
    ContractIdField,
    NetworkIdField,
    PublicKey,
    PublicKeyField,
    SignatureField,
    U32Field,
    U63Field,
)
from stook.money import narrow, wide
from stook.payments.cheque import WideField
from stook.payments.orders import OrdersField

BATCH_VERSION = 1
MAX_CHANGES = 512
MAX_DETAIL_CHARS = 200

DigestOrNone = Annotated[bytes, Meta(max_length=32)]


class BatchKind(enum.IntEnum):
    """Whether its time is paid."""

    EARNED = 1
    GAP = 2
    """The payee was silent when it was asked."""
    RESTART = 3
    """The payer lost its books: what was open ends where they ended; what is opened begins there, or later."""


class Reason(enum.IntEnum):
    """Why a contract is not paid any further."""

    ENDED = 1
    ERASED = 2
    LOST = 3
    FAILED = 4
    GONE = 5
    RENEWED = 6


class Opening(Record):
    """A contract that is paid for from this batch on."""

    contract_id: ContractIdField
    revision: U32Field
    start_ms: U63Field


class Closing(Record):
    """A contract that is paid for no further."""

    contract_id: ContractIdField
    stop_ms: U63Field
    reason: Reason


class Batch(Record):
    """The signed text. Field order is the format."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    payer_key: PublicKeyField
    payee_key: PublicKeyField
    tariff: Annotated[int, Meta(ge=1, le=255)]
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    previous: DigestOrNone
    kind: BatchKind
    from_ms: U63Field
    to_ms: U63Field
    receipt: DigestOrNone
    opened: Annotated[tuple[Opening, ...], Meta(max_length=MAX_CHANGES)]
    closed: Annotated[tuple[Closing, ...], Meta(max_length=MAX_CHANGES)]
    contracts: U63Field
    storage: WideField
    orders: OrdersField
    download: WideField
    owed: WideField

    def __post_init__(self) -> None:
        if self.to_ms < self.from_ms:
            raise ValueError("a batch that ends before it begins")
        if len(self.previous) not in (0, 32) or len(self.receipt) not in (0, 32):
            raise ValueError("a digest has 32 bytes")
        if (self.seq == 1) != (not self.previous):
            raise ValueError("the first batch has none before it, and no other")
        if narrow(self.storage) + narrow(self.download) > narrow(self.owed):
            raise ValueError("owed in all is less than this batch alone")
        if self.kind is BatchKind.GAP and narrow(self.storage):
            raise ValueError("a gap owes no storage")

    @property
    def digest(self) -> bytes:
        """What the payer signs; names the batch."""
        return tagged_hash(Tag.PAY_BATCH, encode(self))

    @property
    def amount(self) -> int:
        """What this batch owes."""
        return narrow(self.storage) + narrow(self.download)


class SignedBatch(Record):
    """A batch with its payer's signature."""

    batch: Batch
    signature: SignatureField


class Agreement(Record):
    """The payee's own figures for a batch, signed."""

    batch: Bytes32Field
    storage: WideField
    download: WideField
    agreed: bool
    detail: Annotated[str, Meta(max_length=MAX_DETAIL_CHARS)]
    signature: SignatureField

    @property
    def digest(self) -> bytes:
        """What the payee signs."""
        return _agreement_digest(self.batch, self.storage, self.download, self.agreed, self.detail)

    @property
    def amount(self) -> int:
        """What the payee computes for the batch."""
        return narrow(self.storage) + narrow(self.download)


def _agreement_digest(batch: bytes, storage: bytes, download: bytes, agreed: bool, detail: str) -> bytes:
    return tagged_hash(Tag.PAY_AGREEMENT, encode((batch, storage, download, agreed, detail)))


def sign_batch(batch: Batch, key: SigningKey) -> SignedBatch:
    """The batch, signed by its payer. Raises `ValueError` for another key."""
    if key.public_key != batch.payer_key:
        raise ValueError("the payer signs its batches")
    return SignedBatch(batch, key.sign(batch.digest))


def sign_agreement(batch: Batch, storage: int, download: int, detail: str, key: SigningKey) -> Agreement:
    """What the payee finds for a batch. Raises `ValueError` for another key."""
    if key.public_key != batch.payee_key:
        raise ValueError("the payee signs its agreements")
    agreed = not detail and (storage, download) == (narrow(batch.storage), narrow(batch.download))
    found = batch.digest, wide(storage), wide(download), agreed, detail[:MAX_DETAIL_CHARS]
    return Agreement(*found, signature=key.sign(_agreement_digest(*found)))


def is_batch(signed: SignedBatch, payer: PublicKey) -> bool:
    """Whether this payer signed it. Never raises."""
    batch = signed.batch
    return batch.payer_key == payer and verify_signature(payer, batch.digest, signed.signature)


def is_agreement(agreement: Agreement, batch: Batch) -> bool:
    """Whether the batch's payee signed it about this batch. Never raises."""
    return agreement.batch == batch.digest and verify_signature(batch.payee_key, agreement.digest, agreement.signature)
