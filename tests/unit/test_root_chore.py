"""A chore is stepped, paused and triggered without anybody sleeping."""

import asyncio

import pytest

from stook.chore import Chore


class Work:
    def __init__(self):
        self.runs = 0
        self.ran = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Exception | None = None

    async def __call__(self):
        await self.gate.wait()
        self.runs += 1
        self.ran.set()
        if self.fail is not None:
            raise self.fail

    async def next_run(self):
        await self.ran.wait()
        self.ran.clear()


def scene(play, interval=3600.0):
    async def run():
        errors = []
        work = Work()
        chore = Chore("sweep", interval, work, lambda name, error: errors.append((name, error)))
        task = asyncio.create_task(chore.run())
        try:
            async with asyncio.timeout(5):
                await play(chore, work, errors)
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())


async def let_others_run():
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_first_run_waits_for_the_interval():
    async def play(chore, work, errors):
        await let_others_run()
        assert work.runs == 0

    scene(play)


def test_the_timer_runs_it_again_and_again():
    async def play(chore, work, errors):
        for _ in range(3):
            await work.next_run()
        assert work.runs >= 3

    scene(play, interval=0.0)


def test_trigger_runs_it_at_once():
    async def play(chore, work, errors):
        for runs in (1, 2):
            await let_others_run()
            chore.trigger()
            await work.next_run()
            assert work.runs == runs

    scene(play)


def test_a_paused_chore_runs_only_when_stepped():
    async def play(chore, work, errors):
        chore.pause()
        chore.trigger()
        await let_others_run()
        assert work.runs == 0
        await chore.step()
        assert work.runs == 1
        work.ran.clear()
        chore.resume()
        await work.next_run()
        assert work.runs == 2

    scene(play)


def test_runs_never_overlap():
    async def play(chore, work, errors):
        work.gate.clear()
        chore.trigger()
        await let_others_run()
        step = asyncio.create_task(chore.step())
        await let_others_run()
        assert work.runs == 0
        work.gate.set()
        await step
        assert work.runs == 2

    scene(play)


def test_a_step_lets_its_exception_through_and_a_timed_run_reports_it():
    async def play(chore, work, errors):
        work.fail = RuntimeError("disk")
        with pytest.raises(RuntimeError, match="disk"):
            await chore.step()
        assert errors == []
        work.ran.clear()
        chore.trigger()
        await work.next_run()
        await let_others_run()
        assert errors == [("sweep", work.fail)]
        work.fail = None
        chore.trigger()
        await work.next_run()
        assert work.runs == 3

    scene(play)
