"""A bounded number of transfers at once, each with two reused buffers; a bounded line; BUSY beyond it.

Memory is the reason: whatever peers ask for, a farmer holds `max_transfers` times two blocks and no more. Buffers are
handed out last in, first out, so that a quiet farmer touches few of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stook.errors import ReasonCode, RefusedError
from stook.farmer.settings import TransferLimits

Lane = tuple[memoryview, memoryview]
"""Two blocks: one fills from the network while the other is hashed and written."""


class Lanes:
    """Hands out lanes in the order asked. Use it on one event loop."""

    def __init__(self, limits: TransferLimits) -> None:
        self._limits = limits
        self._free: list[Lane] = []
        self._made = 0
        self._line: deque[asyncio.Future[Lane]] = deque()

    @property
    def running(self) -> int:
        """Transfers that hold a lane."""
        return self._made - len(self._free)

    @property
    def waiting(self) -> int:
        """Transfers in line."""
        return len(self._line)

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        """A lane for the length of the block. Raises `RefusedError` (BUSY) when the line is full."""
        lane = self._take() or await self._wait()
        try:
            yield lane
        finally:
            self._give_back(lane)

    def _take(self) -> Lane | None:
        if self._free:
            return self._free.pop()
        if self._made >= self._limits.max_transfers:
            return None
        self._made += 1
        block = self._limits.block_bytes
        whole = memoryview(bytearray(2 * block))
        return whole[:block], whole[block:]

    async def _wait(self) -> Lane:
        if len(self._line) >= self._limits.max_waiting:
            raise RefusedError(
                ReasonCode.BUSY,
                f"{self.running} transfers run and {self.waiting} wait",
                retry_after_ms=self._limits.retry_after_ms,
            )
        turn: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(turn.result())  # it was our turn in the very moment we left
            elif turn in self._line:
                self._line.remove(turn)
            raise

    def _give_back(self, lane: Lane) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(lane)
                return
        self._free.append(lane)
