"""What every `stook.clock.Offload` promises, over threads and the simulator's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from stook.clock import Offload
from stook.sim.loop import InlineOffload, run
from stook.threads import ThreadOffload


@pytest.fixture(params=["threads", "in place", "in place, taking time"])
def offload(request: pytest.FixtureRequest) -> Iterator[tuple[Offload, Any]]:
    """An adapter, and how to run a coroutine with it."""
    if request.param == "threads":
        threads = ThreadOffload(2, "test")
        yield threads, asyncio.run
        threads.close()
    else:
        yield InlineOffload(lambda: 0.5 if "time" in request.param else 0.0), run


def test_the_result_comes_back(offload: tuple[Offload, Any]):
    work, runner = offload

    async def main() -> int:
        return await work(lambda: 6 * 7)

    assert runner(main()) == 42


def test_exceptions_pass_through(offload: tuple[Offload, Any]):
    work, runner = offload

    async def main() -> None:
        await work(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        runner(main())


@pytest.mark.parametrize("turns", range(4))
def test_nothing_is_written_after_a_cancelled_call_has_raised(offload: tuple[Offload, Any], turns: int):
    work, runner = offload
    buffer = bytearray(1)

    async def main() -> None:
        async def call() -> None:
            await work(lambda: buffer.__setitem__(0, 1))

        task = asyncio.create_task(call())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        seen = buffer[0]
        await work(lambda: None)
        await asyncio.sleep(0.01)
        assert buffer[0] == seen

    runner(main())


def test_a_cancelled_call_waits_for_its_thread():
    begun, release, over = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert release.wait(30)
        over.set()

    async def main() -> None:
        async def through(step: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            task = asyncio.create_task(step)
            await asyncio.sleep(0)
            return task

        threads = ThreadOffload(2, "test")
        task = await through(threads(work))
        await threads(lambda: begun.wait(30))
        for _ in range(3):  # however often it is told
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert over.is_set()
        threads.close()

    asyncio.run(main())
