"""`stook recover`: everything back from 24 words and one farmer."""

from __future__ import annotations

import time
from pathlib import Path

import click

from stook.cli.catalogued import RowsLine, moment
from stook.cli.cmd_init import typed_phrase
from stook.cli.output import emit, human_duration, human_size, plural, say
from stook.cli.run import configure_logging, json_option, new_passphrase, pass_home, run
from stook.config import NodeSettings


@click.command("recover")
@click.option(
    "--seed", "seeds", multiple=True, required=True, metavar="URI", help="Contact of a live farmer. Repeatable."
)
@click.option("--network", default="local", show_default=True, help="Name of the network that you stored in.")
@click.option(
    "--accept-older",
    is_flag=True,
    help="Take the newest state of the catalog that can be fetched, although a later one was begun.",
)
@click.option("--writer", default="", metavar="DIGITS", help="The device to believe, when two saved at the same time.")
@click.option("--passphrase", "encrypt", is_flag=True, help="Encrypt the key file (asked for, or STOOK_PASSPHRASE).")
@json_option
@pass_home
def recover_command(
    home: Path,
    /,
    seeds: tuple[str, ...],
    network: str,
    accept_older: bool,
    writer: str,
    encrypt: bool,
    as_json: bool,
) -> None:
    """Bring everything back on a new machine: the 24 words are asked for, or read from standard input.

    The farmer named by --seed tells of others. All are asked for recovery records and for your contracts; the highest
    state of your catalog is fetched, checked and written into the home directory, which must be empty: buckets, names,
    versions, keys, contracts and settings. Objects themselves stay at the farmers until you get them.

    From then on this machine saves the catalog. A device that did so before is told and stops, so that two never mix.
    Interrupted, it can be run again. What was stored and never became recoverable is counted at the end: it has no name
    any more.

    \b
    stook recover --seed stook://farm.example.org:7071/0123…
    stook recover --seed URI --network club < words.txt
    """
    from stook.assembly import recover_home
    from stook.renter.recover import Wanted

    configure_logging("warning")
    phrase = typed_phrase()
    passphrase = new_passphrase(encrypt)
    begun = time.monotonic()
    with RowsLine("Fetching the catalog", quiet=as_json) as line:
        came = run(
            recover_home(
                home,
                NodeSettings(network=network, seeds=seeds),
                phrase,
                passphrase=passphrase,
                wanted=Wanted(accept_older=accept_older, writer=writer.lower()),
                on_rows=line,
            )
        )
    seconds = time.monotonic() - begun
    if as_json:
        emit(
            {
                "ok": True,
                "home": str(home),
                "network": network,
                "seconds": round(seconds, 3),
                "saved_ms": came.saved_ms,
                "epoch": came.epoch,
                "buckets": came.buckets,
                "objects": came.objects,
                "size_bytes": came.size_bytes,
                "contracts": came.contracts,
                "farmers_known": came.farmers,
                "records": came.records,
                "segments_missing": came.missing_segments,
                "segments_unnamed": came.unnamed_segments,
                "shards_unnamed": came.unnamed_shards,
                "skipped": list(came.skipped),
            }
        )
        return
    say(
        f"Everything of {moment(came.saved_ms)} is back in {human_duration(seconds)}: "
        f"{plural(came.objects, 'object')}, "
        f"{human_size(came.size_bytes)}, in {plural(came.buckets, 'bucket')}; "
        f"{plural(came.contracts, 'shard')} at {plural(came.farmers, 'farmer')}."
    )
    for why in came.skipped:
        say(f"Passed over: {why}.")
    if came.missing_segments:
        say(
            f"{plural(came.missing_segments, 'segment')} of them no farmer named that answered: `stook agent sync` "
            "asks again."
        )
    if came.unnamed_segments:
        say(
            f"Farmers also keep {plural(came.unnamed_segments, 'segment')} that were stored after that and never "
            "became recoverable: their names and keys are lost. `stook catalog verify --give-up` has them erased."
        )
    say("This machine saves the catalog now; `stook status` says how it stands.")
