"""Threads for blocking work: the `Offload` of every real node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class ThreadOffload:
    """Runs blocking work on a few threads of its own; close it when nothing runs any more.

    A hand-over is paid several times for each shard, so a result takes one future and two turns of the loop; asyncio's
    `run_in_executor` takes three futures and five turns (`docs/decisions/0095-short-hand-overs.md`).
    """

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The result of ``work()``; a cancelled call waits for the work's end."""
        job = _Job(work, asyncio.get_running_loop())
        begun = self._pool.submit(job.run)
        try:
            return await job.result
        except asyncio.CancelledError:
            if not begun.cancel():
                await job.end()
            raise

    def close(self) -> None:
        """Wait for running work and let the threads go."""
        self._pool.shutdown()


class _Job(Generic[T]):
    """One piece of work on its way to a thread and back."""

    __slots__ = ("_ended", "_loop", "_over", "_work", "result")

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._loop = loop
        self._over = False
        self._ended: asyncio.Future[None] | None = None
        self.result: asyncio.Future[T] = loop.create_future()

    def run(self) -> None:
        """On the thread."""
        try:
            result = self._work()
        except StopIteration as error:  # no future takes one
            self._tell(partial(self.result.set_exception, RuntimeError(repr(error))))
        except BaseException as error:
            self._tell(partial(self.result.set_exception, error))
        else:
            self._tell(partial(self.result.set_result, result))

    def _tell(self, answer: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._settle, answer)

    def _settle(self, answer: Callable[[], None]) -> None:
        self._over = True
        if not self.result.done():
            answer()
        if self._ended is not None:
            self._ended.set_result(None)

    async def end(self) -> None:
        """Wait until the work is over, however often this is cancelled."""
        while not self._over:
            self._ended = self._loop.create_future()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._ended)
