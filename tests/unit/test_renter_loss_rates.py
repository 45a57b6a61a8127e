"""What a grid's own losses say about the next ones."""

from __future__ import annotations

import math

import pytest

from stook.renter.loss_rates import OWN_YEARS, PRIOR, YEAR_MS, Exposure, LossRate, farmer_rate, grid_rate


def test_a_grid_that_has_seen_nothing_is_not_perfect() -> None:
    assert PRIOR.mean == pytest.approx(0.15)
    assert grid_rate([]) == PRIOR
    young = grid_rate([Exposure(1 / 12)] * 10)
    assert 0.08 < young.mean < 0.15
    old = grid_rate([Exposure(2.0)] * 100)
    assert 0 < old.mean < 0.002


def test_what_is_seen_decides_in_the_end() -> None:
    assert grid_rate([Exposure(1.0, 0.5)] * 400).mean == pytest.approx(0.5, rel=0.01)


def test_a_farmer_begins_where_the_grid_is_and_goes_its_own_way() -> None:
    grid = 0.1
    assert farmer_rate(Exposure(0.0), grid).mean == pytest.approx(grid)
    assert farmer_rate(Exposure(OWN_YEARS), grid).mean == pytest.approx(grid / 2)
    assert farmer_rate(Exposure(0.5, 1.0), grid).mean > 4 * grid


def test_the_chance_is_the_average_over_all_rates() -> None:
    rate = LossRate(2.5, 3.0)
    steps = 40_000
    top = 12.0
    density = [
        math.exp(
            2.5 * math.log(3.0)
            + 1.5 * math.log((step + 0.5) * top / steps)
            - 3.0 * (step + 0.5) * top / steps
            - math.lgamma(2.5)
        )
        for step in range(steps)
    ]
    slow = sum(weight * -math.expm1(-(step + 0.5) * top / steps * 0.7) for step, weight in enumerate(density)) * (
        top / steps
    )
    assert rate.chance_within(0.7) == pytest.approx(slow, rel=1e-5)
    assert rate.chance_within(0.0) == 0.0
    assert rate.chance_within(1 / 122) < rate.mean / 122


@pytest.mark.parametrize("confidence", [0.01, 0.5, 0.9, 0.95, 0.999])
def test_quantiles_of_the_exponential_are_its_closed_form(confidence: float) -> None:
    assert LossRate(1.0, 4.0).quantile(confidence) == pytest.approx(-math.log1p(-confidence) / 4.0, rel=1e-9)


@pytest.mark.parametrize("shape", [2, 5, 30])
def test_quantiles_of_whole_shapes_are_poisson_sums(shape: int) -> None:
    at = LossRate(float(shape), 1.0).quantile(0.95)
    poisson = math.fsum(math.exp(-at) * at**count / math.factorial(count) for count in range(shape))
    assert 1 - poisson == pytest.approx(0.95, rel=1e-9)


def test_the_cautious_rate_is_above_the_mean_and_comes_down() -> None:
    few, many = grid_rate([Exposure(0.2)] * 20), grid_rate([Exposure(2.0)] * 200)
    assert few.quantile(0.95) > 2 * few.mean
    assert many.quantile(0.95) < few.quantile(0.95)
    assert PRIOR.quantile(0.95) > 0.5


def test_exposure_is_time_watched() -> None:
    assert Exposure.between(0, YEAR_MS // 2).years == 0.5
    assert Exposure.between(5, 0) == Exposure(0.0)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: Exposure(-1.0),
        lambda: Exposure(1.0, -1.0),
        lambda: LossRate(0.0, 1.0),
        lambda: LossRate(1.0, 0.0),
        lambda: PRIOR.chance_within(-1.0),
        lambda: PRIOR.quantile(1.0),
        lambda: farmer_rate(Exposure(1.0), 0.0),
    ],
)
def test_nonsense_is_refused(bad: object) -> None:
    with pytest.raises(ValueError):
        bad()  # type: ignore[operator]
