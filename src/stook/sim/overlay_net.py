"""A network of overlay nodes alone, on real sessions over the memory network: for tests and attacks.

``async with OverlayNet(30, seed=7) as net: ...`` inside `stook.sim.loop.run`. Every node has an address in a network of
its own, unless told otherwise, and remembers over its death what it has on disk in life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType

from stook.identity.contact import Address, AddressKind, SignedContact, sign_contact
from stook.identity.keys import NodeKey
from stook.ids import NodeId
from stook.overlay.memory import BlobMemory
from stook.overlay.service import OverlayNode, OverlaySettings
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK, node_key
from stook.sim.loop import InlineOffload, SimulationError, VirtualClock
from stook.sim.network import CALM, Path, SimNetwork
from stook.storage.blobs import MemoryBlobs
from stook.wire.endpoint import Endpoint, Peer
from stook.wire.limits import Limits

PORT = 4000


def address_of(number: int) -> str:
    """An IPv4 address in a /24 of this number's own."""
    return f"45.{number >> 8 & 255}.{number & 255}.1"


class OverlayPeer:
    """One node: its key, its host and its disk, whether it runs or not."""

    def __init__(
        self, net: OverlayNet, number: int, host: str, *, settings: OverlaySettings, seeds: Sequence[Peer]
    ) -> None:
        dice = net.dice.child(f"node-{number}")
        self.number = number
        self.host = host
        self.key: NodeKey = node_key(dice.child("key"))
        self.clock = VirtualClock()
        self.blobs = MemoryBlobs()
        self.seeds: Sequence[Peer] = seeds
        self.settings = settings
        self.peer = Peer(self.key.node_id, (Address(AddressKind.DIRECT, host, PORT),))
        self._net = net
        self._entropy = dice.child("entropy")
        self._endpoint: Endpoint | None = None
        self._overlay: OverlayNode | None = None

    @property
    def node_id(self) -> NodeId:
        """Its node id."""
        return self.key.node_id

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._overlay is not None

    @property
    def overlay(self) -> OverlayNode:
        """The running overlay. Raises `LookupError` while it is dead."""
        if self._overlay is None:
            raise LookupError(f"{self.host} does not run")
        return self._overlay

    @property
    def endpoint(self) -> Endpoint:
        """Its endpoint. Raises `LookupError` while it is dead."""
        if self._endpoint is None:
            raise LookupError(f"{self.host} does not run")
        return self._endpoint

    def contact(self) -> SignedContact:
        """Its contact as of now."""
        now_ms = self.clock.now_ms()
        return sign_contact(self.key, network=NETWORK, addresses=self.peer.addresses, sequence=now_ms, issued_ms=now_ms)

    def move(self, host: str) -> None:
        """Let it have another address from its next start on."""
        self.host = host
        self.peer = Peer(self.key.node_id, (Address(AddressKind.DIRECT, host, PORT),))

    async def start(self) -> None:
        """Bring it up on the disk that it had; it joins by itself when its chores run."""
        endpoint = Endpoint(
            key=self.key,
            network=NETWORK,
            clock=self.clock,
            entropy=self._entropy,
            carrier=self._net.network.carrier(self.host),
            limits=self._net.limits,
            on_error=self._net.error,
        )
        if self.settings.member:
            await endpoint.listen(self.host, PORT)
            endpoint.contact = self.contact()
        self._endpoint = endpoint
        self._overlay = OverlayNode(
            endpoint=endpoint,
            network=NETWORK,
            clock=self.clock,
            entropy=self._entropy,
            offload=InlineOffload(),
            memory=BlobMemory(self.blobs),
            seeds=self.seeds,
            settings=self.settings,
            on_error=self._net.error,
        )
        if not self._net.chores:
            for chore in self._overlay.chores.values():
                chore.pause()
        await self._overlay.start()

    async def stop(self) -> None:
        """An orderly end."""
        if self._overlay is not None and self._endpoint is not None:
            await self._overlay.stop()
            await self._endpoint.close(grace_seconds=0)
            self._overlay = self._endpoint = None

    async def die(self) -> None:
        """A sudden end: what is not on its disk is gone."""
        if self._overlay is not None and self._endpoint is not None:
            kept = {name: self.blobs.read(name) for name in self.blobs.names()}
            self._net.network.reset(self.host)
            await self._overlay.stop()
            await self._endpoint.close(grace_seconds=0)
            self._overlay = self._endpoint = None
            for name in self.blobs.names():
                self.blobs.remove(name)
            for name, data in kept.items():
                self.blobs.write(name, data or b"")


class OverlayNet:
    """Overlay nodes, the first of which is the others' seed. Chores stand still unless `chores`; `join_all` joins."""

    def __init__(
        self,
        nodes: int,
        *,
        seed: int,
        path: Path = CALM,
        chores: bool = False,
        settings: OverlaySettings = OverlaySettings(),  # noqa: B008 - a frozen value
        host_of: Callable[[int], str] = address_of,
    ) -> None:
        self.seed = seed
        self.dice = Dice(seed).child("overlay")
        self.network = SimNetwork(self.dice.child("network"), path)
        self.chores = chores
        self.limits = Limits(handshake_seconds=5.0)
        self.errors: list[tuple[str, Exception]] = []
        self.settings = settings
        self.nodes: list[OverlayPeer] = []
        for number in range(nodes):
            self.add(host_of(number))

    def add(self, host: str, *, member: bool = True) -> OverlayPeer:
        """One more node; it does not run yet."""
        seeds = [self.nodes[0].peer] if self.nodes else []
        settings = replace(self.settings, member=member)
        self.nodes.append(OverlayPeer(self, len(self.nodes), host, settings=settings, seeds=seeds))
        return self.nodes[-1]

    def error(self, where: str, error: Exception) -> None:
        """Note a bug."""
        self.errors.append((where, error))

    @property
    def living(self) -> list[OverlayPeer]:
        """Those that run."""
        return [node for node in self.nodes if node.alive]

    async def __aenter__(self) -> OverlayNet:
        try:
            for node in self.nodes:
                await node.start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()
        if error is not None:
            error.add_note(f"overlay of {len(self.nodes)} nodes, seed {self.seed}")
        elif self.errors:
            where, bug = self.errors[0]
            raise SimulationError(f"{len(self.errors)} bugs, the first in {where}: {bug!r}") from bug

    async def _stop(self) -> None:
        for node in self.nodes:
            await node.stop()

    async def join_all(self) -> None:
        """Let every node join, one after another."""
        for node in self.nodes:
            await node.overlay.join()

    async def step(self, *names: str) -> None:
        """One run of these chores at every living node."""
        for node in self.living:
            for name in names:
                await node.overlay.chores[name].step()

    async def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)
