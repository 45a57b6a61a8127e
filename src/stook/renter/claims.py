"""From "these shards" to countersigned contracts: choose farmers, claim at all of them at once, take what they sign.

One CLAIM per farmer carries the drafts of all segments that are placed together. A farmer is verified before anything
is signed; whoever declines, lies or is slow is passed over and its shards go elsewhere (`docs/protocol/placement.md`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stook.clock import Clock, Entropy
from stook.codec import decode, encode
from stook.contracts.announcement import Announcement
from stook.contracts.contract import Contract
from stook.contracts.messages import MAX_BATCH, Claim, ClaimReply, Method
from stook.contracts.negotiation import Declined, countersign, read_claim_reply
from stook.errors import PeerError, ReasonCode, named
from stook.identity.keys import NodeKey
from stook.ids import NodeId
from stook.renter.bargain import thrifty
from stook.renter.book import FarmerBook
from stook.renter.drafts import DraftRules, draft
from stook.renter.planner import Candidate, Demand, Spread, choose
from stook.renter.ports import Order
from stook.renter.tasks import Tasks
from stook.shards.memo import MEMO_VERSION, Memo, seal_memo
from stook.storage.renter_ports import Outcome, OutcomeKind, SegmentFacts
from stook.wire.endpoint import Endpoint

_ROUNDS = 4
_OURS = frozenset({ReasonCode.ALREADY_STORED})
"""An earlier contract of ours is in the way, given up but not cancelled yet: no fault of the farmer."""
_FULL = frozenset({ReasonCode.NO_SPACE, ReasonCode.DISK_LOW, ReasonCode.RESERVED_TOO_MUCH})


@dataclass(frozen=True, slots=True)
class ClaimTiming:
    """When a farmer's answer to a CLAIM is given up: `deadline_seconds` at the latest, and, once half the farmers
    asked have answered, `patience` times what the slower of those took, but not before `floor_seconds`.
    """

    deadline_seconds: float = 10.0
    patience: float = 4.0
    floor_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Won:
    """A contract for one index."""

    index: int
    farmer: NodeId
    contract: Contract


@dataclass(slots=True)
class _Need:
    """One order while it is being filled."""

    facts: SegmentFacts
    missing: list[int]
    holders: list[Candidate]
    barred: set[NodeId]
    copy: int = 0
    won: list[Won] = field(default_factory=list)
    shortage: str = ""
    refusals: dict[str, None] = field(default_factory=dict)
    """What farmers answered instead of a signature, in words; each once."""

    def words(self) -> str:
        """Why there are fewer than asked for."""
        return "; ".join((self.shortage, *self.refusals))


@dataclass(frozen=True, slots=True)
class _Want:
    need: _Need
    index: int


class ClaimDesk:
    """Makes contracts. Stores nothing: the caller stores what was won before showing it to anyone."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        key: NodeKey,
        mask_root: bytes,
        book: FarmerBook,
        rules: DraftRules,
        spread: Spread,
        clock: Clock,
        entropy: Entropy,
        timing: ClaimTiming = ClaimTiming(),
        thrift: float = 0.0,
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._mask_root = mask_root
        self._book = book
        self._rules = rules
        self._spread = spread
        self._clock = clock
        self._entropy = entropy
        self._timing = timing
        self._thrift = thrift

    def demand(self, k: int, count: int, shard_bytes: int) -> Demand:
        """What placement is asked for under this agent's rules."""
        return Demand(
            k=k,
            count=count,
            shard_bytes=shard_bytes,
            duration_ms=self._rules.duration_ms,
            settlement=self._rules.settlement,
            max_storage_price_per_gib_hour=self._rules.max_storage_price_per_gib_hour,
            max_download_price_per_gib=self._rules.max_download_price_per_gib,
            spread=self._spread,
        )

    async def claim(self, orders: Sequence[tuple[Order, Sequence[NodeId]]]) -> list[tuple[list[Won], str]]:
        """Contracts for the indices of each order, and a sentence about those that could not be had.

        Beside each order stand the farmers that hold shards of its segment already.
        """
        needs = [
            _Need(
                facts=order.facts,
                missing=list(order.indices),
                holders=[self._book.candidate(farmer) for farmer in holders],
                barred=set(order.excluding),
                copy=order.copy,
            )
            for order, holders in orders
        ]
        for _ in range(_ROUNDS):
            wants = self._assign(needs)
            if not wants:
                break
            await self._ask_all(wants)
        return [(need.won, need.words() if need.missing else "") for need in needs]

    def _assign(self, needs: Sequence[_Need]) -> Mapping[NodeId, list[_Want]]:
        wants: dict[NodeId, list[_Want]] = defaultdict(list)
        for need in needs:
            if not need.missing:
                continue
            choice = choose(
                thrifty(self._book.candidates(), self._thrift),
                self.demand(need.facts.k, len(need.missing), need.facts.shard_bytes),
                holders=need.holders,
                excluding=frozenset(need.barred),
                at_least=0,
                now_ms=self._clock.now_ms(),
                dice=self._entropy,
            )
            need.shortage = choice.shortage
            for farmer, index in zip(choice.chosen, need.missing, strict=False):
                wants[farmer].append(_Want(need, index))
                self._book.promise(farmer, need.facts.shard_bytes)
        return wants

    async def _ask_all(self, wants: Mapping[NodeId, list[_Want]]) -> None:
        started = self._clock.monotonic()
        async with Tasks() as group:
            running = {group.create_task(self._ask(farmer, asked)) for farmer, asked in wants.items()}
            answered, timeout = 0, self._timing.deadline_seconds
            while running:
                done, running = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    for task in running:
                        task.cancel()
                    break
                answered += len(done)
                if 2 * answered >= len(wants):
                    elapsed = self._clock.monotonic() - started
                    timeout = min(timeout, max(self._timing.floor_seconds, self._timing.patience * elapsed))

    async def _ask(self, farmer: NodeId, wants: Sequence[_Want]) -> None:
        try:
            at = 0
            while at < len(wants):
                size = min(MAX_BATCH, self._book.quoted_count(farmer) or MAX_BATCH)
                await self._ask_batch(farmer, wants[at : at + size])
                at += size
        except (PeerError, asyncio.CancelledError) as error:
            # The farmer may have reserved; without our consign its reservation lapses by itself.
            self._note(farmer, ok=False)
            for want in wants:
                want.need.refusals[f"farmer {farmer.hex()[:16]}: {error or 'no answer in time'}"] = None
                self._fail(farmer, want)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _ask_batch(self, farmer: NodeId, wants: Sequence[_Want]) -> None:
        signed = self._book.announcement(farmer)
        if signed is None:
            return
        now = self._clock.now_ms()
        tariff = self._book.tariff(signed)
        if self._too_dear(tariff):
            # Its offer, for which it was chosen, is used up, and it asks more of everybody else.
            for want in wants:
                self._fail(farmer, want)
            return
        drafts = tuple(
            draft(
                tariff,
                want.need.facts.roots[want.index],
                want.need.facts.shard_bytes,
                self._memo(want.need.facts, want.index, want.need.copy),
                self._rules,
                now,
            )
            for want in wants
        )
        reply = await self._endpoint.call(
            self._book.peer(farmer),
            Method.CLAIM,
            encode(Claim(drafts=drafts)),
            deadline_seconds=self._timing.deadline_seconds,
        )
        answers = read_claim_reply(drafts, decode(ClaimReply, reply))
        for want, answer in zip(wants, answers, strict=True):
            if isinstance(answer, Declined):
                self._declined(farmer, want, answer, offered=tariff is not signed.announcement)
                continue
            contract = countersign(answer.terms, answer.farmer_signature, self._key)
            want.need.won.append(Won(want.index, farmer, contract))
            want.need.missing.remove(want.index)
            want.need.holders.append(self._book.candidate(farmer))
        if tariff is not signed.announcement:
            self._book.spend_quote(farmer, sum(isinstance(answer, Contract) for answer in answers))
        self._note(farmer, ok=True)

    def _too_dear(self, tariff: Announcement) -> bool:
        return (
            tariff.storage_price_per_gib_hour > self._rules.max_storage_price_per_gib_hour
            or tariff.download_price_per_gib > self._rules.max_download_price_per_gib
        )

    def _declined(self, farmer: NodeId, want: _Want, answer: Declined, *, offered: bool) -> None:
        want.need.refusals[f"farmer {farmer.hex()[:16]} declined: {named(answer.code)} {answer.detail}"] = None
        if answer.code == ReasonCode.PRICE_TOO_LOW and offered:
            # It forgot what it offered, in a restart perhaps; it may be asked again at the price that it announces.
            self._book.drop_quote(farmer)
            self._book.promise(farmer, -want.need.facts.shard_bytes)
            return
        self._fail(farmer, want)
        if answer.code in _FULL:
            # Its announcement is out of date: take it as full until it announces itself again.
            self._book.promise(farmer, self._book.candidate(farmer).free_bytes)
        elif answer.code not in _OURS:
            self._note(farmer, ok=False)

    def _fail(self, farmer: NodeId, want: _Want) -> None:
        if want.index in want.need.missing:
            want.need.barred.add(farmer)
            self._book.promise(farmer, -want.need.facts.shard_bytes)

    def _note(self, farmer: NodeId, *, ok: bool) -> None:
        self._book.note(Outcome(farmer, OutcomeKind.CLAIM, ok, 0.0, self._clock.now_ms()))

    def _memo(self, facts: SegmentFacts, index: int, copy: int) -> bytes:
        return seal_memo(
            self._mask_root,
            Memo(
                version=MEMO_VERSION,
                segment_id=facts.segment_id,
                index=index,
                copy=copy,
                k=facts.k,
                total=facts.total,
                shard_bytes=facts.shard_bytes,
            ),
        )
