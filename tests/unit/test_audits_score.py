"""What each event does to a score, and how the rates of honest loss come out over a year."""

from __future__ import annotations

import pytest

from stook.audits.score import (
    DAY_MS,
    HALF_LIFE_MS,
    HOUR_MS,
    LOSS_LIMIT,
    NEWCOMER,
    WEIGHT_FLOOR,
    Audited,
    Beat,
    Crime,
    DeclaredLoss,
    Entry,
    Event,
    FarmerScore,
    Heartbeat,
    Muted,
    Retrieved,
    Trait,
    Transferred,
    explain,
    placement_weight,
    update,
)
from stook.contracts.verdict import Verdict

T0 = 1_700_000_000_000
PASSED = Audited(Verdict.PASSED)


def lived(*events: tuple[int, Event], score: FarmerScore = NEWCOMER) -> FarmerScore:
    for at_ms, event in events:
        score = update(score, event, T0 + at_ms)
    return score


def veteran(days: int = 90) -> FarmerScore:
    score = NEWCOMER
    for day in range(days):
        score = update(score, PASSED, T0 + day * DAY_MS)
        for hour in range(24):
            score = update(score, Heartbeat(Beat.ANSWERED), T0 + day * DAY_MS + hour * HOUR_MS)
        score = update(score, Retrieved(True), T0 + day * DAY_MS)
    return score


def test_a_newcomer_gets_a_chance_and_a_veteran_about_twice_as_much() -> None:
    assert placement_weight(NEWCOMER, T0) == pytest.approx(0.75**3)
    weight = placement_weight(veteran(), T0 + 90 * DAY_MS)
    assert 0.85 < weight < 1
    assert 2 < weight / placement_weight(NEWCOMER, T0) < 2.4


def test_each_event_moves_its_own_score_only() -> None:
    moved = {
        PASSED: {Trait.AUDIT},
        Audited(Verdict.SILENT): {Trait.AVAILABILITY},
        Audited(Verdict.LOST): {Trait.RETRIEVAL},
        DeclaredLoss(1, 100): {Trait.RETRIEVAL},
        Audited(Verdict.FAILED): {Trait.AUDIT},
        Audited(Verdict.MALFORMED): {Trait.AUDIT},
        Muted(): {Trait.AUDIT},
        Heartbeat(Beat.ANSWERED): {Trait.AVAILABILITY},
        Heartbeat(Beat.MISSED): {Trait.AVAILABILITY},
        Heartbeat(Beat.EXCUSED): set(),
        Retrieved(True): {Trait.RETRIEVAL},
        Retrieved(False): {Trait.RETRIEVAL},
        Transferred(1 << 20, 1.0): {Trait.SPEED},
        Transferred(1000, 1.0): set(),
    }
    for event, traits in moved.items():
        after = update(NEWCOMER, event, T0)
        assert {trait for trait in Trait if after.value(trait, T0) != NEWCOMER.value(trait, T0)} == traits, event


@pytest.mark.parametrize(
    ("event", "crime"),
    [
        (Audited(Verdict.FAILED, shards=1, asked=1000), Crime.FALSE_PROOF),
        (Audited(Verdict.MALFORMED), Crime.MALFORMED_PROOF),
        (Muted(), Crime.MUTE),
    ],
)
def test_a_lie_condemns_for_ever_whatever_came_before_or_after(event: Event, crime: Crime) -> None:
    score = update(veteran(), event, T0 + 91 * DAY_MS)
    assert (score.crime, score.condemned_ms) == (crime, T0 + 91 * DAY_MS)
    later = T0 + 3650 * DAY_MS
    score = update(update(score, PASSED, later), Muted(), later)
    assert (score.crime, score.condemned_ms) == (crime, T0 + 91 * DAY_MS)
    assert not score.placeable(later)
    assert placement_weight(score, later) == 0.0


def test_silence_and_honest_loss_condemn_nobody() -> None:
    score = lived(*((day * DAY_MS, Audited(Verdict.SILENT)) for day in range(300)))
    score = update(score, DeclaredLoss(500, 500), T0 + 300 * DAY_MS)
    assert score.crime is None


def test_a_round_weighs_one_whatever_it_asked() -> None:
    split = lived((0, Audited(Verdict.PASSED, 30, 200)), (0, Audited(Verdict.PASSED, 170, 200)))
    assert split.audit.good == pytest.approx(1)
    assert lived((0, PASSED)).audit.good == 1


def test_evidence_halves_with_the_half_life_and_ends_at_the_prior() -> None:
    score = lived(*((0, Retrieved(False)) for _ in range(10)))
    half = score.retrieval.at(T0 + HALF_LIFE_MS[Trait.RETRIEVAL], HALF_LIFE_MS[Trait.RETRIEVAL])
    assert half.bad == pytest.approx(5)
    assert score.value(Trait.RETRIEVAL, T0 + 20 * HALF_LIFE_MS[Trait.RETRIEVAL]) == pytest.approx(0.75, abs=1e-3)


def test_uncertainty_falls_with_audits_and_grows_back_without() -> None:
    score = lived(*((day * DAY_MS, PASSED) for day in range(30)))
    known = score.uncertainty(T0 + 30 * DAY_MS)
    assert known < NEWCOMER.uncertainty(T0)
    assert known < score.uncertainty(T0 + 400 * DAY_MS) < NEWCOMER.uncertainty(T0)


def test_availability_counts_time_not_questions() -> None:
    hourly = lived(*((hour * HOUR_MS, Heartbeat(Beat.MISSED)) for hour in range(12)))
    rarely = lived(*((hour * HOUR_MS, Heartbeat(Beat.MISSED, 6 * HOUR_MS)) for hour in (5, 11)))
    assert hourly.availability.bad == pytest.approx(rarely.availability.bad, rel=0.01)
    asleep = lived((0, Heartbeat(Beat.MISSED, 90 * DAY_MS)))
    assert asleep.availability.bad == 0.25


def test_three_days_away_cost_a_veteran_a_tenth() -> None:
    score, end = veteran(), T0 + 90 * DAY_MS
    before = score.value(Trait.AVAILABILITY, end)
    for hour in range(72):
        score = update(score, Heartbeat(Beat.MISSED), end + hour * HOUR_MS)
    assert 0.05 < before - score.value(Trait.AVAILABILITY, end + 3 * DAY_MS) < 0.12


def test_a_dead_disk_is_forgiven_three_in_half_a_year_are_not() -> None:
    once = lived((0, DeclaredLoss(900, 900)), score=veteran())
    assert once.placeable(T0)
    assert once.value(Trait.RETRIEVAL, T0 + 90 * DAY_MS) > 0.7
    thrice = lived(*((day * DAY_MS, DeclaredLoss(900, 900)) for day in (0, 60, 120)))
    assert thrice.resting(T0 + 120 * DAY_MS)
    assert thrice.crime is None
    assert not thrice.resting(T0 + 300 * DAY_MS)
    assert placement_weight(thrice, T0 + 300 * DAY_MS) > WEIGHT_FLOOR


@pytest.mark.parametrize(
    ("every_days", "lost_of_10000", "rests"),
    [
        (365, 10_000, False),
        (182, 10_000, False),
        (90, 10_000, True),
        (30, 100, False),
        (7, 100, True),
        (1, 3, False),
        (1, 5, True),
    ],
)
def test_rates_of_loss_over_two_years(every_days: int, lost_of_10000: int, rests: bool) -> None:
    score, ever = NEWCOMER, False
    for day in range(0, 730, every_days):
        score = update(score, DeclaredLoss(lost_of_10000, 10_000), T0 + day * DAY_MS)
        ever = ever or score.resting(T0 + day * DAY_MS)
    assert ever is rests


def test_what_comes_to_light_within_a_week_is_one_incident() -> None:
    score = lived(*((hour * HOUR_MS, Audited(Verdict.LOST, 3, 4, 900)) for hour in range(0, 160, 1)))
    assert score.losses.mass <= 1.0
    assert score.losses.mass == pytest.approx(1.0, rel=0.03)
    assert LOSS_LIMIT > 1


def test_one_stalled_and_one_lucky_transfer_hardly_move_the_speed() -> None:
    score = lived(*((minute * 60_000, Transferred(4 << 20, 1.0)) for minute in range(100)))
    steady = score.speed.bytes_per_second
    assert steady == pytest.approx(4 << 20)
    for strange in (Transferred(4 << 20, 3600.0), Transferred(4 << 20, 1e-9)):
        moved = update(score, strange, T0 + 6_000_000).speed.bytes_per_second
        assert abs(moved / steady - 1) < 0.03


def test_the_speed_follows_a_lasting_change_within_a_hundred_transfers() -> None:
    score = lived(*((minute * 60_000, Transferred(4 << 20, 1.0)) for minute in range(100)))
    for minute in range(100, 250):
        score = update(score, Transferred(1 << 20, 1.0), T0 + minute * 60_000)
    assert score.speed.bytes_per_second == pytest.approx(1 << 20, rel=0.1)


def test_being_faster_gains_nothing_and_being_slow_costs_half_at_most() -> None:
    base = placement_weight(NEWCOMER, T0)
    fast = update(NEWCOMER, Transferred(1 << 30, 1.0), T0)
    slow = update(NEWCOMER, Transferred(1 << 20, 1000.0), T0)
    assert placement_weight(fast, T0, typical_speed=1e6) == base
    assert placement_weight(slow, T0, typical_speed=1e6) == base / 2
    assert placement_weight(slow, T0) == base


def test_the_worst_that_told_the_truth_keep_a_floor() -> None:
    score = lived(*((0, Retrieved(False)) for _ in range(1000)), *((0, Heartbeat(Beat.MISSED)) for _ in range(1000)))
    assert placement_weight(score, T0) == WEIGHT_FLOOR


def test_an_explanation_says_what_moved_what_when_and_by_how_much() -> None:
    history = [
        Entry(T0, PASSED),
        Entry(T0 + HOUR_MS, Heartbeat(Beat.ANSWERED)),
        Entry(T0 + 2 * HOUR_MS, Heartbeat(Beat.ANSWERED)),
        Entry(T0 + DAY_MS, PASSED),
        Entry(T0 + DAY_MS + 1, Heartbeat(Beat.EXCUSED)),
        Entry(T0 + DAY_MS + 2, Heartbeat(Beat.MISSED)),
        Entry(T0 + 2 * DAY_MS, Transferred(1 << 20, 2.0)),
        Entry(T0 + 3 * DAY_MS, Audited(Verdict.FAILED)),
    ]
    told = explain(history)
    assert [(step.trait, step.what, step.times) for step in told.movements] == [
        (Trait.AUDIT, "audit passed", 2),
        (Trait.AVAILABILITY, "there", 2),
        (Trait.AVAILABILITY, "not there", 1),
        (Trait.SPEED, "transfer", 1),
        (Trait.AUDIT, "audit answered with a false proof: condemned", 1),
    ]
    assert [step.moved > 0 for step in told.movements] == [True, True, False, True, False]
    assert (told.movements[0].first_ms, told.movements[0].last_ms) == (T0, T0 + DAY_MS)
    assert told.score.crime is Crime.FALSE_PROOF
    assert explain([]).score == NEWCOMER
