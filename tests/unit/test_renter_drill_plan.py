"""Which segment is drilled next, by which rows, and when it may be afforded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from certificate_samples import DAY_MS, MIB, target
from stook.audits.allowance import Allowance
from stook.renter.drill_plan import (
    FIRST_RETRY_MS,
    LAST_RETRY_MS,
    affordable_ms,
    below,
    bits_of,
    choose,
    choose_rows,
    due_again_ms,
    largest_bytes,
    retry_ms,
    rows_after,
    rows_of,
    shuffled,
)
from stook.sim.dice import Dice
from stook.storage.drill_ports import DrillTarget

NOW = 100 * DAY_MS


def drilled(number: int, days_ago: float, mib: int = 1) -> DrillTarget:
    at = NOW - int(days_ago * DAY_MS)
    return target(number, mib, tried_ms=at, proved_ms=at)


def picks(pool: list[DrillTarget], draws: int = 4000, **options: object) -> Counter[tuple[int, bool]]:
    dice, found = Dice(1), Counter[tuple[int, bool]]()
    for _ in range(draws):
        pick = choose(pool, NOW, dice, **options)  # type: ignore[arg-type]
        assert pick is not None
        found[int.from_bytes(pick.target.segment_id, "big"), pick.spot] += 1
    return found


def test_never_drilled_comes_first_but_for_spot_checks_over_everything() -> None:
    found = picks([drilled(1, 50), drilled(2, 3), target(3), target(4)])
    assert {number for (number, spot) in found if not spot} == {3, 4}
    assert {number for (number, spot) in found if spot} == {1, 2, 3, 4}
    assert sum(count for (_, spot), count in found.items() if spot) == pytest.approx(1000, rel=0.15)


def test_then_the_older_half() -> None:
    found = picks([drilled(number, 10 + number) for number in range(6)])
    assert {number for (number, spot) in found if not spot} == {3, 4, 5}


def test_bytes_weigh() -> None:
    found = picks([target(1, 1), target(2, 9)])
    for spot in (True, False):
        assert found[2, spot] == pytest.approx(9 * found[1, spot], rel=0.4)


def test_what_was_drilled_lately_rests() -> None:
    pool = [drilled(1, 0.5), drilled(2, 0.9)]
    assert choose(pool, NOW, Dice(1)) is None
    assert choose(pool, NOW, Dice(1), rest_ms=0) is not None
    assert choose(pool, NOW, Dice(1), rest_ms=0, done={each.segment_id for each in pool}) is None


def test_failures_come_again_later_and_later_and_before_all_others() -> None:
    failing = replace(target(1), tried_ms=NOW, failures=1)
    assert [retry_ms(failures) // FIRST_RETRY_MS for failures in (1, 2, 3)] == [1, 2, 4]
    assert retry_ms(1000) == LAST_RETRY_MS
    assert due_again_ms(failing) == NOW + FIRST_RETRY_MS
    assert {number for number, _ in picks([failing, target(2)])} == {2}
    assert {number for number, _ in picks([failing, target(2)], retry_now=True)} == {1}
    pick = choose([failing, target(2)], NOW + FIRST_RETRY_MS, Dice(1))
    assert pick is not None
    assert (pick.target, pick.spot) == (failing, False)


def test_rows_not_given_back_yet_are_asked_first() -> None:
    dice = Dice(1)
    assert set(choose_rows(2, [0, 3, 5, 7], bits_of([0, 5]), dice)) == {3, 7}
    assert {3} < set(choose_rows(2, [0, 3, 5], bits_of([0, 5]), dice)) <= {0, 3, 5}
    assert choose_rows(4, [1, 2], bits_of([]), dice) in {(1, 2), (2, 1)}
    orders = {choose_rows(2, range(6), bits_of([]), dice) for _ in range(200)}
    assert len(orders) == 30, "any two of six, in any order"


def test_the_next_time_around_begins_when_all_were_given_back() -> None:
    seen = rows_after(bits_of([]), range(4), [0, 2])
    assert rows_of(seen) == {0, 2}
    assert rows_of(rows_after(seen, range(4), [1])) == {0, 1, 2}
    assert rows_of(rows_after(seen, range(4), [1, 3])) == set()
    assert rows_of(bits_of([0, 254])) == {0, 254}


def test_dice_are_fair_and_refuse_nothing() -> None:
    dice = Dice(1)
    counted = Counter(below(3, dice) for _ in range(3000))
    assert all(count == pytest.approx(1000, rel=0.1) for count in counted.values())
    assert {below(1, dice) for _ in range(9)} == {0}
    assert below(1 << 40, dice) < 1 << 40
    with pytest.raises(ValueError):
        below(0, dice)
    assert sorted(shuffled([5, 1, 3], dice)) == [1, 3, 5]


def test_the_largest_that_may_be_drawn() -> None:
    pool = [target(1, 3), target(2, 9)]
    assert largest_bytes(pool) == 9 * MIB
    assert largest_bytes(pool, {pool[1].segment_id}) == 3 * MIB
    assert largest_bytes([]) == 0
    assert target(1, plain_bytes=1).fetch_bytes == 4 * 16_384, "whole stripes travel"


def test_the_next_waits_until_it_fits() -> None:
    allowance = Allowance.full(24 * MIB, 0)
    assert affordable_ms(allowance, 24 * MIB, 0) == 0
    spent = allowance.spend(24 * MIB, 0)
    assert affordable_ms(spent, 2 * MIB, 0) == 2 * 3_600_000
    assert affordable_ms(spent, 100 * MIB, 0) == DAY_MS, "more than a day's worth waits for a full bucket"
    assert affordable_ms(spent.spend(24 * MIB, 0), 24 * MIB, 0) == 2 * DAY_MS
    with pytest.raises(ValueError):
        affordable_ms(Allowance.full(0, 0), 1, 0)
