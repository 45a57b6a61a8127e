"""The farmer on the open market: hears drafts, judges them as claims, calls renters with offers, keeps its word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stook.chore import Chore
from stook.codec import decode, encode
from stook.contracts.announcement import Announcement, SignedAnnouncement, sign_announcement
from stook.contracts.market import (
    MAX_ROUNDS,
    QUOTE_LIFE_MS,
    MarketMethod,
    Offer,
    OfferReply,
    Prices,
    Solicitation,
    addressed_to,
    bid,
    capacity_topic,
    read_solicitation,
    topics_served,
)
from stook.contracts.messages import MAX_ANNOUNCEMENTS
from stook.contracts.topics import CONTRACT_PREFIX
from stook.errors import (
    DeadlineError,
    EnvironmentFault,
    MalformedError,
    PeerError,
    ReasonCode,
    RefusedError,
    UnreachableError,
)
from stook.farmer.admission import Decline, Situation, decide
from stook.farmer.asking import Callers, Quote, Quotes
from stook.farmer.herald import Herald
from stook.farmer.parts import Parts
from stook.farmer.settings import MarketSettings
from stook.farmer.status import MarketStatus, MarketTally
from stook.ids import PublicKey
from stook.overlay.publication import SignedPublication
from stook.overlay.pubsub import Acquaintances, Neighbourhood, PubSub
from stook.wire.endpoint import Endpoint, Peer

OFFER_DEADLINE_SECONDS = 10.0


class MarketDesk:
    """One farmer's dealings on the market. `pubsub` gives it what is published on its topics."""

    def __init__(self, parts: Parts, endpoint: Endpoint, herald: Herald, settings: MarketSettings) -> None:
        self._parts = parts
        self._endpoint = endpoint
        self._herald = herald
        self._settings = settings
        self._quotes = Quotes()
        self._callers = Callers()
        self._talks = 0
        self.tally = MarketTally()

    # --- topics ------------------------------------------------------------------------------------------------------

    async def attend(self, pubsub: PubSub) -> None:
        """Be subscribed to what we serve as things stand; to nothing while we take nothing."""
        announcement = await self._parts.offload(self._herald.announcement)
        settings = self._settings
        served = topics_served(announcement, settings.availability, settings.speed) if announcement.free_bytes else ()
        pubsub.subscribe(served)

    async def advertise(self, pubsub: PubSub) -> int:
        """Publish our announcement on its capacity topic, unless it says that nothing is free; how many took it."""
        await self.attend(pubsub)
        signed = await self._herald.signed()
        if not signed.announcement.free_bytes:
            return 0
        topic = capacity_topic(signed.announcement, self._settings.availability, self._settings.speed)
        taken = await pubsub.publish(topic, encode(signed))
        self.tally.advertised += bool(taken)
        return taken

    # --- drafts ------------------------------------------------------------------------------------------------------

    def heard(self, signed: SignedPublication) -> None:
        """Something was published on one of our topics. Considered in the background."""
        if signed.publication.topic[0] != CONTRACT_PREFIX:
            return
        self.tally.drafts_heard += 1
        if self._talks >= self._settings.max_talks:
            self.tally.passed_over[ReasonCode.BUSY] += 1
            return
        self._talks += 1
        self._endpoint.spawn(self._consider(signed))

    async def _consider(self, signed: SignedPublication) -> None:
        publication = signed.publication
        try:
            found = read_solicitation(
                publication.topic,
                publication.originator_key,
                publication.contents,
                network=self._parts.network,
                now_ms=self._parts.clock.now_ms(),
            )
            await self._talk(found)
        except RefusedError as refusal:
            self._pass_over(signed, refusal.code, refusal.detail)
        except MalformedError as error:
            self._pass_over(signed, ReasonCode.MALFORMED, str(error))
        except EnvironmentFault as fault:
            self._parts.log.error("this machine failed", renter=signed.originator.hex(), why=str(fault))
        finally:
            self._talks -= 1

    def _pass_over(self, signed: SignedPublication, code: ReasonCode, detail: str) -> None:
        self.tally.passed_over[code] += 1
        self._parts.log.debug("draft passed over", renter=signed.originator.hex(), code=code.name, why=detail)

    async def _talk(self, found: Solicitation) -> None:
        parts, places = self._parts, found.contact.contact.addresses
        if not self._callers.may_call(places, parts.clock.now_ms(), found.draft.renter_key):
            raise RefusedError(ReasonCode.RATE_LIMITED, "this renter's address did not answer lately")
        if not self._callers.first_time(found.digest, parts.clock.now_ms()):
            return
        announcement, count = await parts.offload(lambda: self._judge(found))
        signed = sign_announcement(announcement, parts.key)
        wanted = bid(found.draft)
        for turn in range(MAX_ROUNDS):
            prices = self._settings.strategy.offer(announcement, wanted, turn)
            if prices is None:
                raise RefusedError(ReasonCode.PRICE_TOO_LOW, "the renter pays less than we take")
            reply = await self._offer(found, signed, turn, count, prices)
            if reply is None or not reply.code:
                return
            self.tally.refused[reply.code] += 1
            if reply.counter is None:
                return
            wanted = reply.counter

    def _judge(self, found: Solicitation) -> tuple[Announcement, int]:
        """What we say of ourselves now, and how many contracts we would make. Blocks. Raises `RefusedError`."""
        parts = self._parts
        view = self._herald.view()
        announcement = self._herald.announcement(view)
        draft = addressed_to(found.draft, announcement)
        unfilled = parts.contracts.reserved_by(draft.renter_key)
        situation = Situation(
            announcement=announcement,
            asker=draft.renter_key,
            view=view,
            unfilled_bytes=unfilled,
            now_ms=parts.clock.now_ms(),
            held={},
            taken_roots=frozenset(),
            leaving=bool(parts.leaving.by_ms),
        )
        decision = decide(draft, parts.settings.terms, situation)
        if isinstance(decision, Decline):
            raise RefusedError(decision.code, decision.detail)
        room = min(announcement.free_bytes, parts.settings.terms.max_unfilled_bytes_per_renter - unfilled)
        return announcement, max(1, min(found.count, room // draft.shard_size_bytes))

    async def _offer(
        self,
        found: Solicitation,
        announcement: SignedAnnouncement,
        turn: int,
        count: int,
        prices: Prices,
    ) -> OfferReply | None:
        """Make an offer; None when nobody answered. It binds us from before it is sent until it is refused."""
        parts, renter = self._parts, found.draft.renter_key
        now_ms = parts.clock.now_ms()
        quote = Quote(prices, now_ms + QUOTE_LIFE_MS, count)
        self._quotes.give(renter, quote)
        request = Offer(
            solicitation=found.digest,
            announcement=announcement,
            round=turn,
            count=count,
            prices=prices,
            valid_until_ms=quote.valid_until_ms,
        )
        self.tally.offers_made += 1
        was_here = self._endpoint.has_session(found.contact.node_id)
        try:
            answer = await self._endpoint.call(
                Peer.of(found.contact), MarketMethod.OFFER, encode(request), deadline_seconds=OFFER_DEADLINE_SECONDS
            )
            reply = decode(OfferReply, answer)
        except PeerError as error:
            if isinstance(error, RefusedError) and error.code is ReasonCode.NOT_ASKED:
                self._quotes.take_back(renter, quote)
                self.tally.refused[error.code] += 1
            else:
                # Nobody is there, or somebody who is not the renter, or a renter that hears no offers.
                self._failed(found, error, was_here=was_here)
                self.tally.unreachable += 1
            return None
        if (dialled := self._endpoint.dialled(found.contact.node_id)) is not None:
            self._callers.proved(renter, *dialled)
        if reply.code:
            self._quotes.take_back(renter, quote)
        else:
            self.tally.offers_kept += 1
        return reply

    def _failed(self, found: Solicitation, error: PeerError, *, was_here: bool) -> None:
        renter, now_ms = found.draft.renter_key, self._parts.clock.now_ms()
        if was_here:
            self._callers.failed_over_its_session(now_ms, renter)
        else:
            nobody = isinstance(error, UnreachableError | DeadlineError)
            self._callers.failed(found.contact.contact.addresses, now_ms, renter, for_all=nobody)

    # --- claims ------------------------------------------------------------------------------------------------------

    def tariff(self, renter: PublicKey, count: int) -> Prices | None:
        """At what prices so many drafts of this renter are judged, if it was offered any."""
        quote = self._quotes.open_to(renter, count, self._parts.clock.now_ms())
        return None if quote is None else quote.prices

    def spend(self, renter: PublicKey, count: int) -> None:
        """So many contracts were made at the offered prices."""
        quote = self._quotes.open_to(renter, count, self._parts.clock.now_ms())
        if quote is not None:
            quote.count -= count


class MarketStall:
    """The desk, the publish and subscribe that it hears by, and the chores of both. Built by `service.Farmer`."""

    def __init__(
        self,
        parts: Parts,
        endpoint: Endpoint,
        herald: Herald,
        settings: MarketSettings,
        neighbourhood: Neighbourhood | None,
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self._parts = parts
        self._herald = herald
        self._acquaintances = Acquaintances(neighbourhood, self._known)
        self._wanted = settings.rules.links
        self.desk = MarketDesk(parts, endpoint, herald, settings)
        self.pubsub = PubSub(
            endpoint=endpoint,
            key=parts.key,
            network=parts.network,
            clock=parts.clock,
            entropy=endpoint.entropy,
            neighbourhood=self._acquaintances,
            on_publication=self.desk.heard,
            on_error=on_error,
            rules=settings.rules,
            timing=settings.timing,
            puzzle_nonce=settings.puzzle_nonce,
            before=self._before_gossip,
        )
        self._advertise = Chore("advertise", settings.advertise_seconds, self.advertise, on_error)
        self.chores: Mapping[str, Chore] = {"gossip": self.pubsub.chore, "advertise": self._advertise}

    def status(self) -> MarketStatus:
        """What came of it so far."""
        return self.desk.tally.status(len(self.pubsub.quasar.neighbours))

    async def advertise(self) -> int:
        """Publish our announcement; how many nodes took it."""
        return await self.desk.advertise(self.pubsub)

    def _known(self) -> Sequence[SignedAnnouncement]:
        return self._parts.book.some(MAX_ANNOUNCEMENTS, now_ms=self._parts.clock.now_ms())

    async def _before_gossip(self) -> None:
        if len(self._acquaintances.neighbours()) < 2 * self._wanted:
            await self._herald.ask_seeds()
        await self.desk.attend(self.pubsub)
        if not self.desk.tally.advertised and self.pubsub.quasar.neighbours:
            self._advertise.trigger()
