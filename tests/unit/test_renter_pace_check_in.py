"""Whoever starts something looks at the clock again, even if nothing ever happens to it."""

import pytest

from stook.renter.pace import Attempt, FetchGoal, PushGoal, State, next_fetch, next_push


@pytest.mark.parametrize("exactly", [frozenset(), frozenset({0}), frozenset({0, 1, 2})])
def test_a_fetch_that_begins_is_asked_about_again_before_it_is_late(exactly: frozenset[int]):
    goal = FetchGoal(needed=3, order=(0, 1, 2, 3, 4), exactly=exactly)
    move = next_fetch(goal, (), 100.0)
    assert move.check_in is not None
    assert move.check_in <= goal.late.blind_seconds


def test_so_is_one_that_starts_anew_after_everything_failed():
    fetch = FetchGoal(needed=1, order=(0, 1))
    failed = [Attempt(0, 0, State.FAILED, 0.0, 1.0)]
    move = next_fetch(fetch, failed, 1.0)
    assert move.start
    assert move.check_in is not None
    push = next_push(PushGoal(enough=1, full=1, spares=(1,)), frozenset(), failed, 1.0)
    assert push.start
    assert push.check_in is not None
