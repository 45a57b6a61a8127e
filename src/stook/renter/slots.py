"""Memory for segments in flight, within one budget: leased whole, given back in parts, used again.

A client's memory depends on this budget, never on the size or number of its files. Buffers are kept for the next
segment, because fresh pages cost more than the cipher that fills them (`docs/decisions/0071`, `0026`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from stook.buffers import give_up, reused_memory
from stook.shards.arena import ROW_GAP_BYTES, Row, RowArena, Scratch, stage_bytes
from stook.shards.geometry import SegmentShape

DEFAULT_BUDGET_BYTES = 192 << 20
_WASTE = 4
"""An idle buffer is used for a need of at least one part in this many of it."""
_SEGMENTS_AT_ONCE = 2
"""Shards of so many segments fit a budget: while one is on its way the next is sealed."""
_STEPS_APART = 16


def segment_bytes(budget_bytes: int) -> int:
    """How large the shards of one segment may be together, under a budget."""
    return budget_bytes // _SEGMENTS_AT_ONCE


class _Buffer:
    """Memory for one shard, or for plaintext."""

    __slots__ = ("_row", "data")

    def __init__(self, size_bytes: int, number: int) -> None:
        # Rows that begin at the same place of their pages would meet in the same cache sets.
        start = number % _STEPS_APART * ROW_GAP_BYTES
        self.data = reused_memory(start + size_bytes)[start:]
        self._row: Row | None = None

    @property
    def row(self) -> Row:
        """The memory as units."""
        if self._row is None:
            self._row = Row(self.data)
        return self._row


class Slot:
    """Room for one segment: its shards and its plaintext. `SlotPool` makes them."""

    def __init__(self, plain: _Buffer | None, rows: Sequence[_Buffer]) -> None:
        self.buffers: dict[int | None, _Buffer] = dict(enumerate(rows))
        """What is not given back yet: shards by their number, plaintext under None."""
        if plain is not None:
            self.buffers[None] = plain
        self.plain = plain.data if plain is not None else memoryview(b"")

    def arena(self, scratch: Scratch) -> RowArena:
        """Where its shards are sealed, while none is given back."""
        rows = [buffer.row for number, buffer in self.buffers.items() if number is not None]
        return RowArena(rows, scratch.stage(stage_bytes(len(rows))))

    def rows(self, row_bytes: int) -> list[memoryview]:
        """Where shards, or the beginnings of them, come in."""
        return [buffer.data[:row_bytes] for number, buffer in self.buffers.items() if number is not None]


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
        self._idle: list[_Buffer] = []
        self._scratches: list[Scratch] = []
        self._held_bytes = 0
        self._made = 0
        self._leased = 0
        self._waiting: deque[_Waiting] = deque()

    @property
    def held_bytes(self) -> int:
        """Bytes of all buffers, leased and idle."""
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
        """None of the slot's bytes are needed any more."""
        self._leased -= 1
        self._take_in(slot, list(slot.buffers))

    def give_back_plain(self, slot: Slot) -> None:
        """The slot's plaintext is needed no more."""
        slot.plain = memoryview(b"")
        self._take_in(slot, [None])

    def give_back_shards(self, slot: Slot, numbers: Iterable[int] | None = None) -> None:
        """These of its shards are needed no more, or all of them."""
        self._take_in(slot, [each for each in slot.buffers if each is not None] if numbers is None else numbers)

    @asynccontextmanager
    async def leased(self, shape: SegmentShape, plain_bytes: int | None = None) -> AsyncIterator[Slot]:
        """`lease` for the length of a block."""
        slot = await self.lease(shape, plain_bytes)
        try:
            yield slot
        finally:
            self.give_back(slot)

    @contextmanager
    def scratch(self) -> Iterator[Scratch]:
        """Scratch for one piece of work on any thread; there are as many as work at once, which are few."""
        try:
            scratch = self._scratches.pop()
        except IndexError:
            scratch = Scratch()
        try:
            yield scratch
        finally:
            self._scratches.append(scratch)

    def _take_in(self, slot: Slot, parts: Iterable[int | None]) -> None:
        self._idle += [buffer for part in parts if (buffer := slot.buffers.pop(part, None)) is not None]
        self._serve()

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

    def _take(self, shape: SegmentShape, plain_bytes: int) -> Slot | None:
        sizes = [plain_bytes] * bool(plain_bytes) + [shape.shard_bytes] * shape.total
        found = self._find(sizes)
        if self._room_beside(found, sizes) is None:
            found = [None] * len(sizes)  # what is idle is larger than what is asked for
        idle = self._room_beside(found, sizes)
        if idle is None:
            if self._leased:
                return None
            idle = []
        stay = {id(buffer) for buffer in (*idle, *found)}
        for buffer in self._idle:
            if id(buffer) not in stay:
                self._held_bytes -= len(buffer.data)
                give_up(buffer.data)
        self._idle = idle
        buffers = [buffer or self._make(size) for buffer, size in zip(found, sizes, strict=True)]
        plain = buffers.pop(0) if plain_bytes else None
        return Slot(plain, buffers)

    def _find(self, sizes: Sequence[int]) -> list[_Buffer | None]:
        """For each size the smallest idle buffer that holds it and is not much too large."""
        idle = sorted(self._idle, key=lambda buffer: len(buffer.data))
        found: list[_Buffer | None] = []
        for size in sizes:
            fit = next((at for at, buffer in enumerate(idle) if len(buffer.data) >= size), None)
            usable = fit is not None and len(idle[fit].data) <= _WASTE * size
            found.append(idle.pop(fit) if usable and fit is not None else None)
        return found

    def _room_beside(self, found: Sequence[_Buffer | None], sizes: Sequence[int]) -> list[_Buffer] | None:
        """The idle buffers that can stay when those not `found` are made, the latest used; None without room."""
        missing = sum(size for buffer, size in zip(found, sizes, strict=True) if buffer is None)
        used = {id(buffer) for buffer in found}
        idle = deque(buffer for buffer in self._idle if id(buffer) not in used)
        over = self._held_bytes + missing - self.budget_bytes
        while idle and over > 0:
            over -= len(idle.popleft().data)
        return list(idle) if over <= 0 else None

    def _make(self, size_bytes: int) -> _Buffer:
        self._held_bytes += size_bytes
        self._made += 1
        return _Buffer(size_bytes, self._made)
