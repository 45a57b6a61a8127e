"""What becomes of a dossier or a sum, whatever store keeps it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stook.audits.score import Entry, update
from stook.storage.agent_audit_ports import Dossier, FarmerChange, HoldingTotals


def with_entries(dossier: Dossier, entries: Sequence[Entry]) -> Dossier:
    """The dossier after these events."""
    score, known = dossier.score, dossier.known_ms
    for each in entries:
        score, known = update(score, each.event, each.at_ms), known or each.at_ms
    return replace(dossier, score=score, known_ms=known)


def changed(dossier: Dossier, change: FarmerChange) -> Dossier:
    """The dossier after a change, its entries aside."""
    given = ("silence", "next_due_ms", "first_due_ms", "beat_ms", "heard_ms", "leaving_by_ms")
    return replace(
        dossier,
        **{name: value for name in given if (value := getattr(change, name)) is not None},
    )


def joined(one: HoldingTotals, other: HoldingTotals) -> HoldingTotals:
    """Both parts of one farmer's holding, which have other terms."""
    since = [part.new_since_ms for part in (one, other) if part.new_shards]
    return HoldingTotals(
        one.farmer,
        one.shards + other.shards,
        one.size_bytes + other.size_bytes,
        one.new_shards + other.new_shards,
        one.new_bytes + other.new_bytes,
        min(since, default=0),
        one.terms + other.terms,
    )
