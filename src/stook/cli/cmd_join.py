"""`stook join`: from an invite to a node that works."""

from __future__ import annotations

from pathlib import Path

import click

from stook.cli.cmd_init import typed_phrase, words_in_columns
from stook.cli.output import emit, say
from stook.cli.run import LAN_HELP, configure_logging, json_option, new_passphrase, pass_home, passphrase_for, run
from stook.config import FarmSettings, NodeSettings, RentSettings, parse_size


@click.command("join")
@click.argument("code")
@click.option("--farm", is_flag=True, help="Rent out disk, instead of storing things.")
@click.option("--capacity", default="10 GiB", show_default=True, help="A farmer's: what may be stored or promised.")
@click.option("--listen", default="127.0.0.1:7071", show_default=True, help="A farmer's: address and port to serve on.")
@click.option("--advertise", multiple=True, help="A farmer's: address others reach it by. May be repeated.")
@click.option("--operator", default="", help="A farmer's: who runs it; renters cap what one operator holds.")
@click.option("--failure-domain", default="", help="A farmer's: building, rack or circuit, for private grids.")
@click.option("--code", "erasure_code", default="", metavar="K/N", help="A renter's: as in `stook init`.")
@click.option(
    "--spread",
    type=click.Choice(["strict", "domains", "farmers"]),
    help="A renter's: as in `stook init`. Default: domains in a private grid, strict in an open network.",
)
@click.option("--lan", default="", metavar="ADDRESS", help=LAN_HELP)
@click.option("--words", "from_words", is_flag=True, help="A renter's: take an identity that exists, by its 24 words.")
@click.option("--passphrase", "encrypt", is_flag=True, help="Encrypt the key file (asked for, or STOOK_PASSPHRASE).")
@json_option
@pass_home
def join_command(
    home: Path,
    /,
    code: str,
    farm: bool,
    capacity: str,
    listen: str,
    advertise: tuple[str, ...],
    operator: str,
    failure_domain: str,
    erasure_code: str,
    spread: str | None,
    lan: str,
    from_words: bool,
    encrypt: bool,
    as_json: bool,
) -> None:
    """Join the network that an invite CODE leads to (see `stook invite create`).

    Makes a node in the home directory whose settings name the network, its seeds and, for a private grid, its owner;
    the membership lies beside them. The code works once. If the command is stopped half-way, run it again with the same
    code: the node that the issuer let in is this one.

    \b
    stook join stook-invite-…                      then: stook mb photos; stook put holiday.jpg photos/holiday.jpg
    stook join stook-invite-… --farm --capacity "1 TiB" --listen 192.0.2.7:7071        then: stook farm run
    """
    from stook.assembly import KEY_FILE
    from stook.identity.invite import Invite
    from stook.identity.keystore import inspect_key_file
    from stook.joining import join_as_farmer, join_as_renter

    configure_logging("error")
    invite = Invite.parse(code)
    passphrase = passphrase_for(home / KEY_FILE) if (home / KEY_FILE).exists() else new_passphrase(encrypt)
    contact = words = None
    if farm:
        parse_size(capacity)
        node = NodeSettings(listen=listen, advertise=advertise, lan=lan)
        terms = FarmSettings(capacity=capacity, operator=operator, failure_domain=failure_domain)
        contact = run(join_as_farmer(home, invite, node, terms, passphrase=passphrase))
    else:
        rent = RentSettings(code=erasure_code, spread=spread or ("domains" if invite.owner_id else "strict"))
        phrase = typed_phrase() if from_words else None
        words = run(join_as_renter(home, invite, rent, lan=lan, phrase=phrase, passphrase=passphrase))
    node_id = inspect_key_file(home / KEY_FILE).node_id.hex()
    if as_json:
        shown = None if from_words else words
        facts = {"contact": contact} if farm else {"words": shown}
        private = bool(invite.owner_id)
        emit(
            {"ok": True, "home": str(home), "network": invite.network, "private": private, "node_id": node_id, **facts}
        )
        return
    kind = "private grid" if invite.owner_id else "network"
    if farm:
        say(f"A farmer of {kind} {invite.network} lives in {home} now.")
        say(f"  contact   {contact}")
        say("Start it with `stook farm run`.")
        return
    say(f"You are a renter of {kind} {invite.network} now; everything about you is in {home}.")
    if not from_words and words is not None:
        say("These are your 24 words. WRITE THEM DOWN NOW, on paper: they are never shown again, whoever reads them")
        say("has all you store, and if you lose them and this directory, nobody can bring it back.")
        say()
        say(words_in_columns(words))
        say()
    say("Begin with `stook mb BUCKET`, then `stook put FILE BUCKET/NAME`.")
