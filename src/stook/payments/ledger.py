"""The ledger: double entry as values, append-only. A line moves an amount from one account to another. Pure.

Which lines an event makes stands here, for both sides; who stores them decides nothing (`docs/formats/ledger.md`).
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stook.ids import NodeId
from stook.money import Amount


class Side(enum.StrEnum):
    """Whose book it is."""

    PAYER = "payer"
    PAYEE = "payee"


class Kind(enum.StrEnum):
    """What a line is about. Values are stored and never change."""

    STORAGE = "storage"
    DOWNLOAD = "download"
    CHEQUE = "cheque"
    DELIVERED = "delivered"
    CASHED = "cashed"
    BARTER = "barter"
    DISPUTED = "disputed"


class Book(enum.StrEnum):
    """The accounts of a book."""

    EXPENSE_STORAGE = "expense.storage"
    EXPENSE_DOWNLOAD = "expense.download"
    PAYABLE = "payable"
    IN_TRANSIT = "cheques.in_transit"
    DELIVERED = "cheques.delivered"
    CHEQUEBOOK = "chequebook"
    RECEIVABLE = "receivable"
    INCOME_STORAGE = "income.storage"
    INCOME_DOWNLOAD = "income.download"
    HELD = "cheques.held"
    WALLET = "wallet"
    BARTER = "barter"
    DISPUTED = "memo.disputed"
    CLAIMED = "memo.claimed"


ENTRIES: Mapping[tuple[Side, Kind], tuple[Book, Book]] = MappingProxyType(
    {
        (Side.PAYER, Kind.STORAGE): (Book.EXPENSE_STORAGE, Book.PAYABLE),
        (Side.PAYER, Kind.DOWNLOAD): (Book.EXPENSE_DOWNLOAD, Book.PAYABLE),
        (Side.PAYER, Kind.CHEQUE): (Book.PAYABLE, Book.IN_TRANSIT),
        (Side.PAYER, Kind.DELIVERED): (Book.IN_TRANSIT, Book.DELIVERED),
        (Side.PAYER, Kind.CASHED): (Book.DELIVERED, Book.CHEQUEBOOK),
        (Side.PAYER, Kind.BARTER): (Book.PAYABLE, Book.BARTER),
        (Side.PAYER, Kind.DISPUTED): (Book.DISPUTED, Book.CLAIMED),
        (Side.PAYEE, Kind.STORAGE): (Book.RECEIVABLE, Book.INCOME_STORAGE),
        (Side.PAYEE, Kind.DOWNLOAD): (Book.RECEIVABLE, Book.INCOME_DOWNLOAD),
        (Side.PAYEE, Kind.CHEQUE): (Book.HELD, Book.RECEIVABLE),
        (Side.PAYEE, Kind.CASHED): (Book.WALLET, Book.HELD),
        (Side.PAYEE, Kind.BARTER): (Book.BARTER, Book.RECEIVABLE),
        (Side.PAYEE, Kind.DISPUTED): (Book.CLAIMED, Book.DISPUTED),
    }
)
"""Debit and credit of every kind of line: the whole chart of accounts."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `number` is given when it is stored; 0 until then."""

    partner: NodeId
    seq: int
    at_ms: int
    side: Side
    kind: Kind
    amount: Amount
    reference: bytes
    """Digest of the batch or cheque."""
    receipt: bytes
    """Challenge digest of the audit receipt that it rests on, or empty."""
    tariff: int
    number: int = 0

    @property
    def debit(self) -> Book:
        """The account that gets it."""
        return ENTRIES[self.side, self.kind][0]

    @property
    def credit(self) -> Book:
        """The account that gives it."""
        return ENTRIES[self.side, self.kind][1]


def balances(lines: Iterable[Line]) -> Mapping[Book, int]:
    """Debits less credits of every account that is named; their sum is 0."""
    found: defaultdict[Book, int] = defaultdict(int)
    for line in lines:
        found[line.debit] += line.amount
        found[line.credit] -= line.amount
    return dict(found)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What two books of one pair say of each other; all zero when they agree to the unit."""

    storage: int
    """Payee's less payer's."""
    download: int
    cheques: int
    """Cheques that the payee holds or cashed beyond what left the payer's hands."""
    in_transit: int
    """Cheques that the payer signed and the payee does not have."""

    @property
    def agrees(self) -> bool:
        """Whether every unit is accounted for; cheques may be on their way."""
        return self.storage == self.download == self.cheques == 0 and self.in_transit >= 0


def reconcile(payer: Iterable[Line], payee: Iterable[Line]) -> Reconciled:
    """Compare the payer's lines about the payee with the payee's about the payer.

    A cheque whose acknowledgement was lost is in the payer's transit account and in the payee's hands: it has arrived.
    """
    ours, theirs = balances(payer), balances(payee)

    def of(found: Mapping[Book, int], *books: Book) -> int:
        return sum(found.get(book, 0) for book in books)

    signed = -of(ours, Book.IN_TRANSIT, Book.DELIVERED, Book.CHEQUEBOOK)
    delivered = -of(ours, Book.DELIVERED, Book.CHEQUEBOOK)
    arrived = of(theirs, Book.HELD, Book.WALLET)
    return Reconciled(
        storage=-of(theirs, Book.INCOME_STORAGE) - of(ours, Book.EXPENSE_STORAGE),
        download=-of(theirs, Book.INCOME_DOWNLOAD) - of(ours, Book.EXPENSE_DOWNLOAD),
        cheques=max(0, arrived - signed) + max(0, delivered - arrived),
        in_transit=signed - arrived,
    )
