"""How the renter's memory of a farmer fades: counters that lose half their weight each `HALF_LIFE_MS`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from stook.ids import NodeId
from stook.storage.renter_ports import HALF_LIFE_MS, FarmerStats, Outcome, OutcomeKind

SAME_FAILURE_MS = 5_000
"""Failures that follow one another as closely are one in a row: a farmer that restarts breaks every transfer it has."""


@dataclass(frozen=True, slots=True)
class Counter:
    """What dealings of one kind with one farmer weighed at `last_ms`."""

    successes: float = 0.0
    failures: float = 0.0
    value_sum: float = 0.0
    value_weight: float = 0.0
    failures_in_a_row: int = 0
    last_ok_ms: int = 0
    last_ms: int = 0

    def after(self, outcome: Outcome) -> Counter:
        """The counter with one more dealing. A clock that was set back fades nothing."""
        left = _left(outcome.at_ms - self.last_ms)
        again = self.failures_in_a_row == 0 or outcome.at_ms - self.last_ms >= SAME_FAILURE_MS
        measured = outcome.ok and outcome.value > 0
        return Counter(
            successes=self.successes * left + outcome.ok,
            failures=self.failures * left + (not outcome.ok),
            value_sum=self.value_sum * left + (outcome.value if measured else 0.0),
            value_weight=self.value_weight * left + measured,
            failures_in_a_row=0 if outcome.ok else self.failures_in_a_row + again,
            last_ok_ms=outcome.at_ms if outcome.ok else self.last_ok_ms,
            last_ms=outcome.at_ms,
        )

    def stats(self, farmer: NodeId, kind: OutcomeKind, now_ms: int) -> FarmerStats:
        """The counter faded to `now_ms`."""
        left = _left(now_ms - self.last_ms)
        return FarmerStats(
            farmer=farmer,
            kind=kind,
            successes=self.successes * left,
            failures=self.failures * left,
            value=self.value_sum / self.value_weight if self.value_weight > 0 else 0.0,
            failures_in_a_row=self.failures_in_a_row,
            last_ok_ms=self.last_ok_ms,
            last_ms=self.last_ms,
        )


def _left(elapsed_ms: int) -> float:
    return float(0.5 ** (max(elapsed_ms, 0) / HALF_LIFE_MS))
