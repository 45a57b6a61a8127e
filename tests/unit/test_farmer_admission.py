from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from contract_samples import FARMER, NOW_MS, OTHER, RENTER, ROOT, SHARD_BYTES, announcement, contract, draft
from farm_samples import contact_of
from stook.contracts.contract import Settlement, Terms
from stook.contracts.lifecycle import ContractState
from stook.contracts.negotiation import DAY_MS, HOUR_MS, MAX_CONSIGN_WINDOW_MS
from stook.errors import ReasonCode
from stook.farmer.admission import (
    Accept,
    Decline,
    FarmerTerms,
    Situation,
    announcement_of,
    decide,
    decide_batch,
)
from stook.farmer.capacity import CapacityLimits, CapacityView, disk_bytes
from stook.hashing import Tag, tagged_hash
from stook.ids import ShardRoot
from stook.storage.ports import HeldContract, Totals

GIB = 1 << 30
TERMS = FarmerTerms(
    storage_price_per_gib_hour=10**12,
    download_price_per_gib=10**15,
    min_duration_ms=DAY_MS,
    max_duration_ms=90 * DAY_MS,
)


def view(
    *, allocated: int = GIB, stored: int = 0, unfilled: int = 0, count: int = 0, free: int = 1 << 40, keep: int = 0
) -> CapacityView:
    return CapacityView(CapacityLimits(allocated, keep), stored, unfilled, count, free)


def situation(**changes: object) -> Situation:
    plain = Situation(
        announcement=announcement(),
        asker=RENTER.public_key,
        view=view(),
        unfilled_bytes=0,
        now_ms=NOW_MS,
        held={},
        taken_roots=frozenset(),
    )
    return replace(plain, **changes)


def root(number: int) -> ShardRoot:
    return ShardRoot(tagged_hash(Tag.SHARD, number.to_bytes(4, "big")))


def code_of(terms: Terms, farm: FarmerTerms = TERMS, **changes: object) -> ReasonCode | None:
    decision = decide(terms, farm, situation(**changes))
    return decision.code if isinstance(decision, Decline) else None


def test_a_draft_within_the_announcement_and_the_room_is_accepted() -> None:
    assert decide(draft(), TERMS, situation()) == Accept(draft())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 2}, ReasonCode.WRONG_VERSION),
        ({"network": "other.net"}, ReasonCode.WRONG_NETWORK),
        ({"farmer_key": OTHER.public_key}, ReasonCode.WRONG_RECIPIENT),
        ({"farmer_index": 7}, ReasonCode.WRONG_RECIPIENT),
        ({"renter_key": OTHER.public_key}, ReasonCode.NOT_YOUR_CONTRACT),
        ({"revision": 1, "origin": bytes(32)}, ReasonCode.BAD_TERMS),
        ({"shard_size_bytes": SHARD_BYTES + 1}, ReasonCode.SHARD_SIZE_UNSUPPORTED),
        ({"shard_size_bytes": 8 << 20}, ReasonCode.SHARD_SIZE_UNSUPPORTED),
        ({"storage_price_per_gib_hour": 10**12 - 1}, ReasonCode.PRICE_TOO_LOW),
        ({"download_price_per_gib": 10**15 - 1}, ReasonCode.PRICE_TOO_LOW),
        ({"settlement": Settlement.EVM, "payment_destination": bytes(20)}, ReasonCode.WRONG_SETTLEMENT),
        ({"begin_ms": NOW_MS + 2 * HOUR_MS}, ReasonCode.BAD_TERMS),
        ({"consign_by_ms": NOW_MS}, ReasonCode.CONSIGN_TOO_LATE),
        ({"consign_by_ms": NOW_MS + MAX_CONSIGN_WINDOW_MS + 1}, ReasonCode.BAD_TERMS),
        ({"collateral": 1}, ReasonCode.BAD_TERMS),
    ],
)
def test_each_rule_has_its_own_reason(changes: dict[str, object], code: ReasonCode) -> None:
    assert code_of(draft(**changes)) is code


def test_durations_have_two_bounds() -> None:
    short = announcement(min_duration_ms=61 * DAY_MS)
    assert code_of(draft(), announcement=short) is ReasonCode.TOO_SHORT
    long = announcement(max_duration_ms=59 * DAY_MS)
    assert code_of(draft(), announcement=long) is ReasonCode.TOO_LONG


def test_a_closed_list_of_renters_shuts_out_all_others() -> None:
    assert code_of(draft(), replace(TERMS, allowed_renters=frozenset({RENTER.node_id}))) is None
    closed = replace(TERMS, allowed_renters=frozenset({OTHER.node_id}))
    assert code_of(draft(), closed) is ReasonCode.RENTER_NOT_ADMITTED
    assert code_of(draft(), replace(TERMS, allowed_renters=frozenset())) is ReasonCode.RENTER_NOT_ADMITTED


def test_what_a_renter_reserves_without_bringing_it_is_capped() -> None:
    farm = replace(TERMS, max_unfilled_bytes_per_renter=3 * SHARD_BYTES)
    assert code_of(draft(), farm, unfilled_bytes=2 * SHARD_BYTES) is None
    assert code_of(draft(), farm, unfilled_bytes=2 * SHARD_BYTES + 1) is ReasonCode.RESERVED_TOO_MUCH


def test_room_is_what_the_allocation_and_the_disk_have_left() -> None:
    assert code_of(draft(), view=view(allocated=SHARD_BYTES)) is None
    assert code_of(draft(), view=view(allocated=SHARD_BYTES, stored=1)) is ReasonCode.NO_SPACE
    assert code_of(draft(), view=view(allocated=SHARD_BYTES, unfilled=1, count=1)) is ReasonCode.NO_SPACE
    enough = disk_bytes(SHARD_BYTES)
    assert code_of(draft(), view=view(free=enough + 5, keep=5)) is None
    assert code_of(draft(), view=view(free=enough + 4, keep=5)) is ReasonCode.DISK_LOW
    waiting = disk_bytes(SHARD_BYTES, 1)
    assert code_of(draft(), view=view(free=2 * enough, unfilled=SHARD_BYTES, count=1)) is None
    assert code_of(draft(), view=view(free=enough + waiting - 1, unfilled=SHARD_BYTES, count=1)) is ReasonCode.DISK_LOW


def test_the_operators_reserve_is_never_promised() -> None:
    limits = CapacityLimits(allocated_bytes=10 * SHARD_BYTES, min_free_disk_bytes=0, reserve_bytes=SHARD_BYTES)
    full = CapacityView.of(limits, Totals(2 * SHARD_BYTES, 7 * SHARD_BYTES, 2, 7), 1 << 40)
    assert full.available_bytes == 0
    assert code_of(draft(), view=full) is ReasonCode.NO_SPACE


def test_a_shard_under_another_contract_is_refused() -> None:
    assert code_of(draft(), taken_roots=frozenset({ROOT})) is ReasonCode.ALREADY_STORED


def test_asking_again_gets_the_same_yes_until_the_shard_has_come() -> None:
    known = {draft().contract_id: HeldContract(contract(), ContractState.OFFERED)}
    assert decide(draft(), TERMS, situation(held=known, taken_roots=frozenset({ROOT}))) == Accept(draft(), again=True)
    stored = {draft().contract_id: HeldContract(contract(), ContractState.ACTIVE)}
    assert code_of(draft(), held=stored) is ReasonCode.ALREADY_STORED


def test_somebody_else_learns_nothing_by_repeating_a_draft() -> None:
    known = {draft().contract_id: HeldContract(contract(), ContractState.OFFERED)}
    assert code_of(draft(), held=known, asker=OTHER.public_key) is ReasonCode.NOT_YOUR_CONTRACT


def test_in_a_batch_each_yes_takes_room_and_no_bad_draft_voids_another() -> None:
    drafts = [
        draft(shard_root=root(1)),
        draft(shard_root=root(2), version=9),
        draft(shard_root=root(3)),
        draft(shard_root=root(4)),
    ]
    decisions = decide_batch(drafts, TERMS, situation(view=view(allocated=2 * SHARD_BYTES)))
    assert [type(one) for one in decisions] == [Accept, Decline, Accept, Decline]
    assert [one.code for one in decisions if isinstance(one, Decline)] == [
        ReasonCode.WRONG_VERSION,
        ReasonCode.NO_SPACE,
    ]


def test_a_batch_cannot_name_one_shard_or_one_draft_twice() -> None:
    same, other_times = draft(), structs.replace(draft(), consign_by_ms=NOW_MS + 2 * HOUR_MS)
    decisions = decide_batch([same, same, other_times], TERMS, situation())
    assert isinstance(decisions[0], Accept)
    assert [one.code for one in decisions[1:] if isinstance(one, Decline)] == [
        ReasonCode.BAD_TERMS,
        ReasonCode.ALREADY_STORED,
    ]


def test_the_renters_cap_counts_within_a_batch() -> None:
    farm = replace(TERMS, max_unfilled_bytes_per_renter=2 * SHARD_BYTES)
    decisions = decide_batch([draft(shard_root=root(i)) for i in range(3)], farm, situation())
    assert [isinstance(one, Accept) for one in decisions] == [True, True, False]


def test_a_repeated_claim_takes_no_room_again() -> None:
    first, second = draft(shard_root=root(1)), draft(shard_root=root(2))
    held = {first.contract_id: HeldContract(contract(first), ContractState.OFFERED)}
    decisions = decide_batch(
        [first, second],
        TERMS,
        situation(held=held, view=view(allocated=2 * SHARD_BYTES, unfilled=SHARD_BYTES, count=1)),
    )
    assert decisions == [Accept(first, again=True), Accept(second)]


def test_an_announcement_says_what_the_terms_and_the_room_are() -> None:
    farm = replace(TERMS, settlements=(Settlement.EVM, Settlement.LEDGER), operator="alice")
    said = announcement_of(farm, contact_of(FARMER), view(stored=SHARD_BYTES), accepting=True, now_ms=NOW_MS)
    assert said.free_bytes == GIB - SHARD_BYTES
    assert said.settlements == (0, 1)
    assert said.operator == "alice"
    assert announcement_of(farm, contact_of(FARMER), view(), accepting=False, now_ms=NOW_MS).free_bytes == 0
