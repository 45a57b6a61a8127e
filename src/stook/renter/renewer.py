"""Renewing what runs out: every contract that ends soon is asked to go on, each farmer apart from all others.

A request for the next revision is durable before it is sent, and the same text is asked until there is an answer: the
farmer may have signed it and only its reply been lost, and then it signs no other text of that revision. Who refuses
for good is asked in new terms with the next round, and what is not renewed in the end is replaced by repair
(`docs/protocol/placement.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.messages import Method, Renew, RenewReply
from stook.contracts.renewal import renewed_contract, sign_renewal
from stook.errors import DeadlineError, PeerError, ReasonCode, RefusedError, UnreachableError
from stook.identity.keys import NodeKey
from stook.ids import ContractId, NodeId
from stook.renter.book import FarmerBook
from stook.renter.caretaker import CareTiming
from stook.renter.drafts import DraftRules, GoingRates, renewal_terms
from stook.renter.tasks import Tasks
from stook.storage.renter_ports import AgentStore, Placement
from stook.wire.endpoint import Endpoint

_MAY_HAVE_SIGNED = frozenset({ReasonCode.DISK_LOW, ReasonCode.INTERNAL})
"""Refusals that say nothing of the terms: it may have failed after it had written its signature down."""


class Renewer:
    """The part of a `LocalAgent` that keeps contracts from running out. `renew_due` is one round."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        key: NodeKey,
        book: FarmerBook,
        rules: DraftRules,
        store: AgentStore,
        clock: Clock,
        offload: Offload,
        timing: CareTiming,
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._book = book
        self._rules = rules
        self._store = store
        self._clock = clock
        self._offload = offload
        self._timing = timing
        self._renewing = asyncio.Lock()
        self._going: GoingRates | None = None
        self._taken: dict[NodeId, float] = {}
        """Seconds that each farmer took in this round."""

    async def renew_due(self) -> int:
        """Ask for the renewal of everything that ends soon; how much was renewed.

        Who does not answer, or takes its time about each, is not asked about anything else in this round, and holds up
        nobody else.
        """
        async with self._renewing:
            self._going, self._taken = self._book.going_rates(), {}
            before = self._clock.now_ms() + self._timing.renewed_before_ms(self._rules.duration_ms)
            renewed, mute, after = 0, set[NodeId](), None
            while page := await self._offload(partial(self._store.ending, before, self._timing.page, after)):
                after = page[-1]
                renewed += await self._renew_page(page, mute)
            return renewed

    async def _renew_page(self, page: Sequence[Placement], mute: set[NodeId]) -> int:
        asked = await self._offload(lambda: self._store.renewals(each.contract_id for each in page))
        of: dict[NodeId, list[Placement]] = {}
        for each in page:
            if each.farmer not in mute:
                of.setdefault(each.farmer, []).append(each)
        gate = asyncio.Semaphore(self._timing.farmers_at_once)

        async def at(placements: Sequence[Placement]) -> int:
            async with gate:
                return await self._renew_at(placements, asked, mute)

        async with Tasks() as group:
            tasks = [group.create_task(at(placements)) for placements in of.values()]
        return sum(task.result() for task in tasks)

    async def _renew_at(
        self, placements: Sequence[Placement], asked: Mapping[ContractId, Renew], mute: set[NodeId]
    ) -> int:
        """Ask one farmer, one contract after another; how many it renewed."""
        renewed = 0
        for each in placements:
            if self._taken.get(each.farmer, 0.0) >= self._timing.patience_seconds:
                mute.add(each.farmer)
                break
            begun = self._clock.monotonic()
            request = asked.get(each.contract_id) or self._renewal(each)
            if request is None:
                continue
            try:
                renewed += await self._renew(each, request)
            except (UnreachableError, DeadlineError):
                mute.add(each.farmer)
                break
            except RefusedError as error:
                if error.retryable:
                    mute.add(each.farmer)
                    break
            except PeerError:
                pass  # it did not sign what it was asked to, which is no reason to leave the others to run out
            self._taken[each.farmer] = self._taken.get(each.farmer, 0.0) + self._clock.monotonic() - begun
        return renewed

    async def _renew(self, placement: Placement, request: Renew) -> bool:
        kept = await self._offload(lambda: self._store.ask_renewal(request))
        if kept is None:
            return False  # given up meanwhile, or another process renewed it
        try:
            reply = await self._endpoint.call(
                self._book.peer(placement.farmer),
                Method.RENEW,
                encode(kept),
                deadline_seconds=self._timing.call_deadline_seconds,
            )
        except RefusedError as error:
            if not error.retryable and error.code not in _MAY_HAVE_SIGNED:
                await self._offload(lambda: self._store.drop_renewal(kept))
            raise
        contract = renewed_contract(kept, decode(RenewReply, reply).farmer_signature)
        await self._offload(lambda: self._store.renew([contract]))
        return True

    def _renewal(self, placement: Placement) -> Renew | None:
        """A new request; None when the farmer no longer offers it, or the contract is over."""
        signed, now = self._book.announcement(placement.farmer), self._clock.now_ms()
        if signed is None or placement.contract.terms.end_ms <= now:
            return None
        terms = renewal_terms(placement.contract, signed.announcement, self._rules, now, self._going)
        return None if terms is None else sign_renewal(terms, self._key)
