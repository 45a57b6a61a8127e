"""A background loop that can be paused and stepped, so that no test ever sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Chore:
    """Runs `work` every `interval_seconds` until its task is cancelled.

    `pause` stops the timer, not a run under way; `step` waits for one full run, whether paused or not, and lets its
    exception through. Exceptions of timed runs go to `on_error`, and the loop goes on.
    """

    def __init__(
        self,
        name: str,
        interval_seconds: float,
        work: Callable[[], Awaitable[object]],
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self.name = name
        self.interval_seconds = interval_seconds
        self._work = work
        self._on_error = on_error
        self._lock = asyncio.Lock()
        self._running = asyncio.Event()
        self._running.set()
        self._wake = asyncio.Event()

    def pause(self) -> None:
        """Run no more by timer until `resume`."""
        self._running.clear()

    def resume(self) -> None:
        """Run by timer again."""
        self._running.set()

    def trigger(self) -> None:
        """Let the next timed run begin at once."""
        self._wake.set()

    async def step(self) -> None:
        """Do one run now and wait for its end."""
        async with self._lock:
            await self._work()

    async def run(self) -> None:
        """Loop until cancelled; the first run begins after one interval."""
        while True:
            try:
                async with asyncio.timeout(self.interval_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._running.wait()
            try:
                await self.step()
            except Exception as error:
                self._on_error(self.name, error)
