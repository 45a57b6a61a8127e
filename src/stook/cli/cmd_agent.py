"""`stook agent`: the half of a renter that holds no content keys."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stook.chore import Chore
from stook.cli.output import emit, plural, say, warn
from stook.cli.renting import home_passphrase
from stook.cli.run import json_option, new_passphrase, pass_home, run, until_stopped
from stook.errors import ConflictError, EnvironmentFault, StookError

if TYPE_CHECKING:
    from stook.renter.agent import LocalAgent
    from stook.renter.client import Client

LOCK_FILE = "agent.lock"
TIDY_SECONDS = 30.0
"""How often what a save set free is given up."""


@contextmanager
def only_agent(home: Path) -> Iterator[None]:
    """Hold the home's agent lock: two agents at once would fill the same segments twice.

    Raises `ConflictError` when another process holds it.
    """
    try:
        descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFault(f"{home / LOCK_FILE}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"an agent runs in {home} already") from None
        yield
    finally:
        os.close(descriptor)


@click.group("agent")
def agent_command() -> None:
    """Keep stored data whole, from a machine that is always on.

    The agent has contracts and mask keys: it finds farmers, audits them, makes shards that are missing, renews
    contracts and has erased what was removed. It has no content key and no names, so it reads nothing.
    """


async def one_round(agent: LocalAgent, *, now: bool) -> dict[str, int]:
    """Everything that is due, once; what came of it."""
    caretaker = agent.caretaker
    audits = await agent.auditor.audit_due()
    erased = await caretaker.cancel_due()
    repaired = await (agent.repairer.repair_all() if now else agent.repairer.repair_due())
    moved = await agent.mover.move_due()
    renewed = await agent.renewer.renew_due()
    await agent.tidy()
    status = await agent.status()
    return {
        "farmers": status.farmers_known,
        "audits_passed": audits.passed,
        "audits_failed": audits.failed,
        "audits_silent": audits.silent + audits.unreached,
        "segments_repaired": repaired.repaired,
        "segments_postponed": repaired.postponed,
        "shards_moving": moved.ordered,
        "shards_moved": moved.given_up,
        "contracts_renewed": renewed,
        "shards_erased": erased,
        "segments_below_n": status.segments_below_n,
        "segments_unreadable": status.segments_unreadable,
        "shards_to_cancel": status.shards_to_cancel,
    }


def _tell(done: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        emit({"event": "round"} | done)
        return
    say(
        f"{plural(done['farmers'], 'farmer')} known, {plural(done['audits_passed'], 'audit')} passed, "
        f"{done['audits_failed']:,} failed, {done['audits_silent']:,} silent; "
        f"{plural(done['segments_repaired'], 'segment')} repaired, "
        f"{plural(done['contracts_renewed'], 'contract')} renewed, {plural(done['shards_erased'], 'shard')} erased."
    )
    if done["segments_below_n"] or done["shards_to_cancel"]:
        say(
            f"Left: {plural(done['segments_below_n'], 'segment')} below n ({done['segments_unreadable']} unreadable), "
            f"{plural(done['shards_to_cancel'], 'shard')} to be erased."
        )


def _not_saved(_chore: str, error: Exception) -> None:
    warn(f"stook: the catalog could not be saved: {error}")


async def _run_chores(agent: LocalAgent, *more: Chore) -> None:
    chores = [asyncio.create_task(chore.run()) for chore in (*agent.chores, *more)]
    try:
        await until_stopped()
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)


@agent_command.command("run")
@click.option("--once", is_flag=True, help="Do what is due and exit, for a timer such as cron.")
@click.option(
    "--now",
    is_flag=True,
    help="In the first round fill segments of the last ten minutes too. Not while an upload runs, which fills them.",
)
@json_option
@pass_home
def run_command(home: Path, once: bool, now: bool, as_json: bool) -> None:
    """Look after everything stored, until interrupted.

    One round at once: farmers are asked for news, and for proof of what they hold, as far as that is due; shards given
    up are erased; segments below r proved shards are repaired up to n, the ones nearest to loss first, and new ones
    filled; contracts that end within two weeks are renewed. Then each of these again and again: erasing every 30
    seconds, audits and repair every minute, news every five, renewing every hour. Commands may be used in the same home
    meanwhile; a second agent is refused. Where the home holds the 24 words, not an exported credential, what changed in
    the catalog is saved as well, a few seconds after it did.
    """
    from stook.assembly import holds_owner, open_agent, open_renter

    passphrase = home_passphrase(home)

    async def look_after(agent: LocalAgent, client: Client | None) -> None:
        await agent.repairer.resume()
        _tell(await one_round(agent, now=now), as_json=as_json)
        saver = None if client is None else client.saver
        if client is not None and saver is not None:
            try:
                await saver.save_due()
                await client.tidy()
            except StookError as error:
                _not_saved("save", error)
        if once:
            return
        if not as_json:
            warn("The agent goes on until it is interrupted.")
        more = []
        if client is not None and saver is not None:
            more = [saver.chore(_not_saved), Chore("tidy catalog", TIDY_SECONDS, client.tidy, _not_saved)]
        await _run_chores(agent, *more)

    async def work() -> None:
        if holds_owner(home, passphrase):
            async with open_renter(home, passphrase=passphrase) as renter:
                await look_after(renter.agent, renter.client)
        else:
            async with open_agent(home, passphrase=passphrase) as agent:
                await look_after(agent, None)

    with only_agent(home):
        run(work())


@agent_command.command("export")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--passphrase", "encrypt", is_flag=True, help="Encrypt the exported key file.")
@json_option
@pass_home
def export_command(home: Path, directory: Path, encrypt: bool, as_json: bool) -> None:
    """Make a home for an agent on another machine in DIRECTORY: carry it there and run it.

    It holds a credential that can renew, refill and erase, and can read nothing. Whoever has it can have your shards
    erased: guard it. What is stored later is known to it after `stook agent sync` there.

    \b
    stook agent export agent-home
    stook --home agent-home agent run        there
    """
    from stook.assembly import export_agent

    passphrase = home_passphrase(home)
    export_agent(home, directory, passphrase=passphrase, new_passphrase=new_passphrase(encrypt))
    if as_json:
        emit({"ok": True, "directory": str(directory)})
    else:
        say(f"An agent's home is in {directory} now: `stook --home {directory} agent run` works there, or elsewhere.")


@agent_command.command("sync")
@json_option
@pass_home
def sync_command(home: Path, as_json: bool) -> None:
    """Ask every farmer known which contracts it has with us, and take in those that are not in the database.

    For a database that was lost, and for an agent that has to learn of later uploads. Farmers that do not answer are
    passed over: run it again when they are back.
    """
    from stook.assembly import open_agent

    async def work() -> tuple[int, int, int]:
        async with open_agent(home, passphrase=home_passphrase(home)) as agent:
            added = await agent.sync()
            status = await agent.status()
            return added, status.segments, status.farmers_known

    added, segments, farmers = run(work())
    if as_json:
        emit({"ok": True, "added": added, "segments": segments, "farmers_known": farmers})
    else:
        say(f"{plural(added, 'shard')} taken in from {plural(farmers, 'farmer')}; {plural(segments, 'segment')} known.")
