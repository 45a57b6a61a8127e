"""`stook wallet`: accounts on a chain, the chequebook behind a renter's cheques."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.demo_pay import credits
from stook.cli.output import emit, say
from stook.cli.renting import home_passphrase
from stook.cli.run import json_option, pass_home
from stook.errors import UserError

if TYPE_CHECKING:
    from stook.config import Settings
    from stook.identity.keys import KeyTree


def _open(home: Path) -> tuple[Settings, KeyTree]:
    from stook.assembly import load_owner
    from stook.config import load_settings

    return load_settings(home), load_owner(home, home_passphrase(home)).tree()


def _chain(settings: Settings, tree: KeyTree) -> Any:
    from stook.payments.evm import Chain

    return Chain(settings.pay.chain, tree.payment_key())


def _chequebook(settings: Settings, tree: KeyTree) -> Any:
    from stook.payments.evm import Chequebook

    if not settings.pay.chequebook:
        raise UserError("no chequebook yet: `stook wallet deploy`, then name it under [pay] in config.toml")
    return Chequebook(_chain(settings, tree), bytes.fromhex(settings.pay.chequebook[2:]))


@click.group("wallet")
def wallet_command() -> None:
    """Accounts on a chain, and the chequebook that stands behind a renter's cheques."""


@wallet_command.command("show")
@json_option
@pass_home
def show_command(home: Path, as_json: bool) -> None:
    """Show this node's accounts, and what is in them where a chain is set."""
    from stook.identity.accounts import account_of

    settings, tree = _open(home)
    found: dict[str, Any] = {
        "wallet": "0x" + account_of(tree.payment_key().public_key).hex(),
        "issuer": "0x" + account_of(tree.node_key().public_key).hex(),
        "settlement": settings.pay.settlement,
    }
    if settings.pay.settlement == "evm":
        from stook.payments.evm import Token

        chain = _chain(settings, tree)
        accounts = {
            name: account_of(key.public_key)
            for name, key in (("wallet", tree.payment_key()), ("issuer", tree.node_key()))
        }
        found |= {f"{name}_wei": str(chain.coins(account)) for name, account in accounts.items()}
        token = bytes.fromhex(settings.pay.token[2:])
        if settings.pay.chequebook:
            book = _chequebook(settings, tree)
            token = book.token()
            found |= {"chequebook": settings.pay.chequebook, "chequebook_liquid": str(book.liquid())}
        if token:
            found |= {f"{name}_tokens": str(Token(chain, token).balance(account)) for name, account in accounts.items()}
    if as_json:
        emit(found)
        return
    for name, value in found.items():
        say(f"  {name.replace('_', ' '):<20}{credits(int(value)) if name.endswith(('tokens', 'liquid')) else value}")
    say("The wallet owns the chequebook; the issuer is the node's key: it signs cheques, and receives those of others.")


@wallet_command.command("deploy")
@click.option("--token", required=True, help="The ERC-20 token to pay in, 0x and 40 hex digits.")
@click.option(
    "--delay", default=604_800, show_default=True, help="Seconds between asking for money back and getting it."
)
@json_option
@pass_home
def deploy_command(home: Path, token: str, delay: int, as_json: bool) -> None:
    """Put a chequebook contract on the chain. It is owned by the wallet, and pays cheques of this node."""
    from stook.identity.accounts import account_of
    from stook.payments.evm import Chequebook

    settings, tree = _open(home)
    issuer = account_of(tree.node_key().public_key)
    book = Chequebook.deploy(_chain(settings, tree), bytes.fromhex(token.removeprefix("0x")), issuer, delay)
    address = "0x" + book.address.hex()
    if as_json:
        emit({"ok": True, "chequebook": address})
    else:
        say(f'The chequebook is {address}: write `chequebook = "{address}"` under [pay] in {home / "config.toml"}.')


@wallet_command.command("deposit")
@click.argument("units", type=int)
@json_option
@pass_home
def deposit_command(home: Path, units: int, as_json: bool) -> None:
    """Put UNITS of the token from the wallet into the chequebook."""
    from stook.payments.evm import Token

    settings, tree = _open(home)
    book = _chequebook(settings, tree)
    sent = Token(_chain(settings, tree), book.token()).transfer(book.address, units)
    if as_json:
        emit({"ok": True, "gas": sent.gas, "liquid": str(book.liquid())})
    else:
        say(f"{credits(book.liquid())} credits stand behind the cheques now.")


@wallet_command.command("withdraw")
@click.argument("units", type=int, required=False)
@json_option
@pass_home
def withdraw_command(home: Path, units: int | None, as_json: bool) -> None:
    """Ask for UNITS back; without UNITS, take what was asked for once the delay is over."""
    settings, tree = _open(home)
    book = _chequebook(settings, tree)
    sent = book.withdraw() if units is None else book.ask_withdrawal(units)
    if as_json:
        emit({"ok": True, "asked": None if units is None else str(units), "gas": sent.gas})
    elif units is None:
        say("Taken.")
    else:
        say("Asked. Run `stook wallet withdraw` when the delay is over, and before it is over a second time.")
