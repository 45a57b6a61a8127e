"""Everything that an agent keeps about one farmer, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from stook.audits.score import Explanation, explain
from stook.ids import NodeId
from stook.storage.agent_audit_ports import Dossier, KeptReceipt
from stook.storage.renter_ports import AgentStore, PlacementState

_MOST_SHOWN = 1_000_000
_ROUNDS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class FarmerRecord:
    """What is kept about one farmer."""

    dossier: Dossier
    explanation: Explanation
    placements: Mapping[PlacementState, int]
    stored_bytes: int
    unaudited: int
    """Shards that were never part of a passed audit."""
    losses: int
    """Shards of contracts still kept that it declared lost."""
    rounds: tuple[KeptReceipt, ...]
    """The latest, newest first."""


def record_of(store: AgentStore, farmer: NodeId) -> FarmerRecord:
    """What the store says of a farmer, and what moved its scores. Blocks."""
    dossier = store.dossier(farmer)
    held = [each for each in store.totals() if each.farmer == farmer]
    placements = store.placements_at(farmer, b"", _MOST_SHOWN)
    return FarmerRecord(
        dossier=dossier,
        explanation=explain(store.history(farmer), dossier.base),
        placements=Counter(each.state for each in placements),
        stored_bytes=held[0].size_bytes if held else 0,
        unaudited=held[0].new_shards if held else 0,
        losses=len(store.noted_losses(each.contract_id for each in placements)),
        rounds=tuple(store.receipts(farmer, _ROUNDS_SHOWN)),
    )
