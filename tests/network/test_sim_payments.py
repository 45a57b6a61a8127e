"""Random histories of paying: nobody overpaid, nobody short beyond the bound, books equal, no serial signed twice."""

from __future__ import annotations

import pytest

from stook.sim.pay_schedules import run_schedule, run_schedules


@pytest.mark.parametrize("seed", range(40))
def test_a_random_history_ends_well(seed: int) -> None:
    report = run_schedule(seed)
    assert not report.wrong, report


def test_one_seed_gives_one_history() -> None:
    assert run_schedule(7) == run_schedule(7)


@pytest.mark.soak
def test_a_thousand_random_histories_end_well() -> None:
    reports = run_schedules(1000)
    assert [report for report in reports if report.wrong] == []
    assert sum(report.deaths for report in reports) > 500
    assert sum(report.cheques for report in reports) > 1000
