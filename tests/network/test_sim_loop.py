"""Virtual time: it jumps, it never runs away, and it says who waits when nothing can happen any more."""

from __future__ import annotations

import asyncio
import time

import pytest

from stook.chore import Chore
from stook.sim.dice import Dice
from stook.sim.loop import (
    START_MS,
    DeadlockError,
    InlineOffload,
    OvertimeError,
    SimulationError,
    SpinError,
    VirtualClock,
    run,
)


def test_ninety_days_pass_at_once():
    async def main() -> float:
        await asyncio.sleep(90 * 86_400)
        return asyncio.get_running_loop().time()

    begun = time.perf_counter()
    assert run(main()) == pytest.approx(90 * 86_400)
    assert time.perf_counter() - begun < 2


def test_timers_fire_in_order_and_at_their_time():
    heard: list[tuple[str, float]] = []

    async def bell(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        heard.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name, seconds in (("c", 3.0), ("a", 1.0), ("z", 8_640_000.25), ("b", 1.0)):
                group.create_task(bell(name, seconds))

    run(main())
    assert [name for name, _ in heard] == ["a", "b", "c", "z"]
    assert [at for _, at in heard] == pytest.approx([1.0, 1.0, 3.0, 8_640_000.25])


def test_timeouts_and_task_groups_behave():
    async def main() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        assert asyncio.get_running_loop().time() == pytest.approx(5)

        async def fail() -> None:
            await asyncio.sleep(1)
            raise ValueError("one")

        async def group_that_fails() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(asyncio.sleep(3600))

        with pytest.raises(ExceptionGroup) as caught:
            await group_that_fails()
        assert caught.group_contains(ValueError)
        assert asyncio.get_running_loop().time() == pytest.approx(6)
        return "done"

    assert run(main()) == "done"


def test_a_deadlock_names_who_waits():
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        task = asyncio.create_task(wait_for_ever(), name="the forgotten one")
        await asyncio.sleep(3)
        await task

    with pytest.raises(DeadlockError, match=r"(?s)at 3\.000 s.*the forgotten one.*wait_for_ever"):
        run(main())


def test_a_spin_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stook.sim.loop.MAX_TURNS_AT_ONE_MOMENT", 1_000)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)

        again()
        await loop.create_future()

    with pytest.raises(SpinError, match="time stands still"):
        run(main())


def test_a_run_has_a_bound_in_virtual_time():
    with pytest.raises(OvertimeError, match="not done within 60"):
        run(asyncio.sleep(61), within_seconds=60)
    assert run(asyncio.sleep(59, "in time"), within_seconds=60) == "in time"


def test_a_timeout_of_the_program_is_not_taken_for_the_bound():
    async def main() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        run(main(), within_seconds=60)


def test_threads_are_refused():
    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(SimulationError, match="InlineOffload"):
        run(main())


def test_a_failure_nobody_waited_for_is_not_lost():
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="ZeroDivisionError"):
        run(main())


def test_work_is_done_in_place_and_may_take_virtual_time():
    async def main() -> tuple[int, float]:
        offload = InlineOffload(lambda: 0.5)
        return await offload(lambda: 6 * 7), asyncio.get_running_loop().time()

    assert run(main()) == (42, pytest.approx(0.5))


def test_others_run_while_work_is_offloaded():
    order: list[str] = []

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(InlineOffload()(lambda: order.append("work")))
            group.create_task(InlineOffload()(lambda: order.append("other work")))
            order.append("begun")

    run(main())
    assert order == ["begun", "work", "other work"]


def test_offloaded_work_that_fails_raises():
    async def main() -> None:
        await InlineOffload()(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run(main())


def test_the_clock_reads_the_loop_and_may_be_skewed():
    async def main() -> None:
        straight, ahead = VirtualClock(), VirtualClock(skew_ms=90_000)
        assert straight.now_ms() == START_MS
        await asyncio.sleep(1.5)
        assert straight.now_ms() == START_MS + 1_500
        assert ahead.now_ms() - straight.now_ms() == 90_000
        assert straight.monotonic() == ahead.monotonic() == pytest.approx(1.5)

    run(main())


def test_chores_tick_in_virtual_time():
    async def main() -> int:
        ticks = []

        async def tick() -> None:
            ticks.append(asyncio.get_running_loop().time())

        chore = Chore("tick", 3600, tick, lambda name, error: None)
        task = asyncio.create_task(chore.run())
        await asyncio.sleep(10 * 86_400 + 1)
        task.cancel()
        return len(ticks)

    assert run(main()) == 240


def test_dice_are_repeatable_and_streams_independent():
    assert Dice(7)(16) == Dice(7)(16) != Dice(8)(16)
    one, other = Dice(7), Dice(7)
    other(1000)
    assert one.child("a")(8) == other.child("a")(8) != one.child("b")(8)


def test_years_go_by_and_timers_still_fall_due():
    async def main() -> float:
        for days in (1, 193, 2, 365, 3_650):
            await asyncio.sleep(days * 86_400.0)
            await asyncio.gather(*(asyncio.sleep(number * 1e-3 / 7) for number in range(200)))
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(4_211 * 86_400, abs=1)
