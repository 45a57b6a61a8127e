"""Tariff 1: what is owed, as integers that both sides agree on to the unit (`docs/formats/tariff.md`). Pure.

Everything is a function of moments and of totals, never of how often one asked: sums over batches telescope, so it is
the same whether a year is billed once or daily, and each contract is rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from stook.contracts.contract import Terms
from stook.ids import ContractId
from stook.money import BYTES_PER_GIB, MS_PER_HOUR, Amount, download_cost, storage_cost

TARIFF_VERSION = 1
_PER_UNIT = BYTES_PER_GIB * MS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Span:
    """The time in which one revision of a contract is paid for, and what it takes to say how much."""

    contract_id: ContractId
    revision: int
    price_per_gib_hour: int
    size_bytes: int
    begin_ms: int
    """Where the cost function begins: the terms' begin."""
    start_ms: int
    """From here it is paid; at least `begin_ms`."""
    stop_ms: int
    """To here at most: the terms' end, or less once it is closed."""
    opened_seq: int
    """The batch that first paid for it."""
    closed_seq: int = 0
    """The batch that closed it; 0 while it is open."""

    @classmethod
    def of(cls, terms: Terms, start_ms: int, seq: int) -> Span:
        """The span of these terms, paid from `start_ms` on, beginning with batch `seq`."""
        return cls(
            contract_id=terms.contract_id,
            revision=terms.revision,
            price_per_gib_hour=terms.storage_price_per_gib_hour,
            size_bytes=terms.shard_size_bytes,
            begin_ms=terms.begin_ms,
            start_ms=min(max(start_ms, terms.begin_ms), terms.end_ms),
            stop_ms=terms.end_ms,
            opened_seq=seq,
        )

    def closed(self, stop_ms: int, seq: int) -> Span:
        """The same, paid no further than `stop_ms`."""
        return replace(self, stop_ms=max(self.start_ms, min(self.stop_ms, stop_ms)), closed_seq=seq)

    def until(self, at_ms: int) -> Amount:
        """A(t): the cost from the terms' begin to a moment."""
        return storage_cost(self.price_per_gib_hour, self.size_bytes, max(0, at_ms - self.begin_ms))

    def owed(self, seq: int, from_ms: int, to_ms: int) -> Amount:
        """What the batch `seq` over this time owes for this span."""
        if seq < self.opened_seq or (self.closed_seq and seq > self.closed_seq):
            return Amount(0)
        since = self.start_ms if seq == self.opened_seq else max(from_ms, self.start_ms)
        until = min(to_ms, self.stop_ms)
        if until <= since:
            return Amount(0)
        # A(until) - A(since), written out: a round goes through every contract. A test holds it against `until`.
        rate = self.price_per_gib_hour * self.size_bytes
        return Amount(-(-rate * (until - self.begin_ms) // _PER_UNIT) + -rate * (since - self.begin_ms) // _PER_UNIT)


def storage_owed(spans: Iterable[Span], seq: int, from_ms: int, to_ms: int) -> Amount:
    """What a batch owes for storage: the sum over its spans."""
    return Amount(sum(span.owed(seq, from_ms, to_ms) for span in spans))


def download_owed(price_per_gib: int, before_bytes: int, now_bytes: int) -> Amount:
    """What is owed for the bytes between two cumulative counts; nothing when the count did not grow."""
    if now_bytes <= before_bytes:
        return Amount(0)
    return Amount(download_cost(price_per_gib, now_bytes) - download_cost(price_per_gib, before_bytes))
