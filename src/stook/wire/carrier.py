"""The port under the session: a byte stream both ways with a channel value that both ends can see.

Two adapters: `stook.wire.tcp` (TLS 1.3 over sockets) and `stook.wire.memory` (the simulator). Both pass
`tests/conformance/test_wire_carrier.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from typing_extensions import Buffer


class Receiver(Protocol):
    """Takes what a connection brings. Called on the event loop; never blocks."""

    def receive_buffer(self) -> memoryview:
        """Where the next bytes go: never empty. Fill it and call `received` before returning to the event loop."""
        ...

    def received(self, size_bytes: int) -> None:
        """The first `size_bytes` (at least 1) of the last `receive_buffer` have been filled."""
        ...

    def pause_writing(self) -> None:
        """The network takes no more for now: do not write bulk data."""
        ...

    def resume_writing(self) -> None:
        """The network takes bulk data again."""
        ...

    def connection_lost(self, reason: Exception | None) -> None:
        """The stream is over, for good; called exactly once. None is an orderly end."""
        ...


class Connection(Protocol):
    """One byte stream both ways. No method blocks; none raises after the stream is over."""

    @property
    def channel(self) -> bytes:
        """32 bytes that both ends see alike, and that nobody between them can imitate on both sides."""
        ...

    @property
    def remote(self) -> tuple[str, int]:
        """Host and port of the other end, for people and per-host limits."""
        ...

    @property
    def backlog_bytes(self) -> int:
        """Bytes written and not yet taken by the network."""
        ...

    def write(self, pieces: Sequence[Buffer]) -> None:
        """Send `pieces` in order. The buffers may be reused as soon as this returns."""
        ...

    def close(self) -> None:
        """Send what was written, then end the stream."""
        ...

    def abort(self) -> None:
        """End the stream now."""
        ...


Accept = Callable[[Connection], Receiver | None]
"""Builds the receiver of a new connection whose channel value is known; None turns the connection away."""


class Listener(Protocol):
    """An open port."""

    @property
    def address(self) -> tuple[str, int]:
        """The host and port really bound."""
        ...

    async def close(self) -> None:
        """Accept no more; connections made stay."""
        ...


class Carrier(Protocol):
    """Makes connections."""

    async def connect(self, host: str, port: int, accept: Accept) -> Connection:
        """Open a connection, its channel value known. Raises `UnreachableError`; the caller sets the deadline."""
        ...

    async def listen(self, host: str, port: int, accept: Accept) -> Listener:
        """Accept connections; port 0 takes a free one. Raises `EnvironmentFault` when the port cannot be bound."""
        ...


OnDatagram = Callable[[bytes, tuple[str, int]], None]
"""Told of a datagram and the host and port that it came from."""


class LocalLink(Protocol):
    """One host's place on a link. The simulator brings its own."""

    def open(self, on_datagram: OnDatagram) -> None:
        """Begin to listen. Raises `EnvironmentFault`."""
        ...

    def send(self, data: bytes, to: tuple[str, int] | None = None) -> None:
        """To everybody on the link, or to one host and port. Never raises: a datagram may be lost anyway."""
        ...

    def close(self) -> None:
        """Listen no more. Idempotent."""
        ...
