"""`stook mb` and `stook rb`: make and remove buckets."""

from __future__ import annotations

from pathlib import Path

import click

from stook.cli.catalogued import save_before_end
from stook.cli.output import emit, human_size, plural, say
from stook.cli.remote import SCHEME
from stook.cli.renting import erase, open_home
from stook.cli.run import json_option, pass_home, run
from stook.errors import ConflictError

_PAGE = 1000


def bucket_name(text: str) -> str:
    """A bucket as typed: ``photos``, ``photos/`` or ``stook:photos``."""
    return text.removeprefix(SCHEME).removesuffix("/")


@click.command("mb")
@click.argument("buckets", metavar="BUCKET...", nargs=-1, required=True)
@json_option
@pass_home
def mb_command(home: Path, buckets: tuple[str, ...], as_json: bool) -> None:
    """Make buckets. A name has 1 to 63 printable characters without '/'; it is known to this machine alone."""

    async def work() -> None:
        async with open_home(home, refresh=False) as renter:
            for bucket in buckets:
                await renter.client.make_bucket(bucket_name(bucket))
            await save_before_end(renter, None)

    run(work())
    if as_json:
        emit({"ok": True, "made": [bucket_name(bucket) for bucket in buckets]})


@click.command("rb")
@click.argument("bucket", metavar="BUCKET")
@click.option("--force", is_flag=True, help="Remove its objects first. There is no way back.")
@json_option
@pass_home
def rb_command(home: Path, bucket: str, force: bool, as_json: bool) -> None:
    """Remove a bucket. One that holds objects is refused, unless --force."""
    name = bucket_name(bucket)

    async def work() -> tuple[int, int]:
        async with open_home(home, refresh=False) as renter:
            totals = (await renter.client.status()).buckets.get(name)
            removed = totals.objects if totals else 0
            if removed and not force:
                raise ConflictError(
                    f"bucket {name} holds {plural(removed, 'object')}; `stook rb --force {name}` removes them too"
                )
            if totals and removed:
                if not as_json:
                    say(f"Removing {plural(removed, 'object')}, {human_size(totals.size_bytes)}.")
                while page := (await renter.client.list_objects(name, limit=_PAGE)).objects:
                    await renter.client.remove(name, [summary.name for summary in page])
            await renter.client.remove_bucket(name)
            await save_before_end(renter, None)
            waiting = await erase(renter.agent) if removed else 0
            return removed, waiting

    removed, waiting = run(work())
    if as_json:
        emit({"ok": True, "removed": name, "objects": removed, "erasures_waiting": waiting})
    elif waiting:
        say(f"{plural(waiting, 'shard')} still to be erased, at farmers that did not answer; they are told later.")
