import math
from itertools import product

import pytest

from stook.renter.durability import (
    DEFAULT_HAZARD,
    Hazard,
    advise,
    assess,
    grouped_loss_chance,
    loss_chance,
    nines,
    yearly,
)
from stook.shards.geometry import Policy


@pytest.mark.parametrize(("k", "n", "lost"), [(1, 1, 0.3), (2, 3, 0.1), (3, 5, 0.5), (4, 6, 0.01)])
def test_loss_is_the_sum_over_all_outcomes(k: int, n: int, lost: float) -> None:
    slow = sum(
        math.prod(lost if gone else 1 - lost for gone in outcome)
        for outcome in product((False, True), repeat=n)
        if n - sum(outcome) < k
    )
    assert loss_chance(k, n, lost) == pytest.approx(slow, rel=1e-12)


def test_groups_of_one_without_group_loss_are_the_plain_case() -> None:
    assert grouped_loss_chance(3, [1] * 8, 0.1, 0.0) == pytest.approx(loss_chance(3, 8, 0.1), rel=1e-12)


def test_groups_are_the_sum_over_all_outcomes() -> None:
    sizes, lost, burnt, k = [3, 2, 1], 0.2, 0.1, 3
    slow = 0.0
    for fires in product((False, True), repeat=len(sizes)):
        weight = math.prod(burnt if fire else 1 - burnt for fire in fires)
        alive = sum(size for size, fire in zip(sizes, fires, strict=True) if not fire)
        slow += weight * (loss_chance(k, alive, lost) if alive >= k else 1.0)
    assert grouped_loss_chance(k, sizes, lost, burnt) == pytest.approx(slow, rel=1e-12)


def test_small_tails_keep_their_digits() -> None:
    assert loss_chance(20, 40, 1e-3) == pytest.approx(math.comb(40, 21) * 1e-63, rel=0.05)


def test_crowding_costs_durability() -> None:
    policy = Policy.of(4, 8)
    assert assess(policy, [1] * 8) < assess(policy, [3, 3, 2])


def test_a_year_is_many_windows() -> None:
    hazard = Hazard(farmer_loss_per_year=0.15, repair_window_hours=72)
    per_window = hazard.within_window(0.15)
    assert yearly(per_window, hazard) == pytest.approx(0.15)
    assert yearly(1.0, hazard) == 1.0


def test_more_domains_give_more_nines_and_a_sentence() -> None:
    narrow, wide = advise(4), advise(40)
    assert nines(wide.yearly_loss) > nines(narrow.yearly_loss)
    assert "any 16 of 32" in wide.explanation
    assert wide.expansion == 2.0


@pytest.mark.parametrize("bad", [{"farmer_loss_per_year": 1.0}, {"repair_window_hours": 0.0}])
def test_hazards_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Hazard(**bad)


def test_bad_codes_are_refused() -> None:
    with pytest.raises(ValueError):
        loss_chance(5, 4, 0.1)
    with pytest.raises(ValueError):
        loss_chance(1, 4, 1.1)
    with pytest.raises(ValueError):
        grouped_loss_chance(1, [0], 0.1, 0.1)
    with pytest.raises(ValueError):
        grouped_loss_chance(4, [1, 2], 0.1, 0.1)
    assert nines(0.0) == 99.0
    assert DEFAULT_HAZARD.windows_per_year > 100
