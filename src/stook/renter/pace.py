"""Which transfers of a segment to start, to double and to cut: the long tail decided in one place. Pure.

Both roads have the same shape. A segment wants a number of distinct indices; each *attempt* moves one index to or from
one farmer. The shell reports what became of the attempts, and is told what to do next.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass


class State(enum.Enum):
    """What became of an attempt."""

    RUNNING = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One index on its way to or from one farmer. Times are monotonic seconds."""

    number: int
    index: int
    state: State
    started: float
    ended: float = 0.0
    moved: float = 0.0
    """The share of its bytes that a running one has moved, 0 to 1, as far as the shell sees."""

    def rate(self, now: float) -> float:
        """Shares moved per second so far."""
        if self.state is State.DONE:
            return 1.0 / max(1e-9, self.ended - self.started)
        return self.moved / max(1e-9, now - self.started)


@dataclass(frozen=True, slots=True)
class Patience:
    """When a transfer counts as late. A transfer is late beyond `factor` times the median of those that are done,
    but never before `floor_seconds`. While fewer than half are done, it is late beyond `blind_seconds` if it has moved
    nothing, or less than the median by `factor`: where all are equally slow the narrow place is our own line.
    """

    factor: float = 3.0
    floor_seconds: float = 1.0
    blind_seconds: float = 5.0

    def limit(self, attempts: Sequence[Attempt], needed: int) -> float:
        """The age in seconds below which no running attempt is late."""
        times = _times(attempts)
        if _too_few(times, needed):
            return self.blind_seconds
        return max(self.floor_seconds, self.factor * times[len(times) // 2])

    def late(self, attempts: Sequence[Attempt], needed: int, now: float) -> list[Attempt]:
        """The running attempts that are late."""
        limit = self.limit(attempts, needed)
        old = [attempt for attempt in _running(attempts) if now - attempt.started > limit]
        if not old or not _too_few(_times(attempts), needed):
            return old
        rates = sorted(attempt.rate(now) for attempt in attempts if attempt.state is not State.FAILED)
        usual = rates[len(rates) // 2]
        return [attempt for attempt in old if not attempt.moved or attempt.rate(now) * self.factor < usual]


def _times(attempts: Sequence[Attempt]) -> list[float]:
    return sorted(attempt.ended - attempt.started for attempt in attempts if attempt.state is State.DONE)


def _too_few(times: Sequence[float], needed: int) -> bool:
    return 2 * len(times) < needed or not times


@dataclass(frozen=True, slots=True)
class PushGoal:
    """What an upload of one segment wants: `enough` receipts of distinct indices make it durable, `full` fill it."""

    enough: int
    full: int
    spares: tuple[int, ...] = ()
    """Code indices beyond n that are sealed and may stand in for a late or failed one, in this order."""
    wanted: tuple[int, ...] | None = None
    """The indices to begin with, `full` of them; None: 0 up to `full`."""
    max_tries: int = 4
    """Farmers tried for one index at most."""
    settle: Patience = Patience(factor=8.0, floor_seconds=4.0, blind_seconds=30.0)
    """When the last transfers are left to the agent's fill loop once the segment is durable."""
    late: Patience = Patience()


@dataclass(frozen=True, slots=True)
class Move:
    """What the shell does next. `check_in` is when to ask again if nothing happens, in seconds (None: no need)."""

    start: tuple[int, ...] = ()
    """Indices to bring to farmers that have not been tried for this segment."""
    cut: tuple[int, ...] = ()
    """Numbers of running attempts to stop."""
    late: frozenset[int] = frozenset()
    """Those of `cut` that were late: not merely overtaken, so it tells against their farmers."""
    over: bool = False
    """Nothing more will be started; what is done is the result."""
    check_in: float | None = None


def _running(attempts: Sequence[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.state is State.RUNNING]


def _end(attempts: Sequence[Attempt], late: Sequence[Attempt]) -> Move:
    """Nothing more is needed."""
    return Move(
        cut=tuple(attempt.number for attempt in _running(attempts)),
        late=frozenset(attempt.number for attempt in late),
        over=True,
    )


def _done(attempts: Sequence[Attempt]) -> set[int]:
    return {attempt.index for attempt in attempts if attempt.state is State.DONE}


def next_push(
    goal: PushGoal, held: frozenset[int], attempts: Sequence[Attempt], now: float, *, exhausted: bool = False
) -> Move:
    """The next move of an upload whose indices `held` have receipts from before.

    `exhausted` says that no further farmer can be had.

    Every index below n that is not held is started at once. A failed attempt is answered with a spare index, or, when
    none is left, the same index at another farmer; a late one likewise, beside the one that lags. With `full` receipts
    the rest is cut. Once durable, what is very late is left to the agent.
    """
    done = _done(attempts) | held
    running = _running(attempts)
    needed = goal.full - len(held)
    limit, late = goal.late.limit(attempts, needed), goal.late.late(attempts, needed, now)
    if len(done) >= goal.full:
        return _end(attempts, late)
    if len(done) >= goal.enough and running:
        patience = goal.settle.limit(attempts, goal.full)
        if all(now - attempt.started > patience for attempt in running):
            return _end(attempts, late)
    if not attempts:
        return Move(start=_first(goal, held), check_in=goal.late.floor_seconds)
    start = () if exhausted else _stand_ins(goal, done, held, attempts, late)
    return Move(start=start, over=not running and not start, check_in=_check_in(running, start, limit, now))


def _stand_ins(
    goal: PushGoal, done: set[int], held: frozenset[int], attempts: Sequence[Attempt], late: Sequence[Attempt]
) -> tuple[int, ...]:
    """What to start so that the receipts held and the transfers in time add up to a full segment again."""
    in_time = {attempt.index for attempt in _running(attempts) if attempt not in late}
    lacking = max(0, goal.full - len(done | in_time))
    tries = _tries(attempts)
    slow = {attempt.index for attempt in late}
    unused = [index for index in goal.spares if index not in tries and index not in held]
    again = [i for i in tries if i not in done and i not in in_time and tries[i] < goal.max_tries]
    # A failed index first, then one that is only slow.
    again.sort(key=lambda index: (index in slow, index))
    return tuple((unused + again)[:lacking])


def _first(goal: PushGoal, held: frozenset[int]) -> tuple[int, ...]:
    wanted = range(goal.full) if goal.wanted is None else goal.wanted
    return tuple(index for index in wanted if index not in held)


def _tries(attempts: Sequence[Attempt]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for attempt in attempts:
        counts[attempt.index] = counts.get(attempt.index, 0) + 1
    return counts


def _check_in(running: Sequence[Attempt], start: Sequence[int], limit: float, now: float) -> float | None:
    waits = [attempt.started + limit - now for attempt in running]
    if start:
        waits.append(limit)  # what starts now may be late too, and nothing else may ever happen
    # Who is past the limit is looked at again soon: late or not, that may change with what the others move.
    return max(0.01, min(0.5 if wait <= 0 else wait for wait in waits)) if waits else None


@dataclass(frozen=True, slots=True)
class FetchGoal:
    """What a download of one segment wants: the indices in `exactly`, or any `needed` of `order`, best first."""

    needed: int
    order: tuple[int, ...]
    exactly: frozenset[int] = frozenset()
    """A range often lies in few data shards: then these are enough. They stand first in `order`."""
    max_extra: int = 2
    """How many may run beyond what is still needed, to overtake late ones."""
    max_tries: int = 3
    """How often one index is asked for, once every other has been."""
    late: Patience = Patience(factor=2.5, floor_seconds=0.7, blind_seconds=3.0)

    def reached(self, done: Collection[int]) -> bool:
        """Whether these indices are enough."""
        return len(done) >= self.needed or (bool(self.exactly) and self.exactly.issubset(done))


def next_fetch(goal: FetchGoal, attempts: Sequence[Attempt], now: float) -> Move:
    """The next move of a download: the best sources at once, a further one for each that failed or is late, and
    everything cut once enough are in.
    """
    done = _done(attempts)
    running = _running(attempts)
    needed = len(goal.exactly) or goal.needed
    limit, late = goal.late.limit(attempts, needed), goal.late.late(attempts, needed, now)
    if goal.reached(done):
        return _end(attempts, late)
    in_time = {attempt.index for attempt in running if attempt not in late} | done
    tries = _tries(attempts)
    if goal.exactly and not late and goal.exactly <= in_time | (set(goal.order) - tries.keys()):
        start = tuple(index for index in goal.order if index in goal.exactly and index not in tries)
    else:
        busy = {attempt.index for attempt in running} | done
        again = [i for i in goal.order if i in tries and i not in busy and tries[i] < goal.max_tries]
        fresh = [index for index in goal.order if index not in tries]
        room = goal.needed - len(done) + goal.max_extra - len(running)
        start = tuple((fresh + again)[: max(0, min(goal.needed - len(in_time), room))])
    return Move(start=start, over=not running and not start, check_in=_check_in(running, start, limit, now))
