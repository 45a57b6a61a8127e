"""What a contract costs: arithmetic that both parties run and must agree on to the unit.

Prices are whole units per GiB and hour, and per GiB. A product is computed exactly and rounded up once per contract and
revision, never per interval: what is due at a moment is a function of that moment, so it does not depend on how often
it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stook.contracts.contract import Terms
from stook.money import Amount, download_cost, storage_cost


def contract_cost(terms: Terms) -> Amount:
    """Storage cost of one revision from its begin to its end. Raises `ValueError` when it ends before it begins."""
    return storage_cost(terms.storage_price_per_gib_hour, terms.shard_size_bytes, terms.end_ms - terms.begin_ms)


def accrued(terms: Terms, at_ms: int) -> Amount:
    """Storage cost from the revision's begin to `at_ms`, nothing before its begin and no more than its whole cost.

    Raises `ValueError` when the terms end before they begin.
    """
    until = min(max(at_ms, terms.begin_ms), terms.end_ms)
    return storage_cost(terms.storage_price_per_gib_hour, terms.shard_size_bytes, until - terms.begin_ms)


def retrieval_cost(terms: Terms, size_bytes: int) -> Amount:
    """Cost of fetching so many bytes of the shard. Raises `ValueError` when negative."""
    return download_cost(terms.download_price_per_gib, size_bytes)


def renewal_difference(old: Terms, new: Terms) -> int:
    """What a renewal adds to the cost agreed before; negative when it makes the whole cheaper.

    The old revision counts until the new one begins, the new one from there to its end. Raises `ValueError` when the
    new revision begins outside the old one, or ends before it begins.
    """
    if not old.begin_ms <= new.begin_ms <= old.end_ms:
        raise ValueError("a renewal begins while the contract runs")
    return accrued(old, new.begin_ms) + contract_cost(new) - contract_cost(old)


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What a whole placement costs: storage of all contracts to their ends, and fetching every shard once."""

    storage: Amount
    retrieval: Amount

    @property
    def total(self) -> Amount:
        """Both together."""
        return Amount(self.storage + self.retrieval)


def plan_cost(contracts: Iterable[Terms]) -> PlanCost:
    """The sum over contracts, each rounded up by itself as it will be billed."""
    storage = retrieval = 0
    for terms in contracts:
        storage += contract_cost(terms)
        retrieval += retrieval_cost(terms, terms.shard_size_bytes)
    return PlanCost(storage=Amount(storage), retrieval=Amount(retrieval))
