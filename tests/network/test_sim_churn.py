"""Farmers leave for good, repair keeps up, and what it costs is what rates foretell."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stook.shards.geometry import Policy
from stook.sim.churn import Setting, churn, foretold


def test_nothing_is_lost_while_a_third_of_the_farmers_leave():
    result = churn(Setting(seed=2, farmers=24, months=3, churn=0.15, code="3/7/8/9", objects=5))
    assert (result["lost"], result["false_positives"], result["living_taken_for_gone"]) == (0, 0, 0)
    assert result["departed"] >= 6
    assert result["repaired_shards"] > 0
    assert result["fewest_shards_alive"] >= 3
    assert 0 < result["repair_ratio"] < 3 * result["repair_ratio_foretold"]


@pytest.mark.soak
def test_a_year_of_two_hundred_farmers_of_which_a_tenth_leaves_each_month():
    result = churn(Setting(seed=1))
    assert (result["lost"], result["false_positives"]) == (0, 0)


def test_the_formula_gives_the_figure_that_others_published():
    # Storj's white paper: 30 of 80, repair at 45, mean life a year: 0.31 of the stored data a month.
    assert foretold(Policy.parse("30/46/60/80"), 1 / 12)[1] == pytest.approx(0.31, abs=0.01)
    assert foretold(Policy.parse("10/30"), 0.0) == (0.0, 0.0)
    # With r = n every loss is made good at once: as much is placed as leaves.
    assert foretold(Policy.parse("10/30/30/30"), 0.2)[0] == pytest.approx(0.2)
    assert Setting(seed=1, churn=0.1).departures == pytest.approx(-math.log(0.9))


@pytest.mark.parametrize("wrong", [{"churn": 1.0}, {"churn": -0.1}, {"months": 0}, {"objects": 0}, {"farmers": 31}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError):
        Setting(**{"seed": 1, **wrong})
