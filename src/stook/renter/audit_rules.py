"""How often an agent audits, how long it waits, how much it may cost."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class AuditRules:
    """How often, how long, how much. Times of day are milliseconds, waits for a peer are seconds."""

    step_seconds: float = 60.0
    """How often it is looked what is due."""
    beat_ms: int = HOUR_MS
    """From one heartbeat to the next; a silent farmer is looked for every `look_ms`."""
    look_ms: int = 5 * MINUTE_MS
    misses: int = 3
    """Who misses so many heartbeats in a row, the later ones `look_ms` apart, is due for a round."""
    answer_within_ms: int = 2 * MINUTE_MS
    call_deadline_seconds: float = 10.0
    page_deadline_seconds: float = 30.0
    retry_seconds: float = 5.0
    at_once: int = 16
    """Farmers asked beside each other."""
    bytes_per_day: int = 1 << 30
    requests_per_day: int = 20_000
    kept_ms: int = 60 * DAY_MS
    """How long receipts of rounds without a lie, and single events of histories, are kept."""
