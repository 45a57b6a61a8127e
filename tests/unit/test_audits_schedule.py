"""When audits fall due, what they may cost, and who comes first when not all fit."""

from __future__ import annotations

import math
import random

import pytest

from stook.audits.allowance import DAY_MS as ALLOWANCE_DAY_MS
from stook.audits.allowance import Allowance
from stook.audits.confidence import detection_chance, leaves_for_fraction
from stook.audits.containment import CLEAR, Event, Silence, apply
from stook.audits.schedule import (
    AUDIT_SHARE,
    DAY_MS,
    HOUR_MS,
    LONGEST_INTERVAL_MS,
    MINUTE_MS,
    MONTH_MS,
    AuditedFarmer,
    AuditJob,
    JobKind,
    cadence,
    draw_interval,
    due,
    entitlement,
    first_due,
    first_leaves,
    moved_bytes,
    wanted_leaves,
)
from stook.contracts.contract import AuditStrategy, AuditTerms
from stook.ids import NodeId
from stook.merkle import UNIT_BYTES
from stook.renter.drafts import DraftRules

T0 = 1_700_000_000_000
GIB = 1 << 30
PLENTY = 1 << 50
DEFAULT_TERMS: AuditTerms = DraftRules.__dataclass_fields__["audit"].default


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def farmer(number: int, **changes: object) -> AuditedFarmer:
    facts: dict[str, object] = {
        "node_id": node(number),
        "holding_bytes": 10 * GIB,
        "terms_interval_ms": DAY_MS,
        "entitled_leaves": 10_000,
        "next_due_ms": T0,
    }
    return AuditedFarmer(**(facts | changes))  # type: ignore[arg-type]


def ask(farmers: list[AuditedFarmer], seed: int = 0, **limits: int) -> list[AuditJob]:
    allowed = {"bytes_left": PLENTY, "requests_left": 10**9, "now_ms": T0} | limits
    return due(farmers, randomness=seed.to_bytes(8, "big"), **allowed)  # type: ignore[arg-type]


@pytest.mark.parametrize("holding_bytes", [2 << 20, 10 << 20, 100 << 20, GIB, 10 * GIB, 1 << 40, 1 << 44])
@pytest.mark.parametrize("shard_bytes", [UNIT_BYTES, 4 << 20])
def test_audits_stay_below_a_twentieth_of_what_is_stored_each_month(holding_bytes: int, shard_bytes: int) -> None:
    contracts = max(1, holding_bytes // shard_bytes)
    entitled = contracts * DEFAULT_TERMS.leaves_per_interval
    rhythm = cadence(holding_bytes, DEFAULT_TERMS.interval_ms, entitled)
    assert rhythm.monthly_bytes <= AUDIT_SHARE * holding_bytes
    assert rhythm.leaves <= entitled
    # The same with drawn intervals, over four years.
    dice, at, moved = random.Random(holding_bytes), 0, 0
    while at < 48 * MONTH_MS:
        at += draw_interval(rhythm.interval_ms, dice.randbytes(8))
        moved += moved_bytes(rhythm.leaves)
    assert moved / 48 <= AUDIT_SHARE * holding_bytes


def test_small_holdings_are_audited_at_least_weekly_and_large_ones_as_wanted() -> None:
    assert cadence(UNIT_BYTES).interval_ms == LONGEST_INTERVAL_MS
    assert cadence(0).interval_ms == LONGEST_INTERVAL_MS
    assert cadence(1 << 40) == cadence(1 << 41)
    assert cadence(1 << 40).leaves == leaves_for_fraction(0.01, 0.95) == 299
    assert cadence(1 << 40, entitled_leaves=40).leaves == 40
    assert cadence(1 << 40, entitled_leaves=0).leaves == 1
    grown = [cadence(1 << shift) for shift in range(14, 42)]
    pace = [rhythm.leaves / rhythm.interval_ms for rhythm in grown]
    assert pace == sorted(pace)


def test_wanted_leaves_see_what_they_are_wanted_for() -> None:
    for units in (1, 2, 50, 500, 4000, 10_000):
        missing = max(1, math.floor(units * 0.01))
        assert detection_chance(units, missing, min(units, wanted_leaves(units * UNIT_BYTES))) >= 0.95 - 1e-12
    assert wanted_leaves(UNIT_BYTES) == 1


def test_entitlement_adds_up_contracts_of_different_intervals() -> None:
    daily = AuditTerms(strategy=AuditStrategy.SAMPLED, interval_ms=DAY_MS, leaves_per_interval=4)
    weekly = AuditTerms(strategy=AuditStrategy.SAMPLED, interval_ms=7 * DAY_MS, leaves_per_interval=14)
    none = AuditTerms(strategy=AuditStrategy.SAMPLED, interval_ms=0, leaves_per_interval=0)
    assert entitlement([daily, daily, weekly, none]) == (DAY_MS, 10)
    assert entitlement([none]) == (DAY_MS, 0)


def test_intervals_have_the_mean_they_are_drawn_for_and_no_memory() -> None:
    dice = random.Random(5)
    drawn = [draw_interval(DAY_MS, dice.randbytes(8)) for _ in range(40_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(DAY_MS, rel=0.02)
    assert max(drawn) < 3.6 * DAY_MS
    # Of those that waited so long, the same share is audited within the next three hours, whatever "so long" is.
    shares = []
    for waited in (0, 12 * HOUR_MS, DAY_MS):
        left = [interval for interval in drawn if interval >= waited]
        shares.append(sum(interval < waited + 3 * HOUR_MS for interval in left) / len(left))
    assert max(shares) - min(shares) < 0.04


def test_the_first_audit_comes_within_the_hour() -> None:
    assert first_due(T0, bytes(8)) == T0 + MINUTE_MS
    assert T0 + 59 * MINUTE_MS < first_due(T0, b"\xff" * 8) <= T0 + HOUR_MS
    new = farmer(1, next_due_ms=T0 + DAY_MS, first_due_ms=T0 - 1, unaudited_shards=30, unaudited_bytes=30 << 22)
    assert [(job.kind, job.leaves) for job in ask([new])] == [(JobKind.FIRST, 30)]
    assert ask([farmer(1, next_due_ms=T0 + 1, first_due_ms=T0 + 1, unaudited_shards=30)]) == []


def test_first_audits_of_small_shards_are_drawn_too() -> None:
    assert first_leaves(1, UNIT_BYTES) == 1
    assert first_leaves(1000, 1000 * UNIT_BYTES) == 9
    assert first_leaves(1000, 1000 << 22) == 256
    for shards in (200, 5000):
        stored = shards * UNIT_BYTES
        assert first_leaves(shards, stored) * moved_bytes(1) <= 0.011 * stored


@pytest.mark.parametrize("randomness", [b"", b"1234567", b"123456789"])
def test_draws_take_eight_bytes(randomness: bytes) -> None:
    with pytest.raises(ValueError):
        draw_interval(DAY_MS, randomness)


def test_nothing_is_due_before_its_time() -> None:
    assert ask([farmer(1, next_due_ms=T0 + 1)]) == []
    assert len(ask([farmer(1, next_due_ms=T0)])) == 1
    assert ask([farmer(1, holding_bytes=0)]) == []


def test_absent_gone_and_condemned_farmers_are_left_in_peace() -> None:
    gone = apply(CLEAR, Event.LIE, T0)
    assert gone.state is Silence.CONDEMNED
    assert ask([farmer(1, containment=gone), farmer(2, absences=((T0, T0 + 1),))]) == []
    assert len(ask([farmer(2, absences=((T0 - 5, T0),))])) == 1


def test_a_contained_farmer_is_asked_its_question_and_nothing_else() -> None:
    silent = apply(CLEAR, Event.SILENCE, T0, asked_ms=T0)
    who = farmer(1, containment=silent, question_leaves=7, first_due_ms=T0, unaudited_shards=3)
    assert ask([who], now_ms=T0 + MINUTE_MS) == []
    (job,) = ask([who], now_ms=silent.next_due_ms)
    assert (job.kind, job.leaves, job.moved_bytes) == (JobKind.RECHECK, 7, moved_bytes(7))


def test_who_was_never_reached_is_tried_with_a_round() -> None:
    away = apply(CLEAR, Event.VANISH, T0, asked_ms=T0)
    assert ask([farmer(1, containment=away)], now_ms=T0) == []
    (job,) = ask([farmer(1, containment=away)], now_ms=away.next_due_ms)
    assert (job.kind, job.leaves) == (JobKind.ROUND, cadence(10 * GIB).leaves)


def test_who_is_least_known_comes_first_until_another_is_longer_overdue() -> None:
    known, unknown = farmer(1, uncertainty=0.03), farmer(2, uncertainty=0.19)
    assert [job.node_id for job in ask([known, unknown], requests_left=1)] == [node(2)]
    waiting = farmer(1, uncertainty=0.03, next_due_ms=T0 - 10 * DAY_MS)
    assert [job.node_id for job in ask([waiting, unknown], requests_left=1)] == [node(1)]


def test_too_few_bytes_make_all_audits_smaller_before_anyone_is_put_off() -> None:
    crowd = [farmer(number, holding_bytes=1 << 40) for number in range(10)]
    jobs = ask(crowd, bytes_left=10 * moved_bytes(20))
    assert sorted(job.leaves for job in jobs) == [20] * 10
    small = [farmer(20, holding_bytes=100 << 20)]
    mixed = ask(crowd + small, bytes_left=11 * moved_bytes(20))
    alone = cadence(100 << 20).leaves
    assert {job.leaves for job in mixed if job.node_id == node(20)} == {alone}
    assert len(mixed) == 11


def test_a_question_is_never_cut_and_may_overdraw() -> None:
    silent = apply(CLEAR, Event.SILENCE, T0 - DAY_MS, asked_ms=T0 - DAY_MS)
    asked = farmer(1, containment=silent, question_leaves=500)
    jobs = ask([asked, farmer(2)], bytes_left=moved_bytes(1) + 5)
    assert [(job.kind, job.leaves) for job in jobs] == [(JobKind.RECHECK, 500)]
    assert ask([asked, farmer(2)], bytes_left=0) == []
    assert ask([asked, farmer(2)], bytes_left=-1) == []


def test_one_request_at_a_time_starves_neither_rounds_nor_questions() -> None:
    silent = apply(CLEAR, Event.SILENCE, T0 - DAY_MS, asked_ms=T0 - DAY_MS)
    crowd = [farmer(number, containment=silent, question_leaves=2) for number in range(9)]
    crowd += [farmer(number) for number in range(100, 109)]
    dice = random.Random(3)
    kinds = [
        due(crowd, bytes_left=PLENTY, requests_left=1, now_ms=T0, randomness=dice.randbytes(8))[0].kind
        for _ in range(200)
    ]
    assert 60 < kinds.count(JobKind.ROUND) < 140


def test_every_farmer_is_audited_although_requests_are_scarce() -> None:
    dice = random.Random(9)
    crowd = {number: farmer(number, uncertainty=0.19 if number % 5 == 0 else 0.04) for number in range(30)}
    seen: set[NodeId] = set()
    allowance = Allowance.full(8, T0)
    for hour in range(24 * 20):
        now = T0 + hour * HOUR_MS
        jobs = due(
            list(crowd.values()),
            bytes_left=PLENTY,
            requests_left=allowance.left(now),
            now_ms=now,
            randomness=dice.randbytes(8),
        )
        allowance = allowance.spend(len(jobs), now)
        for job in jobs:
            seen.add(job.node_id)
            number = int.from_bytes(job.node_id, "big")
            crowd[number] = farmer(
                number,
                uncertainty=crowd[number].uncertainty,
                next_due_ms=now + draw_interval(DAY_MS, dice.randbytes(8)),
            )
    assert len(seen) == 30


def test_ties_are_broken_by_the_dice() -> None:
    crowd = [farmer(number) for number in range(6)]
    orders = {tuple(job.node_id for job in ask(crowd, seed)) for seed in range(1, 2**60, 2**55)}
    assert len(orders) > 10


def test_an_allowance_runs_in_evenly_and_pays_back_what_was_overdrawn() -> None:
    full = Allowance.full(100, T0)
    assert full.left(T0) == 100
    empty = full.spend(150, T0)
    assert empty.left(T0) == -50
    assert empty.left(T0 + ALLOWANCE_DAY_MS // 2) == 0
    assert empty.left(T0 + 10 * ALLOWANCE_DAY_MS) == 100
    assert empty.left(T0 - 1) == -50
    assert Allowance.full(100, T0, burst=7).left(T0 + ALLOWANCE_DAY_MS) == 7
    for bad in (lambda: Allowance.full(-1, T0), lambda: Allowance.full(1, T0, -1), lambda: full.spend(-1, T0)):
        with pytest.raises(ValueError):
            bad()
