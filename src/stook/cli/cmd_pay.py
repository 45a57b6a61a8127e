"""`stook pay`: settle accounts now, look at cheques, turn them into money."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stook.cli.demo_pay import credits
from stook.cli.money import books_of, partner_of
from stook.cli.output import emit, human_time, plural, say
from stook.cli.renting import home_passphrase
from stook.cli.run import json_option, pass_home, run
from stook.errors import UserError


@click.group("pay")
def pay_command() -> None:
    """Pay farmers; look at cheques; cash those that were received."""


@pay_command.command("now")
@json_option
@pass_home
def now_command(home: Path, as_json: bool) -> None:
    """Pay every farmer up to now. A running `stook agent` does it by itself, after audits and daily."""
    from stook.assembly import open_agent

    async def work() -> Any:
        async with open_agent(home, passphrase=home_passphrase(home)) as agent:
            if agent.paymaster is None:
                raise UserError("this agent keeps no books")
            return await agent.paymaster.pay_all()

    report = run(work())
    if as_json:
        emit({"paid": report.paid, "unreached": report.unreached, "disputed": report.disputed})
    else:
        say(
            f"{plural(report.paid, 'farmer')} paid up to now; {report.unreached} did not answer, "
            f"{report.disputed} claim more than we owe by our books."
        )


@pay_command.command("status")
@json_option
@pass_home
def status_command(home: Path, as_json: bool) -> None:
    """Show for every partner what is owed, what is in cheques, and what is disputed."""
    with books_of(home) as books:
        accounts = books.accounts()
    for account in accounts:
        found = {
            "partner": account.partner.hex(),
            "batches": account.seq,
            "owed": str(account.owed),
            "in_cheques": str(account.drawn),
            "delivered": str(account.delivered),
            "in_transit": str(account.drawn - account.delivered),
            "cashed": str(account.cashed),
            "bartered": str(account.bartered),
            "unpaid": str(account.unpaid),
            "disputed": str(account.disputed),
            "paid_until_ms": account.cut_ms,
        }
        if as_json:
            emit(found)
        else:
            way = (
                f", {credits(account.drawn - account.delivered)} on the way"
                if account.drawn > account.delivered
                else ""
            )
            claim = f", {credits(account.disputed)} disputed" if account.disputed else ""
            say(
                f"{account.partner.hex()[:16]}  owed {credits(account.owed)}, unpaid {credits(account.unpaid)}{way}"
                f"{claim}; up to {human_time(account.cut_ms)}"
            )
    if not accounts and not as_json:
        say("No accounts yet.")


@pay_command.command("cheques")
@json_option
@pass_home
def cheques_command(home: Path, as_json: bool) -> None:
    """Show the newest cheque of every account: the only one that counts."""
    from stook.codec import encode

    with books_of(home) as books:
        held = [account for account in books.accounts() if account.cheque is not None]
    for account in held:
        if (signed := account.cheque) is None:
            continue
        cheque = signed.cheque
        if as_json:
            emit(
                {
                    "partner": account.partner.hex(),
                    "serial": cheque.serial,
                    "cumulative": str(cheque.amount),
                    "chain_id": cheque.chain_id,
                    "chequebook": "0x" + cheque.chequebook.hex(),
                    "beneficiary": "0x" + cheque.beneficiary.hex(),
                    "cashed": str(account.cashed),
                    "encoded": encode(signed).hex(),
                }
            )
        else:
            chain = f"chain {cheque.chain_id}" if cheque.chain_id else "no chain"
            say(
                f"{account.partner.hex()[:16]}  cheque {cheque.serial} over {credits(cheque.amount)} in all, "
                f"{credits(account.cashed)} cashed ({chain})"
            )
    if not held and not as_json:
        say("No cheques yet.")


@pay_command.command("cash")
@click.option("--with", "partner", help="Only this renter's, by the first digits of its node id.")
@json_option
@pass_home
def cash_command(home: Path, partner: str | None, as_json: bool) -> None:
    """Turn the cheques that this farmer holds into money on the chain."""
    import time

    from stook.assembly import load_owner, settlement_of
    from stook.config import load_settings
    from stook.farmer.till import cash

    settings = load_settings(home, "farm")
    if settings.pay.settlement == "ledger":
        raise UserError("settlement is `ledger`: cheques are acknowledgements, and people settle them as they like")
    key = load_owner(home, home_passphrase(home)).tree().node_key()
    settlement, total = settlement_of(settings, key), 0
    with books_of(home) as books:
        accounts = [partner_of(books, partner)] if partner else books.accounts()
        for account in accounts:
            done = cash(books, settlement, key, account.partner, time.time_ns() // 1_000_000)
            if done is None:
                continue
            total += done.paid
            if as_json:
                emit(
                    {
                        "partner": account.partner.hex(),
                        "paid": str(done.paid),
                        "transaction": done.reference.hex(),
                        "gas": done.gas,
                    }
                )
            else:
                say(f"{account.partner.hex()[:16]}  {credits(done.paid)} paid, {done.gas:,} gas")
    if not as_json:
        say(f"{credits(total)} credits in all")
