"""An event loop in virtual time: when nothing is ready, the clock jumps to the next timer.

Ninety days of network life pass in seconds, and every run of one seed takes the same steps. Two things would break
that, so both are errors here: threads (their time is real, and while one works virtual days would slip by; see
`InlineOffload`), and waiting for something that nobody will ever do (`DeadlockError`).

Use it through `run`; `docs/simulator.md` tells what may and may not be done inside.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar

from stook.errors import BugError

T = TypeVar("T")
START_MS = 1_800_000_000_000
"""What every clock reads when a simulation begins: January 2027, plausible and never today."""
MAX_TURNS_AT_ONE_MOMENT = 2_000_000
MAX_TASKS_NAMED = 12
RESOLUTION_SECONDS = 1e-6
"""Timers so close are due together. With asyncio's own nanosecond a timer is never due once a float of the clock has no
more room for one: after 2^24 seconds, half a year.
"""


class SimulationError(BugError):
    """What was simulated cannot go on; the text says who waits for what."""


class DeadlockError(SimulationError):
    """Every task waits and no timer is set: nothing can ever happen again."""


class SpinError(SimulationError):
    """The loop turns and turns and time stands still."""


class OvertimeError(SimulationError):
    """The simulation took more virtual seconds than it was given."""


class _JumpingSelector(selectors.BaseSelector):
    """A selector that never waits: it moves the clock instead.

    Only the loop's own wake-up pipe is registered with it.
    """

    def __init__(self, stuck: Callable[[], str]) -> None:
        self._inner = selectors.DefaultSelector()
        self._stuck = stuck
        self.now = 0.0
        self.turns = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            self.turns += 1
            if self.turns > MAX_TURNS_AT_ONE_MOMENT:
                self.turns = 0
                raise SpinError(f"time stands still at {self.now:.3f} s.{self._stuck()}")
            # Asked now and then only, for it is a system call: signals and nothing else come this way.
            return self._inner.select(0) if self.turns % 64 == 0 else []
        self.turns = 0
        ready = self._inner.select(0)
        if ready:
            return ready
        if timeout is None:
            raise DeadlockError(f"at {self.now:.3f} s every task waits and no timer is set.{self._stuck()}")
        self.now += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


class _NumberedTask(asyncio.Task[T]):
    """A task that sets order by its number, not by its address in memory: task groups cancel in the order of a set."""

    def __init__(self, main: Any, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(main, **options)

    def __hash__(self) -> int:
        return self.number


class _NumberedFuture(asyncio.Future[T]):
    """The same for futures."""

    def __init__(self, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(**options)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose `time` jumps; everything asyncio offers works in it but threads."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector(self._who_waits)
        self._made = 0
        super().__init__(self._jumping)
        self._clock_resolution = RESOLUTION_SECONDS
        self.set_task_factory(self._number_task)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> NoReturn:
        """Refused: raises `SimulationError`."""
        raise SimulationError(
            f"{func!r} was given to a thread; virtual time would run away from it: inject stook.sim.loop.InlineOffload"
        )

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        self._made += 1
        return _NumberedFuture(self._made, loop=self)

    def _number_task(self, loop: asyncio.AbstractEventLoop, main: Any, **options: Any) -> asyncio.Task[Any]:
        self._made += 1
        return _NumberedTask(main, self._made, loop=loop, **options)

    def _who_waits(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=asyncio.Task.get_name)
        lines = [f"\n  {task.get_name()} {_where(task)}" for task in tasks[:MAX_TASKS_NAMED]]
        more = len(tasks) - len(lines)
        return "".join(lines) + (f"\n  and {more} more" if more else "")


def _where(task: asyncio.Task[Any]) -> str:
    """The line of our code that a task waits at, the innermost one."""
    inner: Any = task.get_coro()
    places: list[str] = []
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None) or getattr(inner, "ag_frame", None)
        if frame is not None:
            places.append(f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_qualname}")
        inner = (
            getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None) or getattr(inner, "ag_await", None)
        )
    return " > ".join(places[-3:]) or "has not begun"


def run(main: Coroutine[Any, Any, T], *, within_seconds: float | None = None) -> T:
    """Run `main` in virtual time to its end, and then whatever it left behind to its cancellation.

    Raises what `main` raises; `DeadlockError`, `SpinError` or, past `within_seconds` of virtual time, `OvertimeError`;
    and `SimulationError` when a callback or a forgotten task failed without anyone being told.
    """
    failures: list[str] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: failures.append(_describe(context)))
        result = runner.run(main if within_seconds is None else _bounded(main, within_seconds))
    if failures:
        raise SimulationError("; ".join(failures))
    return result


async def _bounded(main: Coroutine[Any, Any, T], within_seconds: float) -> T:
    try:
        async with asyncio.timeout(within_seconds) as limit:
            return await main
    except TimeoutError:
        if not limit.expired():
            raise
        raise OvertimeError(f"not done within {within_seconds:g} virtual seconds") from None


def _describe(context: Mapping[str, Any]) -> str:
    error = context.get("exception")
    return f"{context.get('message')}" + (f" ({type(error).__name__}: {error})" if error is not None else "")


class VirtualClock:
    """`stook.clock.Clock` by the running loop. `skew_ms` is how far this node's wall clock is ahead of the others'."""

    def __init__(self, skew_ms: int = 0) -> None:
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as this node believes."""
        return START_MS + round(asyncio.get_running_loop().time() * 1000) + self.skew_ms

    def monotonic(self) -> float:
        """Virtual seconds; no skew touches them."""
        return asyncio.get_running_loop().time()


def _no_time() -> float:
    return 0.0


class InlineOffload:
    """`stook.clock.Offload` that does the work in place, so that no thread's real time meets virtual time.

    Other tasks have a turn before the work is done, as with a thread. `seconds` draws how long each piece takes in
    virtual time (none by default); half of it passes before the work and half after, so that a cancellation can come on
    either side.
    """

    def __init__(self, seconds: Callable[[], float] = _no_time) -> None:
        self._seconds = seconds

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The result of ``work()``."""
        half = self._seconds() / 2
        await asyncio.sleep(half)
        result = work()
        if half:
            await asyncio.sleep(half)
        return result
