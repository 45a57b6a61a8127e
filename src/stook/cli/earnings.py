"""What `stook farm earnings` says: earned, held, expected, and what leaving now would cost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from stook.cli.demo_pay import credits
from stook.cli.money import books_of
from stook.cli.output import plural, say

MONTH_MS = 30 * 24 * 3_600_000
YEARS_MS = 100 * 12 * MONTH_MS


def earnings(home: Path) -> dict[str, Any]:
    """Sums from the farmer's books; amounts are decimal text."""
    from stook.payments.ledger import Book, Kind
    from stook.payments.statement import forecast

    now = time.time_ns() // 1_000_000
    with books_of(home) as books:
        total = books.balances()
        lately = books.lines(from_ms=now - MONTH_MS)
        accounts = books.accounts()
        spans = [span for account in accounts for span in books.open_spans(account.partner).values()]
        newest = [line for line in lately if line.kind in (Kind.STORAGE, Kind.DOWNLOAD) and line.amount][-5:]
    proofs = sum(line.kind is Kind.STORAGE and bool(line.receipt) for line in lately)
    return {
        "earned": str(-total.get(Book.INCOME_STORAGE, 0) - total.get(Book.INCOME_DOWNLOAD, 0)),
        "for_storage": str(-total.get(Book.INCOME_STORAGE, 0)),
        "for_downloads": str(-total.get(Book.INCOME_DOWNLOAD, 0)),
        "cheques_held": str(total.get(Book.HELD, 0)),
        "cashed": str(total.get(Book.WALLET, 0)),
        "receivable": str(total.get(Book.RECEIVABLE, 0)),
        "disputed": str(sum(account.disputed for account in accounts)),
        "last_30_days": str(sum(line.amount for line in lately if line.kind in (Kind.STORAGE, Kind.DOWNLOAD))),
        "batches_with_proof": proofs,
        "contracts_paid": len(spans),
        "expected_30_days": str(forecast(spans, now, MONTH_MS)),
        "price_of_leaving": str(forecast(spans, now, YEARS_MS)),
        "newest_lines": [line.number for line in newest],
    }


def say_earnings(found: dict[str, Any]) -> None:
    """The same for people."""

    def money(name: str) -> str:
        return credits(int(found[name]))

    say(
        f"Earned {money('earned')} credits: {money('for_storage')} for storage, {money('for_downloads')} for downloads."
    )
    say(f"  in cheques that are held   {money('cheques_held'):>20}")
    say(f"  cashed                     {money('cashed'):>20}")
    say(f"  owed and in no cheque      {money('receivable'):>20}")
    say(f"  claimed and not admitted   {money('disputed'):>20}")
    proved = plural(found["batches_with_proof"], "time")
    say(f"  the last 30 days           {money('last_30_days'):>20}, {proved} on proof")
    say(f"  the next 30 days           {money('expected_30_days'):>20}, if every proof comes")
    say(
        f"Leaving now would forgo {money('price_of_leaving')} that {plural(found['contracts_paid'], 'contract')} "
        "bring until their ends."
    )
    if found["newest_lines"]:
        say("Why? " + "; ".join(f"stook ledger why {number}" for number in found["newest_lines"]))
