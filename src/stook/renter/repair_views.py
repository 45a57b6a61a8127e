"""Segments as the repair plan sees them, made of what the agent has on disk and thinks of farmers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from stook.audits.containment import Silence
from stook.ids import NodeId
from stook.renter.durability import Hazard, group_names
from stook.renter.loss_rates import Exposure, farmer_rate, grid_rate
from stook.renter.planner import Candidate
from stook.renter.repair_plan import Fate, Flight, HeldShard, RepairView, fate_of
from stook.shards.geometry import Policy
from stook.storage.agent_audit_ports import Dossier, FlightRow
from stook.storage.renter_ports import Placement, PlacementState, SegmentFacts

HAZARD = Hazard()
_WINDOW_YEARS = 1 / HAZARD.windows_per_year


def loss_chances(dossiers: Iterable[Dossier], now_ms: int) -> Callable[[NodeId], float]:
    """The chance that a farmer loses what it holds within one repair window, from what was seen of all of them."""
    exposures = {each.farmer: _exposure(each, now_ms) for each in dossiers}
    per_year = grid_rate(exposures.values()).mean
    nothing = Exposure(0.0)
    known: dict[NodeId, float] = {}

    def chance(farmer: NodeId) -> float:
        if farmer not in known:
            known[farmer] = farmer_rate(exposures.get(farmer, nothing), per_year).chance_within(_WINDOW_YEARS)
        return known[farmer]

    return chance


def _exposure(dossier: Dossier, now_ms: int) -> Exposure:
    # Gone, it has a full incident among its losses; condemned it has none.
    losses = dossier.score.losses.mass + (dossier.score.crime is not None)
    return Exposure.between(dossier.known_ms or now_ms, now_ms, losses)


def groups_of(candidate: Candidate) -> tuple[str, ...]:
    """What may fall together with a farmer."""
    return group_names(candidate.operator, candidate.networks, candidate.failure_domain)


def view_of(
    facts: SegmentFacts,
    placements: Sequence[Placement],
    flights: Sequence[FlightRow],
    dossiers: Mapping[NodeId, Dossier],
    chance: Callable[[NodeId], float],
    groups: Callable[[NodeId], tuple[str, ...]],
    copies: int,
    now_ms: int,
    lapsing_within_ms: int = 0,
) -> RepairView:
    """One segment. One that never had its n shards is to be filled up to n, not only kept at r.

    Contracts that end within `lapsing_within_ms` are asked to be renewed for long by then, and were not.
    """
    held = []
    for each in placements:
        lost = each.state is PlacementState.LOST
        end_ms = each.contract.terms.end_ms
        if not lost and (each.state is not PlacementState.STORED or end_ms <= now_ms):
            continue
        dossier = dossiers.get(each.farmer) or Dossier(each.farmer)
        fate = fate_of(dossier.silence.state, lost=lost, condemned=dossier.score.crime is not None)
        held.append(
            HeldShard(
                farmer=each.farmer,
                index=each.index,
                copy=each.copy,
                fate=fate,
                proved_ms=max(each.stored_ms, each.proved_ms),
                silent_since_ms=_silent_since(dossier) if fate is Fate.SILENT else 0,
                lapsing=end_ms <= now_ms + lapsing_within_ms,
                lost=chance(each.farmer),
                groups=groups(each.farmer),
            )
        )
    return RepairView(
        segment_id=facts.segment_id,
        policy=facts.policy if _was_whole(facts, placements) else _to_n(facts.policy),
        total=facts.total,
        shard_bytes=facts.shard_bytes,
        held=tuple(held),
        flights=tuple(Flight(NodeId(bytes(20)), each.index, each.copy, each.begun_ms) for each in flights),
        copies=copies,
    )


def _silent_since(dossier: Dossier) -> int:
    silence = dossier.silence
    # Being heard in between is no proof: what counts is when the first question went unanswered.
    return silence.first_asked_ms or silence.since_ms if silence.state is not Silence.CLEAR else 0


def _was_whole(facts: SegmentFacts, placements: Sequence[Placement]) -> bool:
    kept = (PlacementState.STORED, PlacementState.LOST)
    ever = {each.index for each in placements if each.receipt is not None or each.state in kept}
    return len(ever) >= facts.policy.n


def _to_n(policy: Policy) -> Policy:
    return Policy(policy.k, policy.n, policy.n, policy.n)
