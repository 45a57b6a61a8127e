"""Fetch enough shards of one segment, or the units of them that a range needs, from the farmers that answer first.

`pace.next_fetch` decides; this module carries it out. Every unit is checked against the leaf list, and the leaf list
against the root, before anything is made of it. It holds no content key: client and agent both use it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.messages import Method, Retrieve, RetrieveReady
from stook.errors import MisbehaviourError, NotEnoughError, PeerError, ReasonCode
from stook.ids import NodeId, ShardRoot
from stook.merkle import UNIT_BYTES, shard_root, split_leaves, unit_count
from stook.renter.gauge import Gauge, note_progress
from stook.renter.pace import Attempt, FetchGoal, State, next_fetch
from stook.renter.ports import Agent, Dealing, Located, Ticket
from stook.renter.tasks import Tasks
from stook.shards.rebuild import DamagedShardError, check_units
from stook.wire.endpoint import Endpoint, Exchange

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a segment: units `first_unit` to `end_unit` of the shards in `exactly`, else of any k.

    `roots` are what the asker trusts; an index without one is not fetched.
    """

    k: int
    shard_bytes: int
    first_unit: int
    end_unit: int
    roots: Mapping[int, ShardRoot]
    exactly: tuple[int, ...] = ()

    @property
    def run_bytes(self) -> int:
        """Bytes fetched of each shard."""
        return (self.end_unit - self.first_unit) * UNIT_BYTES


def rank(tickets: Sequence[Ticket], speeds: Mapping[NodeId, float], k: int) -> tuple[int, ...]:
    """The indices of `tickets`, those to ask first coming first. Pure.

    Data shards need no decoding, so they come first unless their farmer is much slower than the others (below half
    the median speed) or failed lately (a negative speed). Among equals the faster one comes first; an unknown speed
    counts as the median.
    """
    known = sorted(speed for speed in speeds.values() if speed > 0)
    median = known[len(known) // 2] if known else 1.0

    def merit(ticket: Ticket) -> tuple[int, float, int]:
        speed = speeds.get(ticket.peer.node_id, median)
        if speed < 0:
            return 2, 0.0, ticket.index
        slow = speed < median / 2
        return (1 if slow or ticket.index >= k else 0), -speed, ticket.index

    return tuple(ticket.index for ticket in sorted(tickets, key=merit))


class Fetcher:
    """Downloads shards over one endpoint."""

    def __init__(
        self,
        *,
        agent: Agent,
        endpoint: Endpoint,
        clock: Clock,
        offload: Offload,
        shard_deadline_seconds: float = 1200.0,
    ) -> None:
        self._agent = agent
        self._endpoint = endpoint
        self._clock = clock
        self._offload = offload
        self._deadline = shard_deadline_seconds

    async def fetch(
        self,
        located: Located,
        wish: Wish,
        rows: Sequence[memoryview],
        *,
        on_stored: Callable[[NodeId, int], None] = lambda farmer, size: None,
    ) -> dict[int, memoryview]:
        """Verified runs by index, in some of `rows`: those of `wish.exactly`, or of any k shards.

        `rows` are at least as many as k, each at least `wish.run_bytes` long; more rows let more be tried at once.
        Raises `NotEnoughError` when too few farmers give true bytes.
        """
        run = _Run(self, located, wish, rows, on_stored)
        return await run.run()

    async def retrieve(self, ticket: Ticket, wish: Wish, row: memoryview, gauge: Gauge | None = None) -> None:
        """Fill `row` with one shard's run, verified. Raises `PeerError`."""
        request = encode(Retrieve(grant=ticket.grant, first_unit=wish.first_unit, end_unit=wish.end_unit))
        async with self._endpoint.exchange(
            ticket.peer, Method.RETRIEVE, request, deadline_seconds=self._deadline
        ) as exchange:
            if gauge is not None:
                gauge.share = lambda: exchange.progress / max(1, len(row))
            ready = decode(RetrieveReady, await exchange.next_reply())
            if ready.size_bytes != wish.shard_bytes:
                raise MisbehaviourError(ReasonCode.HASH_MISMATCH, f"a shard of {ready.size_bytes} bytes")
            leaves = bytearray(32 * unit_count(wish.shard_bytes))
            blocks = [row[at : at + _BLOCK_BYTES] for at in range(0, len(row), _BLOCK_BYTES)]
            arrived = exchange.post(memoryview(leaves))
            arrivals = [exchange.post(block) for block in blocks]
            try:
                await arrived
                await self._offload(lambda: _check_leaves(ticket.index, bytes(leaves), wish))
                await self._check_blocks(ticket.index, exchange, bytes(leaves), wish, blocks, arrivals)
                await exchange.finish()
                await exchange.expect_end()
            finally:
                for arrival in (arrived, *arrivals):
                    if not arrival.cancel() and not arrival.cancelled():
                        arrival.exception()  # a second failure of the same line tells nothing new

    async def _check_blocks(
        self,
        index: int,
        exchange: Exchange,
        leaves: bytes,
        wish: Wish,
        blocks: Sequence[memoryview],
        arrivals: Sequence[asyncio.Future[None]],
    ) -> None:
        """Hash blocks off the loop while later ones arrive; several at a time when they are there already."""
        at = 0
        while at < len(blocks):
            await arrivals[at]
            end = at + 1
            while end < len(blocks) and arrivals[end].done():
                await arrivals[end]
                end += 1
            here, first = blocks[at:end], wish.first_unit + at * _BLOCK_BYTES // UNIT_BYTES
            await self._offload(partial(_check_run, index, here, leaves, first))
            at = end

    def note(self, dealing: Dealing) -> None:
        """Tell the agent how a transfer went."""
        self._agent.note([dealing])

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.monotonic()


def _check_leaves(index: int, leaves: bytes, wish: Wish) -> None:
    if shard_root(wish.shard_bytes, split_leaves(leaves)) != wish.roots[index]:
        raise DamagedShardError(index, ReasonCode.HASH_MISMATCH, "its leaf list does not lead to its root")


def _check_run(index: int, blocks: Sequence[memoryview], leaves: bytes, first_unit: int) -> None:
    for block in blocks:
        check_units(index, block, leaves, first_unit)
        first_unit += len(block) // UNIT_BYTES


class _Run:
    """One segment on its way back."""

    def __init__(
        self,
        fetcher: Fetcher,
        located: Located,
        wish: Wish,
        rows: Sequence[memoryview],
        on_stored: Callable[[NodeId, int], None],
    ) -> None:
        self._fetcher = fetcher
        self._wish = wish
        self._tickets = {
            ticket.index: ticket for ticket in located.tickets if wish.roots.get(ticket.index) == ticket.root
        }
        order = rank(list(self._tickets.values()), located.speeds, wish.k)
        first = [index for index in wish.exactly if index in self._tickets]
        self._goal = FetchGoal(
            needed=wish.k,
            exactly=frozenset(wish.exactly) if len(first) == len(wish.exactly) else frozenset(),
            order=(*first, *(index for index in order if index not in first)),
            max_extra=len(rows) - wish.k,
        )
        self._rows: deque[memoryview] = deque(row[: wish.run_bytes] for row in rows)
        self._on_stored = on_stored
        self._attempts: list[Attempt] = []
        self._gauges: dict[int, Gauge] = {}
        self._late: frozenset[int] = frozenset()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._done: dict[int, memoryview] = {}
        self._failures: list[str] = []
        self._changed = asyncio.Event()

    async def run(self) -> dict[int, memoryview]:
        async with Tasks() as group:
            while True:
                note_progress(self._attempts, self._gauges)
                move = next_fetch(self._goal, self._attempts, self._fetcher.now())
                self._late = move.late
                for number in move.cut:
                    self._tasks[number].cancel()
                if move.over:
                    break
                for index in move.start:
                    number = len(self._attempts)
                    self._attempts.append(Attempt(number, index, State.RUNNING, self._fetcher.now()))
                    self._gauges[number] = Gauge()
                    self._tasks[number] = group.create_task(self._attempt(number, self._tickets[index]))
                try:
                    async with asyncio.timeout(move.check_in):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                self._changed.clear()
        if not self._goal.reached(self._done):
            why = "; ".join(self._failures) or "nobody is known to hold more"
            raise NotEnoughError(f"{len(self._done)} of the {self._wish.k} shards needed could be fetched: {why}")
        return self._done

    async def _attempt(self, number: int, ticket: Ticket) -> None:
        row, begun = self._rows.popleft(), self._fetcher.now()
        state = State.FAILED
        try:
            await self._fetcher.retrieve(ticket, self._wish, row, self._gauges[number])
            state = State.DONE
        except PeerError as error:
            self._failures.append(f"shard {ticket.index} at {ticket.peer.node_id.hex()[:16]}: {error}")
        except asyncio.CancelledError:
            # A cut transfer is no failure of the farmer, unless it was late: a farmer that only stalls must not be
            # asked first for ever.
            if number in self._late:
                self._fetcher.note(Dealing(ticket.peer.node_id, False, False))
            raise
        finally:
            if state is State.DONE and ticket.index not in self._done:
                self._done[ticket.index] = row
            else:
                self._rows.append(row)
        self._attempts[number] = replace(self._attempts[number], state=state, ended=self._fetcher.now())
        self._changed.set()
        ok = state is State.DONE
        seconds = self._fetcher.now() - begun
        self._fetcher.note(Dealing(ticket.peer.node_id, False, ok, len(row), seconds, ticket.contract.terms))
        if ok:
            self._on_stored(ticket.peer.node_id, len(row))
