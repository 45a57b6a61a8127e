"""Bring the shards of one segment to farmers, all at once, and do not wait for the slowest.

`pace.next_push` decides; this module carries it out. It holds no content key: client and agent both use it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from stook.clock import Clock
from stook.codec import decode, encode
from stook.contracts.messages import Consign, ConsignReady, Method
from stook.contracts.receipt import SignedStorageReceipt, verify_storage_receipt
from stook.errors import MisbehaviourError, NotEnoughError, PeerError, ReasonCode, RefusedError, UnreachableError
from stook.ids import ContractId, NodeId, PublicKey
from stook.merkle import UNIT_BYTES, unit_count
from stook.renter.gauge import Gauge, note_progress
from stook.renter.pace import Attempt, PushGoal, State, next_push
from stook.renter.ports import Agent, Dealing, Order, Placed, Ticket
from stook.renter.tasks import Tasks
from stook.shards.rebuild import SealedShard
from stook.storage.renter_ports import SegmentFacts
from stook.wire.endpoint import Endpoint

_BLAMELESS = frozenset({ReasonCode.CANCELLED})
_RECONNECTS = 2
OnStored = Callable[[NodeId, int], None]
"""Told of each receipt: the farmer and the shard's size."""
OnKept = Callable[[Collection[int]], None]
"""Told of shards whose receipts are written down and that nobody sends any more: their memory is free."""


class _BrokenOffError(UnreachableError):
    """The line broke while the shard was on its way."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of an upload: the indices with receipts now, and what went wrong with others, in words."""

    held: frozenset[int]
    failures: tuple[str, ...]


class Pusher:
    """Uploads segments for one node key over one endpoint."""

    def __init__(
        self,
        *,
        agent: Agent,
        endpoint: Endpoint,
        node_key: PublicKey,
        clock: Clock,
        shard_deadline_seconds: float = 1200.0,
    ) -> None:
        self._agent = agent
        self._endpoint = endpoint
        self._node_key = node_key
        self._clock = clock
        self._deadline = shard_deadline_seconds

    async def push(
        self,
        facts: SegmentFacts,
        shards: Mapping[int, SealedShard],
        goal: PushGoal,
        *,
        excluding: frozenset[NodeId] = frozenset(),
        copy: int = 0,
        again: bool = False,
        on_accepted: Callable[[], None] = lambda: None,
        on_durable: Callable[[], None] = lambda: None,
        on_stored: OnStored = lambda farmer, size: None,
        on_kept: OnKept = lambda numbers: None,
    ) -> Pushed:
        """Bring `shards` to farmers until `goal` is full, or as far as can be.

        `excluding`, `copy` and `again` are those of `Order`.
        `on_accepted` is called once contracts for enough shards are stored, `on_durable` once enough receipts are.
        Raises `NotEnoughError` when the segment did not become durable; what was claimed in vain is abandoned.
        """
        order = Order(facts, (), excluding, copy, again)
        run = _Run(self, order, shards, goal, on_accepted, on_durable, on_stored, on_kept)
        return await run.run()

    async def place(self, order: Order) -> Placed:
        """Tickets for what is ordered."""
        (placed,) = await self._agent.place([order], self._node_key)
        return placed

    async def consign(self, ticket: Ticket, shard: SealedShard, gauge: Gauge | None = None) -> SignedStorageReceipt:
        """Bring one shard; its verified receipt. Goes on where an earlier try stopped. Raises `PeerError`.


        A line that breaks under way is opened again, for the farmer has most of the shard already.
        """
        for _ in range(_RECONNECTS):
            try:
                return await self._consign(ticket, shard, gauge)
            except _BrokenOffError:
                continue
        return await self._consign(ticket, shard, gauge)

    async def _consign(self, ticket: Ticket, shard: SealedShard, gauge: Gauge | None) -> SignedStorageReceipt:
        request = encode(Consign(contract=ticket.contract, grant=ticket.grant))
        async with self._endpoint.exchange(
            ticket.peer, Method.CONSIGN, request, deadline_seconds=self._deadline
        ) as exchange:
            if gauge is not None:
                gauge.share = lambda: exchange.sent / len(shard.data)
            ready = decode(ConsignReady, await exchange.next_reply())
            receipt = ready.receipt
            if receipt is None:
                if ready.first_unit > unit_count(len(shard.data)):
                    raise MisbehaviourError(ReasonCode.BAD_TERMS, "asked for units behind the end of the shard")
                try:
                    await exchange.send(shard.leaves)
                    await exchange.send(shard.data[ready.first_unit * UNIT_BYTES :])
                    await exchange.finish()
                    receipt = decode(SignedStorageReceipt, await exchange.next_reply())
                except UnreachableError as error:
                    raise _BrokenOffError(str(error)) from error
        verify_storage_receipt(receipt, ticket.contract)
        return receipt

    @property
    def agent(self) -> Agent:
        """Who places and keeps receipts."""
        return self._agent

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.monotonic()


class _Run:
    """One segment on its way."""

    def __init__(
        self,
        pusher: Pusher,
        order: Order,
        shards: Mapping[int, SealedShard],
        goal: PushGoal,
        on_accepted: Callable[[], None],
        on_durable: Callable[[], None],
        on_stored: OnStored,
        on_kept: OnKept,
    ) -> None:
        self._pusher = pusher
        self._order = order
        self._shards = dict(shards)
        self._goal = goal
        self._on_accepted = on_accepted
        self._on_durable = on_durable
        self._on_stored = on_stored
        self._on_kept = on_kept
        self._held: frozenset[int] = frozenset()
        self._attempts: list[Attempt] = []
        self._gauges: dict[int, Gauge] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._late: frozenset[int] = frozenset()
        self._tried: set[NodeId] = set()
        self._choosing = asyncio.Lock()
        self._open: dict[int, Ticket] = {}
        self._receipts: dict[int, SignedStorageReceipt] = {}
        self._confirmed: set[int] = set()
        self._surplus: list[ContractId] = []
        self._broken_off: dict[ContractId, int] = {}
        """Contracts whose farmer could not be reached to the end, and the index: it may hold most of the shard."""
        self._failures: list[str] = []
        self._exhausted = False
        self._accepted = False
        self._durable = False
        self._changed = asyncio.Event()

    async def run(self) -> Pushed:
        try:
            await self._first_tickets()
            await self._race()
        except BaseException:
            with contextlib.suppress(Exception):  # what farmers signed for is kept, whatever stopped us
                await self._confirm()
            raise
        await self._finish()
        return Pushed(self._stored(), tuple(self._failures))

    async def _race(self) -> None:
        async with Tasks() as group:
            while True:
                note_progress(self._attempts, self._gauges)
                move = next_push(self._goal, self._held, self._attempts, self._pusher.now(), exhausted=self._exhausted)
                self._late = move.late
                for number in move.cut:
                    self._tasks[number].cancel()
                if move.over:
                    break
                self._start(group, move.start)
                await self._something(move.check_in)
                await self._confirm_when_durable()

    # --- starting ----------------------------------------------------------------------------------------------------

    async def _first_tickets(self) -> None:
        """Claims for everything the first move will start go out together."""
        wanted = next_push(self._goal, frozenset(), (), self._pusher.now()).start
        placed = await self._pusher.place(replace(self._order, indices=tuple(wanted)))
        # An earlier run may have stored spares: they count as any other.
        self._held = placed.held & {*wanted, *self._goal.spares}
        self._open = {ticket.index: ticket for ticket in placed.tickets}
        self._tried.update(ticket.peer.node_id for ticket in placed.tickets)
        self._note_shortage(placed.shortage)
        if len(self._held | self._open.keys()) >= self._goal.enough:
            self._accept()

    def _note_shortage(self, shortage: str) -> None:
        if shortage:
            self._exhausted = True
            self._failures.append(shortage)

    def _start(self, group: Tasks, indices: Sequence[int]) -> None:
        for index in indices:
            number = len(self._attempts)
            self._attempts.append(Attempt(number, index, State.RUNNING, self._pusher.now()))
            self._gauges[number] = Gauge()
            self._tasks[number] = group.create_task(self._attempt(number, index))

    async def _attempt(self, number: int, index: int) -> None:
        ticket = self._open.pop(index, None) or await self._another(index)
        if ticket is None:
            self._end(number, State.FAILED)
            return
        begun = self._pusher.now()
        try:
            receipt = await self._pusher.consign(ticket, self._shards[index], self._gauges[number])
        except PeerError as error:
            if error.retryable:
                self._broken_off[ticket.contract_id] = index
            else:
                self._surplus.append(ticket.contract_id)
            self._failures.append(f"shard {index} at {ticket.peer.node_id.hex()[:16]}: {error}")
            if not (isinstance(error, RefusedError) and error.code in _BLAMELESS):
                self._note(ticket, ok=False)
            self._end(number, State.FAILED)
            return
        except asyncio.CancelledError:
            self._surplus.append(ticket.contract_id)
            if number in self._late:
                self._note(ticket, ok=False)
            raise
        size = len(self._shards[index].data)
        self._note(ticket, ok=True, size=size, seconds=self._pusher.now() - begun)
        if index in self._receipts or index in self._held:
            self._surplus.append(ticket.contract_id)
        else:
            self._receipts[index] = receipt
            self._on_stored(ticket.peer.node_id, size)
        self._end(number, State.DONE)

    async def _another(self, index: int) -> Ticket | None:
        """A ticket for `index` at a farmer not tried yet.

        One after another: two that ask at once would be given the same claim, and the one that loses would give up
        what the other has stored.
        """
        async with self._choosing:
            if self._exhausted:
                return None
            placed = await self._pusher.place(
                replace(self._order, indices=(index,), excluding=self._order.excluding | self._tried)
            )
            self._note_shortage(placed.shortage)
            ticket = next(iter(placed.tickets), None)
            if ticket is not None:
                self._tried.add(ticket.peer.node_id)
            return ticket

    def _note(self, ticket: Ticket, *, ok: bool, size: int = 0, seconds: float = 0.0) -> None:
        self._pusher.agent.note([Dealing(ticket.peer.node_id, True, ok, size, seconds)])

    def _end(self, number: int, state: State) -> None:
        self._attempts[number] = replace(self._attempts[number], state=state, ended=self._pusher.now())
        self._changed.set()

    async def _something(self, within: float | None) -> None:
        try:
            async with asyncio.timeout(within):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    # --- ending ------------------------------------------------------------------------------------------------------

    def _stored(self) -> frozenset[int]:
        return self._held | self._receipts.keys()

    async def _confirm(self) -> None:
        fresh = {index: receipt for index, receipt in self._receipts.items() if index not in self._confirmed}
        if fresh:
            void = await self._pusher.agent.confirm(list(fresh.values()))
            for index, receipt in fresh.items():
                if receipt.receipt.contract_id in void:
                    self._undo(index)
                else:
                    self._confirmed.add(index)

    def _undo(self, index: int) -> None:
        """Another process gave this contract up: its shard will be erased, so it must not count."""
        del self._receipts[index]
        self._failures.append(f"shard {index}: its contract was given up meanwhile")
        for attempt in self._attempts:
            if attempt.index == index and attempt.state is State.DONE:
                self._attempts[attempt.number] = replace(attempt, state=State.FAILED)

    async def _confirm_when_durable(self) -> None:
        if not self._durable and len(self._stored()) >= self._goal.enough:
            await self._confirm()
            if len(self._stored()) >= self._goal.enough:
                self._durable = True
                self._on_durable()
                self._let_go()

    def _let_go(self) -> None:
        """A confirmed shard is not sent again, unless a second transfer of it still runs."""
        running = {attempt.index for attempt in self._attempts if attempt.state is State.RUNNING}
        kept = self._shards.keys() & (self._confirmed - running)
        for index in kept:
            del self._shards[index]
        self._on_kept(kept)

    def _settle_durable(self) -> None:
        self._accept()
        self._durable = True
        self._on_durable()

    def _accept(self) -> None:
        """Once; at the latest with the receipts, when some of the first claims were declined."""
        if not self._accepted:
            self._accepted = True
            self._on_accepted()

    async def _finish(self) -> None:
        await self._confirm()
        leftover = [*self._surplus, *(ticket.contract_id for ticket in self._open.values())]
        # What broke off is left to lapse, so that the same upload, run again before, goes on where the line broke; but
        # not when its index is stored elsewhere: it would keep its farmer from every other shard of the segment.
        whole = len(self._stored()) >= self._goal.enough
        leftover += [one for one, index in self._broken_off.items() if whole or index in self._stored()]
        kept = {receipt.receipt.contract_id for receipt in self._receipts.values()}
        await self._pusher.agent.abandon([contract_id for contract_id in leftover if contract_id not in kept])
        if not self._durable and len(self._stored()) >= self._goal.enough:
            self._settle_durable()
        if not self._durable:
            why = "; ".join(dict.fromkeys(self._failures)) or "no farmer took them"
            raise NotEnoughError(
                f"{len(self._stored())} of the {self._goal.enough} shards were stored that a segment needs: {why}"
            )
