"""What the agent knows now of farmers and holdings, as far as it says how durable things are.

Before there are audits that is: since when a farmer has held something, by its receipts; when it last answered; and
what was lost. Audits know it better, and their place is here (`ports.DurabilityFacts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stook.audits.containment import RULES
from stook.clock import Clock, Offload
from stook.ids import NodeId, SegmentId
from stook.renter.book import FarmerBook
from stook.renter.durability import group_names
from stook.renter.loss_rates import Exposure
from stook.renter.outlook import FarmerFacts, HeldSegment
from stook.storage.renter_ports import AgentStore, Placement, PlacementState

_PAGE = 1000


@dataclass(slots=True)
class _Seen:
    """One farmer's placements, added up."""

    since_ms: int | None = None
    held_bytes: int = 0
    lost_bytes: int = 0

    def add(self, placement: Placement) -> None:
        terms = placement.contract.terms
        if placement.state is PlacementState.LOST:
            self.lost_bytes += terms.shard_size_bytes
        elif placement.state is PlacementState.STORED:
            self.held_bytes += terms.shard_size_bytes
        if placement.receipt is not None:
            # When it was stored is the farmer's word; when the contract began is ours too.
            stored_ms = max(placement.receipt.receipt.stored_at_ms, terms.begin_ms)
            self.since_ms = stored_ms if self.since_ms is None else min(self.since_ms, stored_ms)


async def farmer_facts(
    store: AgentStore, book: FarmerBook, clock: Clock, offload: Offload
) -> Mapping[NodeId, FarmerFacts]:
    """See `ports.DurabilityFacts.farmer_facts`.

    Time runs only until somebody was last heard: what happened while this agent slept was seen by nobody.
    """
    await book.flush()
    now = clock.now_ms()
    seen, heard = await offload(lambda: _collect(store, book.farmers(), now))
    latest = min(now, max(heard.values(), default=now))
    facts = {}
    for farmer, sums in seen.items():
        if sums.since_ms is None:
            continue
        since_ms = min(sums.since_ms, latest)
        last_ms = max(since_ms, min(heard.get(farmer, 0), latest))
        gone = latest - last_ms > RULES.gone_ms
        total = sums.held_bytes + sums.lost_bytes
        losses = 1.0 if gone else sums.lost_bytes / total if total else 0.0
        candidate = book.candidate(farmer)
        facts[farmer] = FarmerFacts(
            farmer=farmer,
            exposure=Exposure.between(since_ms, last_ms if gone else latest, losses),
            groups=group_names(candidate.operator, candidate.networks, candidate.failure_domain),
            heard_ms=last_ms,
            gone=gone,
        )
    return facts


def _collect(store: AgentStore, known: Iterable[NodeId], now_ms: int) -> tuple[dict[NodeId, _Seen], dict[NodeId, int]]:
    heard: dict[NodeId, int] = {}
    for stats in store.farmer_stats(now_ms):
        heard[stats.farmer] = max(heard.get(stats.farmer, 0), stats.last_ok_ms)
    seen: dict[NodeId, _Seen] = {}
    for farmer in {*known, *heard}:
        sums, after = _Seen(), b""
        while page := store.placements_at(farmer, after, _PAGE):
            for placement in page:
                sums.add(placement)
            after = page[-1].contract_id
        seen[farmer] = sums
    return seen, heard


async def held_segments(
    store: AgentStore, clock: Clock, offload: Offload, segment_ids: Iterable[SegmentId]
) -> Mapping[SegmentId, HeldSegment]:
    """See `ports.DurabilityFacts.holdings`: what is receipted, under contracts that still run."""
    wanted, now = list(segment_ids), clock.now_ms()
    facts, placements = await offload(lambda: (store.segments(wanted), store.placements(wanted)))
    return {
        segment_id: HeldSegment(
            segment_id,
            fact.policy,
            tuple(
                (placement.farmer, placement.index)
                for placement in placements.get(segment_id, ())
                if placement.state is PlacementState.STORED and placement.contract.terms.end_ms > now
            ),
        )
        for segment_id, fact in facts.items()
    }
