"""The page about scores says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stook.audits import containment, schedule, score
from stook.audits.confidence import detection_chance, mirror_availability, miss_chance, rounds_until, window_miss_chance
from stook.audits.containment import CLEAR, STEPS, Event, Silence, apply
from stook.audits.schedule import cadence
from stook.audits.score import NEWCOMER, Audited, Beat, Heartbeat, Retrieved, Trait, placement_weight, update
from stook.contracts.verdict import Verdict
from stook.merkle import UNIT_BYTES
from stook.renter import loss_rates, repair_plan

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "protocol/scores.md").read_text()
PLACEMENT = (DOCS / "protocol/placement.md").read_text()
T0 = 1_700_000_000_000
DAY_MS = 24 * 3_600_000
HOUR_MS = 3_600_000
SIZES = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def text_of(page: str) -> str:
    return " ".join(page.split())


def test_the_diagram_is_the_table() -> None:
    drawn = {
        (Silence(state), Event(event)): Silence(after)
        for state, after, event in re.findall(r"^    (\w+) --> (\w+): (\w+)$", PAGE, re.M)
    }
    assert drawn == STEPS
    assert "[*] --> clear" in PAGE
    over = {Silence(state) for state in re.findall(r"^    (\w+) --> \[\*\]$", PAGE, re.M)}
    assert over == {state for state in Silence if not any(step[0] is state for step in STEPS)}


def test_every_state_event_and_score_is_explained() -> None:
    explained = re.findall(r"^\| (\w+) \|", PAGE, re.M)
    wanted = [*Trait, *Silence, *Event]
    assert [name for name in explained if name in wanted] == wanted


def test_numbers_are_those_of_the_code() -> None:
    rules = containment.RULES
    page = text_of(PAGE)
    for trait, half_life in score.HALF_LIFE_MS.items():
        (row,) = re.findall(rf"^\| {trait} \|.*$", PAGE, re.M)
        assert f"| {half_life // DAY_MS} days |" in row
    assert f"(good + {score.PRIOR_GOOD:.0f}) / (good + bad + {score.PRIOR_GOOD + score.PRIOR_BAD:.0f})" in page
    assert f"within {score.INCIDENT_MS // DAY_MS} days of the first" in page
    assert f"took {score.INCIDENT_SHARE:.0%} of the holding".replace("%", " %") in page
    assert f"weighs like {score.LOSS_IN_RETRIEVALS:.0f} failed retrievals" in page
    assert f"half-life of {score.LOSS_HALF_LIFE_MS // DAY_MS} days" in page
    assert f"sum is above {score.LOSS_LIMIT:.0f} nothing new" in page
    assert f"at least {score.WEIGHT_FLOOR}" in page
    assert f"mute {rules.mute_times} times, over {rules.mute_ms // HOUR_MS} hours" in page
    assert f"silent for {rules.gone_ms // DAY_MS} days" in page
    assert f"{rules.first_gap_ms // 60_000} minutes after the first silence" in page
    assert f"up to {rules.longest_gap_ms // HOUR_MS} hours" in page
    assert f"{2 * rules.longest_gap_ms // HOUR_MS} hours a gap at most" in page
    assert f"as {schedule.PLANNED_SHARE:.0%} of the stored bytes".replace("%", " %") in page
    assert f"below {schedule.AUDIT_SHARE:.0%}".replace("%", " %") in page
    assert f"to {schedule.LONGEST_INTERVAL_MS // DAY_MS} days at most" in page
    first, last = schedule.FIRST_FROM_MS // 60_000, schedule.FIRST_WITHIN_MS // 60_000
    assert f"{first} to {last} minutes after they were stored" in page


def test_a_mute_farmer_is_condemned_when_the_page_says() -> None:
    now, at = CLEAR, T0
    while now.state is not Silence.CONDEMNED:
        now = apply(now, Event.MUTE, at, asked_ms=at)
        at = now.next_due_ms
    assert f"condemned after {round((now.since_ms - T0) / HOUR_MS)} hours" in text_of(PAGE)


def test_the_weights_named_are_those_of_a_clean_record() -> None:
    named = text_of(PAGE)
    record = NEWCOMER
    weights = {0: placement_weight(NEWCOMER, T0)}
    for day in range(90):
        record = update(record, Audited(Verdict.PASSED), T0 + day * DAY_MS)
        record = update(record, Retrieved(True), T0 + day * DAY_MS)
        for hour in range(24):
            record = update(record, Heartbeat(Beat.ANSWERED), T0 + day * DAY_MS + hour * HOUR_MS)
        weights[day + 1] = placement_weight(record, T0 + (day + 1) * DAY_MS)
    assert f"A newcomer weighs {weights[0]:.2f}" in named
    assert f"{weights[7]:.2f} after a week, {weights[30]:.2f} after a month, {weights[90]:.2f} after three" in named
    end, before = T0 + 90 * DAY_MS, record.value(Trait.AVAILABILITY, T0 + 90 * DAY_MS)
    away: dict[int, float] = {}
    for hour in range(7 * 24):
        record = update(record, Heartbeat(Beat.MISSED), end + hour * HOUR_MS)
        away[hour + 1] = record.value(Trait.AVAILABILITY, end + (hour + 1) * HOUR_MS)
    assert f"falls from {before:.2f} to {away[72]:.2f} in availability" in named
    assert f"one away for a week to {away[168]:.2f}" in named


@pytest.mark.parametrize(
    "row",
    re.findall(r"^\| (\d+) (MiB|GiB|TiB) \| ([\d.]+) days? \| (\d+) \| ([\d.]+) % \| (\d+) .*\| (\d+) ", PAGE, re.M),
)
def test_the_table_of_holdings_is_computed(row: tuple[str, ...]) -> None:
    number, unit, every, leaves, share, hundredth, tenth = row
    holding = int(number) * SIZES[unit]
    rhythm = cadence(holding)
    days = rhythm.interval_ms / DAY_MS
    assert (f"{days:g}" if days == round(days) else f"{days:.1f}") == every
    assert rhythm.leaves == int(leaves)
    measured = 100 * rhythm.monthly_bytes / holding
    assert (f"{measured:.2f}" if measured < 0.1 else f"{measured:.1f}") == share
    units = holding // UNIT_BYTES
    for fraction, said in ((100, hundredth), (10, tenth)):
        seen = detection_chance(units, max(1, units // fraction), min(units, rhythm.leaves))
        assert round(rounds_until(seen, 0.95) * days) == int(said)


def test_the_table_of_holdings_was_read() -> None:
    assert len(re.findall(r"^\| \d+ [MGT]iB \|", PAGE, re.M)) == 6


def test_other_figures_on_the_page() -> None:
    assert f"misses {window_miss_chance(8192, 1024, 512):.0%}".replace("%", " %") in text_of(PAGE)
    assert round(miss_chance(8192, 1024, 512) * 1e31) == 2
    assert f"give {mirror_availability([0.9] * 3):.1%}, not {1 - 0.9**3:.1%}".replace("%", " %") in text_of(PAGE)
    assert cadence(1 << 20).monthly_bytes < 80_000


def test_the_page_about_placement_has_the_numbers_of_repair() -> None:
    page = text_of(PLACEMENT)
    rules = repair_plan.RULES
    assert f"at most {rules.fresh_ms // DAY_MS} days old" in page
    assert f"within the last {rules.patience_ms // HOUR_MS} hours" in page
    assert f"{rules.flight_ms // HOUR_MS} hours old" in page
    prior = loss_rates.PRIOR
    assert f"{prior.mean:g} losses a year, worth {prior.years:g} farmer-years" in page
