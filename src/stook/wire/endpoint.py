"""The door of this room: call nodes, serve calls, and know who is at the other end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from stook.clock import Clock, Entropy
from stook.errors import BugError
from stook.identity.contact import Address, SignedContact
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId
from stook.wire.carrier import Carrier
from stook.wire.exchange import Exchange
from stook.wire.limits import Limits

__all__ = ["Carrier", "Endpoint", "Exchange", "Handler", "Limits", "OnError", "Peer"]

Handler = Callable[[Exchange, bytes], Awaitable[None]]
"""Serves one method: gets the exchange and the request's payload. What it raises becomes a signed refusal."""
OnError = Callable[[str, Exception], None]
"""Told of exceptions that are nobody's answer: the method's name and the exception."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call, and where it may be found. Without addresses only a session it opened to us can reach it."""

    node_id: NodeId
    addresses: tuple[Address, ...] = ()

    @classmethod
    def of(cls, contact: SignedContact) -> Peer:
        """The peer that a contact describes."""
        return cls(contact.node_id, contact.contact.addresses)


class Endpoint:
    """One node's wire. Use it on one event loop; `close` it before the loop ends."""

    node_id: NodeId
    contact: SignedContact | None
    """Our own signed contact: sent in every hello and in answer to PROBE. Set it once the addresses are known."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network: NetworkId,
        clock: Clock,
        entropy: Entropy,
        carrier: Carrier,
        limits: Limits = Limits(),  # noqa: B008 - a frozen value
        puzzle_nonce: int = 0,
        on_error: OnError | None = None,
    ) -> None: ...

    def handle(self, method: str, handler: Handler) -> None:
        """Serve `method` (1 to 32 characters) with `handler`. PING and PROBE are served already."""
        raise BugError("endpoint not wired")

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept connections; the host and port really bound. Raises `EnvironmentFault`."""
        raise BugError("endpoint not wired")

    async def call(self, to: Peer, method: str, payload: bytes, *, deadline_seconds: float) -> bytes:
        """One request, one reply.

        Raises `RefusedError`, `UnreachableError`, `DeadlineError`, `MisbehaviourError` or `MalformedError`.
        """
        raise BugError("endpoint not wired")

    def exchange(
        self, to: Peer, method: str, payload: bytes, *, deadline_seconds: float
    ) -> AbstractAsyncContextManager[Exchange]:
        """Open an exchange; leaving the block before both ends finished resets it.

        The deadline covers the whole block; the errors are those of `call`.
        """
        raise BugError("endpoint not wired")

    async def probe(self, host: str, port: int, *, deadline_seconds: float) -> SignedContact:
        """Ask whoever listens at an address for its contact, checked against the key that answered."""
        raise BugError("endpoint not wired")

    async def ping(self, to: Peer, *, deadline_seconds: float) -> float:
        """Seconds for one signed request and reply on an open session."""
        raise BugError("endpoint not wired")

    async def close(self, *, grace_seconds: float = 5) -> None:
        """Accept nothing new, let exchanges under way finish for `grace_seconds`, then end every session."""
        raise BugError("endpoint not wired")
