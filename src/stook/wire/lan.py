"""Datagrams on the local link: a multicast group of one interface, and answers (`docs/formats/beacon.md`)."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from stook.errors import EnvironmentFault
from stook.wire.carrier import OnDatagram

GROUP = "239.255.83.84"
PORT = 7483
MAX_DATAGRAM_BYTES = 512


class MulticastLink:
    """A link over UDP multicast on the interface with this IPv4 address; ``0.0.0.0`` is the system's choice."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._sockets: list[socket.socket] = []

    def open(self, on_datagram: OnDatagram) -> None:
        """Join the group. Two sockets: one hears the group; the other sends, and hears what is sent to this host."""
        loop = asyncio.get_running_loop()
        try:
            sending, hearing = self._socket(), self._socket()
            sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self._interface))
            sending.bind((self._interface, 0))
            hearing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # To the group's own address: what is sent to this host at that port from farther away is not heard.
            hearing.bind((GROUP, PORT))
            membership = socket.inet_aton(GROUP) + socket.inet_aton(self._interface)
            hearing.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        except OSError as error:
            self.close()
            raise EnvironmentFault(f"no beacons on {self._interface}: {error.strerror or error}") from None
        for sock in self._sockets:
            loop.add_reader(sock, self._read, sock, on_datagram)

    def send(self, data: bytes, to: tuple[str, int] | None = None) -> None:
        """One datagram."""
        if self._sockets:
            with contextlib.suppress(OSError):
                self._sockets[0].sendto(data, (GROUP, PORT) if to is None else to)

    def close(self) -> None:
        """Leave the group."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        self._sockets.append(sock)
        return sock

    @staticmethod
    def _read(sock: socket.socket, on_datagram: OnDatagram) -> None:
        with contextlib.suppress(OSError):
            data, source = sock.recvfrom(MAX_DATAGRAM_BYTES)
            on_datagram(data, (str(source[0]), int(source[1])))
