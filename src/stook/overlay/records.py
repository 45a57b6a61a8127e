"""Records that nodes keep for one another: who may write what under which key, for how long, and how it is checked.

Every record is signed by its publisher, numbered, bounded and mortal (`docs/formats/overlay-record.md`). Pure values.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Annotated, NewType

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.contracts.announcement import MAX_CLOCK_SKEW_MS, SignedAnnouncement, verify_announcement
from stook.errors import MisbehaviourError, ReasonCode
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import CONTACT_VERSION, MAX_CONTACT_BYTES, SignedContact
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.identity.pow import puzzle_bits
from stook.ids import (
    NODE_ID_BYTES,
    ROOT_BYTES,
    NetworkId,
    NetworkIdField,
    NodeId,
    PublicKey,
    PublicKeyField,
    ShardRoot,
    SignatureField,
    U63Field,
)

RECORD_VERSION = 1
MAX_BODY_BYTES = 8192
MAX_RECORD_BYTES = MAX_BODY_BYTES + 512
KEY_BYTES = NODE_ID_BYTES
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

OverlayKey = NewType("OverlayKey", bytes)
"""160 bits: where a record lies among the node ids."""


class RecordKind(enum.IntEnum):
    """What a record is about."""

    CONTACT = 1
    ANNOUNCEMENT = 2
    PROVIDER = 3
    POINTER = 4
    BRIDGE = 5

    @property
    def life_ms(self) -> int:
        """How long a record of this kind may live."""
        return 366 * DAY_MS if self is RecordKind.POINTER else DAY_MS

    @property
    def is_own(self) -> bool:
        """Whether the subject is the publisher's own id, so that nobody else can write under the key."""
        return self in (RecordKind.CONTACT, RecordKind.ANNOUNCEMENT, RecordKind.POINTER)


class OverlayRecord(Record):
    """The signed text of a record."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    kind: Annotated[int, Meta(ge=1, le=255)]
    subject: Annotated[bytes, Meta(max_length=32)]
    publisher_key: PublicKeyField
    puzzle_nonce: U63Field
    sequence: U63Field
    """Of two records of one publisher under one key the higher counts."""
    issued_ms: U63Field
    expires_ms: U63Field
    body: Annotated[bytes, Meta(max_length=MAX_BODY_BYTES)]
    """Empty: withdrawn."""

    @property
    def digest(self) -> bytes:
        """What the publisher signs."""
        return tagged_hash(Tag.STORED_RECORD, encode(self))


class SignedRecord(Record):
    """A record with its publisher's signature."""

    record: OverlayRecord
    signature: SignatureField

    @property
    def key(self) -> OverlayKey:
        """Where it lies."""
        return key_of(self.record.kind, self.record.subject)

    @property
    def publisher(self) -> NodeId:
        """The id of the publisher's key."""
        return node_id_of(self.record.publisher_key)


class BridgeEntry(Record):
    """The body of a BRIDGE record."""

    contact: SignedContact
    name: Annotated[str, Meta(max_length=64)]
    url: Annotated[str, Meta(max_length=256)]


def key_of(kind: int, subject: bytes) -> OverlayKey:
    """The key of everything of one kind about one subject."""
    return OverlayKey(tagged_hash(Tag.DHT_KEY, encode((int(kind), subject)))[:KEY_BYTES])


def contact_key(node_id: NodeId) -> OverlayKey:
    """Where a node's contact lies."""
    return key_of(RecordKind.CONTACT, node_id)


def announcement_key(node_id: NodeId) -> OverlayKey:
    """Where a farmer's announcement lies."""
    return key_of(RecordKind.ANNOUNCEMENT, node_id)


def provider_key(root: ShardRoot) -> OverlayKey:
    """Where it is said who holds a shard."""
    return key_of(RecordKind.PROVIDER, root)


def pointer_key(publisher_key: PublicKey) -> OverlayKey:
    """Where the owner of a key keeps the pointer to its own things."""
    return key_of(RecordKind.POINTER, node_id_of(publisher_key))


BRIDGE_KEY = key_of(RecordKind.BRIDGE, b"")
"""Where bridges list themselves."""


def sign_record(
    key: NodeKey,
    *,
    network: NetworkId,
    kind: RecordKind,
    body: bytes,
    sequence: int,
    issued_ms: int,
    subject: bytes | None = None,
    life_ms: int | None = None,
    puzzle_nonce: int = 0,
) -> SignedRecord:
    """A record of this key's. `subject` is the key's own id unless given; it lives as long as its kind may.

    Raises `ValueError` for a body above `MAX_BODY_BYTES` or a subject that the kind does not have.
    """
    if subject is None:
        subject = key.node_id if kind.is_own else b""
    record = OverlayRecord(
        version=RECORD_VERSION,
        network=network,
        kind=int(kind),
        subject=subject,
        publisher_key=key.public_key,
        puzzle_nonce=puzzle_nonce,
        sequence=sequence,
        issued_ms=issued_ms,
        expires_ms=issued_ms + (kind.life_ms if life_ms is None else life_ms),
        body=body,
    )
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a record's body has at most {MAX_BODY_BYTES} bytes, not {len(body)}")
    if not _has_right_subject(record):
        raise ValueError(f"{subject.hex()!r} is no subject of a {kind.name} record of this key")
    return SignedRecord(record, key.sign(record.digest))


def contact_record(key: NodeKey, contact: SignedContact, *, now_ms: int) -> SignedRecord:
    """A node's own contact as a record."""
    return sign_record(
        key,
        network=contact.contact.network,
        kind=RecordKind.CONTACT,
        body=encode(contact),
        sequence=now_ms,
        issued_ms=now_ms,
        puzzle_nonce=contact.contact.puzzle_nonce,
    )


def announcement_record(key: NodeKey, announcement: SignedAnnouncement, *, now_ms: int) -> SignedRecord:
    """A farmer's own announcement as a record."""
    contact = announcement.announcement.contact.contact
    return sign_record(
        key,
        network=contact.network,
        kind=RecordKind.ANNOUNCEMENT,
        body=encode(announcement),
        sequence=now_ms,
        issued_ms=now_ms,
        puzzle_nonce=contact.puzzle_nonce,
    )


def check_record(signed: SignedRecord, *, network: NetworkId, now_ms: int, puzzle: int = 0) -> None:
    """Everything about a record that can be judged without knowing others (`overlay-record.md`).

    Raises `MisbehaviourError` with the code of the first check that fails, cheapest first; `MalformedError` for a body
    that is no encoding.
    """
    check_form(signed, network=network, now_ms=now_ms, puzzle=puzzle)
    check_signatures(signed, now_ms=now_ms)


def check_form(signed: SignedRecord, *, network: NetworkId, now_ms: int, puzzle: int) -> None:
    """The checks that need no signature."""
    record = signed.record
    if len(record.body) > MAX_BODY_BYTES:
        raise _fault(signed, ReasonCode.TOO_LARGE, f"a body of {len(record.body)} bytes")
    if record.version != RECORD_VERSION:
        raise _fault(signed, ReasonCode.WRONG_VERSION, f"record version {record.version}")
    if record.network != network:
        raise _fault(signed, ReasonCode.WRONG_NETWORK, f"a record of network {record.network}")
    if not _has_right_subject(record):
        raise _fault(signed, ReasonCode.MALFORMED, "no record has this kind and subject")
    if record.issued_ms > now_ms + MAX_CLOCK_SKEW_MS:
        raise _fault(signed, ReasonCode.CLOCK_SKEW, "issued in the future")
    if not 0 < record.expires_ms - record.issued_ms <= RecordKind(record.kind).life_ms:
        raise _fault(signed, ReasonCode.MALFORMED, "lives longer than its kind may, or not at all")
    if record.expires_ms <= now_ms:
        raise _fault(signed, ReasonCode.STALE, "expired")
    if puzzle and puzzle_bits(record.publisher_key, record.puzzle_nonce) < puzzle:
        raise _fault(signed, ReasonCode.PUZZLE_UNSOLVED, f"the puzzle needs {puzzle} bits here")


def check_signatures(signed: SignedRecord, *, now_ms: int) -> None:
    """The publisher's signature, and what is signed inside the body."""
    record = signed.record
    if not verify(record.publisher_key, record.digest, signed.signature):
        raise _fault(signed, ReasonCode.BAD_SIGNATURE, "not signed by its publisher")
    if not record.body:
        return
    match RecordKind(record.kind):
        case RecordKind.CONTACT:
            _check_contact(signed, decode(SignedContact, record.body, max_bytes=MAX_CONTACT_BYTES), own=True)
        case RecordKind.ANNOUNCEMENT:
            announcement = decode(SignedAnnouncement, record.body, max_bytes=MAX_BODY_BYTES)
            if announcement.announcement.contact.contact.public_key != record.publisher_key:
                raise _fault(signed, ReasonCode.MALFORMED, "another farmer's announcement")
            verify_announcement(announcement, network=record.network, now_ms=now_ms)
        case RecordKind.PROVIDER:
            _check_contact(signed, decode(SignedContact, record.body, max_bytes=MAX_CONTACT_BYTES), own=False)
        case RecordKind.BRIDGE:
            _check_contact(signed, decode(BridgeEntry, record.body, max_bytes=MAX_BODY_BYTES).contact, own=True)
        case RecordKind.POINTER:
            pass


def newest(records: Iterable[SignedRecord]) -> tuple[SignedRecord, ...]:
    """Of every key and publisher the record with the highest sequence, and its rivals of equal sequence; newest first.

    The records must have been checked.
    """
    best: dict[tuple[OverlayKey, PublicKey], dict[bytes, SignedRecord]] = {}
    for signed in records:
        slot = signed.key, signed.record.publisher_key
        held = best.setdefault(slot, {})
        top = next(iter(held.values())).record.sequence if held else -1
        if signed.record.sequence > top:
            best[slot] = {signed.record.digest: signed}
        elif signed.record.sequence == top:
            held.setdefault(signed.record.digest, signed)
    found = [signed for held in best.values() for signed in held.values()]
    return tuple(sorted(found, key=lambda one: (-one.record.issued_ms, one.record.digest)))


def _check_contact(signed: SignedRecord, contact: SignedContact, *, own: bool) -> None:
    if own and contact.contact.public_key != signed.record.publisher_key:
        raise _fault(signed, ReasonCode.MALFORMED, "another node's contact")
    if contact.contact.version != CONTACT_VERSION or contact.contact.network != signed.record.network:
        raise _fault(signed, ReasonCode.MALFORMED, "the contact inside is of another version or network")
    if not contact.verifies():
        raise _fault(signed, ReasonCode.BAD_SIGNATURE, "the contact inside is not signed by its node")


def _has_right_subject(record: OverlayRecord) -> bool:
    match record.kind:
        case RecordKind.CONTACT | RecordKind.ANNOUNCEMENT | RecordKind.POINTER:
            return record.subject == node_id_of(record.publisher_key)
        case RecordKind.PROVIDER:
            return len(record.subject) == ROOT_BYTES
        case RecordKind.BRIDGE:
            return record.subject == b""
        case _:
            return False


def _fault(signed: SignedRecord, code: ReasonCode, text: str) -> MisbehaviourError:
    return MisbehaviourError(code, text, peer=signed.publisher.hex())
