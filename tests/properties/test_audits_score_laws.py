"""Scores against the plain sum over a whole history, in any order."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stook.audits.score import (
    DAY_MS,
    HALF_LIFE_MS,
    NEWCOMER,
    PRIOR_BAD,
    PRIOR_GOOD,
    Audited,
    Beat,
    Belief,
    DeclaredLoss,
    Entry,
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
BELIEFS = (Trait.AUDIT, Trait.AVAILABILITY, Trait.RETRIEVAL)
moments = st.integers(T0, T0 + 1000 * DAY_MS)
shares = st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda pair: (pair[0], sum(pair)))
truthful = (
    st.builds(
        lambda verdict, share: Audited(verdict, *share), st.sampled_from([Verdict.PASSED, Verdict.SILENT]), shares
    )
    | st.builds(Heartbeat, st.sampled_from(Beat), st.integers(0, 9 * 3_600_000))
    | st.builds(Retrieved, st.booleans())
)
anything = (
    truthful
    | st.builds(lambda verdict, share: Audited(verdict, *share), st.sampled_from(Verdict), shares)
    | shares.map(lambda share: DeclaredLoss(*share))
    | st.just(Muted())
    | st.builds(Transferred, st.integers(0, 1 << 30), st.floats(0, 1e5))
)
histories = st.lists(st.tuples(moments, anything), max_size=40)


def fold(history: list[tuple[int, object]]) -> FarmerScore:
    score = NEWCOMER
    for at_ms, event in history:
        score = update(score, event, at_ms)  # type: ignore[arg-type]
    return score


def slow_mean(trait: Trait, history: list[tuple[int, object]], now_ms: int) -> float:
    good = bad = 0.0
    for at_ms, event in history:
        weight = 2.0 ** (-(now_ms - at_ms) / HALF_LIFE_MS[trait])
        match trait, event:
            case Trait.AUDIT, Audited(Verdict.PASSED, shards, asked):
                good += weight * shards / asked
            case Trait.AVAILABILITY, Audited(Verdict.SILENT, shards, asked):
                bad += weight * shards / asked / 24
            case Trait.AVAILABILITY, Heartbeat(Beat.ANSWERED, covers):
                good += weight * min(covers, DAY_MS // 4) / DAY_MS
            case Trait.AVAILABILITY, Heartbeat(Beat.MISSED, covers):
                bad += weight * min(covers, DAY_MS // 4) / DAY_MS
            case Trait.RETRIEVAL, Retrieved(ok):
                good += weight * ok
                bad += weight * (not ok)
    return (good + PRIOR_GOOD) / (good + bad + PRIOR_GOOD + PRIOR_BAD)


@given(st.lists(st.tuples(moments, truthful), max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_means_are_the_faded_sums_in_any_order(history: list[tuple[int, object]], dice: object) -> None:
    end = T0 + 1000 * DAY_MS
    shuffled = list(history)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    for order in (history, shuffled):
        score = fold(order)
        for trait in BELIEFS:
            assert score.value(trait, end) == pytest.approx(slow_mean(trait, history, end), rel=1e-9)


@given(histories, moments)
@settings(max_examples=150, deadline=None)
def test_scores_and_weights_stay_in_their_bounds(history: list[tuple[int, object]], now_ms: int) -> None:
    score = fold(history)
    for trait in BELIEFS:
        assert 0 < score.value(trait, now_ms) < 1
    assert 0 <= score.uncertainty(now_ms) <= 0.5
    assert math.isfinite(score.speed.bytes_per_second)
    assert score.speed.bytes_per_second >= 0
    weight = placement_weight(score, now_ms, 1e6)
    assert (weight > 0) == score.placeable(now_ms)
    assert weight <= 1


@given(histories)
@settings(max_examples=150, deadline=None)
def test_condemned_means_a_lie_is_in_the_history(history: list[tuple[int, object]]) -> None:
    def lie(event: object) -> bool:
        return isinstance(event, Muted) or (
            isinstance(event, Audited) and event.verdict in (Verdict.FAILED, Verdict.MALFORMED)
        )

    crimes = [at for at, event in history if lie(event)]
    score = fold(history)
    assert (score.crime is not None) == bool(crimes)
    assert score.condemned_ms == (crimes[0] if crimes else 0)


@given(histories)
@settings(max_examples=100, deadline=None)
def test_an_explanation_ends_where_the_scores_end(history: list[tuple[int, object]]) -> None:
    history.sort(key=lambda item: item[0])
    told = explain([Entry(at, event) for at, event in history])  # type: ignore[arg-type]
    assert told.score == fold(history)
    for trait in Trait:
        steps = [step for step in told.movements if step.trait is trait]
        for step in steps:
            assert step.first_ms <= step.last_ms
            assert step.times >= 1
        assert all(a.what != b.what for a, b in itertools.pairwise(steps))
        if steps:
            assert steps[-1].after == pytest.approx(told.score.value(trait, steps[-1].last_ms), rel=1e-9)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_more_good_never_lowers_and_more_bad_never_raises(good: int, bad: int) -> None:
    belief = Belief(good, bad, T0)
    assert belief.seen(1, 0, T0, DAY_MS).mean >= belief.mean >= belief.seen(0, 1, T0, DAY_MS).mean


@given(st.lists(st.floats(1e3, 1e9), min_size=60, max_size=60), st.integers(0, 19))
@settings(max_examples=50, deadline=None)
def test_a_third_of_wild_transfers_cannot_carry_the_speed_away(wild: list[float], phase: int) -> None:
    score = NEWCOMER
    for position, rate in enumerate(wild):
        if (position + phase) % 3:
            rate = 1e6
        score = update(score, Transferred(4 << 20, (4 << 20) / rate), T0 + position)
    if phase % 3:  # the first transfer was an ordinary one
        assert 0.4e6 < score.speed.bytes_per_second < 2.5e6
