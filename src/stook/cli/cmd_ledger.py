"""`stook ledger`: every sum, where it comes from, and what it adds up to."""

from __future__ import annotations

import csv
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stook.cli.demo_pay import credits
from stook.cli.money import books_of, line_text, partner_of
from stook.cli.output import emit, human_size, human_time, plural, say
from stook.cli.run import json_option, pass_home
from stook.errors import ConfigError, NotFoundError, UserError

_DAY_MS = 24 * 3_600_000
_COLUMNS = (
    ("number", "int64"),
    ("partner", "string"),
    ("batch", "int64"),
    ("at_ms", "int64"),
    ("kind", "string"),
    ("debit", "string"),
    ("credit", "string"),
    ("amount", "string"),
    ("reference", "string"),
    ("receipt", "string"),
    ("tariff", "int64"),
)

with_option = click.option("--with", "partner", help="Only this node, by the first digits of its id.")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@click.group("ledger", invoke_without_command=True)
@click.pass_context
def ledger_command(ctx: click.Context) -> None:
    """What is owed and paid, line by line, with the reason of every unit. Alone it lists the newest lines."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_command)


@ledger_command.command("list")
@with_option
@click.option("--limit", type=click.IntRange(1, 10**9), default=40, show_default=True, help="How many, the newest.")
@json_option
@pass_home
def list_command(home: Path, partner: str | None, limit: int, as_json: bool) -> None:
    """Show the newest lines. Each moves one sum from one account to another."""
    from stook.payments.statement import line_json

    with books_of(home) as books:
        lines = books.lines(partner_of(books, partner).partner if partner else None)[-limit:]
    for line in lines:
        if as_json:
            emit(line_json(line))
        else:
            say(line_text(line))
    if not lines and not as_json:
        say("Nothing was owed yet.")


@ledger_command.command("balances")
@with_option
@json_option
@pass_home
def balances_command(home: Path, partner: str | None, as_json: bool) -> None:
    """Show what stands in every account, and with every partner."""
    with books_of(home) as books:
        one = partner_of(books, partner).partner if partner else None
        found = {book.value: amount for book, amount in sorted(books.balances(one).items())}
        accounts = [account for account in books.accounts() if one is None or account.partner == one]
    pairs = [
        {
            "partner": account.partner.hex(),
            "owed": str(account.owed),
            "cheques": str(account.drawn),
            "delivered": str(account.delivered),
            "unpaid": str(account.unpaid),
            "disputed": str(account.disputed),
            "paid_until_ms": account.cut_ms,
        }
        for account in accounts
    ]
    if as_json:
        texts = {name: str(amount) for name, amount in found.items()}
        emit({"balances": texts, "balanced": sum(found.values()) == 0, "partners": pairs})
        return
    for name, amount in found.items():
        say(f"  {name:<20}{credits(amount):>24}")
    for account in accounts:
        disputed = f", {credits(account.disputed)} disputed" if account.disputed else ""
        say(
            f"  {account.partner.hex()[:12]}  owed {credits(account.owed)}, in cheques {credits(account.drawn)}"
            f"{disputed}; up to {human_time(account.cut_ms)}"
        )


@ledger_command.command("why")
@click.argument("number", type=click.IntRange(1))
@json_option
@pass_home
def why_command(home: Path, number: int, as_json: bool) -> None:
    """Explain a line down to its contracts, its audit receipt, and its tariff; every part is computed anew."""
    from stook.money import narrow
    from stook.payments.ledger import Kind
    from stook.payments.statement import adds_up, explain, line_json

    with books_of(home) as books:
        line = books.line(number)
        if line is None:
            raise NotFoundError(f"no line {number}")
        kept = books.batch(line.partner, line.seq) if line.seq else None
        parts = explain(kept.signed.batch, books.spans_at(line.partner, line.seq)) if kept else []
    batch = kept.signed.batch if kept else None
    orders = batch.orders if batch and line.kind is Kind.DOWNLOAD else ()
    parts = parts if line.kind is Kind.STORAGE else []
    if as_json:
        emit(
            {
                **line_json(line),
                "from_ms": batch.from_ms if batch else None,
                "to_ms": batch.to_ms if batch else None,
                "agreed": kept.agreement.agreed if kept and kept.agreement else None,
                "adds_up": adds_up(batch, parts) if batch and line.kind is Kind.STORAGE else None,
                "contracts": [
                    {
                        "contract": part.contract_id.hex(),
                        "revision": part.revision,
                        "price_per_gib_hour": part.price_per_gib_hour,
                        "size_bytes": part.size_bytes,
                        "from_ms": part.from_ms,
                        "to_ms": part.to_ms,
                        "amount": str(part.amount),
                    }
                    for part in parts
                ],
                "orders": [
                    {"price_per_gib": each.order.price_per_gib, "received_bytes": each.order.received_bytes}
                    for each in orders
                ],
            }
        )
        return
    say(line_text(line))
    if batch is None:
        return
    say(f"Batch {batch.seq}, tariff {batch.tariff}: {human_time(batch.from_ms)} to {human_time(batch.to_ms)}.")
    proof = (
        f"It rests on the audit {batch.receipt.hex()}."
        if batch.receipt
        else "No audit fell into it: time alone counts."
    )
    say(proof)
    agreed = kept.agreement if kept else None
    if agreed is not None:
        say("Both sides agree to the unit." if agreed.agreed else f"The payee says otherwise: {agreed.detail}")
    for part in parts:
        hours = (part.to_ms - part.from_ms) / 3_600_000
        say(
            f"  contract {part.contract_id.hex()[:16]}  {human_size(part.size_bytes):>8} x {hours:,.2f} h "
            f"at {part.price_per_gib_hour} per GiB and hour = {part.amount} units"
        )
    for each in orders:
        say(f"  {human_size(each.order.received_bytes)} signed for in all, at {each.order.price_per_gib} per GiB")
    if line.kind is Kind.STORAGE:
        right = "which is the line's sum" if adds_up(batch, parts) else f"and the line says {narrow(batch.storage)}"
        say(f"{plural(len(parts), 'contract')}: {sum(part.amount for part in parts)} units, {right}.")


def _month(text: str | None) -> tuple[int, int]:
    if text is None:
        text = datetime.now(tz=UTC).strftime("%Y-%m")
    try:
        begin = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise UserError(f"{text!r} is no month: write it like 2026-11") from None
    end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
    return int(begin.timestamp() * 1000), int(end.timestamp() * 1000)


@ledger_command.command("statement")
@click.option("--month", help="Like 2026-11, in UTC. Default: this month.")
@with_option
@json_option
@pass_home
def statement_command(home: Path, month: str | None, partner: str | None, as_json: bool) -> None:
    """Print a month's statement: opening balances, lines, closing balances."""
    from stook.payments.statement import statement

    begin, end = _month(month)
    with books_of(home) as books:
        one = partner_of(books, partner).partner if partner else None
        made = statement(books.balances(one, begin), books.lines(one, from_ms=begin, to_ms=end), begin, end)
    if as_json:
        emit(made.as_json())
        return
    say(f"{human_time(begin)} to {human_time(end)}: {plural(len(made.lines), 'line')}")
    for book, amount in sorted(made.closing.items()):
        before = made.opening.get(book, 0)
        say(f"  {book.value:<20}{credits(before):>22} → {credits(amount):>22}")


@ledger_command.command("forecast")
@click.option("--days", type=click.IntRange(1, 3660), default=30, show_default=True, help="How far ahead.")
@json_option
@pass_home
def forecast_command(home: Path, days: int, as_json: bool) -> None:
    """Say what storage will be owed if nothing changes and every proof comes."""
    from stook.payments.statement import forecast

    now = _now_ms()
    with books_of(home) as books:
        found = {
            account.partner: forecast(books.open_spans(account.partner).values(), now, days * _DAY_MS)
            for account in books.accounts()
        }
    if as_json:
        emit({"days": days, "total": str(sum(found.values())), "partners": {k.hex(): str(v) for k, v in found.items()}})
        return
    for node, amount in found.items():
        say(f"  {node.hex()[:12]}{credits(amount):>24}")
    say(f"  {'in all':<12}{credits(sum(found.values())):>24}  in the next {plural(days, 'day')}")


@ledger_command.command("reconcile")
@click.argument("other", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--with", "partner", required=True, help="Whose statement it is, by the first digits of its node id.")
@json_option
@pass_home
def reconcile_command(home: Path, other: Path, partner: str, as_json: bool) -> None:
    """Compare with the other side's statement (`stook ledger statement --json`), batch by batch.

    Exit status 0 only when both say the same for every batch that both have in that time.
    """
    from stook.payments.statement import compare

    try:
        theirs = json.loads(other.read_text(encoding="utf-8"))
        begin, end, said = int(theirs["from_ms"]), int(theirs["to_ms"]), [_read(line) for line in theirs["lines"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{other} is no statement: {error}") from None
    with books_of(home) as books:
        ours = books.lines(partner_of(books, partner).partner, from_ms=begin, to_ms=end)
    found = compare(ours, said)
    if as_json:
        emit(
            {
                "agrees": not found,
                "differences": [
                    {"batch": d.batch, "kind": d.kind.value, "ours": str(d.ours), "theirs": str(d.theirs)}
                    for d in found
                ],
            }
        )
    else:
        for each in found:
            say(f"  batch {each.batch}, {each.kind.value}: {each.ours} here, {each.theirs} there")
        say("Both say the same." if not found else f"{plural(len(found), 'difference')}.")
    if found:
        raise UserError("the statements differ")


def _read(line: dict[str, Any]) -> Any:
    from stook.ids import NodeId
    from stook.money import Amount
    from stook.payments.ledger import Kind, Line, Side

    return Line(
        NodeId(bytes.fromhex(line["partner"])),
        int(line["batch"]),
        int(line["at_ms"]),
        Side.PAYEE,
        Kind(line["kind"]),
        Amount(int(line["amount"])),
        bytes.fromhex(line["reference"]),
        bytes.fromhex(line["receipt"]),
        int(line["tariff"]),
        int(line["number"]),
    )


@ledger_command.command("export")
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@with_option
@json_option
@pass_home
def export_command(home: Path, output: Path, partner: str | None, as_json: bool) -> None:
    """Write all lines for other tools: OUTPUT ends in .csv, or in .parquet (pip install 'stook[export]').

    Amounts are decimal text, since they may have 39 digits.
    """
    from stook.payments.statement import line_json

    with books_of(home) as books:
        rows = [line_json(line) for line in books.lines(partner_of(books, partner).partner if partner else None)]
    if output.suffix == ".csv":
        with output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [name for name, _ in _COLUMNS])
            writer.writeheader()
            writer.writerows(rows)
    elif output.suffix == ".parquet":
        _write_parquet(rows, output)
    else:
        raise UserError("name a file that ends in .csv or .parquet")
    if as_json:
        emit({"ok": True, "file": str(output), "lines": len(rows)})
    else:
        say(f"{output} has {plural(len(rows), 'line')}")


def _write_parquet(rows: list[dict[str, object]], output: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'stook[export]', or write a .csv") from None
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in _COLUMNS])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), output)
