"""What the commands about money share: sums in words, partners by their first digits, lines as text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stook.cli.demo_pay import credits
from stook.cli.output import human_time
from stook.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from stook.payments.account import Account
    from stook.payments.ledger import Line
    from stook.storage.books import SqliteBooks


@contextmanager
def books_of(home: Path) -> Iterator[SqliteBooks]:
    """The books in `home`. Raises `NotFoundError` when none were begun."""
    from stook.assembly import BOOKS_FILE, open_books
    from stook.config import load_settings

    load_settings(home)
    if not (home / BOOKS_FILE).exists():
        raise NotFoundError(f"{home} keeps no books yet: they begin when the node first runs")
    with open_books(home) as books:
        yield books


def partner_of(books: SqliteBooks, name: str) -> Account:
    """The account whose node id begins with these hex digits. Raises `NotFoundError`, `UserError` when several do."""
    found = [account for account in books.accounts() if account.partner.hex().startswith(name.lower())]
    if not found:
        raise NotFoundError(f"no account with a node {name}")
    if len(found) > 1:
        raise UserError(f"{len(found)} accounts begin with {name}: write more digits")
    return found[0]


def line_text(line: Line) -> str:
    """One line of the ledger for people."""
    about = f"batch {line.seq}" + (f", audit {line.receipt.hex()[:12]}" if line.receipt else "")
    return (
        f"{line.number:>7}  {human_time(line.at_ms)}  {line.partner.hex()[:12]}  {line.kind.value:<9} "
        f"{credits(line.amount):>20}  {line.debit.value} ← {line.credit.value}  ({about})"
    )
