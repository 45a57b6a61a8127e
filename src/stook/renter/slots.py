"""Memory for segments in flight, within one budget: leased, given back, used again.

A client's memory depends on this budget, never on the size or number of its files. Buffers are kept for the next
segment, because fresh pages cost more than the cipher that fills them (`docs/decisions/0071`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from stook.shards.arena import Scratch, ShardArena
from stook.shards.geometry import SegmentShape

DEFAULT_BUDGET_BYTES = 160 << 20
_WASTE = 4
"""An idle buffer is used for a need of at least one part in this many of it."""


@dataclass(eq=False, slots=True)
class Slot:
    """Room for one segment: its shards, its plaintext, and scratch to rebuild with."""

    arena: ShardArena
    plain: memoryview
    scratch: Scratch = field(default_factory=Scratch)

    @property
    def cost(self) -> int:
        """What it takes of the budget."""
        return self.arena.capacity_bytes + len(self.plain)

    def fits(self, shape: SegmentShape, plain_bytes: int) -> bool:
        """Whether a segment of `shape` with so much plaintext has room in it."""
        return (
            self.arena.capacity_bytes >= shape.coded_bytes
            and self.arena.max_shards >= shape.total
            and len(self.plain) >= plain_bytes
        )


@dataclass(eq=False, slots=True)
class _Waiting:
    shape: SegmentShape
    plain_bytes: int
    turn: asyncio.Future[Slot]
    let_go: Callable[[], None] | None


class SlotPool:
    """Hands out slots, first come first served, so that all together stay within `budget_bytes`.

    A need above the whole budget is served when it is alone. Who holds a slot while it waits for another says how to
    let go of it: when everybody who holds one waits, nothing would ever come back, so the first is asked to.
    """

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self.budget_bytes = budget_bytes
        self._idle: list[Slot] = []
        self._held_bytes = 0
        self._leased = 0
        self._waiting: deque[_Waiting] = deque()

    @property
    def held_bytes(self) -> int:
        """Bytes of all slots, leased and idle."""
        return self._held_bytes

    async def lease(
        self, shape: SegmentShape, plain_bytes: int | None = None, *, let_go: Callable[[], None] | None = None
    ) -> Slot:
        """A slot for `shape`, with room for its whole capacity of plaintext unless told otherwise.

        Whoever holds a slot already must pass `let_go`: called at most once, it sees to it that this slot is given back
        in time, without waiting for the lease.
        """
        plain = shape.capacity if plain_bytes is None else plain_bytes
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(shape, plain, turn, let_go))
        self._serve()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._serve()
            else:
                self.give_back(turn.result())
            raise

    def give_back(self, slot: Slot) -> None:
        """The slot's bytes are needed no more."""
        self._leased -= 1
        self._idle.append(slot)
        self._serve()

    @asynccontextmanager
    async def leased(self, shape: SegmentShape, plain_bytes: int | None = None) -> AsyncIterator[Slot]:
        """`lease` for the length of a block."""
        slot = await self.lease(shape, plain_bytes)
        try:
            yield slot
        finally:
            self.give_back(slot)

    def _serve(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if not first.turn.cancelled():
                slot = self._take(first.shape, first.plain_bytes)
                if slot is None:
                    self._break_circle()
                    return
                self._leased += 1
                first.turn.set_result(slot)
            self._waiting.popleft()

    def _break_circle(self) -> None:
        holders = [each for each in self._waiting if each.let_go is not None and not each.turn.cancelled()]
        if holders and len(holders) == self._leased:
            let_go, holders[0].let_go = holders[0].let_go, None
            assert let_go is not None
            let_go()

    def _take(self, shape: SegmentShape, plain: int) -> Slot | None:
        need = shape.coded_bytes + plain
        fitting = [slot for slot in self._idle if slot.fits(shape, plain) and slot.cost <= _WASTE * need]
        if fitting:
            best = min(fitting, key=lambda slot: slot.cost)
            self._idle.remove(best)
            return best
        while self._idle and self._held_bytes + need > self.budget_bytes:
            self._held_bytes -= self._idle.pop(0).cost
        if self._held_bytes + need > self.budget_bytes and self._leased:
            return None
        slot = Slot(
            ShardArena(shape.coded_bytes, max_shards=shape.total), memoryview(np.empty(plain, dtype=np.uint8).data)
        )
        self._held_bytes += slot.cost
        return slot
