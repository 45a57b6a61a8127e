"""Repair: carries out what `repair_plan` decides, from ciphertext, within a day's bytes, and never twice.

A repair is written down (a flight) before anything is claimed for it, so that two processes of one home do not repair
the same shard, and an agent that was killed knows what it had begun. Contracts it had made are gone on with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from stook.audits.allowance import Allowance
from stook.clock import Clock, Offload
from stook.errors import MisbehaviourError, NotEnoughError, PeerError, ReasonCode
from stook.identity.keys import NodeKey
from stook.ids import NodeId, PublicKey, SegmentId, ShardRoot
from stook.renter.book import FarmerBook
from stook.renter.fetch import Fetcher, Wish
from stook.renter.pace import PushGoal
from stook.renter.ports import Agent, Located, Order
from stook.renter.push import Pusher
from stook.renter.repair_plan import RULES, Fate, HeldShard, RepairJob, RepairPlan, RepairView, Task, plan
from stook.renter.repair_views import HAZARD, groups_of, loss_chances, view_of
from stook.renter.slots import SlotPool
from stook.renter.tasks import Tasks
from stook.shards.erasure import Codec
from stook.shards.geometry import SegmentShape
from stook.shards.rebuild import NO_COPIES, SealedShard, rebuild
from stook.storage.agent_audit_ports import FlightRow
from stook.storage.renter_ports import AgentStore, Placement, PlacementState, SegmentFacts
from stook.wire.endpoint import Endpoint

BYTES = "repair bytes"
AGENT = b"agent"
"""Owner of the flights of an agent that runs by itself: there is one in a home, so at its start they are nobody's."""
CLIENT = b"client"
"""Owner of those that a command begins to fill what it has just stored."""
_PAGE = 256


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """What repair may cost, and how much more than one copy of each shard is wanted."""

    bytes_per_day: int = 256 << 30
    copies: int = 1
    """Masked copies of each index; above 1 they are made and kept by repair (white paper 2.7, mirroring)."""
    patience_ms: int = RULES.patience_ms
    """How long farmers that fell silent are waited for, as long as more than k shards are proved."""
    fill_after_ms: int = 10 * 60_000
    """Segments younger than this are left to the upload that is bringing them."""
    at_once: int = 4
    """Segments repaired beside each other, as far as there is memory for them."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What one round came to."""

    repaired: int = 0
    """Segments that got all the shards that were planned for them."""
    shards: int = 0
    """Shards brought to farmers."""
    unfinished: int = 0
    """Segments that got fewer, because farmers were away or full: the next round goes on."""
    waiting: int = 0
    """Segments left alone for now, because farmers fell silent only lately."""
    postponed: int = 0
    """Segments in need beyond the day's bytes."""
    given_up: int = 0
    """Segments that cannot be rebuilt unless farmers return."""


class Hand(Agent, Protocol):
    """What repair needs of its agent beside `Agent`."""

    def fetchable(self, facts: SegmentFacts, placements: Sequence[Placement], grantee: PublicKey) -> Located:
        """Tickets to fetch from just these placements, in this order."""
        ...


class Repairer:
    """The repairing part of a `LocalAgent`."""

    def __init__(
        self,
        *,
        agent: Hand,
        endpoint: Endpoint,
        key: NodeKey,
        book: FarmerBook,
        store: AgentStore,
        clock: Clock,
        offload: Offload,
        codec: Codec,
        settings: RepairSettings,
        slots: SlotPool,
        lapsing_within_ms: int = 0,
    ) -> None:
        self._agent = agent
        self._key = key
        self._book = book
        self._store = store
        self._clock = clock
        self._offload = offload
        self._codec = codec
        self._settings = settings
        self._slots = slots
        self._lapsing_within_ms = lapsing_within_ms
        self._repairing = asyncio.Lock()
        self._spending = asyncio.Lock()
        self._fetcher = Fetcher(agent=agent, endpoint=endpoint, clock=clock, offload=offload)
        self._pusher = Pusher(agent=agent, endpoint=endpoint, node_key=key.public_key, clock=clock)

    async def resume(self) -> int:
        """For the one agent of a home, at its start: what an earlier run had begun is nobody's now; how many shards."""
        return await self._offload(lambda: self._store.drop_flights(AGENT))

    async def repair_due(self) -> RepairReport:
        """One round, the segments nearest to loss first. Uploads that may be under way are left alone."""
        return await self._round(self._clock.now_ms() - self._settings.fill_after_ms, AGENT)

    async def repair_all(self, owner: bytes = AGENT) -> RepairReport:
        """The same for every segment, those just uploaded included. For when no upload is under way."""
        return await self._round(2**63 - 1, owner)

    async def planned(self) -> RepairPlan:
        """What a round would do now."""
        return (await self._plan(2**63 - 1))[0]

    # --- a round -----------------------------------------------------------------------------------------------------

    async def _round(self, created_before_ms: int, owner: bytes) -> RepairReport:
        async with self._repairing:
            await self._book.reload()
            decided, views = await self._plan(created_before_ms)
            jobs, whole, made = iter(decided.jobs), list[bool](), list[int]()

            async def work() -> None:
                for job in jobs:  # one walk for all: the next one is always the nearest to loss
                    shards = await self._run(job, views[job.segment_id], owner)
                    made.append(shards)
                    whole.append(shards >= len(job.tasks))

            async with Tasks() as group:
                for _ in range(min(self._settings.at_once, len(decided.jobs))):
                    group.create_task(work())
            return RepairReport(
                repaired=sum(whole),
                shards=sum(made),
                unfinished=len(whole) - sum(whole),
                waiting=len(decided.waiting),
                postponed=len(decided.postponed),
                given_up=len(decided.given_up),
            )

    async def _plan(self, created_before_ms: int) -> tuple[RepairPlan, Mapping[SegmentId, RepairView]]:
        now = self._clock.now_ms()
        dossiers = {each.farmer: each for each in self._book.dossiers()}
        barred = frozenset(
            farmer
            for farmer, each in dossiers.items()
            if not each.score.placeable(now) or not each.silence.may_be_given_more
        )
        doubtful = frozenset(
            farmer
            for farmer, each in dossiers.items()
            if each.score.crime is not None or not each.silence.may_be_given_more
        )
        chance, groups = loss_chances(dossiers.values(), now), _Groups(self._book)
        views: dict[SegmentId, RepairView] = {}
        after, fresh_ms, copies = b"", now - RULES.fresh_ms, self._settings.copies
        lapsing_ms = now + self._lapsing_within_ms
        while page := await self._offload(
            partial(self._store.segments_short, fresh_ms, doubtful, copies, _PAGE, after, lapsing_ms)
        ):
            after = page[-1]
            facts, placements, flights = await self._offload(partial(self._read, page))
            views |= {
                one.segment_id: view_of(
                    one,
                    placements[one.segment_id],
                    flights.get(one.segment_id, ()),
                    dossiers,
                    chance,
                    groups,
                    copies,
                    now,
                    self._lapsing_within_ms,
                )
                for one in facts.values()
                if one.created_ms <= created_before_ms
            }
        lost = HAZARD.within_window(HAZARD.group_loss_per_year)
        names = {name for view in views.values() for shard in view.held for name in shard.groups}
        decided = plan(
            views.values(),
            allowance=await self._allowance(),
            now_ms=now,
            group_lost=dict.fromkeys(names, lost),
            barred=barred,
            rules=replace(RULES, patience_ms=self._settings.patience_ms),
        )
        return decided, views

    def _read(
        self, page: Sequence[SegmentId]
    ) -> tuple[
        Mapping[SegmentId, SegmentFacts],
        Mapping[SegmentId, tuple[Placement, ...]],
        Mapping[SegmentId, tuple[FlightRow, ...]],
    ]:
        return self._store.segments(page), self._store.placements(page), self._store.flights(page)

    async def _allowance(self) -> Allowance:
        kept = await self._offload(lambda: self._store.allowance(BYTES))
        if kept is None or kept.per_day != self._settings.bytes_per_day:
            return Allowance.full(self._settings.bytes_per_day, self._clock.now_ms())
        return kept

    async def _spend(self, moved_bytes: int) -> None:
        async with self._spending:
            spent = (await self._allowance()).spend(moved_bytes, self._clock.now_ms())
            await self._offload(lambda: self._store.change(allowances={BYTES: spent}))

    # --- one segment -------------------------------------------------------------------------------------------------

    async def _run(self, job: RepairJob, view: RepairView, owner: bytes) -> int:
        """Make and bring what is planned for one segment, as far as farmers allow; how many shards."""
        now = self._clock.now_ms()
        await self._drop_lapsed(job.segment_id)
        flights = [FlightRow(job.segment_id, task.index, task.copy, now, owner) for task in job.tasks]
        if not await self._offload(lambda: self._store.begin_flights(flights, now - RULES.flight_ms)):
            return 0
        try:
            facts = (await self._offload(lambda: self._store.segments([job.segment_id]))).get(job.segment_id)
            if facts is None:
                return 0
            made = await self._rebuilt(facts, job, view)
            for task in job.tasks:
                if task.copy:
                    made += await self._copied(facts, job, task, view)
            return made
        except (NotEnoughError, PeerError):
            return 0  # farmers are away or full; the next round tries again
        finally:
            await self._offload(lambda: self._store.end_flights(flights))

    async def _drop_lapsed(self, segment_id: SegmentId) -> None:
        """Give up claims that were never brought: their farmers have let the reservation go by now."""
        now = self._clock.now_ms()
        placements = (await self._offload(lambda: self._store.placements([segment_id])))[segment_id]
        lapsed = [
            placement.contract_id
            for placement in placements
            if placement.state is PlacementState.CLAIMED and placement.contract.terms.consign_by_ms <= now
        ]
        await self._agent.abandon(lapsed)

    async def _rebuilt(self, facts: SegmentFacts, job: RepairJob, view: RepairView) -> int:
        """The missing indices, from any k others: the same bytes and roots as before."""
        wanted = [task.index for task in job.tasks if not task.copy][: facts.total - facts.k]
        if not wanted:
            return 0
        again = any(shard.index in wanted and shard.fate in (Fate.HELD, Fate.SILENT) for shard in view.held)
        if all(facts.roots[index] for index in wanted):
            # Claim before fetching anything: with no farmer to take them there is no work to do.
            order = Order(facts, tuple(wanted), job.excluding, again=again)
            (placed,) = await self._agent.place([order], self._key.public_key)
            wanted = [ticket.index for ticket in placed.tickets]
            if not wanted:
                return 0
        await self._spend(job.moved_bytes)
        located = await self._located(facts, job.sources)
        shape = SegmentShape(facts.k, facts.total, facts.shard_bytes)
        roots = {ticket.index: ticket.root for ticket in located.tickets}
        copies = {ticket.index: ticket.copy for ticket in located.tickets}
        wish = Wish(k=facts.k, shard_bytes=facts.shard_bytes, first_unit=0, end_unit=shape.stripes, roots=roots)
        async with self._slots.leased(shape, 0) as slot:
            rows = slot.rows(shape.shard_bytes)
            sources = rows[: facts.total - len(wanted)]
            targets = dict(zip(wanted, rows[facts.total - len(wanted) :], strict=True))
            have = await self._fetcher.fetch(located, wish, sources)
            made = await self._made(facts, have, targets, located, {index: copies[index] for index in have})
            whole = await self._learned(facts, made)
            goal = PushGoal(enough=len(made), full=len(made), spares=(), wanted=tuple(made))
            pushed = await self._pusher.push(whole, made, goal, excluding=job.excluding, again=again)
            return len(pushed.held & made.keys())

    async def _made(
        self,
        facts: SegmentFacts,
        have: Mapping[int, memoryview],
        targets: Mapping[int, memoryview],
        located: Located,
        copies: Mapping[int, int],
        target_copies: Mapping[int, int] = NO_COPIES,
    ) -> dict[int, SealedShard]:
        def work() -> dict[int, SealedShard]:
            with self._slots.scratch() as scratch:
                return rebuild(
                    have,
                    targets,
                    k=facts.k,
                    mask_key=located.mask_key,
                    codec=self._codec,
                    scratch=scratch,
                    copies=copies,
                    target_copies=target_copies,
                )

        return await self._offload(work)

    async def _learned(self, facts: SegmentFacts, made: Mapping[int, SealedShard]) -> SegmentFacts:
        """The segment with the roots that came out, where they were not known yet."""
        for index, shard in made.items():
            known = facts.roots[index]
            if known and known != shard.root:
                raise MisbehaviourError(
                    ReasonCode.HASH_MISMATCH, f"shard {index} came out other than it was: shards or mask key are wrong"
                )
        roots = tuple(made[at].root if at in made else root for at, root in enumerate(facts.roots))
        whole = replace(facts, roots=roots)
        if roots != facts.roots:
            await self._offload(lambda: self._store.adopt([whole], []))
        return whole

    async def _copied(self, facts: SegmentFacts, job: RepairJob, task: Task, view: RepairView) -> int:
        """Another copy of one index: unmasked, and masked for its own number, so that it is its own bytes."""
        sources = [shard for shard in job.sources if shard.index == task.index]
        located = await self._located(facts, sources)
        if not located.tickets:
            return 0
        await self._spend(2 * facts.shard_bytes)
        (source,) = located.tickets
        shape = SegmentShape(facts.k, facts.total, facts.shard_bytes)
        roots: Mapping[int, ShardRoot] = {source.index: source.root}
        wish = Wish(1, facts.shard_bytes, 0, shape.stripes, roots, exactly=(task.index,))
        async with self._slots.leased(shape, 0) as slot:
            rows = slot.rows(shape.shard_bytes)
            have = await self._fetcher.fetch(located, wish, rows[:1])
            made = await self._made(
                facts, have, {task.index: rows[-1]}, located, {task.index: source.copy}, {task.index: task.copy}
            )
            there = tuple(made[at].root if at in made else root for at, root in enumerate(facts.roots))
            goal = PushGoal(enough=1, full=1, spares=(), wanted=(task.index,))
            pushed = await self._pusher.push(
                replace(facts, roots=there), made, goal, excluding=job.excluding, copy=task.copy, again=True
            )
            return len(pushed.held & made.keys())

    async def _located(self, facts: SegmentFacts, sources: Sequence[HeldShard]) -> Located:
        """Tickets to one source of each index, the most trusted; those in doubt are asked last."""
        placements = (await self._offload(lambda: self._store.placements([facts.segment_id])))[facts.segment_id]
        at = {
            (each.farmer, each.index, each.copy): each
            for each in placements
            if each.state in (PlacementState.STORED, PlacementState.LOST)
        }
        chosen: dict[int, Placement] = {}
        doubted: set[NodeId] = set()
        for shard in sources:
            placement = at.get((shard.farmer, shard.index, shard.copy))
            if placement is not None and shard.index not in chosen:
                chosen[shard.index] = placement
                if shard.fate is not Fate.HELD:
                    doubted.add(shard.farmer)
        located = self._agent.fetchable(facts, list(chosen.values()), self._key.public_key)
        return replace(located, speeds={**located.speeds, **dict.fromkeys(doubted, -1.0)})


class _Groups:
    """What each farmer may fall together with; looked up once."""

    def __init__(self, book: FarmerBook) -> None:
        self._book = book
        self._known: dict[NodeId, tuple[str, ...]] = {}

    def __call__(self, farmer: NodeId) -> tuple[str, ...]:
        if farmer not in self._known:
            self._known[farmer] = groups_of(self._book.candidate(farmer))
        return self._known[farmer]
