"""The hello: each end's first frame, signed, naming the channel it sees; and the ordered checks of its receiver. Pure.

A man in the middle has to show each side a channel of his own. The hello he passes on names the channel its signer
saw, not the one its receiver sees, so the receiver refuses it (`docs/protocol/session.md`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import SignedContact
from stook.identity.envelope import TIME_WINDOW_MS
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.identity.pow import puzzle_bits
from stook.ids import (
    NODE_ID_BYTES,
    NONCE_BYTES,
    Bytes32Field,
    NetworkId,
    NetworkIdField,
    NodeId,
    PublicKeyField,
    SessionNonce,
    SessionNonceField,
    SignatureField,
    U63Field,
)
from stook.wire.frames import MAX_HELLO_BYTES

HELLO_FORMAT = 1
VERSION_MIN = 1
VERSION_MAX = 1

VersionField = Annotated[int, Meta(ge=1, le=255)]


class Role(enum.IntEnum):
    """Which end of the connection signed. A hello sent back to its author has the wrong one."""

    INITIATOR = 1
    RESPONDER = 2


class Hello(Record):
    """The signed text of a hello. Its form never changes; later versions of the protocol add in `extension`."""

    format: VersionField
    version_min: VersionField
    version_max: VersionField
    network: NetworkIdField
    role: Role
    public_key: PublicKeyField
    recipient: Annotated[bytes, Meta(max_length=NODE_ID_BYTES)]
    """The id of the node addressed; empty from an initiator that does not know it (it may then only PROBE)."""
    nonce: SessionNonceField
    """What every envelope to this node on this session must carry."""
    answers: Annotated[bytes, Meta(max_length=NONCE_BYTES)]
    """The initiator's nonce in a responder's hello; empty in an initiator's."""
    channel: Bytes32Field
    issued_ms: U63Field
    puzzle_nonce: U63Field
    max_exchanges: Annotated[int, Meta(ge=1, le=65535)]
    """How many exchanges the other end may have open with this node at once."""
    contact: SignedContact | None
    extension: Annotated[bytes, Meta(max_length=512)]
    """In a private grid the node's membership (`stook.identity.membership`), else empty; open networks ignore it."""

    @property
    def digest(self) -> bytes:
        """What the node signs."""
        return tagged_hash(Tag.HELLO, encode(self))


class SignedHello(Record):
    """A hello with its node's signature: the body of a HELLO frame."""

    hello: Hello
    signature: SignatureField


@dataclass(frozen=True, slots=True)
class Party:
    """What one node says of itself in every hello."""

    key: NodeKey
    network: NetworkId
    puzzle_nonce: int = 0
    max_exchanges: int = 64
    contact: SignedContact | None = None
    extension: bytes = b""
    puzzle_bits_asked: int = 0
    version_min: int = VERSION_MIN
    version_max: int = VERSION_MAX


@dataclass(frozen=True, slots=True)
class Expected:
    """What a received hello has to agree with. `node_id` None accepts any; `recipient` may be empty if `may_probe`."""

    role: Role
    channel: bytes
    node_id: NodeId | None
    answers: bytes
    may_probe: bool


def make_hello(
    party: Party, *, role: Role, recipient: bytes, nonce: SessionNonce, answers: bytes, channel: bytes, now_ms: int
) -> bytes:
    """The body of our HELLO frame."""
    hello = Hello(
        format=HELLO_FORMAT,
        version_min=party.version_min,
        version_max=party.version_max,
        network=party.network,
        role=role,
        public_key=party.key.public_key,
        recipient=recipient,
        nonce=nonce,
        answers=answers,
        channel=channel,
        issued_ms=now_ms,
        puzzle_nonce=party.puzzle_nonce,
        max_exchanges=party.max_exchanges,
        contact=party.contact,
        extension=party.extension,
    )
    return encode(SignedHello(hello, party.key.sign(hello.digest)))


def check_hello(data: bytes | memoryview, *, party: Party, expected: Expected, now_ms: int) -> tuple[Hello, int]:
    """The peer's hello after every check, and the protocol version to speak: the highest both know.

    In this order: decoding (`MalformedError`), then `MisbehaviourError` with WRONG_VERSION, WRONG_NETWORK, MALFORMED
    (role), WRONG_RECIPIENT, WRONG_IDENTITY, WRONG_SESSION, WRONG_CHANNEL, CLOCK_SKEW, PUZZLE_UNSOLVED, BAD_SIGNATURE.
    """
    signed = decode(SignedHello, data, max_bytes=MAX_HELLO_BYTES)
    hello = signed.hello
    version = min(hello.version_max, party.version_max)
    failed = _judge(hello, version, party, expected, now_ms)
    if failed is None and not verify(hello.public_key, hello.digest, signed.signature):
        failed = ReasonCode.BAD_SIGNATURE, "the hello is not signed by the key it names"
    if failed is None and hello.contact is not None:
        failed = _judge_contact(hello.contact, hello)
    if failed is not None:
        code, reason = failed
        if code is ReasonCode.MALFORMED:
            raise MalformedError(reason)
        raise MisbehaviourError(code, reason, peer=node_id_of(hello.public_key).hex())
    return hello, version


def _judge(hello: Hello, version: int, party: Party, expected: Expected, now_ms: int) -> tuple[ReasonCode, str] | None:
    """The checks that need no curve arithmetic, in order."""
    if hello.format != HELLO_FORMAT or version < max(hello.version_min, party.version_min):
        return ReasonCode.WRONG_VERSION, (
            f"versions {hello.version_min} to {hello.version_max}, "
            f"this node speaks {party.version_min} to {party.version_max}"
        )
    if hello.network != party.network:
        return ReasonCode.WRONG_NETWORK, f"network {hello.network!r}, this node is in {party.network!r}"
    if hello.role is not expected.role:
        return ReasonCode.MALFORMED, f"a hello of the {hello.role.name}"
    if hello.recipient != party.key.node_id and not (expected.may_probe and hello.recipient == b""):
        return ReasonCode.WRONG_RECIPIENT, f"hello for node {hello.recipient.hex()}"
    sender = node_id_of(hello.public_key)
    if sender == party.key.node_id or expected.node_id not in (None, sender):
        return ReasonCode.WRONG_IDENTITY, "the key does not hash to the id that was called"
    if hello.answers != expected.answers:
        return ReasonCode.WRONG_SESSION, "the hello answers another session"
    if hello.channel != expected.channel:
        return ReasonCode.WRONG_CHANNEL, "the peer sees another channel than we do: somebody sits between"
    if abs(now_ms - hello.issued_ms) > TIME_WINDOW_MS:
        return ReasonCode.CLOCK_SKEW, f"hello of {hello.issued_ms} ms, received at {now_ms} ms"
    if puzzle_bits(hello.public_key, hello.puzzle_nonce) < party.puzzle_bits_asked:
        return ReasonCode.PUZZLE_UNSOLVED, f"the node id puzzle needs {party.puzzle_bits_asked} bits here"
    return None


def _judge_contact(contact: SignedContact, hello: Hello) -> tuple[ReasonCode, str] | None:
    if contact.contact.public_key != hello.public_key or contact.contact.network != hello.network:
        return ReasonCode.WRONG_IDENTITY, "the contact in the hello is another node's"
    if not contact.verifies():
        return ReasonCode.BAD_SIGNATURE, "the contact in the hello is not signed by its node"
    return None
