"""The carrier over sockets: TLS 1.3 on TCP, OpenSSL driven by our own buffered protocol."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress

from typing_extensions import Buffer

from stook.buffers import give_up, reused_memory
from stook.errors import EnvironmentFault, UnreachableError
from stook.wire.carrier import Accept, Connection, Receiver
from stook.wire.tls import TlsIdentity, TlsStream, new_tls_identity

RAW_BYTES = 1024 * 1024
"""The most ciphertext taken from a socket at once; one buffer may serve all connections (see `_raw_buffer`)."""
HIGH_WATER_BYTES = 1024 * 1024
WHOLE_RECORD_BYTES = 16 * 1024
CONGESTION_CONTROL = b"bbr"
"""Paces by what arrives. The usual ones halve their speed at every loss, also where losses are no sign of congestion:
with 160 ms there and back and 1 % lost they give 0.1 MB/s, this one 5 (decision 0240).
"""
CLOSE_SECONDS = 5.0
"""How long an orderly close may take to flush before the connection is cut."""


class _Landing:
    """Where the bytes of sockets land before decryption; without a connection it takes no room."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self._users = 0

    def taken(self) -> None:
        """A connection stands."""
        self._users += 1

    def left(self) -> None:
        """A connection is gone."""
        self._users -= 1
        if not self._users:
            give_up(self.memory)


class TcpCarrier:
    """Connects and listens with one throw-away certificate, made now unless given."""

    def __init__(self, identity: TlsIdentity | None = None) -> None:
        self._identity = identity if identity is not None else new_tls_identity()
        self._shared: _Landing | None = None

    async def connect(self, host: str, port: int, accept: Accept) -> Connection:
        """Open a connection and finish the TLS handshake."""
        loop = asyncio.get_running_loop()
        stream = TlsStream(self._identity.client, server=False)
        connection = TcpConnection(stream, None, accept, self._raw_buffer(loop))
        try:
            await loop.create_connection(lambda: _Protocol(connection), host, port)
        except OSError as error:
            raise UnreachableError(f"{host}:{port}: {error.strerror or error}") from None
        except UnicodeError:
            # A label of more than 63 characters fits a contact, and no name in the DNS.
            raise UnreachableError(f"{host[:80]} is no host name") from None
        try:
            await connection.settled
        except asyncio.CancelledError:
            connection.abort()
            raise
        return connection

    async def listen(self, host: str, port: int, accept: Accept) -> TcpListener:
        """Accept connections."""
        loop = asyncio.get_running_loop()

        def build() -> _Protocol:
            stream = TlsStream(self._identity.server, server=True)
            connection = TcpConnection(stream, self._identity.channel, accept, self._raw_buffer(loop))
            return _Protocol(connection)

        try:
            server = await loop.create_server(build, host, port, reuse_address=True)
        except OSError as error:
            raise EnvironmentFault(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        except UnicodeError:
            raise EnvironmentFault(f"cannot listen on {host[:80]}:{port}: that is no host name") from None
        return TcpListener(server)

    def _raw_buffer(self, loop: asyncio.AbstractEventLoop) -> _Landing:
        """Where a socket's bytes land before decryption.

        asyncio's selector loop fills the buffer and hands it over within one callback, so all connections can share
        one; other loops may fill it between callbacks.
        """
        if not isinstance(loop, asyncio.SelectorEventLoop):
            return _Landing(memoryview(bytearray(RAW_BYTES // 4)))
        if self._shared is None:
            self._shared = _Landing(reused_memory(RAW_BYTES))
        return self._shared


class TcpListener:
    """An open TCP port."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        host, port = server.sockets[0].getsockname()[:2]
        self._address = (str(host), int(port))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really bound."""
        return self._address

    async def close(self) -> None:
        """Accept no more."""
        self._server.close()


class TcpConnection:
    """One TLS connection. Its receiver is made as soon as the channel value is known."""

    def __init__(self, stream: TlsStream, channel: bytes | None, accept: Accept, landing: _Landing) -> None:
        self._stream = stream
        self._channel = channel
        self._accept = accept
        self._landing = landing
        self.raw = landing.memory
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport | None = None
        self._remote = ("", 0)
        self._early: list[bytes] = []
        """What was written before the handshake was done."""
        self._closing = False
        self._cut: asyncio.TimerHandle | None = None
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the handshake is over; fails with `UnreachableError`."""
        self.settled.add_done_callback(lambda future: future.cancelled() or future.exception())

    # --- Connection --------------------------------------------------------------------------------------------------

    @property
    def channel(self) -> bytes:
        """SHA-256 of the server's certificate."""
        return self._channel or b""

    @property
    def remote(self) -> tuple[str, int]:
        """Host and port of the other end."""
        return self._remote

    @property
    def backlog_bytes(self) -> int:
        """Bytes in our own buffers."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def write(self, pieces: Sequence[Buffer]) -> None:
        """Encrypt and send."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._closing:
            return
        if not self._stream.ready:
            self._early.extend(bytes(piece) for piece in pieces)
            return
        try:
            self._stream.write(pieces)
        except ssl.SSLError as error:
            self._fail(error)
        else:
            transport.write(self._stream.take_ciphertext())

    def close(self) -> None:
        """Flush, then end the stream."""
        if self._transport is not None and not self._closing:
            self._closing = True
            if self._stream.ready:
                self._stream.say_end()
                self._flush()
            self._transport.close()
            self._cut = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """End the stream now."""
        if self._transport is not None:
            self._transport.abort()

    # --- what the protocol tells -------------------------------------------------------------------------------------

    def made(self, transport: asyncio.Transport) -> None:
        """The TCP connection stands."""
        self._transport = transport
        self._landing.taken()
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._remote = tuple(transport.get_extra_info("peername", ("", 0))[:2])
        _tune(transport.get_extra_info("socket"), self._remote[0])
        if self._channel is not None:
            self._make_receiver()
        self._shake()

    def arrived(self, size_bytes: int) -> None:
        """Ciphertext lies in the first `size_bytes` of `raw`."""
        stream = self._stream
        try:
            stream.put_ciphertext(self.raw[:size_bytes])
            if stream.ready or self._shake():
                self._decrypt()
        except ssl.SSLError as error:
            self._fail(error)

    def lost(self, error: Exception | None) -> None:
        """The TCP connection is gone."""
        if not self.settled.done():
            self.settled.set_exception(UnreachableError(f"the connection broke before TLS was up: {error}"))
        receiver, self._receiver = self._receiver, None
        if self._transport is not None:
            self._landing.left()
        self._transport = None
        if self._cut is not None:
            self._cut.cancel()
        if receiver is not None:
            receiver.connection_lost(error)

    def paused(self, paused: bool) -> None:
        """The transport's buffer is full, or has drained."""
        if self._receiver is not None:
            if paused:
                self._receiver.pause_writing()
            else:
                self._receiver.resume_writing()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _shake(self) -> bool:
        """Go on with the TLS handshake; whether it is done."""
        done = self._stream.shake()
        if done and self._early:
            self._stream.write(self._early)
            self._early.clear()
        self._flush()
        if done and not self.settled.done():
            if self._channel is None:
                self._channel = self._stream.peer_channel()
                self._make_receiver()
            self.settled.set_result(None)
        return done

    def _make_receiver(self) -> None:
        self._receiver = self._accept(self)
        if self._receiver is None:
            self.abort()

    def _decrypt(self) -> None:
        """Hand everything that can be decrypted to the receiver, straight into the buffers it gives."""
        read, receiver = self._stream.read_into, self._receiver
        while receiver is not None:
            room = receiver.receive_buffer()
            filled = read(room)
            if not filled:
                break
            if len(room) > WHOLE_RECORD_BYTES:
                # Each call yields one record: fill a large buffer before telling.
                while filled < len(room) and (more := read(room[filled:])):
                    filled += more
            receiver.received(filled)
            receiver = self._receiver
        if self._stream.ended:
            self.close()

    def _flush(self) -> None:
        ciphertext = self._stream.take_ciphertext()
        if ciphertext and self._transport is not None:
            self._transport.write(ciphertext)

    def _fail(self, error: Exception) -> None:
        if not self.settled.done():
            self.settled.set_exception(UnreachableError(f"no TLS: {error}"))
        self._flush()
        self.abort()


class _Protocol(asyncio.BufferedProtocol):
    """Ties asyncio's transport to a connection."""

    def __init__(self, connection: TcpConnection) -> None:
        self._connection = connection
        self._raw = connection.raw

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection.made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._raw

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.arrived(nbytes)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._connection.paused(True)

    def resume_writing(self) -> None:
        self._connection.paused(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lost(exc)


def _tune(sock: socket.socket | None, host: str) -> None:
    """Small frames leave at once; a peer that vanished is noticed; a lost packet is no reason to slow down."""
    if sock is None:
        return
    if hasattr(socket, "TCP_CONGESTION") and not _is_here(host):
        with suppress(OSError):  # a kernel without it, or one that does not let us
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_CONTROL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


def _is_here(host: str) -> bool:
    """Whether the other end is on this machine, where nothing is lost and the kernel's own choice is fastest."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
