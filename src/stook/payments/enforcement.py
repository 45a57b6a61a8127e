"""What a farmer does when it is not paid: warn, stop serving, drop. Decided from its own figures and the clock. Pure.

What a payer says plays no part: time accrues whether or not it is billed, so a payer that never audits, or never pays,
comes to the same end (`docs/protocol/payments.md`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stook.ids import ContractId
from stook.money import Amount, download_cost
from stook.payments.account import Account
from stook.payments.orders import TOLERANCE
from stook.payments.posting import Held, Standing
from stook.payments.tariff import Span


class Step(enum.StrEnum):
    """How far it has come. Each includes the ones before it."""

    SERVE = "serve"
    WARN = "warn"
    STOP = "stop"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class CreditRules:
    """How much and how long. A limit of 0 is none, and then only time counts; a grace of 0 is none as well."""

    limit: int = 0
    grace_ms: int = 0
    """Used for contracts whose own grace is shorter."""
    drop: bool = False


@dataclass(frozen=True, slots=True)
class Unpaid:
    """What one payer owes as its farmer sees it."""

    accrued: Amount
    """By contracts that are stored here, in no batch yet."""
    billed: Amount
    """In batches, beyond cheques and barter."""
    disputed: Amount
    served: Amount
    """Bytes sent and not signed for."""
    oldest_ms: int
    """Since when something is unpaid; 0: nothing is."""
    grace_ms: int
    """The longest that its contracts allow."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.accrued + self.billed + self.disputed + self.served


def unpaid(
    account: Account | None,
    spans: Mapping[ContractId, Span],
    held: Iterable[Held],
    unsigned_bytes: Mapping[int, int],
    now_ms: int,
    uncovered: int = 0,
    since_ms: int = 0,
) -> Unpaid:
    """Add it up. `held` are the contracts stored here; `unsigned_bytes` were served by price beyond what was signed.

    `uncovered` is what cheques say and nothing stands behind any more; `since_ms` is where the first batch began that
    is not paid, or when the first was disputed: a newer batch makes no debt younger.
    """
    accrued = grace = oldest = 0
    cut = account.cut_ms if account is not None else 0
    for each in held:
        if each.standing is not Standing.STORED:
            continue
        span = spans.get(each.contract_id) or Span.of(each.terms, each.terms.begin_ms, 0)
        since = max(span.start_ms, cut if each.contract_id in spans else 0)
        until = min(now_ms, span.stop_ms)
        if until > since:
            due = span.until(until) - span.until(since)
            accrued += due
            oldest = min(oldest or since, since) if due else oldest
        grace = max(grace, each.terms.grace_ms)
    billed = max(0, account.unpaid) + uncovered if account is not None else 0
    disputed = account.disputed if account is not None else 0
    if account is not None and (billed or disputed > account.owed // TOLERANCE):
        since = min(since_ms or cut, cut)
        oldest = min(oldest or since, since)
    served = sum(download_cost(price, size) for price, size in unsigned_bytes.items())
    return Unpaid(Amount(accrued), Amount(billed), Amount(disputed), Amount(served), oldest, grace)


def decide(owed: Unpaid, rules: CreditRules, now_ms: int) -> Step:
    """What to do about it now."""
    age = now_ms - owed.oldest_ms if owed.oldest_ms and owed.total > 0 else 0
    grace = max(rules.grace_ms, owed.grace_ms)
    over = rules.limit > 0 and owed.total > rules.limit
    late = grace > 0 and age > grace
    if rules.drop and grace > 0 and age > 2 * grace:
        return Step.DROP
    if over or late:
        return Step.STOP
    if (rules.limit > 0 and 2 * owed.total > rules.limit) or (grace > 0 and 4 * age > grace):
        return Step.WARN
    return Step.SERVE
