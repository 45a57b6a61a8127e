"""Statements, forecasts, and why a line says what it says: readings of a book. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stook.ids import ContractId
from stook.money import Amount, narrow
from stook.payments.batch import Batch, BatchKind
from stook.payments.ledger import Book, Kind, Line, balances
from stook.payments.tariff import Span


@dataclass(frozen=True, slots=True)
class Part:
    """One contract's share of a batch."""

    contract_id: ContractId
    revision: int
    price_per_gib_hour: int
    size_bytes: int
    from_ms: int
    to_ms: int
    amount: Amount


def explain(batch: Batch, spans: Iterable[Span]) -> list[Part]:
    """What each contract owes in a batch: computed anew; the parts of an EARNED one add up to its storage."""
    if batch.kind is BatchKind.GAP:
        return []
    parts = []
    for span in spans:
        if not span.opened_seq <= batch.seq <= (span.closed_seq or batch.seq):
            continue
        amount = span.owed(batch.seq, batch.from_ms, batch.to_ms)
        since = span.start_ms if span.opened_seq == batch.seq else max(batch.from_ms, span.start_ms)
        until = min(batch.to_ms, span.stop_ms)
        if until > since:
            parts.append(
                Part(
                    span.contract_id,
                    span.revision,
                    span.price_per_gib_hour,
                    span.size_bytes,
                    since,
                    until,
                    amount,
                )
            )
    return sorted(parts, key=lambda part: part.contract_id)


def adds_up(batch: Batch, parts: Iterable[Part]) -> bool:
    """Whether the parts are what the batch owes for storage."""
    return sum(part.amount for part in parts) == narrow(batch.storage)


@dataclass(frozen=True, slots=True)
class Statement:
    """What happened in a time, for one partner or for all."""

    from_ms: int
    to_ms: int
    opening: Mapping[Book, int]
    closing: Mapping[Book, int]
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, object]:
        """Plain values; amounts are decimal strings, since JSON's numbers end at 2^53."""
        return {
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "opening": {book.value: str(amount) for book, amount in sorted(self.opening.items())},
            "closing": {book.value: str(amount) for book, amount in sorted(self.closing.items())},
            "lines": [line_json(line) for line in self.lines],
        }


def line_json(line: Line) -> dict[str, object]:
    """One line in plain values."""
    return {
        "number": line.number,
        "partner": line.partner.hex(),
        "batch": line.seq,
        "at_ms": line.at_ms,
        "kind": line.kind.value,
        "debit": line.debit.value,
        "credit": line.credit.value,
        "amount": str(line.amount),
        "reference": line.reference.hex(),
        "receipt": line.receipt.hex(),
        "tariff": line.tariff,
    }


def statement(opening: Mapping[Book, int], lines: Sequence[Line], from_ms: int, to_ms: int) -> Statement:
    """The statement over lines of that time, from the balances before it."""
    closing = dict(opening)
    for book, amount in balances(lines).items():
        closing[book] = closing.get(book, 0) + amount
    return Statement(from_ms, to_ms, dict(opening), closing, tuple(lines))


@dataclass(frozen=True, slots=True)
class Difference:
    """Two statements say different things about one batch."""

    batch: int
    kind: Kind
    ours: int
    theirs: int


def compare(ours: Iterable[Line], theirs: Iterable[Line]) -> list[Difference]:
    """Batch by batch, what the two sides of one pair wrote down differently for storage and downloads."""

    def sums(lines: Iterable[Line]) -> dict[tuple[int, Kind], int]:
        found: dict[tuple[int, Kind], int] = {}
        for line in lines:
            if line.kind in (Kind.STORAGE, Kind.DOWNLOAD):
                found[line.seq, line.kind] = found.get((line.seq, line.kind), 0) + line.amount
        return found

    left, right = sums(ours), sums(theirs)
    names = sorted(left.keys() | right.keys())
    return [
        Difference(seq, kind, left.get((seq, kind), 0), right.get((seq, kind), 0))
        for seq, kind in names
        if left.get((seq, kind), 0) != right.get((seq, kind), 0)
    ]


def forecast(spans: Iterable[Span], now_ms: int, for_ms: int) -> Amount:
    """What open spans will owe for storage in a time to come, if nothing changes and every proof comes."""
    total = 0
    for span in spans:
        since, until = max(now_ms, span.start_ms), min(now_ms + for_ms, span.stop_ms)
        if not span.closed_seq and until > since:
            total += span.until(until) - span.until(since)
    return Amount(total)
