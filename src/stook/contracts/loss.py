"""A farmer's signed word that it lost a shard, and the renter's signed word of when it heard so.

Only the second makes a loss honest: it dates the declaration by the clock of the party that has no wish to date it
early (`docs/formats/audit.md`, "Loss").
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.contracts.contract import Terms
from stook.errors import MisbehaviourError, ReasonCode
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.ids import (
    Bytes32Field,
    ContractIdField,
    PublicKey,
    PublicKeyField,
    ShardRootField,
    SignatureField,
    U63Field,
)


class LossDeclaration(Record):
    """The farmer does not hold this shard any more. It is never taken back."""

    contract_id: ContractIdField
    shard_root: ShardRootField
    declared_at_ms: U63Field
    """By the farmer's own clock: worth nothing by itself."""
    farmer_key: PublicKeyField

    @property
    def digest(self) -> bytes:
        """What the farmer signs, and what a note names."""
        return tagged_hash(Tag.LOSS, encode(self))


class SignedLoss(Record):
    """A declaration with the farmer's signature."""

    loss: LossDeclaration
    signature: SignatureField


class LossNote(Record):
    """When renter or auditor received a declaration, by its own clock."""

    loss: Bytes32Field
    """The declaration's digest."""
    received_at_ms: U63Field
    auditor_key: PublicKeyField
    """Who received it and signs: the renter or its auditor."""
    asked: Annotated[bytes, Meta(max_length=32)]
    """Empty, or the digest of a challenge about this shard that was sent before and has not been proved: then the loss
    is no honest one, and the farmer learns so at once."""

    def __post_init__(self) -> None:
        if len(self.asked) not in (0, 32):
            raise ValueError("no digest of a challenge")

    @property
    def digest(self) -> bytes:
        """What the receiver signs."""
        return tagged_hash(Tag.LOSS_NOTE, encode(self))


class SignedLossNote(Record):
    """A note with the receiver's signature. The farmer keeps it: it is its proof of having declared in time."""

    note: LossNote
    signature: SignatureField


class NotedLoss(Record):
    """A declaration together with the note of its receipt."""

    loss: SignedLoss
    note: SignedLossNote


def declare_loss(terms: Terms, key: NodeKey, declared_at_ms: int) -> SignedLoss:
    """The farmer's declaration; only after it noted the loss durably. Raises `ValueError` unless `key` is its own."""
    if key.public_key != terms.farmer_key:
        raise ValueError("only the contract's farmer declares its shard lost")
    loss = LossDeclaration(terms.contract_id, terms.shard_root, declared_at_ms, key.public_key)
    return SignedLoss(loss, key.sign(loss.digest))


def verify_loss(signed: SignedLoss, terms: Terms) -> None:
    """Whether the contract's farmer declares this contract's shard lost.

    Raises `MisbehaviourError`: UNBOUND_REPLY for a declaration about something else, BAD_SIGNATURE.
    """
    loss = signed.loss
    peer = node_id_of(terms.farmer_key).hex()
    if (loss.contract_id, loss.shard_root, loss.farmer_key) != (
        terms.contract_id,
        terms.shard_root,
        terms.farmer_key,
    ):
        raise MisbehaviourError(ReasonCode.UNBOUND_REPLY, "a loss of another contract", peer=peer)
    if not is_declared(signed):
        raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "the farmer did not sign this declaration", peer=peer)


def is_declared(signed: SignedLoss) -> bool:
    """Whether the farmer that the declaration names signed it."""
    return verify(signed.loss.farmer_key, signed.loss.digest, signed.signature)


def note_loss(signed: SignedLoss, key: NodeKey, received_at_ms: int, asked: bytes = b"") -> NotedLoss:
    """The receiver's note, to be stored before it is sent. `key` is the renter's or its auditor's.

    `asked` is the digest of the first challenge about this shard that is still unproved, if there is one: whoever
    leaves it out has conceded that the loss is honest.
    """
    note = LossNote(signed.loss.digest, received_at_ms, key.public_key, asked)
    return NotedLoss(signed, SignedLossNote(note, key.sign(note.digest)))


def is_noted(noted: NotedLoss, receivers: tuple[PublicKey, ...]) -> bool:
    """Whether one of `receivers` noted this very declaration, and both signatures hold. Never raises."""
    note = noted.note.note
    return (
        note.loss == noted.loss.loss.digest
        and note.auditor_key in receivers
        and verify(note.auditor_key, note.digest, noted.note.signature)
        and is_declared(noted.loss)
    )
