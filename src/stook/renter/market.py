"""The renter on the open market: publishes a draft, hears offers, bargains, and puts what it keeps into its book.

Nothing here makes a contract. What was kept becomes candidates and prices of the `FarmerBook`, from which the claim
desk places as ever, so an upload never waits for a market (`docs/protocol/market.md`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from stook.chore import Chore
from stook.clock import Clock
from stook.codec import decode, encode
from stook.contracts.announcement import SignedAnnouncement, is_fresh, verify_announcement
from stook.contracts.market import (
    MAX_ANSWER_MS,
    QUOTE_LIFE_MS,
    MarketMethod,
    Offer,
    OfferReply,
    Solicitation,
    asked,
    capacity_topics,
)
from stook.contracts.messages import MAX_BATCH
from stook.contracts.topics import CAPACITY_PREFIX, Degree, criteria_of, topic_of
from stook.errors import MalformedError, ReasonCode, RefusedError, UserError
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId
from stook.overlay.publication import MAX_TTL, SignedPublication
from stook.overlay.pubsub import Acquaintances, Neighbourhood, PubSub
from stook.overlay.quasar import PubSubTiming, QuasarRules
from stook.renter.bargain import Kept, RenterStrategy, Table
from stook.renter.book import FarmerBook
from stook.renter.drafts import DraftRules, market_draft
from stook.wire.endpoint import Endpoint, Exchange

RINGS = (3, 8, MAX_TTL)
"""Hops that a draft makes at first, then, and in the end: common topics are served by those nearby."""
MAX_FARMERS = 8192
"""So many have announced themselves lately before strangers are no longer learned of through the market."""
_TALKED_OUT = -1
LAST_PATIENCE = 3
"""When it can go no farther, so many times as long without a new offer ends it."""


@dataclass(frozen=True, slots=True)
class MarketOptions:
    """How an agent takes part in the open market."""

    offers_wanted: int = 24
    shard_bytes: int = 1 << 20
    """What the background round solicits for."""
    count: int = 64
    """Contracts of each farmer that it solicits for."""
    every_seconds: float = 300.0
    """How often the background round looks whether there are offers enough."""
    ring_seconds: float = 2.0
    """So long without a new offer, and the draft is published farther."""
    answer_seconds: float = 15.0
    availability: Degree = Degree.MEDIUM
    speed: Degree = Degree.MEDIUM
    strategy: RenterStrategy | None = None
    """None: `Bargain` with the agent's price limits."""
    thrift: float = 1.0
    """How much more weight the cheaper have when shards are placed; 0: none."""
    rules: QuasarRules = field(default_factory=QuasarRules)
    timing: PubSubTiming = field(default_factory=PubSubTiming)
    puzzle_nonce: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """One thing that happened on the market, for people and programs that watch."""

    event: str
    """offer, or capacity."""
    farmer: NodeId
    storage_price_per_gib_hour: int
    download_price_per_gib: int
    code: int = 0
    """0: kept; else why not."""
    detail: str = ""
    round: int = 0
    count: int = 0
    countered: bool = False


@dataclass(slots=True)
class Solicited:
    """What came of one solicitation."""

    wanted: int
    kept: dict[NodeId, Kept] = field(default_factory=dict)
    offers: int = 0
    """Rounds counted singly."""
    refused: Counter[int] = field(default_factory=Counter)
    published: int = 0
    """Publications; each travels farther than the one before."""
    seconds: float = 0.0


@dataclass(slots=True)
class _Open:
    """A solicitation that offers are heard to."""

    solicitation: Solicitation
    result: Solicited
    talking: dict[NodeId, int] = field(default_factory=dict)
    """The next round of each farmer that was answered with a counter-offer."""
    news: asyncio.Event = field(default_factory=asyncio.Event)


async def _done(work: Coroutine[Any, Any, int]) -> None:
    await work


def _nobody(heard: Heard) -> None:
    """Nobody watches."""


class Market:
    """One agent's dealings on the market. `serve` before the first `solicit`; the endpoint must be callable.

    `chores` keep neighbours and stock; `watcher` may be set to see everything that is heard.
    """

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        network: NetworkId,
        key: NodeKey,
        clock: Clock,
        book: FarmerBook,
        rules: DraftRules,
        strategy: RenterStrategy,
        options: MarketOptions,
        neighbourhood: Neighbourhood | None,
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self._endpoint = endpoint
        self._network = network
        self._clock = clock
        self._book = book
        self._rules = rules
        self.pubsub = PubSub(
            endpoint=endpoint,
            key=key,
            network=network,
            clock=clock,
            entropy=endpoint.entropy,
            neighbourhood=Acquaintances(neighbourhood, book.announcements),
            on_publication=self.heard,
            on_error=on_error,
            rules=options.rules,
            timing=options.timing,
            puzzle_nonce=options.puzzle_nonce,
        )
        self._strategy = strategy
        self._options = options
        self._open: dict[bytes, _Open] = {}
        self.watcher: Callable[[Heard], None] = _nobody
        """Told of everything that is heard."""
        self.offers_heard = 0
        self.chores = (self.pubsub.chore, Chore("market", options.every_seconds, self.stock_up, on_error))

    def serve(self) -> None:
        """Hear offers, and what farmers publish of their capacity."""
        self._endpoint.handle(MarketMethod.OFFER, self._on_offer)
        for method, handler in self.pubsub.handlers().items():
            self._endpoint.handle(method, handler)
        self.pubsub.subscribe(capacity_topics(self._criteria(self._options.shard_bytes)))

    def _criteria(self, shard_bytes: int) -> bytes:
        options = self._options
        return criteria_of(shard_bytes, self._rules.duration_ms, options.availability, options.speed)

    # --- asking ------------------------------------------------------------------------------------------------------

    async def stock_up(self) -> Solicited | None:
        """The background round: solicit when fewer offers stand than are wanted; None when they are enough."""
        options = self._options
        if self._book.quotes_for(options.count) >= options.offers_wanted:
            return None
        return await self.solicit(options.shard_bytes, options.count)

    async def solicit(
        self, shard_bytes: int, count: int, *, offers_wanted: int | None = None, seconds: float | None = None
    ) -> Solicited:
        """Publish a draft, ever farther, until enough offers are kept or the time is over; then hear no more.

        Raises `RefusedError` when we published too much lately, `UserError` when we cannot be called.
        """
        contact = self._endpoint.contact
        if contact is None or not contact.contact.addresses:
            raise UserError("this node has no address to hear offers at: set `listen` or `advertise` under [node]")
        options = self._options
        wanted = options.offers_wanted if offers_wanted is None else offers_wanted
        limit = min(options.answer_seconds if seconds is None else seconds, MAX_ANSWER_MS / 1000)
        now_ms = self._clock.now_ms()
        solicitation = Solicitation(
            draft=market_draft(self._rules, shard_bytes, self._criteria(shard_bytes), self._strategy.opening(), now_ms),
            count=min(count, MAX_BATCH),
            offers_wanted=wanted,
            answer_by_ms=now_ms + int(limit * 1000),
            contact=contact,
        )
        if solicitation.digest in self._open:
            raise RefusedError(ReasonCode.RATE_LIMITED, "the same was asked this very moment", retry_after_ms=1)
        opened = _Open(solicitation, Solicited(wanted))
        self._open[solicitation.digest] = opened
        began = self._clock.monotonic()
        try:
            await self._publish_until(opened, limit, began)
        finally:
            del self._open[solicitation.digest]
            opened.result.seconds = self._clock.monotonic() - began
        return opened.result

    async def _publish_until(self, opened: _Open, limit: float, began: float) -> None:
        topic, contents = topic_of(opened.solicitation.draft.criteria), encode(opened.solicitation)
        for ttl in RINGS:
            try:
                handing_over = self.pubsub.prepare(topic, contents, max_ttl=ttl)
            except RefusedError:
                if opened.result.published:
                    return  # what was heard nearby is better than nothing
                raise
            # Behind, for one that does not answer may hold it up long after others have made their offers.
            self._endpoint.spawn(_done(handing_over))
            opened.result.published += 1
            while len(opened.result.kept) < opened.result.wanted:
                left = limit - (self._clock.monotonic() - began)
                if left <= 0:
                    return
                patience = self._options.ring_seconds * (LAST_PATIENCE if ttl == RINGS[-1] else 1)
                opened.news.clear()
                try:
                    async with asyncio.timeout(min(left, patience)):
                        await opened.news.wait()
                except TimeoutError:
                    break
            else:
                return

    # --- hearing -----------------------------------------------------------------------------------------------------

    async def _on_offer(self, exchange: Exchange, payload: bytes) -> None:
        offer = decode(Offer, payload)
        now_ms = self._clock.now_ms()
        self.offers_heard += 1
        opened = self._open.get(offer.solicitation)
        if opened is None or now_ms > opened.solicitation.answer_by_ms:
            raise RefusedError(ReasonCode.NOT_ASKED, "no solicitation of ours that is open")
        if offer.announcement.node_id != exchange.peer_id:
            raise RefusedError(ReasonCode.WRONG_IDENTITY, "a farmer offers for itself only")
        verify_announcement(offer.announcement, network=self._network, now_ms=now_ms)
        if not is_fresh(offer.announcement.announcement, now_ms):
            raise RefusedError(ReasonCode.STALE, "the announcement is of yesterday")
        farmer = exchange.peer_id
        if offer.round != opened.talking.get(farmer, 0):
            raise RefusedError(ReasonCode.NOT_ASKED, "that is not the next round")
        if self._is_full_of_others(farmer):
            raise RefusedError(ReasonCode.RATE_LIMITED, "too many farmers are known here")
        opened.talking[farmer] = _TALKED_OUT  # until this round is answered
        await self._book.learn([offer.announcement])
        reply = self._judge(offer, opened, now_ms)
        await exchange.reply(encode(reply))
        opened.news.set()

    def _judge(self, offer: Offer, opened: _Open, now_ms: int) -> OfferReply:
        farmer, result = offer.announcement.node_id, opened.result
        candidate = self._book.candidate(farmer)
        reply = self._strategy.answer(offer, candidate, Table(result.wanted, MappingProxyType(result.kept)))
        opened.talking[farmer] = offer.round + 1 if reply.counter is not None else _TALKED_OUT
        result.offers += 1
        if reply.code:
            result.refused[reply.code] += 1
        else:
            until_ms = min(offer.valid_until_ms, now_ms + QUOTE_LIFE_MS)
            result.kept[farmer] = Kept(candidate, offer.prices, offer.count, until_ms)
            self._book.keep_quote(farmer, offer.prices, offer.count, until_ms)
        self.watcher(
            Heard(
                "offer",
                farmer,
                offer.prices.storage_price_per_gib_hour,
                offer.prices.download_price_per_gib,
                code=reply.code,
                detail=reply.detail,
                round=offer.round,
                count=offer.count,
                countered=reply.counter is not None,
            )
        )
        return reply

    def heard(self, signed: SignedPublication) -> None:
        """Something was published on one of our topics: a farmer's announcement, if it is what it should be."""
        publication = signed.publication
        if publication.topic[0] != CAPACITY_PREFIX:
            return
        try:
            announcement = decode(SignedAnnouncement, publication.contents)
        except MalformedError:
            return
        if announcement.node_id != signed.originator:
            return
        if not self._is_full_of_others(announcement.node_id):
            self._endpoint.spawn(self._learn(announcement))

    async def _learn(self, announcement: SignedAnnouncement) -> None:
        if await self._book.learn([announcement]):
            prices = asked(announcement.announcement)
            self.watcher(
                Heard(
                    "capacity",
                    announcement.node_id,
                    prices.storage_price_per_gib_hour,
                    prices.download_price_per_gib,
                )
            )

    def _is_full_of_others(self, farmer: NodeId) -> bool:
        """Whether strangers, of whom anybody can be many, have filled the book; who is in it stays."""
        if len(self._book) < MAX_FARMERS or self._book.announcement(farmer) is not None:
            return False
        return len(self._book.announcements()) >= MAX_FARMERS
