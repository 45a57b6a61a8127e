"""So much a day and no more: a token bucket as a value. Pure, and exact in integers."""

from __future__ import annotations

from dataclasses import dataclass, replace

DAY_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be spent: `per_day` runs in evenly, and at most `burst` gathers while nothing is spent.

    Over any time t at most burst + per_day x t is spent, and one overdraft, which later days pay back.
    """

    per_day: int
    burst: int
    level: int
    """What is left as of `at_ms`, times `DAY_MS`; below zero after an overdraft."""
    at_ms: int

    @classmethod
    def full(cls, per_day: int, now_ms: int, burst: int | None = None) -> Allowance:
        """A full one; `burst` is one day's worth unless given. Raises `ValueError` below zero."""
        most = per_day if burst is None else burst
        if per_day < 0 or most < 0:
            raise ValueError("an allowance is not negative")
        return cls(per_day, most, most * DAY_MS, now_ms)

    def at(self, now_ms: int) -> Allowance:
        """The same, run in up to `now_ms`; a clock that was set back adds nothing."""
        if now_ms <= self.at_ms:
            return self
        level = min(self.burst * DAY_MS, self.level + self.per_day * (now_ms - self.at_ms))
        return replace(self, level=level, at_ms=now_ms)

    def left(self, now_ms: int) -> int:
        """What may be spent at `now_ms`, rounded down; negative while an overdraft is paid back."""
        return self.at(now_ms).level // DAY_MS

    def spend(self, amount: int, now_ms: int) -> Allowance:
        """After spending `amount` at `now_ms`, which may overdraw it. Raises `ValueError` below zero."""
        if amount < 0:
            raise ValueError("nothing is given back")
        here = self.at(now_ms)
        return replace(here, level=here.level - amount * DAY_MS)
