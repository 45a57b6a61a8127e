"""What the last dealings with a farmer say of the next: whether it rests, takes shards, is fast. Pure.

This is the memory of a day. What a farmer is worth in the long run is its score (`stook.audits.score`), and both meet
in the weight of a candidate. A farmer that failed rests for a while, twice as long with each failure in a row; it is
never shut out for good by this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stook.audits.containment import Containment
from stook.audits.score import FarmerScore, placement_weight
from stook.contracts.announcement import Announcement
from stook.ids import NodeId
from stook.renter.planner import Candidate, Reason, network_groups
from stook.storage.renter_ports import FarmerStats, OutcomeKind

_REST_MS = 5_000
_LONGEST_REST_MS = 3_600_000
_PRIOR = 4.0
"""How many good dealings a newcomer is credited with; one bad one should not make it an outcast."""
_TAKING = (OutcomeKind.CLAIM, OutcomeKind.CONSIGN)
"""Dealings that no score is about."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How willingly it takes shards (0 to 1), until when it rests, and its speeds in bytes per second (0: unknown)."""

    takes: float = 1.0
    avoid_until_ms: int = 0
    upload_speed: float = 0.0
    download_speed: float = 0.0


UNKNOWN = Standing()


def _rest_until(stats: FarmerStats) -> int:
    if stats.failures_in_a_row == 0:
        return 0
    rest = _REST_MS << min(stats.failures_in_a_row - 1, 20)
    return stats.last_ms + min(rest, _LONGEST_REST_MS)


def standings(stats: Iterable[FarmerStats]) -> Mapping[NodeId, Standing]:
    """The standing of every farmer that has been dealt with."""
    merged: dict[NodeId, Standing] = {}
    for item in stats:
        before = merged.get(item.farmer, UNKNOWN)
        share = (item.successes + _PRIOR) / (item.successes + item.failures + _PRIOR)
        merged[item.farmer] = Standing(
            takes=before.takes * share if item.kind in _TAKING else before.takes,
            avoid_until_ms=max(before.avoid_until_ms, _rest_until(item)),
            upload_speed=item.value if item.kind is OutcomeKind.CONSIGN else before.upload_speed,
            download_speed=item.value if item.kind is OutcomeKind.RETRIEVE else before.download_speed,
        )
    return merged


def barred(score: FarmerScore, silence: Containment, now_ms: int) -> Reason | None:
    """Why a farmer is given nothing at all, whatever it weighs; None when it may be."""
    if score.crime is not None:
        return Reason.CONDEMNED
    if not silence.may_be_given_more:
        return Reason.SILENT
    return Reason.LOSES_TOO_MUCH if score.resting(now_ms) else None


def candidate_of(
    announcement: Announcement,
    standing: Standing,
    score: FarmerScore,
    silence: Containment,
    now_ms: int,
    *,
    typical_speed: float = 0.0,
    promised_bytes: int = 0,
) -> Candidate:
    """The farmer as placement sees it; `promised_bytes` were claimed since it announced its free space."""
    contact = announcement.contact.contact
    return Candidate(
        node_id=contact.node_id,
        free_bytes=max(0, announcement.free_bytes - promised_bytes),
        max_shard_bytes=announcement.max_shard_bytes,
        min_duration_ms=announcement.min_duration_ms,
        max_duration_ms=announcement.max_duration_ms,
        storage_price_per_gib_hour=announcement.storage_price_per_gib_hour,
        download_price_per_gib=announcement.download_price_per_gib,
        settlements=announcement.settlements,
        networks=network_groups(address.host for address in contact.addresses),
        operator=announcement.operator,
        failure_domain=announcement.failure_domain,
        weight=placement_weight(score, now_ms, typical_speed) * standing.takes,
        avoid_until_ms=standing.avoid_until_ms,
        barred=barred(score, silence, now_ms),
    )
