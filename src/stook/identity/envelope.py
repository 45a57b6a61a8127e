"""The signed message: one envelope around every request, reply and refusal, and the ordered checks of its receiver.

The signature covers everything before it, byte for byte. `open_envelope` acts on nothing until every check has passed,
cheapest first, and records a message as seen only after its signature held, so that a forger can neither poison the
replay window nor fill it (`docs/formats/envelope.md`).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode, RefusedError
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.ids import (
    SIGNATURE_BYTES,
    MessageId,
    MessageIdField,
    NetworkId,
    NetworkIdField,
    NodeId,
    NodeIdField,
    PublicKeyField,
    SessionNonce,
    SessionNonceField,
    Signature,
    SignatureField,
    U63Field,
)

ENVELOPE_VERSION = 1
MAX_PAYLOAD_BYTES = 1 << 20
MAX_ENVELOPE_BYTES = MAX_PAYLOAD_BYTES + 512
MAX_METHOD_CHARS = 32
MAX_DETAIL_CHARS = 200
TIME_WINDOW_MS = 5 * 60 * 1000

_METHOD = r"^[A-Z][A-Z0-9_]*\Z"
_method_pattern = re.compile(_METHOD)
_NO_SIGNATURE = Signature(bytes(SIGNATURE_BYTES))
_SIGNATURE_FIELD_BYTES = 2 + SIGNATURE_BYTES  # c4 40, then the signature: always the last 66 bytes


class Kind(enum.IntEnum):
    """What an envelope is."""

    REQUEST = 1
    REPLY = 2
    REFUSAL = 3


class Envelope(Record):
    """One signed message. `session` is the nonce its receiver chose; `reply_to` the digest of the request answered."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    kind: Kind
    method: Annotated[str, Meta(min_length=1, max_length=MAX_METHOD_CHARS, pattern=_METHOD)]
    message_id: MessageIdField
    session: SessionNonceField
    sender_key: PublicKeyField
    recipient: NodeIdField
    sent_at_ms: U63Field
    reply_to: Annotated[bytes, Meta(max_length=32)]
    """Empty in a request, 32 bytes in a reply or refusal."""
    payload: Annotated[bytes, Meta(max_length=MAX_PAYLOAD_BYTES)]
    signature: SignatureField

    @property
    def digest(self) -> bytes:
        """What the sender signed, and what a reply names: the tagged hash of all bytes before the signature field."""
        return _digest(encode(self))

    @property
    def sender(self) -> NodeId:
        """The id that follows from the sender's key."""
        return node_id_of(self.sender_key)


class Refusal(Record):
    """The payload of a refusal. `code` may be one that this version does not know."""

    code: Annotated[int, Meta(ge=100, le=999)]
    detail: Annotated[str, Meta(max_length=MAX_DETAIL_CHARS, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
    """For a person; no control characters, since it may be shown on a terminal."""
    retry_after_ms: U63Field
    now_ms: U63Field
    """The refuser's time, so that the other side of a CLOCK_SKEW learns how far its clock is off."""

    @classmethod
    def of(cls, code: ReasonCode, detail: str = "", *, retry_after_ms: int = 0, now_ms: int) -> Refusal:
        """A refusal with `detail` cut to its bound and unprintable characters replaced."""
        shown = "".join(char if char.isprintable() else " " for char in detail[:MAX_DETAIL_CHARS])
        return cls(int(code), shown, max(0, retry_after_ms), now_ms)

    def error(self, *, peer: str | None = None) -> RefusedError:
        """The exception a caller gets. A code from a later version becomes INTERNAL, its number in the text."""
        try:
            code = ReasonCode(self.code)
        except ValueError:
            detail = f"code {self.code}" + (f": {self.detail}" if self.detail else "")
            return RefusedError(ReasonCode.INTERNAL, detail, peer=peer, retry_after_ms=self.retry_after_ms)
        return RefusedError(code, self.detail, peer=peer, retry_after_ms=self.retry_after_ms)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope ready to send: its bytes, and the digest that replies to it must name."""

    data: bytes
    digest: bytes


def _digest(encoded: bytes | memoryview) -> bytes:
    return tagged_hash(Tag.ENVELOPE, memoryview(encoded)[:-_SIGNATURE_FIELD_BYTES])


def seal(
    *,
    key: NodeKey,
    network: NetworkId,
    kind: Kind,
    method: str,
    message_id: MessageId,
    session: SessionNonce,
    recipient: NodeId,
    sent_at_ms: int,
    payload: bytes,
    reply_to: bytes = b"",
) -> Sealed:
    """Sign one message. `message_id` is 16 fresh random bytes, `session` the nonce of the receiver.

    Raises `ValueError` for a payload above `MAX_PAYLOAD_BYTES`, a bad method name, or a `reply_to` that does not fit
    the kind; the other fields are trusted to be what their types say.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} fit one message")
    if len(method) > MAX_METHOD_CHARS or not _method_pattern.match(method):
        raise ValueError(f"{method!r} is no method name")
    if len(reply_to) != _reply_to_bytes(kind):
        raise ValueError(f"a {kind.name} names {_reply_to_bytes(kind)} bytes of request digest, not {len(reply_to)}")
    blank = encode(
        Envelope(
            ENVELOPE_VERSION,
            network,
            kind,
            method,
            message_id,
            session,
            key.public_key,
            recipient,
            sent_at_ms,
            reply_to,
            payload,
            _NO_SIGNATURE,
        )
    )
    digest = _digest(blank)
    return Sealed(data=blank[:-SIGNATURE_BYTES] + key.sign(digest), digest=digest)


def _reply_to_bytes(kind: Kind) -> int:
    return 0 if kind is Kind.REQUEST else 32


class ReplayWindow:
    """The message ids seen in one session, for as long as their time stamp could still be accepted.

    Bounded: when `capacity` ids are remembered, new messages are refused until old ones age out; none is ever
    forgotten early, and none older than what was forgotten is accepted, even if this machine's clock is set back.
    It takes time only from its callers.
    """

    __slots__ = ("_buckets", "_count", "_forgotten_before_ms", "capacity", "window_ms")

    _BUCKET_MS = 10_000

    def __init__(self, capacity: int = 1 << 16, window_ms: int = TIME_WINDOW_MS) -> None:
        """Remember up to `capacity` ids (about 100 bytes each). Raises `ValueError` below one."""
        if capacity < 1:
            raise ValueError("a replay window remembers at least one message")
        self.capacity = capacity
        self.window_ms = window_ms
        self._buckets: dict[int, set[MessageId]] = {}
        self._count = 0
        self._forgotten_before_ms = 0

    def __len__(self) -> int:
        return self._count

    def check(self, message_id: MessageId, sent_at_ms: int, now_ms: int) -> ReasonCode | None:
        """Why a message is not acceptable as new, or None: CLOCK_SKEW, REPLAYED, or RATE_LIMITED when full."""
        if abs(now_ms - sent_at_ms) > self.window_ms or sent_at_ms < self._forgotten_before_ms:
            return ReasonCode.CLOCK_SKEW
        if any(message_id in bucket for bucket in self._buckets.values()):
            return ReasonCode.REPLAYED
        if self._count >= self.capacity:
            self._forget(now_ms)
            if self._count >= self.capacity:
                return ReasonCode.RATE_LIMITED
        return None

    def record(self, message_id: MessageId, sent_at_ms: int, now_ms: int) -> None:
        """Remember a message whose signature verified. Raises `ValueError` unless `check` accepts it."""
        refused = self.check(message_id, sent_at_ms, now_ms)
        if refused is not None:
            raise ValueError(f"this message is not acceptable: {refused.name}")
        number = sent_at_ms // self._BUCKET_MS
        bucket = self._buckets.get(number)
        if bucket is None:
            self._forget(now_ms)
            bucket = self._buckets[number] = set()
        bucket.add(message_id)
        self._count += 1

    def _forget(self, now_ms: int) -> None:
        """Drop the buckets whose every message would be refused by its time stamp alone."""
        oldest_acceptable = (now_ms - self.window_ms) // self._BUCKET_MS
        for number in [number for number in self._buckets if number < oldest_acceptable]:
            self._count -= len(self._buckets.pop(number))
            self._forgotten_before_ms = max(self._forgotten_before_ms, (number + 1) * self._BUCKET_MS)


def open_envelope(
    data: bytes | memoryview,
    *,
    network: NetworkId,
    me: NodeId,
    session: SessionNonce,
    claimed_sender: NodeId,
    now_ms: int,
    replay: ReplayWindow,
) -> Envelope:
    """The message in `data`, after every check, in this order; nothing in it may be acted on before this returns.

    Size (TOO_LARGE), canonical decoding (`MalformedError`), version (WRONG_VERSION), network (WRONG_NETWORK),
    recipient (WRONG_RECIPIENT), the receiver's session nonce (WRONG_SESSION), the key hashes to the id the session
    was opened by (WRONG_IDENTITY), two-sided time window (CLOCK_SKEW), replay look-up (REPLAYED, or RATE_LIMITED when
    no more can be remembered), signature (BAD_SIGNATURE); then the id is recorded as seen.
    Raises `MalformedError` or `MisbehaviourError` with the code in brackets.
    """
    peer = claimed_sender.hex()
    if len(data) > MAX_ENVELOPE_BYTES:
        raise MisbehaviourError(
            ReasonCode.TOO_LARGE, f"{len(data)} bytes, at most {MAX_ENVELOPE_BYTES} are allowed", peer=peer
        )
    envelope = decode(Envelope, data, max_bytes=MAX_ENVELOPE_BYTES)
    if len(envelope.reply_to) != _reply_to_bytes(envelope.kind):
        raise MalformedError(f"a {envelope.kind.name} with {len(envelope.reply_to)} bytes of reply_to", peer=peer)
    code, reason = _judge(envelope, network, me, session, claimed_sender)
    if code is None:
        code = replay.check(envelope.message_id, envelope.sent_at_ms, now_ms)
        reason = f"message sent at {envelope.sent_at_ms} ms, received at {now_ms} ms"
    if code is None and not verify(envelope.sender_key, _digest(data), envelope.signature):
        code, reason = ReasonCode.BAD_SIGNATURE, "the signature is not that of the sender's key over these bytes"
    if code is not None:
        raise MisbehaviourError(code, reason, peer=peer)
    replay.record(envelope.message_id, envelope.sent_at_ms, now_ms)
    return envelope


def _judge(
    envelope: Envelope, network: NetworkId, me: NodeId, session: SessionNonce, claimed_sender: NodeId
) -> tuple[ReasonCode | None, str]:
    """The checks that compare fields with what the receiver knows, in order."""
    if envelope.version != ENVELOPE_VERSION:
        return ReasonCode.WRONG_VERSION, f"version {envelope.version}, this node speaks {ENVELOPE_VERSION}"
    if envelope.network != network:
        return ReasonCode.WRONG_NETWORK, f"network {envelope.network!r}, this node is in {network!r}"
    if envelope.recipient != me:
        return ReasonCode.WRONG_RECIPIENT, f"addressed to node {envelope.recipient.hex()}"
    if envelope.session != session:
        return ReasonCode.WRONG_SESSION, "the session nonce is not the one this node chose"
    if envelope.sender != claimed_sender:
        return ReasonCode.WRONG_IDENTITY, "the sender's key does not hash to the id the session was opened by"
    return None, ""


def check_reply(envelope: Envelope, *, method: str, request_digest: bytes) -> None:
    """Make sure that an opened envelope answers the request with `request_digest`.

    Raises `MisbehaviourError` (UNBOUND_REPLY) when it is a request, answers another one, or names another method.
    """
    if (
        envelope.kind is Kind.REQUEST
        or envelope.reply_to != request_digest
        or len(request_digest) != 32
        or envelope.method != method
    ):
        raise MisbehaviourError(
            ReasonCode.UNBOUND_REPLY,
            f"a {envelope.kind.name} that does not answer {method}",
            peer=envelope.sender.hex(),
        )
