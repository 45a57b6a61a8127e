"""Laws of the contracts room: money is exact, grants only narrow, signatures cover every byte, steps follow facts."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs

from contract_samples import CLIENT, FARMER, NETWORK, NOW_MS, OTHER, RENTER, SHARD_BYTES, contract, draft, grant
from contract_samples import signed_announcement as make_announcement
from stook.codec import decode, encode
from stook.contracts.announcement import SignedAnnouncement, verify_announcement
from stook.contracts.contract import Contract
from stook.contracts.grant import Operation, SignedGrant, attenuate, check_grant, spendings
from stook.contracts.lifecycle import OVER, RESERVING, ContractState, Event, IllegalStepError, allows, apply
from stook.contracts.negotiation import verify_contract
from stook.contracts.pricing import accrued, contract_cost, plan_cost, renewal_difference, retrieval_cost
from stook.contracts.receipt import (
    SignedEraseReceipt,
    SignedStorageReceipt,
    sign_erase_receipt,
    sign_storage_receipt,
    verify_erase_receipt,
    verify_storage_receipt,
)
from stook.errors import MalformedError, MisbehaviourError, PeerError, RefusedError, UserError

HOUR = 3_600_000
prices = st.integers(0, 2**63 - 1)
sizes = st.integers(1, 4 << 20)
durations = st.integers(0, 20 * 366 * 24 * HOUR)

# --- money -----------------------------------------------------------------------------------------------------------


@given(price=prices, size=sizes, duration=durations, at=st.integers(-(10**9), 21 * 366 * 24 * HOUR))
def test_storage_is_exact_and_rounded_up_once(price: int, size: int, duration: int, at: int) -> None:
    terms = draft(storage_price_per_gib_hour=price, shard_size_bytes=size, begin_ms=NOW_MS, end_ms=NOW_MS + duration)
    exact = Fraction(price) * Fraction(size, 2**30) * Fraction(duration, HOUR)
    assert contract_cost(terms) == ceil(exact)
    past = Fraction(min(max(at, 0), duration), duration) if duration else Fraction(0)
    assert accrued(terms, NOW_MS + at) == ceil(exact * past)
    assert accrued(terms, terms.end_ms) == contract_cost(terms)


@given(price=prices, size=st.integers(0, 2**40))
def test_downloads_are_exact(price: int, size: int) -> None:
    terms = draft(download_price_per_gib=price)
    assert retrieval_cost(terms, size) == ceil(Fraction(price) * Fraction(size, 2**30))


@given(price=prices, size=sizes, duration=durations, cuts=st.lists(st.integers(0, 10**12), max_size=6))
def test_asking_often_never_changes_what_is_due(price: int, size: int, duration: int, cuts: list[int]) -> None:
    terms = draft(storage_price_per_gib_hour=price, shard_size_bytes=size, begin_ms=NOW_MS, end_ms=NOW_MS + duration)
    moments = [NOW_MS, *sorted(NOW_MS + cut for cut in cuts), terms.end_ms + 10**12]
    due = [accrued(terms, moment) for moment in moments]
    assert due == sorted(due)
    assert sum(after - before for before, after in pairwise(due)) == contract_cost(terms)


@given(old=prices, new=prices, size=sizes, duration=durations, share=st.fractions(0, 1), more=durations)
def test_a_renewal_costs_the_old_price_until_it_begins_and_the_new_one_after(
    old: int, new: int, size: int, duration: int, share: Fraction, more: int
) -> None:
    before = draft(storage_price_per_gib_hour=old, shard_size_bytes=size, begin_ms=NOW_MS, end_ms=NOW_MS + duration)
    begin = NOW_MS + int(duration * share)
    after = structs.replace(before, storage_price_per_gib_hour=new, begin_ms=begin, end_ms=begin + more)
    gib_hours = Fraction(size, 2**30 * HOUR)
    expected = (
        ceil(old * gib_hours * (begin - NOW_MS)) + ceil(new * gib_hours * more) - ceil(old * gib_hours * duration)
    )
    assert renewal_difference(before, after) == expected


def test_a_renewal_that_begins_elsewhere_has_no_price() -> None:
    old = draft()
    for begin in (old.begin_ms - 1, old.end_ms + 1):
        with pytest.raises(ValueError, match="while the contract runs"):
            renewal_difference(old, structs.replace(old, begin_ms=begin, end_ms=begin + 1))


@given(st.lists(st.tuples(prices, prices, sizes), max_size=5))
def test_a_plan_is_the_sum_of_its_contracts(rows: list[tuple[int, int, int]]) -> None:
    plan = [
        draft(storage_price_per_gib_hour=storage, download_price_per_gib=download, shard_size_bytes=size)
        for storage, download, size in rows
    ]
    cost = plan_cost(iter(plan))
    assert cost.storage == sum(contract_cost(terms) for terms in plan)
    assert cost.retrieval == sum(retrieval_cost(terms, terms.shard_size_bytes) for terms in plan)
    assert cost.total == cost.storage + cost.retrieval


# --- grants ----------------------------------------------------------------------------------------------------------

HELD = contract()
PEERS = (RENTER, CLIENT, OTHER, FARMER)
narrowings = st.fixed_dictionaries(
    {},
    optional={
        "begin_byte": st.integers(0, SHARD_BYTES),
        "end_byte": st.integers(0, SHARD_BYTES + 9),
        "budget_bytes": st.integers(0, 2 * SHARD_BYTES),
        "expires_ms": st.integers(NOW_MS - 9, NOW_MS + 2 * HOUR),
    },
)
uses = st.tuples(st.integers(-1, SHARD_BYTES + 1), st.integers(-1, SHARD_BYTES + 1), st.integers(-9, 2 * HOUR))


def allowed(signed: SignedGrant, use: tuple[int, int, int]) -> bool:
    begin, end, later = use
    caller = next(key for key in PEERS if key.public_key == signed.grant.grantee_key)
    try:
        check_grant(
            signed,
            network=NETWORK,
            farmer=FARMER.node_id,
            contract=HELD,
            caller_key=caller.public_key,
            operation=Operation.RETRIEVE,
            begin=begin,
            end=end,
            now_ms=NOW_MS + later,
        )
    except RefusedError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(narrowings, st.integers(0, 3)), max_size=3), tried=st.lists(uses, max_size=3))
def test_handing_on_never_allows_more(
    steps: list[tuple[dict[str, int], int]], tried: list[tuple[int, int, int]]
) -> None:
    chain = [grant()]
    for number, (narrowing, taker) in enumerate(steps):
        parent = chain[-1]
        giver = next(key for key in PEERS if key.public_key == parent.grant.grantee_key)
        try:
            child = attenuate(
                parent, giver, grantee_key=PEERS[taker].public_key, serial=bytes((number,)) * 16, **narrowing
            )
        except UserError:
            continue
        chain.append(child)
        assert spendings(child)[:-1] == spendings(parent)
        assert [s.budget_bytes for s in spendings(child)] == sorted(
            (s.budget_bytes for s in spendings(child)), reverse=True
        )
    text = chain[-1].grant
    edges = [(text.begin_byte, text.end_byte, 0), (text.begin_byte, text.end_byte, text.expires_ms - 1 - NOW_MS)]
    for use in [*tried, *edges]:
        verdicts = [allowed(link, use) for link in chain]
        # Once an ancestor says no, no descendant says yes.
        assert verdicts == sorted(verdicts, reverse=True)


# --- signatures cover every byte -------------------------------------------------------------------------------------

GRANT = attenuate(grant(), CLIENT, grantee_key=OTHER.public_key, serial=b"s" * 16, budget_bytes=5)
STORED = sign_storage_receipt(HELD.terms, FARMER, NOW_MS)
ERASED = sign_erase_receipt(HELD.terms, FARMER, SHARD_BYTES, NOW_MS)
ANNOUNCED = make_announcement()


def judge_grant(signed: SignedGrant) -> None:
    check_grant(
        signed,
        network=NETWORK,
        farmer=FARMER.node_id,
        contract=HELD,
        caller_key=OTHER.public_key,
        operation=Operation.RETRIEVE,
        begin=0,
        end=5,
        now_ms=NOW_MS,
    )


SIGNED = {
    "contract": (HELD, Contract, lambda value: verify_contract(value, NETWORK)),
    "grant": (GRANT, SignedGrant, judge_grant),
    "storage receipt": (STORED, SignedStorageReceipt, lambda value: verify_storage_receipt(value, HELD)),
    "erase receipt": (ERASED, SignedEraseReceipt, lambda value: verify_erase_receipt(value, HELD)),
    "announcement": (
        ANNOUNCED,
        SignedAnnouncement,
        lambda value: verify_announcement(value, network=NETWORK, now_ms=NOW_MS),
    ),
}


@pytest.mark.parametrize("name", SIGNED)
def test_no_flipped_byte_verifies(name: str) -> None:
    value, kind, judge = SIGNED[name]
    judge(value)
    data = encode(value)
    for place in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[place] ^= flip
            with pytest.raises(PeerError) as caught:
                judge(decode(kind, bytes(changed)))
            assert isinstance(caught.value, MalformedError | MisbehaviourError | RefusedError)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SIGNED)), st.data())
def test_no_cut_or_lengthened_text_verifies(name: str, data: st.DataObject) -> None:
    value, kind, judge = SIGNED[name]
    good = encode(value)
    cut = data.draw(st.integers(0, len(good)))
    bad = good[:cut] + data.draw(st.binary(max_size=4)) + good[cut + data.draw(st.integers(0, 4)) :]
    if bad == good:
        return
    with pytest.raises(PeerError):
        judge(decode(kind, bad))


# --- the lifecycle against a naive model -----------------------------------------------------------------------------


class Lifecycle(RuleBasedStateMachine):
    """Facts of one contract, kept apart, must always name the state that the table is in."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ContractState.DRAFT
        self.farmer_signed = self.renter_signed = self.shown = self.stored = False
        self.gone = self.given_up = self.over = False
        self.revision = 0

    def step(self, event: Event) -> None:
        self.state = apply(self.state, event)

    def expected(self) -> ContractState:
        if self.given_up:
            return ContractState.CANCELLED
        if self.over:
            return ContractState.ENDED
        if self.gone:
            return ContractState.LOST
        for fact, state in (
            (self.stored, ContractState.ACTIVE),
            (self.shown, ContractState.CONSIGNED),
            (self.renter_signed, ContractState.COUNTERSIGNED),
            (self.farmer_signed, ContractState.OFFERED),
        ):
            if fact:
                return state
        return ContractState.DRAFT

    @property
    def open(self) -> bool:
        return not (self.given_up or self.over)

    @precondition(lambda self: self.open and not self.farmer_signed)
    @rule()
    def offer(self) -> None:
        self.farmer_signed = True
        self.step(Event.OFFER)

    @precondition(lambda self: self.open and not self.farmer_signed)
    @rule()
    def decline(self) -> None:
        self.given_up = True
        self.step(Event.DECLINE)

    @precondition(lambda self: self.open and self.farmer_signed and not self.renter_signed)
    @rule()
    def countersign(self) -> None:
        self.renter_signed = True
        self.step(Event.COUNTERSIGN)

    @precondition(lambda self: self.open and self.renter_signed and not self.stored)
    @rule()
    def consign(self) -> None:
        self.shown = True
        self.step(Event.CONSIGN)

    @precondition(lambda self: self.open and self.shown and not self.stored)
    @rule()
    def store(self) -> None:
        self.stored = True
        self.step(Event.STORE)

    @precondition(lambda self: self.open and self.stored and not self.gone)
    @rule()
    def renew(self) -> None:
        self.revision += 1
        self.step(Event.RENEW)

    @precondition(lambda self: self.open and self.farmer_signed and not self.stored)
    @rule()
    def lapse(self) -> None:
        self.given_up = True
        self.step(Event.LAPSE)

    @precondition(lambda self: self.open and self.stored and not self.gone)
    @rule()
    def lose(self) -> None:
        self.gone = True
        self.step(Event.LOSE)

    @precondition(lambda self: self.open)
    @rule()
    def cancel(self) -> None:
        self.given_up = True
        self.step(Event.CANCEL)

    @precondition(lambda self: self.open and self.stored)
    @rule()
    def end(self) -> None:
        self.over = True
        self.step(Event.END)

    @rule(event=st.sampled_from(Event))
    def anything_else_is_refused(self, event: Event) -> None:
        if not allows(self.state, event):
            with pytest.raises(IllegalStepError):
                apply(self.state, event)

    @invariant()
    def the_facts_name_the_state(self) -> None:
        assert self.state is self.expected()
        assert (self.state in OVER) == (not self.open)
        assert (self.state in RESERVING) == (self.open and self.farmer_signed and not self.stored)

    @invariant()
    def the_table_allows_exactly_what_the_facts_do(self) -> None:
        facts = {
            Event.OFFER: not self.farmer_signed,
            Event.DECLINE: not self.farmer_signed,
            Event.COUNTERSIGN: self.farmer_signed and not self.renter_signed,
            Event.CONSIGN: self.renter_signed and not self.stored,
            Event.STORE: self.shown and not self.stored,
            Event.RENEW: self.stored and not self.gone,
            Event.LAPSE: self.farmer_signed and not self.stored,
            Event.CANCEL: True,
            Event.LOSE: self.stored and not self.gone,
            Event.END: self.stored,
        }
        assert {event for event in Event if allows(self.state, event)} == {
            event for event, holds in facts.items() if holds and self.open
        }


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
