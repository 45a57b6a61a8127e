"""Detection arithmetic against enumeration, and the white paper's section 6 with what it printed wrong."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stook.audits.confidence import (
    beach_chance,
    detection_chance,
    eclipse_chance,
    largest_unseen_fraction,
    leaves_for_fraction,
    leaves_needed,
    mean_rounds,
    mirror_availability,
    miss_chance,
    miss_chance_of_fraction,
    mixed_miss_chance,
    rounds_until,
    window_miss_chance,
)
from stook.renter.durability import loss_chance

# Each row: arguments, the value as the paper prints it, the value computed exactly.
ERASURE_6_1 = [
    ((18, 6, 0.5), "4.812e-02", "4.813e-02"),
    ((18, 6, 0.75), "3.424e-05", "3.425e-05"),
    ((18, 6, 0.9), "5.266e-10", "5.266e-10"),
    ((18, 6, 0.98), "6.391e-19", "6.391e-19"),
    ((36, 12, 0.5), "1.440e-02", "1.441e-02"),
    ((36, 12, 0.75), "2.615e-08", "2.615e-08"),
    ((36, 12, 0.9), "1.977e-17", "1.978e-17"),
    ((36, 12, 0.98), "1.628e-34", "1.628e-34"),
]
ECLIPSE_6_2 = [
    ((100, 100), "7.937e-02", "7.937e-02"),
    ((100, 500), "1.120e-03", "1.119e-03"),
    ((100, 900), "2.046e-04", "2.046e-04"),
    ((500, 100), "8.766e-01", "8.766e-01"),
    ((500, 500), "8.012e-02", "8.012e-02"),
    ((500, 900), "1.888e-02", "1.888e-02"),
    ((900, 100), "9.939e-01", "9.939e-01"),
    ((900, 500), "2.693e-01", "2.693e-01"),
    ((900, 900), "8.020e-02", "8.020e-02"),
]
BEACH_6_3 = [
    ((100, 10, 10), "5.777e-14", "5.777e-14"),
    ((100, 10, 50), "5.934e-04", "5.934e-04"),
    ((100, 10, 90), "3.305e-01", "3.305e-01"),
    ((100, 50, 50), "9.912e-30", "9.912e-30"),
    ((100, 50, 90), "5.493e-04", "5.934e-04"),  # erratum: two digits swapped
    ((500, 50, 200), "1.961e-22", "1.961e-22"),
    ((500, 50, 400), "7.361e-06", "7.361e-06"),
    ((900, 10, 200), "2.457e-07", "2.457e-07"),
    ((900, 10, 400), "2.823e-04", "2.823e-04"),
    ((900, 10, 800), "3.060e-01", "3.060e-01"),
    ((900, 50, 200), "1.072e-35", "1.072e-35"),
    ((900, 50, 400), "4.023e-19", "4.023e-19"),
    ((900, 50, 800), "2.320e-03", "2.320e-03"),
]
PARTIAL_6_4 = [
    ((8192, 512, 512), "1.466e-15", "1.466e-15"),
    ((8192, 1024, 512), "1.867e-31", "1.866e-31"),
    ((8192, 2048, 512), "3.989e-67", "3.989e-67"),
    ((8192, 3072, 512), "1.228e-109", "1.228e-109"),
    ((8192, 4096, 512), "2.952e-162", "2.952e-162"),
]


@pytest.mark.parametrize(("case", "printed", "exact"), ERASURE_6_1)
def test_table_6_1_erasure(case: tuple[int, int, float], printed: str, exact: str) -> None:
    n, k, up = case
    value = loss_chance(k, n, 1 - up)
    assert f"{value:.3e}" == exact
    # The paper cuts digits off instead of rounding.
    assert math.floor(float(f"{value:.9e}".partition("e")[0]) * 1000) == round(float(printed.partition("e")[0]) * 1000)


@pytest.mark.parametrize(("case", "printed", "exact"), ECLIPSE_6_2)
def test_table_6_2_eclipse(case: tuple[int, int], printed: str, exact: str) -> None:
    assert f"{eclipse_chance(*case):.3e}" == exact
    assert float(printed) == pytest.approx(float(exact), rel=1e-3)


@pytest.mark.parametrize(("case", "printed", "exact"), BEACH_6_3)
def test_table_6_3_beach(case: tuple[int, int, int], printed: str, exact: str) -> None:
    assert f"{beach_chance(*case):.3e}" == exact
    assert (printed == exact) == (case != (100, 50, 90))


@pytest.mark.parametrize(("case", "printed", "exact"), PARTIAL_6_4)
def test_table_6_4_partial_audits(case: tuple[int, int, int], printed: str, exact: str) -> None:
    assert f"{miss_chance(*case):.3e}" == exact
    assert float(printed) == pytest.approx(float(exact), rel=1e-3)


def test_first_erratum_two_digits_are_swapped_in_6_3() -> None:
    # The case is the mirror image of one the paper prints right: C(50, 40) / C(100, 90) = C(90, 40) / C(100, 50).
    assert beach_chance(100, 50, 90) == beach_chance(100, 10, 50) == pytest.approx(5.934e-04, rel=1e-3)
    assert beach_chance(100, 50, 90) != pytest.approx(5.493e-04, rel=1e-2)


def test_second_erratum_the_formula_for_mirrors_takes_uptime_for_downtime() -> None:
    uptimes = [0.9, 0.9, 0.9]
    printed = 1 - math.prod(uptimes)
    assert printed == pytest.approx(0.271)
    assert mirror_availability(uptimes) == pytest.approx(0.999)
    # More mirrors must help: as printed they do not as soon as every uptime is above one half.
    assert mirror_availability([0.9] * 4) > mirror_availability([0.9] * 3)
    assert mirror_availability([]) == 0


def test_eclipse_is_the_sum_as_printed() -> None:
    for generated, honest in ((3, 2), (5, 3), (12, 7)):
        near = Fraction(1, honest)
        slow = sum(
            math.comb(generated, hits) * near**hits * (1 - near) ** (generated - hits) for hits in range(3, generated)
        )
        assert eclipse_chance(generated, honest) == float(slow)
    assert eclipse_chance(2, 5) == 0.0


@pytest.mark.parametrize(("total", "missing", "sampled"), [(6, 2, 2), (7, 1, 3), (5, 5, 1), (6, 0, 6), (4, 2, 0)])
def test_a_miss_is_the_share_of_draws_that_touch_nothing(total: int, missing: int, sampled: int) -> None:
    gone = set(range(missing))
    draws = list(combinations(range(total), sampled))
    clean = sum(not gone & set(draw) for draw in draws)
    assert miss_chance(total, missing, sampled) == clean / len(draws)


@pytest.mark.parametrize(("total", "missing", "window"), [(10, 3, 2), (10, 9, 5), (6, 1, 1), (5, 0, 3), (5, 2, 0)])
def test_a_window_is_enumerated_on_its_ring(total: int, missing: int, window: int) -> None:
    gap = set(range(missing))
    clean = sum(not gap & {(start + step) % total for step in range(window)} for start in range(total))
    assert window_miss_chance(total, missing, window) == clean / total


def test_the_window_is_no_substitute_for_scattered_bytes() -> None:
    assert window_miss_chance(8192, 1024, 512) > 0.8
    assert miss_chance(8192, 1024, 512) < 1e-30


def test_small_deletions_survive_single_audits() -> None:
    units = 8 << 20
    assert miss_chance(units, units // 1000, 512) == pytest.approx(0.60, abs=0.01)
    assert 1 - detection_chance(units, units // 1000, 512, rounds=10) == pytest.approx(0.006, abs=0.0005)
    assert miss_chance(units, units // 100, 512) == pytest.approx(0.006, abs=0.0005)


def test_consecutive_audits_multiply_and_a_full_one_settles_it() -> None:
    assert mixed_miss_chance(100, 5, [10, 20]) == miss_chance(100, 5, 10) * miss_chance(100, 5, 20)
    assert mixed_miss_chance(100, 5, [10, 100]) == 0.0
    assert mixed_miss_chance(100, 0, [10, 100]) == 1.0
    assert mixed_miss_chance(100, 5, []) == 1.0


def test_rounds_to_detection() -> None:
    assert mean_rounds(0.25) == 4
    assert mean_rounds(0.0) == math.inf
    assert rounds_until(0.5, 0.5) == 1
    assert rounds_until(0.5, 0.75) == 2
    assert rounds_until(0.5, 0.76) == 3
    assert rounds_until(1.0, 0.999) == 1
    assert rounds_until(0.3, 0.0) == 0
    assert leaves_for_fraction(0.01, 0.95) == 299
    assert largest_unseen_fraction(299, 0.95) <= 0.01 < largest_unseen_fraction(298, 0.95)
    assert largest_unseen_fraction(0, 0.95) == 1.0


@given(st.integers(1, 60), st.data())
@settings(deadline=None)
def test_leaves_needed_is_the_least(total: int, data: st.DataObject) -> None:
    missing = data.draw(st.integers(1, total))
    confidence = data.draw(st.floats(0, 0.999))
    leaves = leaves_needed(total, missing, confidence)
    assert 1 - miss_chance(total, missing, leaves) >= confidence
    assert leaves == 0 or 1 - miss_chance(total, missing, leaves - 1) < confidence


@given(st.integers(1, 80), st.data())
@settings(deadline=None)
def test_the_geometric_chance_bounds_the_exact_one(total: int, data: st.DataObject) -> None:
    missing, sampled = data.draw(st.integers(0, total)), data.draw(st.integers(0, total))
    assert miss_chance(total, missing, sampled) <= miss_chance_of_fraction(missing / total, sampled) + 1e-12


@given(st.floats(1e-6, 1), st.floats(0, 0.999999))
@settings(deadline=None)
def test_rounds_until_is_the_least(detection: float, confidence: float) -> None:
    rounds = rounds_until(detection, confidence)
    reached = [
        1.0 if detection == 1 else -math.expm1(n * math.log1p(-detection)) for n in (rounds, rounds - 1) if n > 0
    ]
    assert not reached or reached[0] >= confidence
    assert len(reached) < 2 or reached[1] < confidence


@pytest.mark.parametrize(
    "call",
    [
        lambda: miss_chance(5, 6, 1),
        lambda: miss_chance(5, 1, 6),
        lambda: window_miss_chance(5, 1, 6),
        lambda: miss_chance_of_fraction(1.1, 3),
        lambda: mean_rounds(-0.1),
        lambda: rounds_until(0.0, 0.5),
        lambda: rounds_until(0.5, 1.0),
        lambda: leaves_needed(5, 0, 0.5),
        lambda: leaves_for_fraction(0.0, 0.5),
        lambda: largest_unseen_fraction(3, 1.0),
        lambda: eclipse_chance(3, 0),
        lambda: beach_chance(5, 6, 1),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]


def test_edges() -> None:
    assert beach_chance(10, 5, 4) == 0.0
    assert detection_chance(10, 10, 1) == 1.0
    assert detection_chance(10, 10, 1, rounds=0) == 0.0
    assert detection_chance(10, 0, 5) == 0.0
