"""A carrier without sockets: byte streams between endpoints of one process, in loop time.

A `Network` holds the listeners of all nodes. Its `Weather` decides, chunk by chunk, whether the link is cut, how long
bytes take, and how fast they flow; without one, bytes arrive on the next turn of the loop. Like TCP, a stream delivers
every byte once and in order, or breaks: loss shows as delay (retransmission) or as a broken stream, never as a gap.
Only the loop's own clock is used, so a virtual-time loop sees everything at once (`docs/decisions`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import Buffer

from stook.clock import Entropy
from stook.errors import EnvironmentFault, UnreachableError
from stook.wire.carrier import Accept, Connection, Receiver

CHANNEL_BYTES = 32
CHUNK_BYTES = 64 * 1024
"""What travels at once; the weather is asked for each."""
HIGH_WATER_BYTES = 1024 * 1024
"""With more than this on the way, the sender is asked to pause."""
FIRST_FREE_PORT = 49152


@dataclass(frozen=True, slots=True)
class Passage:
    """How one chunk fares: it needs `seconds_on_wire` to leave, before which nothing of its stream follows it, and
    arrives `delay_seconds` after that; or the stream is stuck for good."""

    delay_seconds: float = 0.0
    seconds_on_wire: float = 0.0
    broken: bool = False


class Weather(Protocol):
    """The network between two hosts. An implementation draws its dice from a seeded source given to it."""

    def connects(self, source: str, target: str) -> Passage:
        """The way of a connection attempt; broken means that it never arrives (the caller's deadline decides)."""
        ...

    def carries(self, source: str, target: str, size_bytes: int) -> Passage:
        """The way of one chunk."""
        ...


class Calm:
    """Weather in which everything arrives at once."""

    def connects(self, source: str, target: str) -> Passage:
        """At once."""
        return _AT_ONCE

    def carries(self, source: str, target: str, size_bytes: int) -> Passage:
        """At once."""
        return _AT_ONCE


_AT_ONCE = Passage()


class Network:
    """All hosts that can reach one another in memory."""

    def __init__(self, entropy: Entropy, weather: Weather | None = None) -> None:
        self.weather: Weather = weather if weather is not None else Calm()
        self.entropy = entropy
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        # In the order they were opened, so that what is cut is cut in the same order in every run of a seed.
        self._streams: dict[MemoryConnection, None] = {}
        self._next_port = FIRST_FREE_PORT

    def carrier(self, host: str) -> MemoryCarrier:
        """The carrier of the node that lives on `host` (any name; it is also its address)."""
        return MemoryCarrier(self, host)

    def cut(self, host: str, other: str | None = None) -> int:
        """Break every open stream of `host` (with `other` only, if given); how many ends were cut."""
        hit = [
            stream
            for stream in self._streams
            if host in (stream.host, stream.remote[0]) and (other is None or other in (stream.host, stream.remote[0]))
        ]
        for stream in hit:
            stream.abort()
        return len(hit)

    def bind(self, listener: MemoryListener) -> None:
        """Open a port. Raises `EnvironmentFault` when it is taken."""
        if listener.address in self._listeners:
            raise EnvironmentFault(f"port {listener.address[1]} of {listener.address[0]} is taken")
        self._listeners[listener.address] = listener

    def unbind(self, listener: MemoryListener) -> None:
        """Close a port."""
        self._listeners.pop(listener.address, None)

    def find(self, host: str, port: int) -> MemoryListener | None:
        """Who listens there."""
        return self._listeners.get((host, port))

    def free_port(self) -> int:
        """A port nobody had before."""
        self._next_port += 1
        return self._next_port - 1

    def track(self, stream: MemoryConnection) -> None:
        """A stream is open."""
        self._streams[stream] = None

    def forget(self, stream: MemoryConnection) -> None:
        """A stream is over."""
        self._streams.pop(stream, None)


class MemoryListener:
    """An open port of a memory network."""

    def __init__(self, network: Network, host: str, port: int, accept: Accept) -> None:
        self._network = network
        self.accept = accept
        self._address = (host, port)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._address

    async def close(self) -> None:
        """Accept no more."""
        self._network.unbind(self)


class MemoryCarrier:
    """Connects from and listens on one host of a memory network."""

    def __init__(self, network: Network, host: str) -> None:
        self._network = network
        self.host = host

    async def listen(self, host: str, port: int, accept: Accept) -> MemoryListener:
        """Accept connections on this carrier's host, whatever `host` says (like a wildcard address)."""
        listener = MemoryListener(self._network, self.host, port or self._network.free_port(), accept)
        self._network.bind(listener)
        return listener

    async def connect(self, host: str, port: int, accept: Accept) -> Connection:
        """Open a stream; takes a round trip of the weather, or for ever if that is broken."""
        network = self._network
        there = network.weather.connects(self.host, host)
        back = network.weather.connects(host, self.host)
        if there.broken or back.broken:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(there.delay_seconds + back.delay_seconds)
        listener = network.find(host, port)
        if listener is None:
            raise UnreachableError(f"nobody listens at {host}:{port}")
        channel = network.entropy(CHANNEL_BYTES)
        ours = MemoryConnection(network, self.host, (host, port), channel)
        theirs = MemoryConnection(network, host, (self.host, network.free_port()), channel)
        theirs_receiver = listener.accept(theirs)
        if theirs_receiver is None:
            raise UnreachableError(f"{host}:{port} takes no more connections")
        receiver = accept(ours)
        if receiver is None:
            theirs_receiver.connection_lost(None)
            raise UnreachableError("this node takes no more connections")
        ours.join(theirs, receiver)
        theirs.join(ours, theirs_receiver)
        return ours


class MemoryConnection:
    """One end of a stream in memory."""

    def __init__(self, network: Network, host: str, remote: tuple[str, int], channel: bytes) -> None:
        self.host = host
        self._network = network
        self._remote = remote
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._peer: MemoryConnection | None = None
        self._receiver: Receiver | None = None
        self._on_the_way: deque[bytes] = deque()
        """Chunks written here and not yet taken by the peer, oldest first; b"" stands for the end of the stream."""
        self._unsent: deque[bytes] = deque()
        """Chunks written here that have not left yet."""
        self._leaving = False
        """A chunk is leaving now, or nothing ever leaves again."""
        self._backlog_bytes = 0
        self._last_arrival = 0.0
        self._paused = False
        self._closing = False
        self._over = False

    def join(self, peer: MemoryConnection, receiver: Receiver) -> None:
        """Tie both ends together."""
        self._peer = peer
        self._receiver = receiver
        self._network.track(self)

    @property
    def channel(self) -> bytes:
        """32 random bytes, the same at both ends."""
        return self._channel

    @property
    def remote(self) -> tuple[str, int]:
        """Host and port of the other end."""
        return self._remote

    @property
    def backlog_bytes(self) -> int:
        """Bytes on the way."""
        return self._backlog_bytes

    def write(self, pieces: Sequence[Buffer]) -> None:
        """Send a copy of `pieces`."""
        if self._over or self._closing:
            return
        for piece in pieces:
            view = memoryview(piece).cast("B")
            for at in range(0, len(view), CHUNK_BYTES):
                self._send(bytes(view[at : at + CHUNK_BYTES]))
        if self._backlog_bytes > HIGH_WATER_BYTES and not self._paused and self._receiver is not None:
            self._paused = True
            self._receiver.pause_writing()

    def close(self) -> None:
        """End the stream after what was written."""
        if not self._over and not self._closing:
            self._closing = True
            self._send(b"")

    def abort(self) -> None:
        """Break the stream; the peer learns of it as fast as the weather carries."""
        if self._over:
            return
        self._finish(None)
        peer = self._peer
        if peer is not None:
            passage = self._network.weather.carries(self.host, peer.host, 0)
            if not passage.broken:
                error = ConnectionResetError("the stream was broken")
                self._loop.call_later(passage.delay_seconds, peer._finish, error)

    def _send(self, chunk: bytes) -> None:
        """Put one chunk in line; chunks never overtake one another."""
        self._unsent.append(chunk)
        self._backlog_bytes += len(chunk)
        if not self._leaving:
            self._pump()

    def _pump(self) -> None:
        """Let chunks leave, one at a time: so streams that share a slow host take turns, as TCP's do."""
        self._leaving = False
        peer = self._peer
        while self._unsent and peer is not None and not self._over:
            chunk = self._unsent.popleft()
            passage = self._network.weather.carries(self.host, peer.host, len(chunk))
            self._on_the_way.append(chunk)
            if passage.broken:
                # Nothing more gets through this way, until somebody's deadline passes.
                self._leaving = True
                return
            now = self._loop.time()
            self._last_arrival = max(self._last_arrival, now + passage.seconds_on_wire + passage.delay_seconds)
            if self._last_arrival <= now:
                self._loop.call_soon(self._arrive)
            else:
                self._loop.call_at(self._last_arrival, self._arrive)
            if passage.seconds_on_wire > 0:
                self._leaving = True
                self._loop.call_later(passage.seconds_on_wire, self._pump)
                return

    def _arrive(self) -> None:
        """The oldest chunk on the way reaches the peer."""
        peer = self._peer
        if peer is None or not self._on_the_way:
            return
        chunk = self._on_the_way.popleft()
        self._backlog_bytes -= len(chunk)
        if peer._over:
            return
        if not chunk:
            peer._finish(None)
            self._finish(None)
            return
        peer._deliver(chunk)
        if self._paused and self._backlog_bytes <= HIGH_WATER_BYTES // 2 and self._receiver is not None:
            self._paused = False
            if not self._over:
                self._receiver.resume_writing()

    def _deliver(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while len(rest) and not self._over and self._receiver is not None:
            room = self._receiver.receive_buffer()
            size_bytes = min(len(room), len(rest))
            room[:size_bytes] = rest[:size_bytes]
            self._receiver.received(size_bytes)
            rest = rest[size_bytes:]

    def _finish(self, reason: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        self._network.forget(self)
        if self._receiver is not None:
            self._loop.call_soon(self._receiver.connection_lost, reason)
