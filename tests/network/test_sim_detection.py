"""Losses are found by the real audit code as soon as the closed form says, and the judge of that is not blind."""

from __future__ import annotations

import pytest

from stook.audits.confidence import miss_chance
from stook.sim.detection import Detected, Experiment, Setting, detection

SMALL = Setting(seed=5, trials=60, leaves=8, shards=25, units_per_shard=16)


def test_measurement_and_closed_form_agree():
    result = detection(SMALL, (0.01, 0.05, 0.2))
    assert result["agrees"]
    assert [one["missing_units"] for one in result["fractions"]] == [4, 20, 80]
    for one in result["fractions"]:
        assert one["chance_per_round"] == pytest.approx(1 - miss_chance(400, one["missing_units"], 8), rel=1e-12)
        assert abs(one["rounds_measured"] - one["rounds_expected"]) <= 3 * one["standard_error"]


def test_one_seed_gives_one_result_and_each_trial_stands_alone():
    whole = detection(SMALL, (0.05,))["fractions"][0]["rounds"]
    assert detection(SMALL, (0.05,))["fractions"][0]["rounds"] == whole
    assert [Experiment(SMALL).trial(0.05, number) for number in (7, 3)] == [whole[7], whole[3]]
    assert detection(Setting(6, 60, 8, 25, 16), (0.05,))["fractions"][0]["rounds"] != whole


def test_what_is_gone_is_exactly_so_many_units():
    experiment = Experiment(SMALL)
    experiment.trial(0.05, 0)
    assert len(experiment._keeper.gone) == 20


def test_a_verifier_that_overlooks_every_second_loss_would_be_seen():
    honest = [Experiment(SMALL).trial(0.05, number) for number in range(60)]
    assert Detected(SMALL, 0.05, tuple(honest)).agrees
    assert not Detected(SMALL, 0.05, tuple(2 * rounds for rounds in honest)).agrees
    # A mean that fits is not enough: here every trial takes as long as the average.
    expected = Detected(SMALL, 0.01, (1,)).expected
    assert not Detected(SMALL, 0.01, (round(expected),) * 60).agrees


@pytest.mark.parametrize(
    "wrong",
    [
        {"trials": 0},
        {"leaves": 0},
        {"shards": 0},
        {"units_per_shard": 49},
        {"units_per_shard": 0},
        {"leaves": 9, "shards": 1, "units_per_shard": 8},
    ],
)
def test_settings_that_measure_nothing_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError):
        Setting(**{"seed": 1, **wrong})


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_fractions_that_are_none_are_refused(fraction: float):
    with pytest.raises(ValueError, match="fraction"):
        detection(SMALL, (0.05, fraction))
