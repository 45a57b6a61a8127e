"""Uploads and downloads are played out against farmers of random speed and honesty; no clock, no network."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from stook.renter.pace import Attempt, FetchGoal, Move, PushGoal, State, next_fetch, next_push


@dataclass(frozen=True)
class Farmer:
    seconds: float
    fails: bool


farmers = st.builds(Farmer, st.floats(0.01, 60), st.booleans())


def play(decide, crowd: list[Farmer], *, horizon: float = 4000.0) -> tuple[list[Attempt], set[int], float]:
    """Carry out moves until over; each start takes the next farmer of the crowd, and fails at once without one."""
    attempts: list[Attempt] = []
    ends: dict[int, tuple[float, bool]] = {}
    pool, now, cut = list(crowd), 0.0, set()
    for _ in range(10_000):
        move: Move = decide(attempts, now, not pool)
        cut |= set(move.cut)
        if move.over:
            return attempts, cut, now
        for index in move.start:
            number = len(attempts)
            attempts.append(Attempt(number, index, State.RUNNING, now))
            if pool:
                farmer = pool.pop(0)
                ends[number] = (now + farmer.seconds, not farmer.fails)
            else:
                ends[number] = (now, False)
        waiting = {n: e for n, e in ends.items() if attempts[n].state is State.RUNNING}
        assert waiting, "nothing runs and it is not over"
        number, (at, good) = min(waiting.items(), key=lambda item: item[1][0])
        check = now + move.check_in if move.check_in is not None else horizon
        if check < at:
            now = check
            continue
        now = at
        attempts[number] = replace(attempts[number], state=State.DONE if good else State.FAILED, ended=now)
    raise AssertionError("it never ends")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_an_upload_ends_full_durable_or_out_of_farmers(data: st.DataObject) -> None:
    full = data.draw(st.integers(1, 8))
    enough = data.draw(st.integers(1, full))
    spares = tuple(range(full, full + data.draw(st.integers(0, 3))))
    held = frozenset(data.draw(st.sets(st.integers(0, full - 1))))
    crowd = data.draw(st.lists(farmers, max_size=24))
    goal = PushGoal(enough=enough, full=full, spares=spares)
    attempts, cut, _now = play(
        lambda sofar, at, dry: next_push(goal, held, sofar, at, exhausted=dry and bool(sofar)), crowd
    )
    done = {attempt.index for attempt in attempts if attempt.state is State.DONE} | held
    tries = [sum(attempt.index == index for attempt in attempts) for index in range(full + len(spares))]
    assert max(tries) <= goal.max_tries
    assert not any(tries[index] for index in held)
    running = {attempt.number for attempt in attempts if attempt.state is State.RUNNING}
    assert running <= cut
    if len(done) < goal.enough:
        good = sum(not farmer.fails for farmer in crowd)
        # Only a lack of farmers, or the same index failing too often, may end an upload short of durable.
        assert good < goal.full or max(tries) == goal.max_tries or len(attempts) >= len(crowd)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_download_ends_with_enough_whenever_enough_answer(data: st.DataObject) -> None:
    available = data.draw(st.integers(1, 12))
    needed = data.draw(st.integers(1, available))
    crowd = data.draw(st.lists(farmers, min_size=available, max_size=available))
    goal = FetchGoal(needed=needed, order=tuple(range(available)))
    attempts: list[Attempt] = []
    now = 0.0
    most = 0
    for _ in range(10_000):
        move = next_fetch(goal, attempts, now)
        if move.over:
            break
        for index in move.start:
            attempts.append(Attempt(len(attempts), index, State.RUNNING, now))
        running = [attempt for attempt in attempts if attempt.state is State.RUNNING]
        most = max(most, len(running))
        first = min(running, key=lambda attempt: attempt.started + crowd[attempt.index].seconds)
        at = first.started + crowd[first.index].seconds
        if move.check_in is not None and now + move.check_in < at:
            now += move.check_in
            continue
        now = at
        state = State.FAILED if crowd[first.index].fails else State.DONE
        attempts[first.number] = replace(first, state=state, ended=now)
    else:
        raise AssertionError("it never ends")
    done = {attempt.index for attempt in attempts if attempt.state is State.DONE}
    good = sum(not farmer.fails for farmer in crowd)
    assert (len(done) >= needed) == (good >= needed)
    assert most <= needed + goal.max_extra
    running_at_end = {attempt.number for attempt in attempts if attempt.state is State.RUNNING}
    assert running_at_end == set(move.cut) or not done


def test_a_healthy_upload_starts_n_and_no_spare() -> None:
    goal = PushGoal(enough=3, full=4, spares=(4, 5))
    attempts, cut, _ = play(lambda sofar, at, dry: next_push(goal, frozenset(), sofar, at), [Farmer(0.2, False)] * 9)
    assert [attempt.index for attempt in attempts] == [0, 1, 2, 3]
    assert not cut


def test_a_hung_farmer_is_overtaken_by_a_spare_and_cut() -> None:
    goal = PushGoal(enough=3, full=4, spares=(4,))
    crowd = [Farmer(0.2, False)] * 3 + [Farmer(1000, False)] + [Farmer(0.2, False)]
    attempts, cut, now = play(lambda sofar, at, dry: next_push(goal, frozenset(), sofar, at), crowd)
    assert [attempt.index for attempt in attempts] == [0, 1, 2, 3, 4]
    assert cut == {3}
    assert now < 2


def test_without_spares_a_hung_farmer_is_doubled_elsewhere() -> None:
    goal = PushGoal(enough=3, full=4, spares=())
    crowd = [Farmer(0.2, False)] * 3 + [Farmer(1000, False)] + [Farmer(0.2, False)]
    attempts, cut, now = play(lambda sofar, at, dry: next_push(goal, frozenset(), sofar, at), crowd)
    assert [attempt.index for attempt in attempts] == [0, 1, 2, 3, 3]
    assert cut == {3}
    assert now < 2


def test_with_no_farmer_left_a_durable_segment_is_left_to_the_agent() -> None:
    goal = PushGoal(enough=3, full=4, spares=())
    crowd = [Farmer(0.2, False)] * 3 + [Farmer(1000, False)]
    attempts, cut, now = play(
        lambda sofar, at, dry: next_push(goal, frozenset(), sofar, at, exhausted=dry and bool(sofar)), crowd
    )
    assert len(attempts) == 4
    assert cut == {3}
    assert now < 10


def running(*shares: float) -> list[Attempt]:
    return [Attempt(number, number, State.RUNNING, 0.0, moved=share) for number, share in enumerate(shares)]


def test_where_all_are_equally_slow_nobody_is_late() -> None:
    goal = PushGoal(enough=3, full=4, spares=(4, 5))
    for now in (6.0, 30.0, 200.0):
        assert next_push(goal, frozenset(), running(0.3, 0.25, 0.3, 0.25), now).start == ()


def test_who_lags_behind_the_others_is_late_though_none_is_done() -> None:
    goal = PushGoal(enough=3, full=4, spares=(4, 5))
    for laggard in (0.0, 0.05):
        assert next_push(goal, frozenset(), running(0.3, 0.25, 0.3, laggard), 6.0).start == (4,)
        assert next_push(goal, frozenset(), running(0.3, 0.25, 0.3, laggard), 4.0).start == ()


def test_where_nothing_moves_at_all_others_are_tried() -> None:
    assert next_fetch(FetchGoal(needed=2, order=(0, 1, 2, 3)), running(0.0, 0.0), 3.5).start == (2, 3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.1, 500))
def test_it_never_asks_to_be_called_back_at_once(shares: list[float], now: float) -> None:
    goal = FetchGoal(needed=len(shares), order=tuple(range(8)))
    move = next_fetch(goal, running(*shares), now)
    assert move.check_in is not None
    assert move.check_in >= 0.01
