"""Which sessions are open, to whom, and how a new one is made: one per peer, dialled once however many callers wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from stook.errors import MisbehaviourError, PeerError, UnreachableError
from stook.identity.contact import Address, AddressKind
from stook.ids import NodeId
from stook.wire.hello import Role
from stook.wire.limits import Limits
from stook.wire.link import Link

Dial = Callable[[str, int, NodeId], Awaitable[Link]]
"""Opens a session to the node expected at an address; the result is registered already."""


class Pool:
    """The links of one endpoint."""

    def __init__(self, limits: Limits, dial: Dial) -> None:
        self._limits = limits
        self._dial = dial
        # In the order they were made: a simulation of one seed must always take the same steps.
        self._links: dict[Link, None] = {}
        self._by_peer: dict[NodeId, list[Link]] = {}
        self._dialling: dict[NodeId, asyncio.Task[Link]] = {}

    @property
    def links(self) -> tuple[Link, ...]:
        """Every link, handshakes included."""
        return tuple(self._links)

    def peers(self) -> tuple[NodeId, ...]:
        """Who can be called without dialling."""
        return tuple(peer for peer, links in self._by_peer.items() if any(link.usable for link in links))

    def find(self, peer: NodeId) -> Link | None:
        """An open session with `peer`, the one with a free slot first; None when there is none."""
        usable = self.links_with(peer)
        return next((link for link in usable if link.session.can_open), usable[0] if usable else None)

    def links_with(self, peer: NodeId) -> list[Link]:
        """The open sessions with `peer`."""
        return [link for link in self._by_peer.get(peer, ()) if link.usable]

    def has_room(self, *, incoming: bool) -> bool:
        """Whether one more connection may be made; a silent newcomer or an idle session is closed for it if need be."""
        if incoming:
            self._cut_a_silent_one()
        if len(self._links) < self._limits.max_sessions:
            return True
        idle = [link for link in self._links if link.usable and link.idle]
        if not idle:
            return False
        oldest = min(idle, key=lambda link: link.idle_since)
        oldest.retire()
        # It counts until its connection is gone; a few may leave at the same time, never more than doubling the sum.
        return len(self._links) < 2 * self._limits.max_sessions

    def _cut_a_silent_one(self) -> None:
        """Make room among the handshakes: from the host that has most of them goes the oldest.

        Turning newcomers away instead would let one host keep everybody out with a few connections on which it says
        nothing. An honest handshake is over in a few round trips, and its host has hardly another under way.
        """
        greeting = [link for link in self._links if link.greeting and link.session.role is Role.RESPONDER]
        if len(greeting) >= self._limits.max_handshakes:
            crowd = Counter(link.remote[0] for link in greeting)
            silent = max(greeting, key=lambda link: crowd[link.remote[0]])
            silent.abort(UnreachableError("too many handshakes are under way"))

    def add(self, link: Link) -> None:
        """A connection was made."""
        self._links[link] = None

    def opened(self, link: Link) -> None:
        """A link's peer is known and may be called over it. Beyond the bound per peer, its oldest link is retired."""
        links = self._by_peer.setdefault(link.peer_id, [])
        links.append(link)
        if len([one for one in links if one.usable]) > self._limits.max_sessions_per_peer:
            next(one for one in links if one.usable).retire()

    def closed(self, link: Link) -> None:
        """A link's connection is gone."""
        self._links.pop(link, None)
        links = self._by_peer.get(link.peer_id, [])
        if link in links:
            links.remove(link)
            if not links:
                del self._by_peer[link.peer_id]

    async def reach(self, peer: NodeId, addresses: tuple[Address, ...]) -> Link:
        """A session with `peer`: an open one, or a new one. Raises `PeerError` when no address leads to it."""
        link = self.find(peer)
        if link is not None:
            return link
        dialling = self._dialling.get(peer)
        if dialling is None:
            dialling = asyncio.get_running_loop().create_task(self._dial_any(peer, addresses))
            self._dialling[peer] = dialling
            dialling.add_done_callback(lambda task: self._dialled(peer, task))
        return await asyncio.shield(dialling)

    async def stop_dialling(self) -> None:
        """Give up every dial under way."""
        tasks = list(self._dialling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _dialled(self, peer: NodeId, task: asyncio.Task[Link]) -> None:
        self._dialling.pop(peer, None)
        if not task.cancelled():
            task.exception()  # every caller may have left meanwhile

    async def _dial_any(self, peer: NodeId, addresses: tuple[Address, ...]) -> Link:
        """Try the addresses in order; the first failure that says most is raised."""
        failure: PeerError | None = None
        for address in addresses:
            if address.kind is not AddressKind.DIRECT:
                continue
            try:
                return await self._dial(address.host, address.port, peer)
            except PeerError as error:
                if failure is None or (isinstance(error, MisbehaviourError) and isinstance(failure, UnreachableError)):
                    failure = error
        raise failure or UnreachableError("no session is open and no address is known", peer=peer.hex())
