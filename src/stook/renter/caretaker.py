"""Keeping promises tidy: give up what is not needed, cancel it at its farmers, forget what is over.

Each method does one round; `LocalAgent` runs them as chores (`docs/protocol/placement.md`). Contracts that run out are
the business of `renewer`, missing shards that of `repairer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from stook.audits.containment import Silence
from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.messages import MAX_BATCH, Cancel, CancelReply, Method
from stook.contracts.receipt import SignedEraseReceipt, verify_erase_receipt
from stook.errors import PeerError, ReasonCode
from stook.ids import ContractId, NodeId, SegmentId
from stook.renter.book import FarmerBook
from stook.renter.drafts import DAY_MS
from stook.renter.ports import Agent
from stook.renter.repair_plan import RULES
from stook.renter.tasks import Tasks
from stook.storage.renter_ports import AgentStore, Placement, PlacementState, SegmentFacts
from stook.wire.endpoint import Endpoint

_LATE_MS = 15 * 60_000
"""How long after consign-by a transfer that began in time may still run."""
_GONE = frozenset({ReasonCode.UNKNOWN_CONTRACT, ReasonCode.CONTRACT_ENDED})


@dataclass(frozen=True, slots=True)
class CareTiming:
    """How often each chore runs, and what counts as due."""

    refresh_seconds: float = 300.0
    cancel_seconds: float = 30.0
    repair_seconds: float = 60.0
    move_seconds: float = 60.0
    renew_seconds: float = 3600.0
    tidy_seconds: float = 3600.0
    forget_after_ms: int = 30 * DAY_MS
    renew_before_ms: int = 14 * DAY_MS
    expired_after_ms: int = 7 * DAY_MS
    """How long after its end a contract is looked upon as one that its farmer may have renewed."""
    page: int = 256
    farmers_at_once: int = 16
    call_deadline_seconds: float = 30.0
    patience_seconds: float = 60.0
    """Who took so long over its renewals, or its cancellations, is asked about the rest with the next round."""
    surplus_after_ms: int = 3 * DAY_MS
    """How long a copy made for a silent farmer stays when that one is back: who comes and goes does so again."""

    def renewed_before_ms(self, duration_ms: int) -> int:
        """How long before its end a contract of this length is asked to be renewed for the first time."""
        return min(self.renew_before_ms, duration_ms // 4)


class Caretaker:
    """The background half of a `LocalAgent`."""

    def __init__(
        self,
        *,
        agent: Agent,
        endpoint: Endpoint,
        book: FarmerBook,
        store: AgentStore,
        clock: Clock,
        offload: Offload,
        timing: CareTiming,
        lapsing_within_ms: int = 0,
    ) -> None:
        self._agent = agent
        self._endpoint = endpoint
        self._book = book
        self._store = store
        self._clock = clock
        self._offload = offload
        self._timing = timing
        self._lapsing_within_ms = lapsing_within_ms
        self._cancelling = asyncio.Lock()

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
            flying = await self._flying(ids)
            surplus = [
                placement.contract_id
                for placement in page
                if placement.contract.terms.consign_by_ms <= late
                or (
                    (placement.segment_id, placement.index, placement.copy) not in flying
                    and _is_full(facts[placement.segment_id], held[placement.segment_id])
                )
            ]
            await self._agent.abandon(surplus)
            given_up += len(surplus)
            after = page[-1].contract_id
        return given_up

    async def _flying(self, segment_ids: Sequence[SegmentId]) -> set[tuple[SegmentId, int, int]]:
        """What a repair or a move is bringing: a segment may have n shards, some of which are in doubt."""
        oldest = self._clock.now_ms() - RULES.flight_ms
        flights = await self._offload(lambda: self._store.flights(segment_ids))
        return {
            (each.segment_id, each.index, each.copy)
            for rows in flights.values()
            for each in rows
            if each.begun_ms >= oldest
        }

    async def tidy(self) -> int:
        """Forget what has been over for long; how many segments went."""
        before = self._clock.now_ms() - self._timing.forget_after_ms
        return len(await self._offload(lambda: self._store.forget(before)))

    async def cancel_due(self) -> int:
        """Tell farmers what was given up; how many erasures were confirmed. A silent farmer holds up no other."""
        await self.give_up_claims()
        await self.give_up_replaced()
        await self.give_up_surplus()
        await self.give_up_expired()
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
        while names := await self._offload(lambda: self._store.cancel_replaced(MAX_BATCH)):
            given_up += len(names)
        return given_up

    async def give_up_surplus(self) -> int:
        """Give up what was made again though its first farmer, silent then, has proved itself since."""
        now = self._clock.now_ms()
        lapsing_ms, before_ms = now + self._lapsing_within_ms, now - self._timing.surplus_after_ms
        return len(await self._offload(lambda: self._store.cancel_surplus(lapsing_ms, MAX_BATCH, before_ms)))

    async def give_up_expired(self) -> int:
        """Give up what ran out long ago: a farmer may have signed a renewal that we never heard of, and hold it.

        Only while most holders answered within two days. They talk to nobody whose clock is off by minutes; so a clock
        that is wrong by months takes nothing for run out and has nothing erased.
        """
        now = self._clock.now_ms()
        holders = {each.farmer for each in await self._offload(self._store.totals)}
        dossiers = await self._offload(self._store.dossiers)
        heard = {each.farmer for each in dossiers if now - 2 * DAY_MS <= each.heard_ms <= now}
        if 2 * len(heard & holders) < len(holders):
            return 0
        return await self._offload(lambda: self._store.expire(now - self._timing.expired_after_ms))

    async def _cancel_at(self, farmer: NodeId) -> int:
        confirmed, after, until = 0, b"", self._clock.monotonic() + self._timing.patience_seconds
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
            if self._clock.monotonic() >= until:
                break
        return confirmed


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
