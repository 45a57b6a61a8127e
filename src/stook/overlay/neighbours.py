"""Finding nodes on the local link, and being found: sends beacons, hears others', says who is new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stook.chore import Chore
from stook.clock import Clock
from stook.errors import EnvironmentFault
from stook.identity.keys import NodeKey
from stook.ids import NetworkId
from stook.overlay.beacon import BEACON_SECONDS, Neighbourhood, sign_beacon
from stook.wire.carrier import LocalLink
from stook.wire.endpoint import Peer

OnNeighbour = Callable[[Peer], None]
"""Told of a node that was not known on this link, or not at that address. It proved nothing yet: call it."""


class LanFinder:
    """One node on a local link. `port` is where it serves, 0 for a node that does not. Use it on one event loop."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network: NetworkId,
        port: int,
        link: LocalLink,
        clock: Clock,
        on_neighbour: OnNeighbour = lambda _: None,
        on_error: Callable[[str, Exception], None] = lambda _what, _error: None,
    ) -> None:
        self._key = key
        self._network = network
        self._port = port
        self._link = link
        self._clock = clock
        self._on_neighbour = on_neighbour
        self._around = Neighbourhood(network, key.node_id)
        self._on_error = on_error
        self._is_open = False
        self._heard = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.chore = Chore("beacon", BEACON_SECONDS, self.call_out, on_error)
        """To pause and to step."""

    async def start(self) -> None:
        """Listen, ask who is there, and go on telling. An interface that is not up yet is tried again each time."""
        await self.call_out()
        if self._port:
            self._task = asyncio.create_task(self.chore.run(), name="beacon")

    async def stop(self) -> None:
        """Be silent and deaf again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._link.close()
        self._is_open = False

    def neighbours(self) -> tuple[Peer, ...]:
        """Who was heard of late."""
        around = self._around.neighbours(now_ms=self._clock.now_ms())
        return tuple(Peer(one.node_id, (one.address,)) for one in around)

    async def ask(self, *, wait_seconds: float) -> tuple[Peer, ...]:
        """Ask who is there and wait for answers: until one came, and a tenth of the wait longer for others."""
        self._heard.clear()
        self._open()
        self._send(asks=True)
        try:
            async with asyncio.timeout(wait_seconds):
                await self._heard.wait()
                await asyncio.sleep(wait_seconds / 10)
        except TimeoutError:
            pass
        return self.neighbours()

    async def call_out(self) -> None:
        """One beacon to everybody; while nobody is known it asks."""
        self._open()
        self._send(asks=not self.neighbours())

    def _open(self) -> None:
        if not self._is_open:
            try:
                self._link.open(self._on_datagram)
                self._is_open = True
            except EnvironmentFault as error:
                self._on_error("beacon", error)

    def _send(self, *, asks: bool, to: tuple[str, int] | None = None) -> None:
        now_ms = self._clock.now_ms()
        self._link.send(sign_beacon(self._key, network=self._network, port=self._port, asks=asks, now_ms=now_ms), to)

    def _on_datagram(self, data: bytes, source: tuple[str, int]) -> None:
        heard = self._around.hear(data, source[0], now_ms=self._clock.now_ms())
        if heard is None:
            return
        if heard.answer and self._port:
            self._send(asks=False, to=source)
        if heard.neighbour is not None:
            self._heard.set()
            if heard.is_new:
                self._on_neighbour(Peer(heard.neighbour.node_id, (heard.neighbour.address,)))
