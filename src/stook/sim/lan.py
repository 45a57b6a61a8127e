"""A local link in memory: what one host says, every other host on it hears, unless its cable is out."""

from __future__ import annotations

import asyncio

from stook.sim.network import SimNetwork
from stook.wire.carrier import OnDatagram

PORT = 7483
DELAY_SECONDS = 0.001


class SimLan:
    """One link. What cuts hosts off from one another in the network cuts them off here too."""

    def __init__(self, network: SimNetwork) -> None:
        self._network = network
        self._ears: dict[str, OnDatagram] = {}

    def link(self, host: str) -> SimLink:
        """A host's place on it."""
        return SimLink(self, host)

    def plug(self, host: str, ear: OnDatagram) -> None:
        """Let a host hear."""
        self._ears[host] = ear

    def unplug(self, host: str) -> None:
        """Let a host hear no more."""
        self._ears.pop(host, None)

    def carry(self, source: str, data: bytes, to: str | None) -> None:
        """Bring a datagram to one host, or to all others."""
        for host in (to,) if to is not None else tuple(self._ears):
            if host != source and self._network.reachable(source, host):
                asyncio.get_running_loop().call_later(DELAY_SECONDS, self._deliver, host, data, source)

    def _deliver(self, host: str, data: bytes, source: str) -> None:
        ear = self._ears.get(host)
        if ear is not None:
            ear(data, (source, PORT))


class SimLink:
    """A `stook.wire.carrier.LocalLink` on a `SimLan`."""

    def __init__(self, lan: SimLan, host: str) -> None:
        self._lan = lan
        self._host = host

    def open(self, on_datagram: OnDatagram) -> None:
        """Begin to listen."""
        self._lan.plug(self._host, on_datagram)

    def send(self, data: bytes, to: tuple[str, int] | None = None) -> None:
        """To everybody, or to one host."""
        self._lan.carry(self._host, data, None if to is None else to[0])

    def close(self) -> None:
        """Listen no more."""
        self._lan.unplug(self._host)
