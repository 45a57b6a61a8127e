"""What a save takes in, and which moments are kept: pure decisions, with the bounds that the pages promise."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from stook.storage.journal_records import (
    DAY_MS,
    HOUR_MS,
    LAST_POINTS,
    MAX_CHAIN,
    MAX_COUNTER,
    MAX_EPOCH,
    SMALL_ROWS,
    absorbed,
    epoch_of,
    is_sequence,
    next_sequence,
    points_to_keep,
    sequence_of,
)


def grow(chain: list[int], changed: int) -> tuple[list[int], int]:
    """The chain after a save, as far as nothing coalesces; the rows that were sent."""
    keep = absorbed(chain, changed)
    sent = sum(chain[keep:]) + changed
    return [*chain[:keep], sent], sent


def test_a_first_save_is_a_base() -> None:
    assert absorbed([], 5) == 0


def test_a_small_catalog_is_always_saved_whole() -> None:
    assert absorbed([2 * SMALL_ROWS], 1) == 0
    assert absorbed([2 * SMALL_ROWS + 1], 1) == 1


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=400))
@example([3000 - n for n in range(400)])
@example([1] * 400)
def test_chains_stay_short_and_rows_are_sent_few_times(changes: list[int]) -> None:
    chain: list[int] = []
    total = written = 0
    for changed in changes:
        chain, sent = grow(chain, changed)
        written += max(sent, SMALL_ROWS)
        total += max(changed, SMALL_ROWS)
        assert len(chain) <= math.log2(total / SMALL_ROWS) + 2
        assert all(max(a, SMALL_ROWS) > 2 * max(b, SMALL_ROWS) for a, b in pairwise(chain))
    assert written <= total * (math.log(total / SMALL_ROWS, 1.5) + 1)


def test_a_chain_never_passes_what_a_manifest_holds() -> None:
    assert absorbed([10**12 >> n for n in range(MAX_CHAIN)], 1) < MAX_CHAIN


def test_points_thin_out_with_age() -> None:
    now = 10 * DAY_MS
    every_minute = [(number, now - age * 60_000) for number, age in enumerate(range(9 * 24 * 60, -1, -1))]
    kept = points_to_keep(every_minute, now, 7 * DAY_MS)
    ages = sorted(now - dict(every_minute)[one] for one in kept)
    assert ages[0] == 0
    assert ages[-1] <= 7 * DAY_MS
    assert 24 <= len([age for age in ages if age < DAY_MS]) <= 25 + LAST_POINTS
    assert ages[:LAST_POINTS] == [n * 60_000 for n in range(LAST_POINTS)]
    assert 6 <= len([age for age in ages if age >= DAY_MS]) <= 8
    assert all(b - a <= DAY_MS + HOUR_MS for a, b in pairwise(ages))


def test_the_newest_point_is_kept_however_old() -> None:
    assert points_to_keep([(3, 0), (4, 1)], 10**15, DAY_MS) == {4}
    assert points_to_keep([(n, n) for n in range(1, 30)], 10**6, 0) == {29}
    assert points_to_keep([(3, 5)], 10, 0) == {3}


def test_numbers_of_saves() -> None:
    assert sequence_of(1, 1) > sequence_of(0, MAX_COUNTER)
    assert epoch_of(sequence_of(7, 9)) == 7
    assert next_sequence(0, 0) == (1, 1)
    assert next_sequence(3, 5) == (3, 6)
    assert next_sequence(3, MAX_COUNTER) == (4, 1)
    assert is_sequence(sequence_of(MAX_EPOCH, MAX_COUNTER))
    assert not is_sequence(sequence_of(0, 5))
    assert not is_sequence(sequence_of(MAX_EPOCH + 1, 5))
    assert not is_sequence(sequence_of(1, MAX_COUNTER + 1))
