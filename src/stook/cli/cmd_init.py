"""`stook init`: an identity and the settings to rent with."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stook.cli.output import emit, say
from stook.cli.run import LAN_HELP, json_option, new_passphrase, pass_home
from stook.config import NodeSettings, RentSettings

_MAX_TYPED = 4096


def typed_phrase() -> str:
    """The words from standard input: asked for on a terminal, else read."""
    if not sys.stdin.isatty():
        return sys.stdin.read(_MAX_TYPED)
    answer: str = click.prompt("Your 24 words", err=True)
    return answer


def words_in_columns(phrase: str, columns: int = 4) -> str:
    """The words, numbered and read down the columns, as one writes them on paper."""
    words = phrase.split()
    rows = -(-len(words) // columns)
    cells = [f"{number:>4} {word:<9}" for number, word in enumerate(words, 1)]
    return "\n".join("".join(cells[row::rows]).rstrip() for row in range(rows))


@click.command("init")
@click.option("--seed", "seeds", multiple=True, metavar="URI", help="Contact of a farmer to begin with. Repeatable.")
@click.option("--network", default="local", show_default=True, help="Name of the network to join.")
@click.option("--lan", default="", metavar="ADDRESS", help=LAN_HELP)
@click.option(
    "--code",
    default="",
    metavar="K/N",
    help="Make N shards of each segment, any K of which bring it back. Default: chosen from the number of independent "
    "farmers known whenever something is stored; `stook status` says what and why.",
)
@click.option(
    "--spares", default=1, show_default=True, help="Shards begun beyond N, so that the slowest can be cut off."
)
@click.option(
    "--spread",
    type=click.Choice(["strict", "domains", "farmers"]),
    default="strict",
    show_default=True,
    help="strict: no operator, network (/24) or failure domain holds K shards of a segment. domains: networks do not "
    "count, for a private grid. farmers: only distinct farmers, for many farmers on one machine or one desk.",
)
@click.option("--words", "from_words", is_flag=True, help="Take an identity that exists: its 24 words are asked for.")
@click.option("--passphrase", "encrypt", is_flag=True, help="Encrypt the key file (asked for, or STOOK_PASSPHRASE).")
@json_option
@pass_home
def init_command(
    home: Path,
    /,
    seeds: tuple[str, ...],
    network: str,
    lan: str,
    code: str,
    spares: int,
    spread: str,
    from_words: bool,
    encrypt: bool,
    as_json: bool,
) -> None:
    """Make a renter in the home directory.

    That is where keys and settings are then (see `stook --home`). Prints 24 words, once. They are the identity:
    whoever has them has everything, and without them and the home directory nothing can be brought back. With them
    and one live farmer `stook recover` brings all of it back on another machine.

    \b
    stook init --seed stook://farm.example.org:7071/0123…    a first farmer, who knows others
    stook init --words < words.txt                           the same identity with an empty catalog, or your own
                                                             copy of catalog.db; `stook recover` fetches the saved one
    """
    from stook.assembly import KEY_FILE, create_renter_home
    from stook.identity.keystore import inspect_key_file

    node = NodeSettings(network=network, seeds=seeds, lan=lan)
    rent = RentSettings(code=code, spares=spares, spread=spread)
    phrase = typed_phrase() if from_words else None
    words = create_renter_home(home, node, rent, phrase=phrase, passphrase=new_passphrase(encrypt))
    node_id = inspect_key_file(home / KEY_FILE).node_id.hex()
    if as_json:
        shown = None if from_words else words
        emit({"ok": True, "home": str(home), "network": network, "node_id": node_id, "words": shown})
        return
    if from_words:
        say(f"Your identity lives in {home} now.")
        say("`stook agent sync` asks farmers which shards are yours; put your copy of catalog.db there for the names.")
        say("Without one, remove this directory and run `stook recover`: it fetches the catalog as it was saved.")
    else:
        say(f"You are a renter of network {network} now; everything about you is in {home}.")
        say("These are your 24 words. WRITE THEM DOWN NOW, on paper: they are never shown again, whoever reads them")
        say("has all you store, and if you lose them and this directory, nobody can bring it back.")
        say()
        say(words_in_columns(words))
        say()
    if not seeds and not lan:
        say(f"No farmer is known yet: name one as a seed in {home / 'config.toml'}.")
