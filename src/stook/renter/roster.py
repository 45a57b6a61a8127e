"""Finding farmers: seeds are asked whom they know, farmers what they offer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from stook.clock import Clock
from stook.codec import decode, encode
from stook.contracts.announcement import SignedAnnouncement, is_fresh
from stook.contracts.messages import (
    MAX_ANNOUNCEMENTS,
    CapacityReply,
    CapacityRequest,
    ContactsReply,
    ContactsRequest,
    Method,
)
from stook.errors import PeerError, RefusedError
from stook.identity.contact import SignedContact
from stook.ids import NodeId
from stook.renter.book import FarmerBook
from stook.renter.tasks import Tasks
from stook.storage.renter_ports import Outcome, OutcomeKind
from stook.wire.endpoint import Endpoint, Peer

_DEADLINE_SECONDS = 10.0
_AT_ONCE = 32
_STALE_MS = 10 * 60_000
_SAMPLED = 64
"""Contacts looked at in one round of `discover`."""
Sample = Callable[[int], Awaitable[Sequence[SignedContact]]]
"""Gives so many contacts from all over the network (`stook.overlay.ports.Overlay.sample`)."""
_MAX_ASKED = 128
"""Farmers asked in one round, those with the oldest announcements first."""


class Roster:
    """Keeps the farmer book up to date from a static list, from seeds, and from the overlay."""

    def __init__(
        self,
        book: FarmerBook,
        endpoint: Endpoint,
        clock: Clock,
        seeds: Sequence[Peer],
        farmers: Sequence[Peer],
        sample: Sample | None = None,
    ) -> None:
        self._book = book
        self._endpoint = endpoint
        self._clock = clock
        self._seeds = tuple(seeds)
        self._farmers = tuple(farmers)
        self._sample = sample
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def refresh(self) -> None:
        """One round: seeds and named farmers, then known farmers whose word has grown old. Failures are only noted."""
        async with Tasks() as group:
            for seed in self._seeds:
                group.create_task(self._ask_seed(seed))
            for farmer in {peer.node_id: peer for peer in (*self._seeds, *self._farmers)}.values():
                group.create_task(self._ask_farmer(farmer))
        async with Tasks() as group:
            for node_id in self._stale():
                group.create_task(self._ask_farmer(self._book.peer(node_id)))

    async def discover(self) -> None:
        """One round in the overlay: contacts from all over it that we do not know are asked what they offer.

        Seeds see everybody or nobody, and may be gone; here every node is as good as any other.
        """
        if self._sample is None:
            return
        contacts = await self._sample(_SAMPLED)
        async with Tasks() as group:
            for contact in contacts:
                known = self._book.announcement(contact.node_id)
                if known is None or not is_fresh(known.announcement, self._clock.now_ms()):
                    group.create_task(self._ask_farmer(Peer.of(contact)))

    def _stale(self) -> list[NodeId]:
        before = self._clock.now_ms() - _STALE_MS
        named = {peer.node_id for peer in (*self._seeds, *self._farmers)}
        issued = {
            node_id: signed.announcement.issued_ms
            for node_id in self._book.farmers()
            if node_id not in named and (signed := self._book.announcement(node_id)) is not None
        }
        old = [node_id for node_id, issued_ms in issued.items() if issued_ms < before]
        return sorted(old, key=lambda node_id: issued[node_id])[:_MAX_ASKED]

    async def _ask_seed(self, seed: Peer) -> None:
        reply = await self._call(seed, Method.CONTACTS, encode(ContactsRequest(limit=MAX_ANNOUNCEMENTS)))
        if reply is None:
            return
        try:
            announcements: Sequence[SignedAnnouncement] = decode(ContactsReply, reply).announcements
        except PeerError:
            return
        await self._book.learn(announcements)

    async def _ask_farmer(self, farmer: Peer) -> None:
        reply = await self._call(farmer, Method.CAPACITY, encode(CapacityRequest()))
        if reply is None:
            return
        try:
            announcement = decode(CapacityReply, reply).announcement
        except PeerError:
            return
        # Nobody announces for another here: a farmer answers for itself or not at all.
        if announcement.node_id == farmer.node_id:
            await self._book.learn([announcement])

    async def _call(self, peer: Peer, method: Method, payload: bytes) -> bytes | None:
        async with self._gate:
            try:
                reply = await self._endpoint.call(peer, method, payload, deadline_seconds=_DEADLINE_SECONDS)
            except RefusedError:
                return None
            except PeerError:
                self._note(peer.node_id, ok=False)
                return None
        self._note(peer.node_id, ok=True)
        return reply

    def _note(self, farmer: NodeId, *, ok: bool) -> None:
        self._book.note(Outcome(farmer, OutcomeKind.REACH, ok, 0.0, self._clock.now_ms()))
