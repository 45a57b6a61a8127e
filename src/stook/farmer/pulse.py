"""What keeps requests that cost nothing from costing the farmer much. Pure.

HEARTBEAT: how often one caller is answered, and sums that are not added up anew each time. RENEW: how soon one contract
is renewed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from stook.errors import ReasonCode, RefusedError
from stook.farmer.settings import AuditLimits
from stook.ids import PublicKey
from stook.storage.ports import Totals


@dataclass(slots=True)
class _Caller:
    tokens: float
    at_seconds: float
    totals: Totals | None = None
    summed_seconds: float = 0.0


class PulseBook:
    """The callers of late, at most so many; whoever was not heard for longest is forgotten first."""

    def __init__(self, limits: AuditLimits) -> None:
        self._limits = limits
        self._callers: OrderedDict[PublicKey, _Caller] = OrderedDict()

    def admit(self, caller: PublicKey, now_seconds: float) -> None:
        """Count one heartbeat. Raises `RefusedError` (RATE_LIMITED) when the caller asks without end."""
        limits = self._limits
        one = self._callers.pop(caller, None) or _Caller(limits.heartbeat_burst, now_seconds)
        self._callers[caller] = one
        if len(self._callers) > limits.heartbeat_callers:
            self._callers.popitem(last=False)
        gained = max(0.0, now_seconds - one.at_seconds) * limits.heartbeats_per_second
        one.tokens, one.at_seconds = min(limits.heartbeat_burst, one.tokens + gained), now_seconds
        if one.tokens < 1:
            pause_ms = int(1000 * (1 - one.tokens) / limits.heartbeats_per_second) + 1
            raise RefusedError(ReasonCode.RATE_LIMITED, "heartbeats without end", retry_after_ms=pause_ms)
        one.tokens -= 1

    def totals(self, caller: PublicKey, now_seconds: float, add_up: Callable[[PublicKey], Totals]) -> Totals:
        """What the caller has here, as added up within the last minute."""
        one = self._callers.get(caller)
        if one is None:
            return add_up(caller)
        if one.totals is None or now_seconds - one.summed_seconds >= self._limits.totals_seconds:
            one.totals, one.summed_seconds = add_up(caller), now_seconds
        return one.totals


class Spacing:
    """Things that may be done again only after so many seconds; those longest ago are forgotten first."""

    def __init__(self, seconds: float, remembered: int, why: str) -> None:
        self._seconds = seconds
        self._remembered = remembered
        self._why = why
        self._done: OrderedDict[bytes, float] = OrderedDict()

    def admit(self, name: bytes, now_seconds: float) -> None:
        """Raises `RefusedError` (RATE_LIMITED) when it is too soon; else counts from now."""
        left = self._seconds - max(0.0, now_seconds - self._done.get(name, float("-inf")))
        if left > 0:
            raise RefusedError(ReasonCode.RATE_LIMITED, self._why, retry_after_ms=int(1000 * left) + 1)
        self._done[name] = now_seconds
        self._done.move_to_end(name)
        if len(self._done) > self._remembered:
            self._done.popitem(last=False)
