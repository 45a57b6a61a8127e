"""A bounded number of transfers at once, each with two reused buffers; a bounded line; BUSY beyond it.

Memory is the reason: whatever peers ask for, a farmer holds `max_transfers` times two blocks and no more. Buffers are
handed out last in, first out, so that a quiet farmer touches few of them. Peers take turns: a free lane goes to whoever
has the fewest, and a full line loses the last of whoever fills it, so that one peer with many transfers, or with many
that say nothing, cannot keep the others waiting.
"""

from __future__ import annotations

import asyncio
import mmap
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stook.errors import ReasonCode, RefusedError
from stook.farmer.settings import TransferLimits

Lane = tuple[memoryview, memoryview]
"""Two blocks: one fills from the network while the other is hashed and written."""


@dataclass(eq=False, frozen=True, slots=True)
class _Waiting:
    peer: bytes
    turn: asyncio.Future[Lane]


class Lanes:
    """Hands out lanes, to peers in turn and to each in the order asked. Use it on one event loop."""

    def __init__(self, limits: TransferLimits, what: str = "transfers") -> None:
        self._limits = limits
        self._what = what
        self._free: list[Lane] = []
        self._made = 0
        self._line: list[_Waiting] = []
        self._held: Counter[bytes] = Counter()
        """Lanes by the peer that has them."""

    @property
    def running(self) -> int:
        """Transfers that hold a lane."""
        return self._made - len(self._free)

    @property
    def waiting(self) -> int:
        """Transfers in line."""
        return len(self._line)

    @asynccontextmanager
    async def lane(self, peer: bytes = b"") -> AsyncIterator[Lane]:
        """A lane for the length of the block, for `peer`. Raises `RefusedError` (BUSY) when the line is full."""
        lane = self._take()
        if lane is None:
            lane = await self._wait(peer)
        else:
            self._held[peer] += 1
        try:
            yield lane
        finally:
            self._give_back(lane, peer)

    def _take(self) -> Lane | None:
        if self._free:
            return self._free.pop()
        if self._made >= self._limits.max_transfers:
            return None
        self._made += 1
        block = self._limits.block_bytes
        whole = memoryview(mmap.mmap(-1, 2 * block))  # pages that no shard ever reaches cost nothing
        return whole[:block], whole[block:]

    async def _wait(self, peer: bytes) -> Lane:
        if len(self._line) >= self._limits.max_waiting:
            self._make_room(peer)
        mine = _Waiting(peer, asyncio.get_running_loop().create_future())
        self._line.append(mine)
        try:
            return await mine.turn
        except asyncio.CancelledError:
            if mine in self._line:
                self._line.remove(mine)
            elif not mine.turn.cancelled() and mine.turn.exception() is None:
                self._give_back(mine.turn.result(), peer)  # it was our turn in the very moment we left
            raise

    def _make_room(self, peer: bytes) -> None:
        """Refuse the last in line of the peer that has most there; `peer` itself unless that is clearly another."""
        waiting = Counter(one.peer for one in self._line)
        crowd, most = waiting.most_common(1)[0] if waiting else (peer, 0)
        busy = RefusedError(
            ReasonCode.BUSY,
            f"{self.running} {self._what} run and {self.waiting} wait",
            retry_after_ms=self._limits.retry_after_ms,
        )
        if most <= waiting[peer] + 1:
            raise busy
        last = next(one for one in reversed(self._line) if one.peer == crowd)
        self._line.remove(last)
        if not last.turn.done():
            last.turn.set_exception(busy)

    def _give_back(self, lane: Lane, peer: bytes) -> None:
        self._held[peer] -= 1
        if not self._held[peer]:
            del self._held[peer]
        line = [one for one in self._line if not one.turn.done()]
        if not line:
            self._free.append(lane)
            return
        first = min(line, key=lambda one: self._held[one.peer])  # of equals the one that came first
        self._line.remove(first)
        self._held[first.peer] += 1
        first.turn.set_result(lane)
