"""Moving shards away from farmers that leave: a contract with another farmer, an order to bring it there, an audit.

Nothing is remembered between steps that the database does not say: a claim that is open is the order under way, a
receipt without a proof waits for its first audit, and what was proved there is given up here (`docs/protocol/move.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.move import MAX_ORDERS, Move, MoveMethod, MoveOrder, MoveReply
from stook.contracts.receipt import SignedStorageReceipt
from stook.errors import MisbehaviourError, PeerError
from stook.ids import ContractId, NodeId, SegmentId
from stook.renter.book import FarmerBook
from stook.renter.ports import Agent, Order, Ticket
from stook.renter.repair_plan import RULES
from stook.storage.agent_audit_ports import FlightRow
from stook.storage.renter_ports import AgentStore, Placement, PlacementState, SegmentFacts
from stook.wire.endpoint import Endpoint

OWNER = b"move"
_DEADLINE_SECONDS = 30.0
_PAGES = 16
"""Pages of orders to one farmer in one step."""


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What one step did."""

    ordered: int = 0
    """Shards that are on their way."""
    arrived: int = 0
    """Shards with a new farmer's receipt, which it has to prove now."""
    given_up: int = 0
    """Old contracts that are cancelled, because the new ones were proved."""


class Mover:
    """The part of a `LocalAgent` that empties farmers that leave."""

    def __init__(
        self,
        *,
        agent: Agent,
        endpoint: Endpoint,
        book: FarmerBook,
        store: AgentStore,
        clock: Clock,
        offload: Offload,
        leaving: Callable[[], Mapping[NodeId, int]],
        lapsing_within_ms: int = 0,
    ) -> None:
        self._agent = agent
        self._endpoint = endpoint
        self._book = book
        self._store = store
        self._clock = clock
        self._offload = offload
        self._leaving = leaving
        self._lapsing_within_ms = lapsing_within_ms
        self._moving = asyncio.Lock()

    async def move_due(self) -> MoveReport:
        """One step for everybody that leaves."""
        ordered = arrived = given_up = 0
        async with self._moving:
            for farmer in sorted(self._leaving()):
                one = await self._empty(farmer)
                ordered, arrived, given_up = ordered + one.ordered, arrived + one.arrived, given_up + one.given_up
        return MoveReport(ordered, arrived, given_up)

    async def _empty(self, farmer: NodeId) -> MoveReport:
        held = await self._offload(partial(self._store.stored_at, farmer))
        ordered = arrived = given_up = 0
        for at in range(0, min(len(held), _PAGES * MAX_ORDERS), MAX_ORDERS):
            page = held[at : at + MAX_ORDERS]
            segments = [each.segment_id for each in page]
            facts, placements = await self._offload(
                lambda segments=segments: (self._store.segments(segments), self._store.placements(segments))  # type: ignore[misc]
            )
            names = [each.contract_id for each in page]
            lapsing_ms = self._clock.now_ms() + self._lapsing_within_ms
            moved = await self._offload(partial(self._store.cancel_moved, names, lapsing_ms))
            given_up += len(moved)
            wanted = [
                each
                for each in page
                if each.contract_id not in moved and not self._elsewhere(each, placements[each.segment_id])
            ]
            came, going = await self._order(farmer, wanted, facts)
            arrived, ordered = arrived + came, ordered + going
        return MoveReport(ordered, arrived, given_up)

    def _elsewhere(self, held: Placement, placements: Sequence[Placement]) -> list[Placement]:
        return [
            each
            for each in placements
            if (each.index, each.copy, each.state) == (held.index, held.copy, PlacementState.STORED)
            and each.farmer not in self._leaving()
            and self._book.dossier(each.farmer).silence.may_be_given_more
            and each.contract.terms.end_ms > self._clock.now_ms() + self._lapsing_within_ms
        ]

    async def _order(
        self, farmer: NodeId, wanted: Sequence[Placement], facts: Mapping[SegmentId, SegmentFacts]
    ) -> tuple[int, int]:
        """Have these brought to others; how many have arrived, and how many are on their way."""
        orders: dict[ContractId, tuple[MoveOrder, FlightRow]] = {}
        for held in wanted:
            flight = FlightRow(held.segment_id, held.index, held.copy, self._clock.now_ms(), OWNER)
            ticket = await self._ticket(held, facts[held.segment_id], flight)
            signed = None if ticket is None else self._book.announcement(ticket.peer.node_id)
            if ticket is not None and signed is not None:
                contact = signed.announcement.contact
                orders[held.contract_id] = MoveOrder(held.contract_id, ticket.contract, ticket.grant, contact), flight
        if not orders:
            return 0, 0
        payload = encode(Move(tuple(order for order, _ in orders.values())))
        try:
            answer = await self._endpoint.call(
                self._book.peer(farmer), MoveMethod.MOVE, payload, deadline_seconds=_DEADLINE_SECONDS
            )
            answers = decode(MoveReply, answer).answers
        except PeerError:
            return 0, len(orders)
        came = going = 0
        for each in answers:
            if each.contract_id not in orders:
                continue
            order, flight = orders.pop(each.contract_id)
            over = True
            if each.receipt is not None and not each.code:
                came += await self._arrived(each.receipt, order)
            elif each.code:
                await self._agent.abandon([order.contract.contract_id])
            else:
                going, over = going + 1, False
            if over:
                await self._offload(partial(self._store.end_flights, [flight]))
        return came, going

    async def _arrived(self, receipt: SignedStorageReceipt, order: MoveOrder) -> bool:
        try:
            if receipt.receipt.contract_id == order.contract.contract_id:
                return not await self._agent.confirm([receipt])
        except MisbehaviourError:
            pass
        await self._agent.abandon([order.contract.contract_id])
        return False

    async def _ticket(self, held: Placement, facts: SegmentFacts, flight: FlightRow) -> Ticket | None:
        """The contract for one shard with somebody else: that of the order under way, or a new one."""
        under_way = (await self._offload(lambda: self._store.flights([held.segment_id]))).get(held.segment_id, ())
        same = [each for each in under_way if (each.index, each.copy) == (held.index, held.copy)]
        if not (same and same[0].owner == OWNER):
            stale = flight.begun_ms - RULES.flight_ms
            if not await self._offload(lambda: self._store.begin_flights([flight], stale)):
                return None
        roots = tuple(held.root if at == held.index else root for at, root in enumerate(facts.roots))
        order = Order(
            replace(facts, roots=roots), (held.index,), frozenset(self._leaving()), copy=held.copy, again=True
        )
        (placed,) = await self._agent.place([order], held.contract.terms.farmer_key)
        if not placed.tickets:
            await self._offload(partial(self._store.end_flights, [flight]))
            return None
        return placed.tickets[0]
