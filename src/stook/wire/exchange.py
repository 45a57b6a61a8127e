"""One exchange: a signed request, its signed replies, and raw bytes either way."""

from __future__ import annotations

import asyncio

from typing_extensions import Buffer

from stook.errors import BugError, ReasonCode
from stook.ids import NodeId, PublicKey


class Exchange:
    """Both ends of one request. Made by `Endpoint`, never by hand.

    Any call raises `UnreachableError` once the session is lost, and `RefusedError` once the peer refused or reset the
    exchange (code CANCELLED when it merely left).
    """

    peer_id: NodeId
    """Who is at the other end; proved by its hello."""
    peer_key: PublicKey
    """The peer's public key."""
    method: str
    """The method of the request."""
    progress: int
    """Raw bytes received so far."""
    sent: int
    """Raw bytes sent so far."""

    async def next_reply(self) -> bytes:
        """Caller: the payload of the next signed reply.

        Raises `RefusedError` for a signed refusal, `MisbehaviourError` (TRUNCATED) when the peer ended without one.
        """
        raise BugError("exchange not wired")

    async def reply(self, payload: bytes) -> None:
        """Callee: send a signed reply; may be used more than once (an interim reply, then the last)."""
        raise BugError("exchange not wired")

    async def refuse(self, code: ReasonCode, detail: str = "", retry_after_ms: int = 0) -> None:
        """Callee: send a signed refusal; the exchange is over."""
        raise BugError("exchange not wired")

    async def send(self, data: Buffer) -> None:
        """Send raw bytes without copying them; waits for the peer's credit and the network.

        `data` may be reused on return. Raises `DeadlineError` when the peer takes less than the low-speed limit.
        """
        raise BugError("exchange not wired")

    async def finish(self) -> None:
        """Say that nothing more follows from this end, neither raw bytes nor replies."""
        raise BugError("exchange not wired")

    def post(self, buffer: memoryview) -> asyncio.Future[None]:
        """Offer `buffer` for the next raw bytes and let the peer send that many; done when it is full.

        Several may be posted: they are filled in order. This is how bytes keep flowing while earlier ones are hashed.
        """
        raise BugError("exchange not wired")

    async def receive_into(self, buffer: memoryview) -> None:
        """Fill `buffer` exactly with the next raw bytes.

        Raises `MisbehaviourError` (TRUNCATED) when the peer ends first, `DeadlineError` when it sends slower than the
        low-speed limit.
        """
        raise BugError("exchange not wired")

    async def expect_end(self) -> None:
        """Wait until the peer says that nothing more follows. Raises `MisbehaviourError` (TOO_LARGE) on raw bytes."""
        raise BugError("exchange not wired")
