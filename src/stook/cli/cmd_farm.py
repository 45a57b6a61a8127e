"""`stook farm`: rent out disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stook.cli.output import emit, human_duration, human_size, human_time, plural, say, warn
from stook.cli.run import (
    LAN_HELP,
    configure_logging,
    json_option,
    log_level,
    new_passphrase,
    pass_home,
    passphrase_for,
    run,
    until_stopped,
)
from stook.config import DEFAULT_NETWORK, FarmSettings, NodeSettings, parse_duration_ms, parse_size
from stook.errors import UserError


@click.group("farm")
def farm_command() -> None:
    """Rent out disk: set up, run and look at a farmer."""


@farm_command.command("init")
@click.option("--capacity", default="10 GiB", show_default=True, help="What may be stored or promised at most.")
@click.option("--listen", default="127.0.0.1:7071", show_default=True, help="Address and port to serve on.")
@click.option("--advertise", multiple=True, help="Address others reach it by, when that differs. May be repeated.")
@click.option("--seed", "seeds", multiple=True, help="Contact URI of a node to announce to. May be repeated.")
@click.option("--network", default="local", show_default=True, help="Name of the network it belongs to.")
@click.option("--lan", default="", metavar="ADDRESS", help=LAN_HELP)
@click.option("--private", is_flag=True, help="Found a private grid: only whom you invite is spoken with.")
@click.option("--min-free-disk", default="1 GiB", show_default=True, help="Space to leave free on the disk.")
@click.option("--storage-price", default=0, show_default=True, help="Smallest units per GiB and hour.")
@click.option("--download-price", default=0, show_default=True, help="Smallest units per GiB sent.")
@click.option("--max-duration", default="366 d", show_default=True, help="Longest contract to sign.")
@click.option("--operator", default="", help="Who runs it: renters cap what one operator holds.")
@click.option("--failure-domain", default="", help="Building, rack or circuit, for private grids.")
@click.option("--passphrase", "encrypt", is_flag=True, help="Encrypt the key file (asked for, or STOOK_PASSPHRASE).")
@json_option
@pass_home
def init_command(
    home: Path, /, capacity: str, listen: str, min_free_disk: str, max_duration: str, **given: Any
) -> None:
    """Make a new farmer in the home directory (see `stook --home`)."""
    from stook.assembly import create_farmer_home, new_network_name

    for size in (capacity, min_free_disk):
        parse_size(size)
    parse_duration_ms(max_duration)
    network = given["network"]
    if given["private"] and network == DEFAULT_NETWORK:
        network = new_network_name()
    node = NodeSettings(
        network=network,
        listen=listen,
        advertise=tuple(given["advertise"]),
        seeds=tuple(given["seeds"]),
        lan=given["lan"],
    )
    farm = FarmSettings(
        capacity=capacity,
        min_free_disk=min_free_disk,
        max_duration=max_duration,
        storage_price_per_gib_hour=given["storage_price"],
        download_price_per_gib=given["download_price"],
        operator=given["operator"],
        failure_domain=given["failure_domain"],
    )
    uri = create_farmer_home(home, node, farm, new_passphrase(given["encrypt"]), private=given["private"])
    if given["as_json"]:
        emit({"ok": True, "home": str(home), "network": network, "contact": uri})
        return
    say(f"A farmer lives in {home} now, offering {human_size(parse_size(capacity))}.")
    say(f"  contact   {uri}")
    if given["private"]:
        say(f"  grid      {network}: private, and you are its owner")
        say("Start it with `stook farm run`; let others in with `stook invite create`.")
    else:
        say("Start it with `stook farm run`; give others the contact so that they find it.")


@farm_command.command("run")
@click.option("--with-parent", is_flag=True, help="Stop when standard input closes.")
@json_option
@pass_home
def run_command(home: Path, with_parent: bool, as_json: bool) -> None:
    """Serve until interrupted. Ends in order: transfers under way may finish, nothing half-written stays."""
    from stook.assembly import KEY_FILE, run_farmer

    configure_logging(log_level(home))

    async def serve() -> None:
        async with run_farmer(home, passphrase=passphrase_for(home / KEY_FILE)) as running:
            if as_json:
                emit({"event": "ready", "contact": running.uri})
            else:
                say(f"Farming at {running.uri}")
            await until_stopped(with_parent=with_parent)
            if not as_json:
                warn("Stopping: transfers under way may finish.")

    run(serve())


@farm_command.command("status")
@json_option
@pass_home
def status_command(home: Path, as_json: bool) -> None:
    """Ask the running farmer in this home how it is doing."""
    from stook.assembly import KEY_FILE, farmer_status

    status = run(farmer_status(home, passphrase=passphrase_for(home / KEY_FILE)))
    if as_json:
        emit(status)
        return
    say(f"Farmer {status['node_id'][:16]} in network {status['network']}")
    up = (status["now_ms"] - status["started_ms"]) / 1000
    say(f"  up          {human_duration(up)}{'' if status['accepting'] else ', stopping'}")
    say(f"  capacity    {human_size(status['allocated_bytes'])}, {human_size(status['available_bytes'])} to promise")
    say(f"  stored      {human_size(status['stored_bytes'])} in {plural(status['contracts']['active'], 'shard')}")
    say(f"  reserved    {human_size(status['reserved_bytes'])} in {status['contracts']['reserved']} contracts")
    say(f"  lost        {plural(status['contracts']['lost'], 'shard')}")
    say(f"  disk free   {human_size(status['free_disk_bytes'])}")
    say(f"  traffic     {human_size(status['bytes_in'])} in, {human_size(status['bytes_out'])} out")
    audits = status["audits"]
    say(f"  audits      {plural(audits['units_proved'], 'unit')} proved on {plural(audits['pages_served'], 'page')}")
    say(f"  losses      {audits['losses_declared']} declared, {audits['losses_noted']} noted by their renters")
    leave = status["exit"]
    if leave["leaving_by_ms"]:
        left = f"{plural(leave['contracts_left'], 'contract')} left"
        moves = f"{leave['moves_done']} brought, {leave['moves_waiting']} to bring, {leave['moves_failed']} in vain"
        done = "nothing is left: stop it when you like" if leave["finished"] else f"{left}; {moves}"
        say(f"  leaving     by {human_time(leave['leaving_by_ms'])}: {done}")
    refusals = ", ".join(f"{name} {count}" for name, count in status["refusals"].items()) or "none"
    say(f"  refusals    {refusals}")
    scrub = status["last_scrub"]
    if scrub and scrub["finished_ms"]:
        checked = f"{plural(scrub['shards'], 'shard')}, {scrub['damaged']} damaged"
        say(f"  last scrub  {human_time(scrub['finished_ms'])}: {checked}")


@farm_command.command("exit")
@click.option("--within", default="30 d", show_default=True, help="How long it goes on serving at most.")
@click.option("--cancel", is_flag=True, help="Stay after all.")
@json_option
@pass_home
def exit_command(home: Path, within: str, cancel: bool, as_json: bool) -> None:
    """Leave without loss: take nothing new, and bring every shard where its renter wants it.

    Keep the farmer running until `stook farm status` says that nothing is left. Renters hear of it when they next ask,
    which agents do every hour or so.
    """
    from stook.assembly import set_leaving

    by_ms = set_leaving(home, None if cancel else parse_duration_ms(within))
    if as_json:
        emit({"ok": True, "leaving_by_ms": by_ms})
    elif cancel:
        say("The farmer stays. Shards that were given up meanwhile do not come back.")
    else:
        say(
            f"The farmer leaves by {human_time(by_ms)}. Keep it running: `stook farm status` says when nothing is left."
        )


@farm_command.command("audits")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many, newest first.")
@click.option("--export", "name", help="The round to write out, by its first hex digits.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write its receipt file.")
@json_option
@pass_home
def audits_command(home: Path, limit: int, name: str | None, output: Path | None, as_json: bool) -> None:
    """List the audits this farmer answered, or write one out as evidence.

    What is written can be checked by anybody with `stook audit verify-receipt`. Answers are made again from the
    shards; those of shards that are here no more are left out.
    """
    from stook.assembly import audit_evidence, audit_rounds
    from stook.cli.audit_files import write_file

    if (name is None) != (output is None):
        raise UserError("--export and --output go together")
    if name is not None and output is not None:
        digest, data = audit_evidence(home, name)
        write_file(data, output)
        if as_json:
            emit({"ok": True, "round": digest.hex(), "file": str(output), "bytes": len(data)})
        else:
            say(f"{output} has round {digest.hex()[:16]}, {human_size(len(data))}")
        return
    rounds = audit_rounds(home, limit)
    if as_json:
        for one in rounds:
            emit(one)
        return
    if not rounds:
        say("No audits yet.")
    for one in rounds:
        said = "no receipt"
        if one["verdicts"] is not None:
            said = ", ".join(f"{count} {verdict}" for verdict, count in one["verdicts"].items() if count)
        billed = f", {one['units_billed']} billed" if one["units_billed"] else ""
        units = f"{plural(one['units'], 'unit')}{billed}"
        say(f"{one['round'][:16]}  {human_time(one['asked_ms'])}  renter {one['renter'][:16]}  {units}: {said}")


@farm_command.command("earnings")
@json_option
@pass_home
def earnings_command(home: Path, as_json: bool) -> None:
    """Show what this farmer earned and why, what to expect next month, and the price of leaving."""
    from stook.cli.earnings import earnings, say_earnings

    found = earnings(home)
    if as_json:
        emit(found)
    else:
        say_earnings(found)


@farm_command.command("fsck")
@click.option("--deep", is_flag=True, help="Read every byte, not only heads and contracts.")
@click.option("--rebuild", is_flag=True, help="Make the index anew from the shard files alone.")
@json_option
@pass_home
def fsck_command(home: Path, deep: bool, rebuild: bool, as_json: bool) -> None:
    """Compare the index with the shard files; the farmer must not be running.

    Damaged files are named; with --rebuild they are moved to quarantine/ and the index is made anew.
    """
    from stook.assembly import check_farmer_home

    report = check_farmer_home(home, deep=deep, rebuild=rebuild)
    if as_json:
        emit(report)
        return
    for key, value in report.items():
        say(f"  {key.replace('_', ' '):<20} {value if not isinstance(value, list) else len(value)}")
