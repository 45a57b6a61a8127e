"""What a farmer did and holds, as one plain value for people, `--json` and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stook.errors import ReasonCode, named


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """One round, or one part of it, of the integrity scrub."""

    shards: int = 0
    bytes: int = 0
    damaged: int = 0
    finished_ms: int | None = None
    """When the round ended; None while it runs."""


@dataclass(slots=True)
class Tally:
    """Counters since start. Only the farmer's own loop touches them."""

    bytes_in: int = 0
    bytes_out: int = 0
    shards_in: int = 0
    shards_out: int = 0
    reaped: int = 0
    audit_pages: int = 0
    units_proved: int = 0
    units_billed: int = 0
    """Of them those beyond what the contracts give free."""
    receipts_kept: int = 0
    announced_ms: int | None = None
    requests: Counter[str] = field(default_factory=Counter)
    refusals: Counter[ReasonCode] = field(default_factory=Counter)
    last_scrub: ScrubReport | None = None


@dataclass(slots=True)
class MarketTally:
    """What came of the market since the start."""

    drafts_heard: int = 0
    offers_made: int = 0
    """Rounds counted singly."""
    offers_kept: int = 0
    passed_over: Counter[ReasonCode] = field(default_factory=Counter)
    """Drafts that we made no offer for, by our own reason."""
    refused: Counter[int] = field(default_factory=Counter)
    """Offers that renters refused, by their reason."""
    unreachable: int = 0
    advertised: int = 0

    def status(self, neighbours: int) -> MarketStatus:
        """For people and programs, with names instead of numbers."""
        return MarketStatus(
            neighbours=neighbours,
            drafts_heard=self.drafts_heard,
            offers_made=self.offers_made,
            offers_kept=self.offers_kept,
            passed_over={code.name: count for code, count in sorted(self.passed_over.items())},
            refused={named(code): count for code, count in sorted(self.refused.items())},
            unreachable=self.unreachable,
            advertised=self.advertised,
        )


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """The open market since start."""

    neighbours: int
    drafts_heard: int
    offers_made: int
    offers_kept: int
    passed_over: Mapping[str, int]
    refused: Mapping[str, int]
    unreachable: int
    advertised: int


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """Audits since start, and the losses on the book."""

    pages_served: int
    units_proved: int
    units_billed: int
    receipts_kept: int
    losses_declared: int
    losses_noted: int


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How far a farmer that leaves has come."""

    leaving_by_ms: int
    """0 while it stays."""
    contracts_left: int
    """Stored, reserved or lost: what some renter has not given up yet."""
    bytes_left: int
    moves_waiting: int
    moves_done: int
    """Brought to another farmer, and not cancelled here yet."""
    moves_failed: int
    finished: bool
    """It leaves, and nothing is left."""


@dataclass(frozen=True, slots=True)
class FarmerStatus:
    """A snapshot. Sizes are shard sizes in bytes; times are milliseconds since 1970 UTC."""

    node_id: str
    network: str
    accepting: bool
    started_ms: int
    now_ms: int
    allocated_bytes: int
    stored_bytes: int
    reserved_bytes: int
    available_bytes: int
    free_disk_bytes: int
    contracts: Mapping[str, int]
    """How many contracts stand reserved, active and lost."""
    peers_connected: int
    transfers_running: int
    transfers_waiting: int
    bytes_in: int
    bytes_out: int
    shards_in: int
    shards_out: int
    reaped: int
    audits: AuditStatus
    exit: ExitStatus
    market: MarketStatus | None
    """None: it takes no part."""
    requests: Mapping[str, int]
    refusals: Mapping[str, int]
    """Refusals since start by reason code name."""
    announced_ms: int | None
    last_scrub: ScrubReport | None

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries and numbers, ready for a JSON encoder."""
        return asdict(self)
