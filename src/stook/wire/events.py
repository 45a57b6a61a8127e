"""What a session tells its shell. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from stook.errors import PeerError, ReasonCode
from stook.identity.contact import SignedContact
from stook.identity.envelope import Refusal
from stook.ids import NodeId, PublicKey


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer's hello was good; messages may flow. `addressed` is False on a session that serves PROBE alone."""

    peer_id: NodeId
    peer_key: PublicKey
    version: int
    addressed: bool
    contact: SignedContact | None
    extension: bytes = b""
    """What else the hello said: in a private grid the peer's membership."""


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The peer opened an exchange."""

    exchange_id: int
    method: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """A signed reply to a request of ours."""

    exchange_id: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class RefusalReceived:
    """A signed refusal of a request of ours."""

    exchange_id: int
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class BufferFilled:
    """The oldest posted buffer of an exchange is full and belongs to its owner again."""

    exchange_id: int


@dataclass(frozen=True, slots=True)
class CreditReceived:
    """The peer lets us send more raw bytes."""

    exchange_id: int


@dataclass(frozen=True, slots=True)
class EndReceived:
    """Nothing more follows from the peer on this exchange."""

    exchange_id: int


@dataclass(frozen=True, slots=True)
class ResetReceived:
    """The peer gave the exchange up."""

    exchange_id: int
    code: ReasonCode


@dataclass(frozen=True, slots=True)
class GoodbyeReceived:
    """The peer accepts no new exchange; ours above `last_exchange` were never looked at. `now_ms` is its time."""

    code: ReasonCode
    now_ms: int
    last_exchange: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The peer broke a rule; the session is closed. Write what is outgoing, then close the carrier."""

    code: ReasonCode
    error: PeerError


Event: TypeAlias = (
    Opened
    | RequestReceived
    | ReplyReceived
    | RefusalReceived
    | BufferFilled
    | CreditReceived
    | EndReceived
    | ResetReceived
    | GoodbyeReceived
    | Broken
)
