"""Whatever renters claim, bring, cancel, renew and let lapse: a farmer never promises more than it has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from contract_samples import FARMER, NETWORK, NOW_MS, OTHER, RENTER
from farm_samples import (
    ManualClock,
    RecordingExchange,
    StandingEndpoint,
    contact_of,
    draft_for,
    parts,
    root_of,
    shard_bytes,
)
from stook.codec import encode
from stook.contracts.contract import Contract, Terms
from stook.contracts.grant import Operation, issue_grant
from stook.contracts.lifecycle import ContractState
from stook.contracts.messages import Cancel, CancelReply, Claim, ClaimReply, Consign
from stook.contracts.negotiation import DAY_MS, HOUR_MS, countersign
from stook.contracts.receipt import SignedStorageReceipt, verify_erase_receipt, verify_storage_receipt
from stook.errors import RefusedError
from stook.farmer.admission import FarmerTerms
from stook.farmer.capacity import CapacityLimits, disk_bytes
from stook.farmer.handlers import ContractDesk
from stook.farmer.herald import Herald
from stook.farmer.reaper import reap
from stook.farmer.recovery import recover
from stook.farmer.settings import FarmerSettings, TransferLimits
from stook.farmer.transfers import TransferDesk
from stook.identity.keys import NodeKey
from stook.merkle import UNIT_BYTES, leaves_of

ALLOCATED = 12 * UNIT_BYTES
DISK = 40 * UNIT_BYTES
KEEP_FREE = 10 * UNIT_BYTES
CAP = 8 * UNIT_BYTES
SIZES = (UNIT_BYTES, 2 * UNIT_BYTES, 4 * UNIT_BYTES)
RENTERS = {key.public_key: key for key in (RENTER, OTHER)}
FARM = FarmerSettings(
    capacity=CapacityLimits(ALLOCATED, KEEP_FREE, UNIT_BYTES),
    terms=FarmerTerms(max_unfilled_bytes_per_renter=CAP),
    transfers=TransferLimits(block_bytes=UNIT_BYTES),
)


class FarmerMachine(RuleBasedStateMachine):
    """Drives the real handlers over memory stores; the model is the set of contracts that were signed and are due."""

    offers = Bundle("offers")
    actives = Bundle("actives")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.strangers_bytes = 0
        self.loop = asyncio.new_event_loop()
        self.farm = parts(farm=FARM, clock=self.clock, free_disk=self.free_disk)
        herald = Herald(self.farm, StandingEndpoint(contact_of(FARMER)), (), lambda: True)  # type: ignore[arg-type]
        self.desk, self.transfers = ContractDesk(self.farm, herald), TransferDesk(self.farm)
        self.data: dict[bytes, bytes] = {}
        self.serial = 0

    def teardown(self) -> None:
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def free_disk(self) -> int:
        totals = self.farm.contracts.totals()
        return max(0, DISK - self.strangers_bytes - disk_bytes(totals.stored_bytes, totals.stored_count))

    @rule(
        target=offers,
        sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=6),
        renter=st.sampled_from(tuple(RENTERS.values())),
    )
    def claim(self, sizes: list[int], renter: NodeKey) -> Any:
        drafts = []
        for size in sizes:
            self.serial += 1
            data = shard_bytes(size, self.serial)
            self.data[root_of(data)] = data
            now = self.clock.at_ms
            drafts.append(
                draft_for(
                    root_of(data),
                    size,
                    renter_key=renter.public_key,
                    begin_ms=now,
                    end_ms=now + 2 * DAY_MS,
                    consign_by_ms=now + HOUR_MS,
                )
            )
        exchange = RecordingExchange(renter)
        self.run(self.desk.claim(exchange, encode(Claim(tuple(drafts)))))  # type: ignore[arg-type]
        answers = exchange.answer(ClaimReply).answers
        assert [answer.contract_id for answer in answers] == [draft.contract_id for draft in drafts]
        return multiple(
            *(
                countersign(draft, answer.farmer_signature, renter)
                for draft, answer in zip(drafts, answers, strict=True)
                if not answer.code
            )
        )

    @rule(target=actives, contract=consumes(offers))
    def consign(self, contract: Contract) -> Any:
        terms = contract.terms
        data = self.data[terms.shard_root]
        renter = RENTERS[terms.renter_key]
        grant = issue_grant(
            terms,
            renter,
            grantee_key=renter.public_key,
            operation=Operation.CONSIGN,
            expires_ms=self.clock.at_ms + HOUR_MS,
            serial=bytes(16),
        )
        raw = b"".join(leaves_of(memoryview(data))) + data
        exchange = RecordingExchange(renter, raw)
        held = self.farm.contracts.get(contract.contract_id)
        try:
            self.run(self.transfers.consign(exchange, encode(Consign(contract, grant))))  # type: ignore[arg-type]
        except RefusedError:
            assert held is None or self.clock.at_ms >= terms.consign_by_ms
            return multiple()
        verify_storage_receipt(exchange.answer(SignedStorageReceipt), contract)
        return contract

    @rule(contract=st.one_of(consumes(offers), consumes(actives)), by_owner=st.booleans())
    def cancel(self, contract: Contract, by_owner: bool) -> None:
        terms: Terms = contract.terms
        other = OTHER if terms.renter_key == RENTER.public_key else RENTER
        exchange = RecordingExchange(RENTERS[terms.renter_key] if by_owner else other)
        known = self.farm.contracts.get(contract.contract_id) is not None
        self.run(self.desk.cancel(exchange, encode(Cancel((contract.contract_id,)))))  # type: ignore[arg-type]
        (answer,) = exchange.answer(CancelReply).answers
        assert (answer.code == 0) == by_owner, "also a contract that was reaped: its receipt is remembered"
        if answer.receipt is not None:
            verify_erase_receipt(answer.receipt, contract)
        assert (self.farm.contracts.get(contract.contract_id) is not None) == (known and not by_owner)

    @rule(hours=st.integers(0, 30))
    def time_passes_and_the_reaper_comes(self, hours: int) -> None:
        self.clock.at_ms += hours * HOUR_MS
        self.run(reap(self.farm))
        for held in self.farm.contracts.all():
            terms = held.contract.terms
            due = terms.consign_by_ms if held.state is ContractState.OFFERED else terms.end_ms
            assert due >= self.clock.at_ms

    @rule(units=st.integers(0, 20))
    def others_use_the_disk(self, units: int) -> None:
        self.strangers_bytes = units * UNIT_BYTES

    @rule()
    def restart(self) -> None:
        before = sorted(held.contract_id for held in self.farm.contracts.all())
        report = recover(self.farm.shards, self.farm.contracts, farmer_key=FARMER.public_key, network=NETWORK)
        assert (report.updated, report.lost, report.erasures_finished) == (0, 0, 0)
        assert before == sorted(held.contract_id for held in self.farm.contracts.all())

    @invariant()
    def never_more_than_allocated(self) -> None:
        totals = self.farm.contracts.totals()
        assert totals.reserved_bytes + totals.stored_bytes <= ALLOCATED - UNIT_BYTES

    @invariant()
    def no_renter_hoards(self) -> None:
        assert all(self.farm.contracts.reserved_by(key) <= CAP for key in RENTERS)

    @invariant()
    def what_is_called_stored_is_stored(self) -> None:
        stored = {shard.root for shard in self.farm.shards.scan()}
        active = {
            held.contract.terms.shard_root for held in self.farm.contracts.all() if held.state is ContractState.ACTIVE
        }
        assert stored == active

    @invariant()
    def the_start_of_time_is_behind_us(self) -> None:
        assert self.clock.at_ms >= NOW_MS


TestFarmerMachine = FarmerMachine.TestCase
TestFarmerMachine.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
