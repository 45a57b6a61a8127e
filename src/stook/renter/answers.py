"""What an order to place shards gets from contracts that exist already, and what has to be claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stook.contracts.contract import Contract
from stook.ids import ContractId, NodeId
from stook.renter.ports import Order
from stook.storage.agent_audit_ports import FlightRow
from stook.storage.renter_ports import Placement, PlacementState


@dataclass(frozen=True, slots=True)
class Answer:
    """What an order gets from contracts that exist already, and what remains to be claimed."""

    order: Order
    held: frozenset[int]
    reused: list[tuple[int, NodeId, Contract]]
    remaining: Order
    holders: list[NodeId]
    superfluous: list[ContractId]
    """Claims of an interrupted run for shards stored elsewhere by now: they would keep their farmers from others."""

    @classmethod
    def of(cls, order: Order, placements: Sequence[Placement], flights: Sequence[FlightRow], now_ms: int) -> Answer:
        """Sort the segment's placements into receipted ones, claims that still hold, and the rest."""
        wanted = set(order.indices)
        stored = {
            placement.index
            for placement in placements
            if placement.state is PlacementState.STORED and placement.copy == order.copy and not order.again
        }
        reused: dict[int, tuple[int, NodeId, Contract]] = {}
        holders: list[NodeId] = []
        superfluous: list[ContractId] = []
        flying = {flight.index for flight in flights if flight.copy == order.copy}
        for placement in placements:
            open_claim = (
                placement.state is PlacementState.CLAIMED and placement.contract.terms.consign_by_ms > now_ms + 10_000
            )
            if open_claim and placement.copy == order.copy and placement.index in stored - flying:
                superfluous.append(placement.contract_id)
                continue
            # What lapsed or was given up holds nothing: its farmers are free again, or a few interrupted uploads
            # would leave nobody to go on with.
            # Nor does what a farmer lost: it may be given that again.
            if open_claim or placement.state is PlacementState.STORED:
                holders.append(placement.farmer)
            if (
                open_claim
                and placement.index in wanted - stored
                and placement.copy == order.copy
                and placement.farmer not in order.excluding
                and placement.root == order.facts.roots[placement.index]
            ):
                reused.setdefault(placement.index, (placement.index, placement.farmer, placement.contract))
        remaining = tuple(index for index in order.indices if index not in stored and index not in reused)
        return cls(
            order=order,
            held=frozenset(stored),
            reused=list(reused.values()),
            remaining=replace(order, indices=remaining),
            holders=holders,
            superfluous=superfluous,
        )
