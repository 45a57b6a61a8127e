"""`stook catalog`: what of the catalog is saved on the network, whether it is whole, and going back in time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stook.cli.catalogued import RowsLine, moment, parse_moment
from stook.cli.local_tree import shown
from stook.cli.output import emit, human_size, plural, say
from stook.cli.renting import erase, home_passphrase, open_home
from stook.cli.run import json_option, pass_home, run
from stook.errors import BugError, CorruptionError, NotFoundError

if TYPE_CHECKING:
    from stook.storage.journal_records import Point


@click.group("catalog")
def catalog_command() -> None:
    """Look after the catalog that is saved on the network.

    The catalog is this machine's list of buckets, names, versions and keys. Every command that changes it saves it
    before it ends: what changed, encrypted, as shards at your farmers. So the 24 words bring all of it back
    (`stook recover`).
    """


@catalog_command.command("save")
@json_option
@pass_home
def save_command(home: Path, as_json: bool) -> None:
    """Save what changed since the last time, now."""

    async def work() -> None:
        async with open_home(home, refresh=True) as renter:
            saver = renter.client.saver
            if saver is None:
                raise BugError("this home has no saver")
            saved = await saver.recoverable()
            await erase(renter.agent)
            if as_json:
                emit({"ok": True, "saved": saved is not None, "rows": 0 if saved is None else saved.rows})
            elif saved is None:
                say("Everything is recoverable already.")
            else:
                what = "The whole catalog is" if saved.base else "What changed is"
                say(
                    f"{what} saved: {plural(saved.rows, 'row')}, {human_size(saved.size_bytes)} in "
                    f"{plural(saved.parts, 'segment')}; {plural(saved.farmers, 'farmer')} keep the record of it."
                )

    run(work())


@catalog_command.command("verify")
@click.option("--give-up", is_flag=True, help="Have segments erased that farmers keep and the catalog does not name.")
@json_option
@pass_home
def verify_command(home: Path, give_up: bool, as_json: bool) -> None:
    """Fetch everything that is saved and compare it, row by row, with the catalog here.

    Exit code 5 when it differs, 7 when it cannot be fetched. What changed since the last save is not compared. Segments
    that farmers keep and nothing here names are counted: left by a machine that was lost before it had saved them, or
    by an upload that is under way on another.
    """
    from stook.assembly import open_catalog_tools

    async def work() -> None:
        async with open_catalog_tools(home, passphrase=home_passphrase(home)) as tools:
            with RowsLine("Fetching the saved catalog", quiet=as_json) as line:
                found = await tools.verify(line)
            if give_up:
                await tools.give_up(found.unnamed)
                await erase(tools.renter.agent)
        if as_json:
            emit(
                {
                    "ok": not found.differences,
                    "saved_ms": found.saved_ms,
                    "saves": found.saves,
                    "rows": found.rows,
                    "size_bytes": found.size_bytes,
                    "differences": list(found.differences),
                    "segments_unnamed": len(found.unnamed),
                    "given_up": len(found.unnamed) if give_up else 0,
                }
            )
        if found.differences:
            raise CorruptionError(
                f"the saved catalog is not the one here: {'; '.join(map(shown, found.differences[:3]))}. "
                "`stook catalog take-over` saves this one whole"
            )
        if as_json:
            return
        say(
            f"The catalog of {moment(found.saved_ms)} was fetched from the farmers and is the same: "
            f"{plural(found.rows, 'row')}, {human_size(found.size_bytes)} in {plural(found.saves, 'save')}."
        )
        if found.unnamed:
            done = "they are erased now" if give_up else "`stook catalog verify --give-up` has them erased"
            say(f"Farmers keep {plural(len(found.unnamed), 'segment')} that nothing here names; {done}.")

    run(work())


@catalog_command.command("snapshots")
@json_option
@pass_home
def snapshots_command(home: Path, as_json: bool) -> None:
    """List the moments that `stook catalog restore` can go back to."""

    async def work() -> tuple[Point, ...]:
        async with open_home(home, refresh=False) as renter:
            return await renter.client.saved_points()

    points = run(work())
    if as_json:
        emit({"ok": True, "snapshots": [{"saved_ms": each.saved_ms, "saves": len(each.chain)} for each in points]})
        return
    for each in points:
        say(moment(each.saved_ms))
    if not points:
        say("Nothing is saved yet.")


@catalog_command.command("restore")
@click.option(
    "--at", "when", required=True, metavar="TIME", help="2026-11-26T08:30, with a zone or local; or '3 h ago'."
)
@click.option("--exactly", is_flag=True, help="Remove objects that did not exist then.")
@json_option
@pass_home
def restore_command(home: Path, when: str, exactly: bool, as_json: bool) -> None:
    """Bring back what the catalog named at TIME, or at the last saved moment before it.

    Objects that were removed or replaced since come back under a new version; what is newer stays, unless --exactly.
    An object can come back while its bytes are still at farmers, or in the catalog itself, as those of tiny objects
    are: removing an object has its own shards erased at once, and those it shared with others live with them. Objects
    that cannot come back are named, and the exit code is 7 then. Tags, locks and what else S3 clients said of an object
    or bucket come back too; of a bucket with versions only what was current, not the old versions.

    \b
    stook catalog restore --at '2 h ago'
    stook catalog restore --at 2026-11-26T08:30
    """
    from stook.assembly import open_catalog_tools
    from stook.cli.catalogued import save_before_end

    async def work() -> int:
        async with open_catalog_tools(home, passphrase=home_passphrase(home)) as tools:
            at_ms = parse_moment(when, time.time_ns() // 1_000_000)
            before = [point for point in await tools.points() if point.saved_ms <= at_ms]
            if not before:
                raise NotFoundError(
                    f"nothing that was saved before {moment(at_ms)} is kept: see `stook catalog snapshots`"
                )
            with RowsLine("Fetching the saved catalog", quiet=as_json) as line:
                undone = await tools.go_back(before[-1], exactly=exactly, on_rows=line)
            await save_before_end(tools.renter, None)
        code = 7 if undone.lost else 0
        if as_json:
            emit(
                {
                    "ok": not undone.lost,
                    "at_ms": before[-1].saved_ms,
                    "restored": undone.restored,
                    "unchanged": undone.unchanged,
                    "lost": undone.lost,
                    "lost_names": list(undone.lost_names),
                    "newer": undone.newer,
                    "removed": undone.removed,
                    "exit_code": code,
                }
            )
            return code
        say(
            f"As of {moment(before[-1].saved_ms)}: {plural(undone.restored, 'object')} brought back, "
            f"{undone.unchanged:,} unchanged, {undone.newer:,} newer, of which {undone.removed:,} removed."
        )
        if undone.lost:
            names = ", ".join(map(shown, undone.lost_names))
            say(f"{plural(undone.lost, 'object')} cannot come back, for their bytes were erased: {names}.")
        return code

    code = run(work())
    if code:
        raise SystemExit(code)


@catalog_command.command("take-over")
@json_option
@pass_home
def take_over_command(home: Path, as_json: bool) -> None:
    """Say that the catalog here is the right one, and save all of it above whatever another device saved.

    For the alarm that another device saves the catalog with the same words. What that device stored stays at the
    farmers and has no name here. To take the other device's catalog instead, run `stook recover` in a new home.
    """

    async def work() -> None:
        async with open_home(home, refresh=True) as renter:
            saver = renter.client.saver
            if saver is None:
                raise BugError("this home has no saver")
            saved = await saver.take_over()
            if as_json:
                emit({"ok": True, "rows": saved.rows, "farmers": saved.farmers})
            else:
                say(
                    f"The catalog here is the one that counts now: {plural(saved.rows, 'row')} saved, "
                    f"{plural(saved.farmers, 'farmer')} keep the record of it."
                )

    run(work())
