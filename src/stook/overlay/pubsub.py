"""Publish and subscribe on the wire: a shell over `quasar.Quasar` that keeps neighbours and carries publications."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from stook.chore import Chore
from stook.clock import Clock, Entropy
from stook.codec import decode, encode
from stook.contracts.announcement import SignedAnnouncement
from stook.errors import DeadlineError, PeerError, ReasonCode, RefusedError
from stook.identity.contact import SignedContact
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId
from stook.overlay.bloom import Levels
from stook.overlay.publication import (
    MAX_TTL,
    Filters,
    Publish,
    QuasarMethod,
    SignedPublication,
    Subscribe,
    Taken,
    Update,
    Updated,
    sign_publication,
)
from stook.overlay.quasar import Forward, PubSubTiming, Quasar, QuasarRules, choose_neighbours
from stook.wire.endpoint import Endpoint, Exchange, Handler, Peer

_LONELY_ROUNDS = 4


class Neighbourhood(Protocol):
    """Where neighbours come from."""

    def neighbours(self) -> Sequence[SignedContact]:
        """Contacts that were verified. `overlay.ports.Overlay` fulfils it."""
        ...


class Pool(Neighbourhood, Protocol):
    """Where neighbours come from, and which of them cost more than a key."""

    def verified(self) -> Sequence[SignedContact]:
        """Those that answered at an address of their own."""
        ...


class Acquaintances:
    """A `Pool` of an overlay's contacts, if there is one, and of the nodes that announced themselves."""

    def __init__(
        self, overlay: Neighbourhood | None, announcements: Callable[[], Iterable[SignedAnnouncement]]
    ) -> None:
        self._overlay = overlay
        self._announcements = announcements

    def neighbours(self) -> Sequence[SignedContact]:
        """Each once; an overlay's own contact of a node before what that node announced."""
        known = {signed.node_id: signed.announcement.contact for signed in self._announcements()}
        known.update((contact.node_id, contact) for contact in self.verified())
        return list(known.values())

    def verified(self) -> Sequence[SignedContact]:
        """The overlay's alone."""
        return () if self._overlay is None else self._overlay.neighbours()


@dataclass(slots=True)
class _Lane:
    """The copies for one node, of which so many are handed over at once."""

    calls: asyncio.Semaphore
    copies: int = 0


class PubSub:
    """One node's publish and subscribe. Use it on the endpoint's loop.

    `serve` once the endpoint listens; `chore` runs `gossip`, which finds neighbours and tells them what changed.
    Everything that is published on a topic of ours is given to `on_publication`, once, verified. Each round begins with
    `before`, which may say what to be subscribed to.
    """

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        key: NodeKey,
        network: NetworkId,
        clock: Clock,
        entropy: Entropy,
        neighbourhood: Pool,
        on_publication: Callable[[SignedPublication], None],
        on_error: Callable[[str, Exception], None],
        rules: QuasarRules = QuasarRules(),  # noqa: B008 - a frozen value
        timing: PubSubTiming = PubSubTiming(),  # noqa: B008 - a frozen value
        puzzle_nonce: int = 0,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.quasar = Quasar(key.node_id, network, rules)
        self._endpoint = endpoint
        self._key = key
        self._network = network
        self._clock = clock
        self._entropy = entropy
        self._neighbourhood = neighbourhood
        self._on_publication = on_publication
        self._timing = timing
        self._puzzle_nonce = puzzle_nonce
        self._before = before
        self._peers: dict[NodeId, Peer] = {}
        self._told: dict[NodeId, tuple[Levels | tuple[()], int]] = {}
        """What each neighbour was told last, and when; nothing when it refused."""
        self._copies = 0
        self._lanes: dict[NodeId, _Lane] = {}
        self._publishing = asyncio.Semaphore(timing.calls_at_once)
        self._updating = asyncio.Semaphore(timing.calls_at_once)
        self._nudged: asyncio.TimerHandle | None = None
        self._lonely_seconds = timing.lonely_seconds
        self.chore = Chore("gossip", timing.gossip_seconds, self.gossip, on_error)

    def handlers(self) -> Mapping[str, Handler]:
        """What a member serves, by method."""
        return {
            QuasarMethod.SUBSCRIBE: self._on_subscribe,
            QuasarMethod.UPDATE: self._on_update,
            QuasarMethod.PUBLISH: self._on_publish,
        }

    def subscribe(self, topics: Iterable[bytes]) -> None:
        """Be subscribed to these topics and no others; neighbours are told soon."""
        if self.quasar.subscribe(topics):
            self._nudge()

    # --- neighbours --------------------------------------------------------------------------------------------------

    async def gossip(self) -> int:
        """One round: forget who is silent, ask for neighbours that are missing, tell all what they do not know yet.

        Returns how many neighbours there are.
        """
        if self._before is not None:
            await self._before()
        for gone in self.quasar.expire(self._clock.now_ms()):
            self._forget(gone)
        wanted = self._wanted()
        due, later = list[NodeId](), False
        for name in self.quasar.neighbours:
            if name not in wanted and self._is_due(name):
                if self._was_told_just_now(name):
                    later = True
                else:
                    due.append(name)
        if later:
            self._nudge(self._timing.again_ms / 1000)
        await asyncio.gather(
            *(self._tell(name, asked=True) for name in wanted), *(self._tell(name, asked=False) for name in due)
        )
        self._look_again_soon()
        return len(self.quasar.neighbours)

    def _look_again_soon(self) -> None:
        """Nobody yet: those that we know were not up, or knew nobody themselves."""
        if self.quasar.neighbours:
            self._lonely_seconds = self._timing.lonely_seconds
        elif self._lonely_seconds < self._timing.gossip_seconds:
            self._nudge(self._lonely_seconds)
            self._lonely_seconds *= 2

    def _wanted(self) -> list[NodeId]:
        asked = self.quasar.asked
        known = self._known(except_for=asked)
        missing = self.quasar.rules.links - len(asked)
        if missing <= 0:
            return []
        # One more than are missing, for some will have no room. Verified ones first: anybody can announce any number.
        verified = {one.node_id for one in self._neighbourhood.verified()}
        if self._lonely_seconds > _LONELY_ROUNDS * self._timing.lonely_seconds:
            verified = set(known)  # of those nobody seems to take part
        chosen = choose_neighbours([name for name in known if name in verified], missing + 1, self._entropy)
        others = [name for name in known if name not in verified]
        chosen += choose_neighbours(others, missing + 1 - len(chosen), self._entropy)
        self._peers.update((name, Peer.of(known[name])) for name in chosen)
        return chosen

    def _known(self, *, except_for: Iterable[NodeId]) -> dict[NodeId, SignedContact]:
        """Whom we could call, by id."""
        known = {one.node_id: one for one in self._neighbourhood.neighbours() if one.contact.addresses}
        for name in (self._key.node_id, *except_for):
            known.pop(name, None)
        return known

    def _is_due(self, name: NodeId) -> bool:
        levels, at_ms = self._told.get(name, ((), 0))
        return levels != self.quasar.filters_for(name) or self._clock.now_ms() - at_ms >= self._timing.refresh_ms

    def _was_told_just_now(self, name: NodeId) -> bool:
        return name in self._told and 0 <= self._clock.now_ms() - self._told[name][1] < self._timing.again_ms

    async def _tell(self, name: NodeId, *, asked: bool) -> None:
        """UPDATE one neighbour, or somebody who is to become one, and hear what it leads to."""
        levels = self.quasar.filters_for(name)
        request = Update(Filters.of(levels), self._endpoint.contact)
        try:
            async with self._updating:
                reply = await self._call(name, QuasarMethod.UPDATE, encode(request))
            heard = decode(Updated, reply).filters.read()
            changed = self.quasar.heard(name, heard, self._clock.now_ms(), asked=asked)
        except PeerError as error:
            busy = isinstance(error, RefusedError) and error.code is ReasonCode.RATE_LIMITED
            if busy and name in self.quasar.neighbours:
                # It is there, and others have kept it, or us, busy: it is told a little later.
                self._told[name] = (), self._clock.now_ms()
                self._nudge(self._timing.again_ms / 1000)
            else:
                self._forget(name)
            return
        self._told[name] = levels, self._clock.now_ms()
        if changed:
            self._nudge()

    async def ask(self, name: Peer) -> Levels:
        """What a node leads to, without becoming its neighbour. Raises `PeerError`."""
        reply = await self._endpoint.call(
            name, QuasarMethod.SUBSCRIBE, encode(Subscribe()), deadline_seconds=self._timing.deadline_seconds
        )
        return decode(Filters, reply).read()

    def _forget(self, name: NodeId) -> None:
        self.quasar.drop(name)
        self._peers.pop(name, None)
        self._told.pop(name, None)

    def _nudge(self, seconds: float | None = None) -> None:
        """Let a round begin soon, however many changes come until then."""
        if self._nudged is None:
            wait = self._timing.settle_seconds if seconds is None else seconds
            self._nudged = asyncio.get_running_loop().call_later(wait, self._settled)

    def _settled(self) -> None:
        self._nudged = None
        self.chore.trigger()

    def close(self) -> None:
        """Begin nothing more."""
        if self._nudged is not None:
            self._nudged.cancel()
            self._nudged = None

    # --- publications ------------------------------------------------------------------------------------------------

    async def publish(self, topic: bytes, contents: bytes, *, max_ttl: int = MAX_TTL) -> int:
        """Say something on a topic; how many nodes took it from us. Raises as `prepare` does."""
        return await self.prepare(topic, contents, max_ttl=max_ttl)

    def prepare(self, topic: bytes, contents: bytes, *, max_ttl: int = MAX_TTL) -> Coroutine[Any, Any, int]:
        """Sign something, and choose whom to hand it; awaiting the result hands it over, as slowly as the slowest.

        Raises `RefusedError` (RATE_LIMITED) when we publish more than others would take.
        """
        now_ms = self._clock.now_ms()
        signed = sign_publication(
            self._key,
            network=self._network,
            topic=topic,
            contents=contents,
            now_ms=now_ms,
            max_ttl=max_ttl,
            puzzle_nonce=self._puzzle_nonce,
        )
        received = self.quasar.publish(signed, ttl=max_ttl, now_ms=now_ms, dice=self._entropy)
        forward, strangers = received.forward, dict[NodeId, Peer]()
        missing = self._timing.entries - len(forward.to)
        if missing > 0:
            # With too few neighbours some of the nodes that we know, who take it because it is our own.
            known = self._known(except_for=forward.to)
            chosen = choose_neighbours(list(known), missing, self._entropy)
            forward = Forward((*forward.to, *chosen), max_ttl - 1, (self._key.node_id, *forward.to, *chosen))
            strangers = {name: Peer.of(known[name]) for name in chosen}
        return self._hand_out(signed, forward, strangers)

    async def _hand_out(self, signed: SignedPublication, forward: Forward, strangers: Mapping[NodeId, Peer]) -> int:
        return sum(
            await asyncio.gather(*(self._hand(name, signed, forward, strangers.get(name)) for name in forward.to))
        )

    async def _hand(
        self, name: NodeId, signed: SignedPublication, forward: Forward, stranger: Peer | None = None
    ) -> bool:
        """One copy to one node, or to another in its stead; whether anybody took it."""
        introduced = False
        while True:
            request = encode(Publish(signed, forward.ttl, forward.publishers))
            try:
                await self._hand_over(name, request, stranger)
            except RefusedError as refusal:
                if refusal.code is not ReasonCode.NOT_A_NEIGHBOUR:
                    return False
                if not introduced:
                    # It started anew, as a rule, and has forgotten us.
                    introduced = True
                    await self._tell(name, asked=name in self.quasar.asked)
                    if name in self.quasar.neighbours:
                        continue
            except PeerError:
                pass
            else:
                return True
            instead = self.quasar.failed(name, signed.publication.topic, forward, self._entropy)
            self._forget(name)
            if not instead.to:
                return False
            (name,), forward, stranger, introduced = instead.to, instead, None, False

    async def _forward(self, name: NodeId, signed: SignedPublication, forward: Forward) -> None:
        try:
            await self._hand(name, signed, forward)
        finally:
            self._copies -= 1

    async def _hand_over(self, name: NodeId, request: bytes, stranger: Peer | None) -> None:
        """PUBLISH one copy, in its turn. Raises `RefusedError` (BUSY) when enough wait for this node already."""
        lane = self._lanes.setdefault(name, _Lane(asyncio.Semaphore(self._timing.calls_each)))
        if lane.copies >= self._timing.copies_each:
            raise RefusedError(ReasonCode.BUSY, "it takes copies more slowly than they come")
        lane.copies += 1
        try:
            async with lane.calls:
                if stranger is None and name not in self.quasar.neighbours:
                    raise DeadlineError("dropped while this copy waited")
                async with self._publishing:
                    await self._call(name, QuasarMethod.PUBLISH, request, stranger)
        finally:
            lane.copies -= 1
            if not lane.copies:
                del self._lanes[name]

    async def _call(self, name: NodeId, method: str, payload: bytes, stranger: Peer | None = None) -> bytes:
        peer = stranger or self._peers.get(name) or Peer(name)
        return await self._endpoint.call(peer, method, payload, deadline_seconds=self._timing.deadline_seconds)

    # --- serving -----------------------------------------------------------------------------------------------------

    async def _on_subscribe(self, exchange: Exchange, payload: bytes) -> None:
        decode(Subscribe, payload)
        await exchange.reply(encode(Filters.of(self.quasar.filters_for(exchange.peer_id))))

    async def _on_update(self, exchange: Exchange, payload: bytes) -> None:
        request = decode(Update, payload)
        caller = exchange.peer_id
        contact = request.contact
        if contact is not None:
            if contact.node_id != caller or contact.contact.network != self._network:
                raise RefusedError(ReasonCode.WRONG_IDENTITY, "the contact is not the caller's own")
            if not contact.verifies():
                raise RefusedError(ReasonCode.BAD_SIGNATURE, "the contact is not signed by its node")
        changed = self.quasar.heard(caller, request.filters.read(), self._clock.now_ms())
        self._peers[caller] = Peer(caller) if contact is None else Peer.of(contact)
        levels = self.quasar.filters_for(caller)
        self._told[caller] = levels, self._clock.now_ms()
        await exchange.reply(encode(Updated(Filters.of(levels))))
        if changed:
            self._nudge()

    async def _on_publish(self, exchange: Exchange, payload: bytes) -> None:
        request = decode(Publish, payload)
        received = self.quasar.receive(
            request.signed,
            ttl=request.ttl,
            publishers=request.publishers,
            sender=exchange.peer_id,
            now_ms=self._clock.now_ms(),
            dice=self._entropy,
        )
        with suppress(PeerError):
            await exchange.reply(encode(Taken(received.known)))
        if received.deliver:
            self._on_publication(request.signed)
        for name in received.forward.to:
            if self._copies < self._timing.max_copies:
                self._copies += 1
                self._endpoint.spawn(self._forward(name, request.signed, received.forward))
