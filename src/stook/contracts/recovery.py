"""The recovery record as strangers see it, and the two methods that leave it with farmers and ask for it. Pure.

Nobody but the owner of the phrase can make or read one. Anybody may carry one: it proves itself, and of two of one key
the one with the higher sequence counts (`docs/formats/recovery-record.md`, `docs/protocol/recovery.md`).
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.errors import MisbehaviourError, ReasonCode
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import SigningKey, verify
from stook.ids import NetworkId, NetworkIdField, PublicKeyField, SignatureField, U63Field

RECORD_VERSION = 1
MAX_RECORD_BYTES = 8192
MAX_SEALED_BYTES = MAX_RECORD_BYTES - 192
"""Leaves room for everything else in a record."""


class RecoveryBody(Record):
    """What is signed."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    key: PublicKeyField
    """Derived from the phrase for this alone: it is no node's key, and names nobody."""
    sequence: U63Field
    sealed: Annotated[bytes, Meta(min_length=1, max_length=MAX_SEALED_BYTES)]

    @property
    def digest(self) -> bytes:
        """What the owner signs."""
        return tagged_hash(Tag.RECOVERY_RECORD, encode(self))


class SignedRecoveryRecord(Record):
    """A recovery record with its owner's signature; at most `MAX_RECORD_BYTES`."""

    body: RecoveryBody
    signature: SignatureField


def sign_record(key: SigningKey, network: NetworkId, sequence: int, sealed: bytes) -> SignedRecoveryRecord:
    """A record of this key."""
    body = RecoveryBody(RECORD_VERSION, network, key.public_key, sequence, sealed)
    return SignedRecoveryRecord(body, key.sign(body.digest))


def verify_record(record: SignedRecoveryRecord, network: NetworkId) -> None:
    """Raises `MisbehaviourError`: WRONG_VERSION, WRONG_NETWORK, BAD_SIGNATURE."""
    body = record.body
    if body.version != RECORD_VERSION:
        raise MisbehaviourError(ReasonCode.WRONG_VERSION, f"a recovery record of version {body.version}")
    if body.network != network:
        raise MisbehaviourError(ReasonCode.WRONG_NETWORK, f"a recovery record of network {body.network}")
    if not verify(body.key, body.digest, record.signature):
        raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "a recovery record that its key did not sign")


class RecoveryMethod(enum.StrEnum):
    """Names of the methods as they stand in the envelope."""

    LEAVE_RECORD = "LEAVE_RECORD"
    FIND_RECORD = "FIND_RECORD"


class LeaveRecord(Record):
    """LEAVE_RECORD request: keep this beside the caller's contracts."""

    record: SignedRecoveryRecord


class FindRecord(Record):
    """FIND_RECORD request: the record of a key. Anybody may ask."""

    key: PublicKeyField


class RecordReply(Record):
    """What the farmer keeps of that key now. After LEAVE_RECORD: the record just left, or the one that stays."""

    record: SignedRecoveryRecord | None
