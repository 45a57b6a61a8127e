"""What the farmer says of itself: its announcement, made from what it holds at this moment, and telling the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from stook.codec import decode, encode
from stook.contracts.announcement import Announcement, SignedAnnouncement, sign_announcement
from stook.contracts.messages import (
    MAX_ANNOUNCEMENTS,
    Announce,
    ContactsReply,
    ContactsRequest,
    Done,
    Method,
)
from stook.errors import PeerError, ReasonCode, RefusedError
from stook.farmer.admission import announcement_of
from stook.farmer.capacity import CapacityView
from stook.farmer.parts import Parts
from stook.wire.endpoint import Endpoint, Peer

ANNOUNCE_DEADLINE_SECONDS = 20.0


class Herald:
    """Makes announcements and carries them to the seeds."""

    def __init__(self, parts: Parts, endpoint: Endpoint, seeds: Sequence[Peer], accepting: Callable[[], bool]) -> None:
        self._parts = parts
        self._endpoint = endpoint
        self._seeds = tuple(seed for seed in seeds if seed.node_id != parts.key.node_id)
        self._accepting = accepting

    @property
    def seed_count(self) -> int:
        """How many seeds there are to tell, ourselves not counted."""
        return len(self._seeds)

    def view(self) -> CapacityView:
        """The picture of this moment. Blocks."""
        parts = self._parts
        return CapacityView.of(parts.settings.capacity, parts.contracts.totals(), parts.free_disk())

    def announcement(self, view: CapacityView | None = None) -> Announcement:
        """What every draft is judged by. Blocks. Raises `RefusedError` while the node has no address yet."""
        contact = self._endpoint.contact
        if contact is None:
            raise RefusedError(ReasonCode.BUSY, "this farmer is still starting", retry_after_ms=1000)
        return announcement_of(
            self._parts.settings.terms,
            contact,
            self.view() if view is None else view,
            accepting=self._accepting(),
            now_ms=self._parts.clock.now_ms(),
        )

    async def signed(self) -> SignedAnnouncement:
        """The announcement of this moment, signed."""
        return await self._parts.offload(lambda: sign_announcement(self.announcement(), self._parts.key))

    async def ask_seeds(self) -> None:
        """Learn from the seeds whom else they know: neighbours for publish and subscribe, where there is no overlay."""
        request = encode(ContactsRequest(limit=MAX_ANNOUNCEMENTS))
        for seed in self._seeds:
            try:
                reply = await self._endpoint.call(
                    seed, Method.CONTACTS, request, deadline_seconds=ANNOUNCE_DEADLINE_SECONDS
                )
                found = decode(ContactsReply, reply).announcements
            except PeerError as error:
                self._parts.log.info("seed not asked", seed=seed.node_id.hex(), why=str(error))
                continue
            for signed in found:
                if signed.node_id != self._parts.key.node_id:
                    with suppress(PeerError):
                        self._parts.book.add(signed, now_ms=self._parts.clock.now_ms())

    async def tell_seeds(self) -> int:
        """Announce to every seed, one after another; how many took it. A seed that does not is logged, no more."""
        if not self._seeds:
            return 0
        payload = encode(Announce(await self.signed()))
        told = 0
        for seed in self._seeds:
            try:
                reply = await self._endpoint.call(
                    seed, Method.ANNOUNCE, payload, deadline_seconds=ANNOUNCE_DEADLINE_SECONDS
                )
                decode(Done, reply)
            except PeerError as error:
                self._parts.log.warning("seed not told", seed=seed.node_id.hex(), why=str(error))
            else:
                told += 1
        if told:
            self._parts.tally.announced_ms = self._parts.clock.now_ms()
        return told
