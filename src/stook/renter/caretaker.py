"""Keeping segments whole and promises tidy: fill up to n, cancel what was given up, renew what runs out.

It works on ciphertext, so it can run where no content key is (`docs/protocol/placement.md`). Each method does one
round; `LocalAgent` runs them as chores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from stook.audits.containment import Silence
from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.messages import MAX_BATCH, Cancel, CancelReply, Method, RenewReply
from stook.contracts.receipt import SignedEraseReceipt, verify_erase_receipt
from stook.contracts.renewal import renewed_contract, sign_renewal
from stook.errors import MisbehaviourError, NotEnoughError, PeerError, ReasonCode, StookError
from stook.identity.keys import NodeKey
from stook.ids import ContractId, NodeId, SegmentId, ShardRoot
from stook.renter.book import FarmerBook
from stook.renter.drafts import DAY_MS, DraftRules, renewal_terms
from stook.renter.fetch import Fetcher, Wish
from stook.renter.pace import PushGoal
from stook.renter.ports import Agent, Located, Order
from stook.renter.push import Pusher
from stook.renter.slots import SlotPool
from stook.renter.tasks import Tasks
from stook.shards.erasure import Codec
from stook.shards.geometry import SegmentShape
from stook.shards.rebuild import SealedShard, rebuild
from stook.storage.renter_ports import AgentStore, Placement, PlacementState, SegmentFacts, Wanting
from stook.wire.endpoint import Endpoint

_LATE_MS = 15 * 60_000
"""How long after consign-by a transfer that began in time may still run."""
_GONE = frozenset({ReasonCode.UNKNOWN_CONTRACT, ReasonCode.CONTRACT_ENDED})


@dataclass(frozen=True, slots=True)
class CareTiming:
    """How often each chore runs and what counts as due. `fill_after_ms` leaves uploads alone that are under way."""

    refresh_seconds: float = 300.0
    cancel_seconds: float = 30.0
    fill_seconds: float = 60.0
    renew_seconds: float = 3600.0
    tidy_seconds: float = 3600.0
    fill_after_ms: int = 10 * 60_000
    forget_after_ms: int = 30 * DAY_MS
    renew_before_ms: int = 14 * DAY_MS
    page: int = 256
    call_deadline_seconds: float = 30.0


class Caretaker:
    """The background half of a `LocalAgent`."""

    def __init__(
        self,
        *,
        agent: Agent,
        endpoint: Endpoint,
        key: NodeKey,
        book: FarmerBook,
        rules: DraftRules,
        store: AgentStore,
        clock: Clock,
        offload: Offload,
        codec: Codec,
        timing: CareTiming,
        memory_budget_bytes: int,
    ) -> None:
        self._agent = agent
        self._endpoint = endpoint
        self._key = key
        self._book = book
        self._rules = rules
        self._store = store
        self._clock = clock
        self._offload = offload
        self._codec = codec
        self._timing = timing
        self._slots = SlotPool(memory_budget_bytes)
        self._filling = asyncio.Lock()
        self._cancelling = asyncio.Lock()
        self._fetcher = Fetcher(agent=agent, endpoint=endpoint, clock=clock, offload=offload)
        self._pusher = Pusher(agent=agent, endpoint=endpoint, node_key=key.public_key, clock=clock)

    # --- fill --------------------------------------------------------------------------------------------------------

    async def fill_due(self) -> int:
        """One round of filling, the segments nearest to loss first; how many became whole."""
        return await self._fill(self._clock.now_ms() - self._timing.fill_after_ms)

    async def fill_all(self) -> int:
        """The same for every segment, those just uploaded included. For when no upload is under way."""
        return await self._fill(2**63 - 1)

    async def _fill(self, created_before_ms: int) -> int:
        filled, after = 0, None
        async with self._filling:
            while page := await self._offload(partial(self._store.segments_wanting, self._timing.page, after)):
                for wanting in page:
                    if wanting.facts.created_ms <= created_before_ms:
                        filled += await self._fill_one(wanting)
                after = page[-1]
        return filled

    async def _fill_one(self, wanting: Wanting) -> bool:
        facts = wanting.facts
        await self._drop_lapsed(facts.segment_id)
        if wanting.margin < 0:
            return False
        located = (await self._agent.locate([facts.segment_id], self._key.public_key)).get(facts.segment_id)
        if located is None:
            return False
        present = {ticket.index for ticket in located.tickets}
        missing = [index for index in range(facts.total) if index not in present][: facts.policy.n - len(present)]
        if not missing or len(present) < facts.k:
            return False
        if all(facts.roots[index] for index in missing):
            # Claim before fetching anything: with no farmer to take them there is no work to do.
            (placed,) = await self._agent.place([Order(facts, tuple(missing))], self._key.public_key)
            missing = [ticket.index for ticket in placed.tickets]
            if not missing:
                return False
        try:
            await self._restore(located, tuple(missing))
        except (NotEnoughError, PeerError):
            return False  # farmers are away or full; the next round tries again
        return True

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

    async def _restore(self, located: Located, missing: tuple[int, ...]) -> None:
        """Fetch k shards, make the missing ones from them, and bring those to new farmers."""
        facts = located.facts
        shape = SegmentShape(facts.k, facts.total, facts.shard_bytes)
        roots: dict[int, ShardRoot] = {ticket.index: ticket.root for ticket in located.tickets}
        wish = Wish(
            k=facts.k,
            shard_bytes=facts.shard_bytes,
            first_unit=0,
            end_unit=shape.stripes,
            roots=roots,
        )
        async with self._slots.leased(shape, 0) as slot:
            rows = slot.arena.lay(shape).rows
            sources = rows[: facts.total - len(missing)]
            targets = dict(zip(missing, rows[facts.total - len(missing) :], strict=True))
            have = await self._fetcher.fetch(located, wish, sources)
            made = await self._offload(
                lambda: rebuild(
                    have,
                    targets,
                    k=facts.k,
                    mask_key=located.mask_key,
                    codec=self._codec,
                    scratch=slot.scratch,
                )
            )
            await self._bring(facts, made)

    async def _bring(self, facts: SegmentFacts, made: Mapping[int, SealedShard]) -> None:
        for index, shard in made.items():
            known = facts.roots[index]
            if known and known != shard.root:
                raise MisbehaviourError(
                    ReasonCode.HASH_MISMATCH, f"shard {index} came out other than it was: shards or mask key are wrong"
                )
        roots = tuple(made[i].root if i in made else root for i, root in enumerate(facts.roots))
        whole = SegmentFacts(
            segment_id=facts.segment_id,
            policy=facts.policy,
            total=facts.total,
            shard_bytes=facts.shard_bytes,
            roots=roots,
            created_ms=facts.created_ms,
        )
        goal = PushGoal(enough=len(made), full=len(made), spares=(), wanted=tuple(made))
        await self._pusher.push(whole, made, goal)

    # --- cancel ------------------------------------------------------------------------------------------------------

    async def give_up_claims(self) -> int:
        """Give up claims that nobody will fill any more, left by a process that died; how many.

        Those of a segment that has its n shards: whoever brought them is done. And those long past consign-by. No
        other process can be at work on either.
        """
        after, given_up = b"", 0
        while page := await self._offload(partial(self._store.claimed, self._timing.page, after)):
            ids = list({placement.segment_id for placement in page})
            facts, held = await self._offload(lambda ids=ids: (self._store.segments(ids), self._store.placements(ids)))  # type: ignore[misc]
            late = self._clock.now_ms() - _LATE_MS
            surplus = [
                placement.contract_id
                for placement in page
                if placement.contract.terms.consign_by_ms <= late
                or _is_full(facts[placement.segment_id], held[placement.segment_id])
            ]
            await self._agent.abandon(surplus)
            given_up += len(surplus)
            after = page[-1].contract_id
        return given_up

    async def tidy(self) -> int:
        """Forget what has been over for long; how many segments went."""
        before = self._clock.now_ms() - self._timing.forget_after_ms
        return len(await self._offload(lambda: self._store.forget(before)))

    async def cancel_due(self) -> int:
        """Tell farmers what was given up; how many erasures were confirmed. A silent farmer holds up no other."""
        await self.give_up_claims()
        await self.give_up_replaced()
        async with self._cancelling:
            waiting = await self._offload(self._store.farmers_to_cancel)
            questioned = await self._questioned()
            now = self._clock.now_ms()
            async with Tasks() as group:
                tasks = [
                    group.create_task(self._cancel_at(farmer))
                    for farmer in waiting
                    if self._book.standing(farmer).avoid_until_ms <= now and farmer not in questioned
                ]
        return sum(task.result() for task in tasks)

    async def _questioned(self) -> set[NodeId]:
        """Farmers with an open question: they would answer it about what we just told them to erase, and be liars."""
        oldest = self._clock.now_ms() - DAY_MS
        opened = await self._offload(self._store.open_challenges)
        dossiers = await self._offload(self._store.dossiers)
        return {each.farmer for each in opened if each.signed.challenge.sent_at_ms >= oldest} | {
            each.farmer for each in dossiers if each.silence.question and each.silence.state is not Silence.CONDEMNED
        }

    async def give_up_replaced(self) -> int:
        """Give up what its farmer lost, or lost us by being gone or condemned, once the shard is stored elsewhere."""
        given_up = 0
        while names := await self._offload(lambda: self._store.lost_and_replaced(MAX_BATCH)):
            await self._agent.abandon(names)
            given_up += len(names)
        return given_up

    async def _cancel_at(self, farmer: NodeId) -> int:
        confirmed, after = 0, b""
        while page := await self._offload(partial(self._store.cancelling, farmer, MAX_BATCH, after)):
            request = encode(Cancel(contract_ids=tuple(placement.contract_id for placement in page)))
            try:
                reply = await self._endpoint.call(
                    self._book.peer(farmer),
                    Method.CANCEL,
                    request,
                    deadline_seconds=self._timing.call_deadline_seconds,
                )
                erased = _erasures(page, decode(CancelReply, reply))
            except PeerError:
                return confirmed
            if erased:
                await self._offload(partial(self._store.record_erased, erased, self._clock.now_ms()))
            confirmed += len(erased)
            after = page[-1].contract_id
        return confirmed

    # --- renew -------------------------------------------------------------------------------------------------------

    async def renew_due(self) -> int:
        """Renew contracts that run out soon; how many were. Those a farmer will not renew are replaced by filling."""
        before = self._clock.now_ms() + min(self._timing.renew_before_ms, self._rules.duration_ms // 4)
        ending = await self._offload(lambda: self._store.ending(before, self._timing.page))
        renewed = 0
        for placement in ending:
            try:
                renewed += await self._renew(placement)
            except StookError:
                continue
        return renewed

    async def _renew(self, placement: Placement) -> bool:
        signed = self._book.announcement(placement.farmer)
        if signed is None:
            return False
        terms = renewal_terms(placement.contract, signed.announcement, self._rules, self._clock.now_ms())
        if terms is None:
            return False
        request = sign_renewal(terms, self._key)
        reply = await self._endpoint.call(
            self._book.peer(placement.farmer),
            Method.RENEW,
            encode(request),
            deadline_seconds=self._timing.call_deadline_seconds,
        )
        contract = renewed_contract(request, decode(RenewReply, reply).farmer_signature)
        await self._offload(lambda: self._store.renew([contract]))
        return True


def _is_full(facts: SegmentFacts, placements: Sequence[Placement]) -> bool:
    stored = {placement.index for placement in placements if placement.state is PlacementState.STORED}
    return len(stored) >= facts.policy.n


def _erasures(page: list[Placement], reply: CancelReply) -> list[tuple[ContractId, SignedEraseReceipt | None]]:
    """What the farmer's answers confirm: a verified receipt, or that it knows nothing of the contract."""
    contracts = {placement.contract_id: placement.contract for placement in page}
    erased: list[tuple[ContractId, SignedEraseReceipt | None]] = []
    for answer in reply.answers:
        contract = contracts.get(answer.contract_id)
        if contract is None:
            continue
        if answer.receipt is not None and answer.code == 0:
            verify_erase_receipt(answer.receipt, contract)
            erased.append((answer.contract_id, answer.receipt))
        elif answer.code in _GONE:
            erased.append((answer.contract_id, None))
    return erased
