"""What past dealings with a farmer are worth when the next shard is placed. Pure.

Until audits exist, standing comes from reaching, claiming, storing and fetching. A farmer that failed rests for a
while, twice as long with each failure in a row; it is never shut out for good by this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stook.contracts.announcement import Announcement
from stook.ids import NodeId
from stook.renter.planner import Candidate, network_groups
from stook.storage.renter_ports import FarmerStats, OutcomeKind

_REST_MS = 5_000
_LONGEST_REST_MS = 3_600_000
_PRIOR = 4.0
"""How many good dealings a newcomer is credited with; one bad one should not make it an outcast."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A farmer's weight in placement (0 to 1), until when it rests, and its speeds in bytes per second (0: unknown)."""

    weight: float = 1.0
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
            weight=before.weight * share,
            avoid_until_ms=max(before.avoid_until_ms, _rest_until(item)),
            upload_speed=item.value if item.kind is OutcomeKind.CONSIGN else before.upload_speed,
            download_speed=item.value if item.kind is OutcomeKind.RETRIEVE else before.download_speed,
        )
    return merged


def candidate_of(announcement: Announcement, standing: Standing, *, promised_bytes: int = 0) -> Candidate:
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
        weight=standing.weight,
        avoid_until_ms=standing.avoid_until_ms,
    )
