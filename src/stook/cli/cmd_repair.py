"""`stook repair`: one round of repair now."""

from __future__ import annotations

from pathlib import Path

import click

from stook.cli.output import emit, human_size, plural, say
from stook.cli.renting import home_passphrase
from stook.cli.run import json_option, pass_home, run


@click.command("repair")
@click.option("--dry-run", is_flag=True, help="Show what would be repaired, and repair nothing.")
@json_option
@pass_home
def repair_command(home: Path, dry_run: bool, as_json: bool) -> None:
    """Repair what is due now, the segments nearest to loss first.

    Counted are shards whose farmers signed for them or passed an audit lately. A segment below r of those is brought
    back to n: k shards are read, the missing ones made, the same bytes as before, and stored at other farmers. One with
    r or more is left alone, and one that lacks shards only of farmers that fell silent within the last twelve hours
    waits for them. A running agent does the same every minute; both together repair nothing twice. Not while an upload
    runs, which brings its own.
    """
    from stook.assembly import open_agent

    async def work() -> None:
        async with open_agent(home, passphrase=home_passphrase(home)) as agent:
            if dry_run:
                plan = await agent.repairer.planned()
                for job in (*plan.jobs, *plan.postponed):
                    line = {
                        "segment": job.segment_id.hex(),
                        "shards": len(job.tasks),
                        "proved_beyond_k": job.margin,
                        "loss_chance": job.loss_chance,
                        "moved_bytes": job.moved_bytes,
                        "today": job in plan.jobs,
                    }
                    if as_json:
                        emit(line)
                        continue
                    when = "" if line["today"] else "; not today, its bytes are spent"
                    say(
                        f"{job.segment_id.hex()}  {plural(len(job.tasks), 'shard')} to make, {job.margin:+} proved "
                        f"beyond k, {human_size(job.moved_bytes)} to move{when}"
                    )
                if not as_json:
                    _left(len(plan.waiting), len(plan.postponed), len(plan.given_up))
                return
            report = await agent.repairer.repair_all(CLIENT)
            await agent.caretaker.give_up_replaced()
            if as_json:
                emit(
                    {
                        "ok": not report.given_up,
                        "segments_repaired": report.repaired,
                        "segments_unfinished": report.unfinished,
                        "shards_stored": report.shards,
                        "segments_waiting": report.waiting,
                        "segments_postponed": report.postponed,
                        "segments_given_up": report.given_up,
                    }
                )
                return
            say(f"{plural(report.repaired, 'segment')} repaired, {plural(report.shards, 'shard')} stored.")
            if report.unfinished:
                say(f"{plural(report.unfinished, 'segment')} got fewer than planned: farmers are away or full.")
            _left(report.waiting, report.postponed, report.given_up)

    from stook.renter.repairer import CLIENT

    run(work())


def _left(waiting: int, postponed: int, given_up: int) -> None:
    if waiting:
        say(f"{plural(waiting, 'segment')} waiting for farmers that fell silent lately.")
    if postponed:
        say(f"{plural(postponed, 'segment')} left for later: repair_bytes_per_day is spent.")
    if given_up:
        say(f"{plural(given_up, 'segment')} cannot be rebuilt unless farmers come back.")
