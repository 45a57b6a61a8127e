"""Nobody honest is condemned whatever befalls it, and liars are named. The full size is part of the soak."""

from __future__ import annotations

import pytest

from stook.sim.honesty import Setting, honesty, the_cast
from stook.sim.liars import Ring

TOLD_AT_ONCE = {
    "confesses when caught",
    "denies contracts",
    "shows inner nodes",
    "shows another's answer",
    "fetches elsewhere",
    "colludes",
    "forgets all, hides behind a receipt",
}
"""Those that a week is enough for, whatever the draws are."""


def test_a_fortnight_of_a_small_network_on_a_bad_line():
    result = honesty(Setting(seed=1, farmers=36, days=14, objects=10, code="6/16"))
    assert result["signatures"] == "real"
    assert (result["honest_condemned"], result["honest_called_withholding"], result["lost"]) == (0, 0, 0)
    assert min(result["restarts"], result["absences"], result["chunks_lost"]) > 0
    named = {each["liar"] for each in result["liars"] if each["named"]}
    assert len({each["liar"] for each in result["liars"]}) == len(the_cast(Ring()))
    assert named >= TOLD_AT_ONCE


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_ninety_days_of_three_hundred_farmers(seed: int):
    result = honesty(Setting(seed=seed))
    assert result["signatures"] == "cheap"
    assert result["honest_condemned"] == 0
    assert [each["liar"] for each in result["liars"] if not each["named"]] == []
    assert result["ok"], result


@pytest.mark.parametrize("wrong", [{"farmers": 20}, {"days": 0}, {"objects": 0}])
def test_settings_that_show_nothing_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="at least"):
        Setting(**{"seed": 1, **wrong})
