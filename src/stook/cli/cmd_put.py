"""`stook put`: store one file or standard input."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stook.cli.catalogued import save_before_end, wait_option
from stook.cli.local_tree import MODE_BITS, shown, single_file
from stook.cli.output import emit, human_duration, human_rate, human_size, say
from stook.cli.pipes import PipeSource
from stook.cli.progress import TransferLine
from stook.cli.remote import RemoteName
from stook.cli.renting import open_home, settle
from stook.cli.run import json_option, pass_home, run
from stook.errors import UserError

if TYPE_CHECKING:
    from stook.renter.client import Client, ObjectStat
    from stook.renter.ports import Item


def item_of(file: str, name: str) -> Item:
    """What to store under `name`: a file, or standard input for ``-``. Raises `NotFoundError`, `EnvironmentFault`."""
    from stook.renter.files import FileSource
    from stook.renter.ports import Item

    if file == "-":
        if sys.stdin is None:
            raise UserError("standard input is closed")
        descriptor, now_ms = sys.stdin.fileno(), time.time_ns() // 1_000_000
        mask = os.umask(0)
        os.umask(mask)
        return Item(name, lambda: PipeSource(descriptor, now_ms), modified_ms=now_ms, mode=0o666 & ~mask & MODE_BITS)
    local = single_file(Path(file))
    return Item(name, lambda: FileSource(Path(file)), local.size_bytes, local.modified_ms, local.mode)


async def target_of(client: Client, file: str, target: str | None) -> RemoteName:
    """Where a file goes: a name that ends in '/', a bucket alone, or nothing take the file's own name.

    Raises `UserError` when it cannot be told.
    """
    if target is None:
        buckets = await client.buckets()
        if len(buckets) != 1:
            raise UserError("say where to: BUCKET/NAME (it may be left out while there is exactly one bucket)")
        target = buckets[0].name
    remote = RemoteName.parse(target)
    if remote.name and not remote.name.endswith("/"):
        return remote
    if file == "-":
        raise UserError("standard input has no name: write BUCKET/NAME")
    return RemoteName(remote.bucket, remote.name + Path(file).name)


def fullness(stat: ObjectStat) -> str:
    """How many of an object's segments have all their shards, in words."""
    total, full = len(stat.segments), sum(segment.stored >= segment.n for segment in stat.segments)
    if not total:
        if stat.size_bytes:
            return "it is so small that it is kept in the catalog itself"
        return "it is empty, so there is nothing to keep at farmers"
    n = max(segment.n for segment in stat.segments)
    if full == total:
        shards = f"all {n} shards" if n > 1 else "its one shard"
        return f"the one segment has {shards}" if total == 1 else f"each of its {total:,} segments has {shards}"
    return f"{full:,} of {total:,} segments have all {n} shards; `stook agent run` fills the rest"


@click.command("put")
@click.argument("file", metavar="FILE|-")
@click.argument("target", metavar="[BUCKET/NAME]", required=False)
@click.option("--no-wait", is_flag=True, help="Return when it is durable, not when every segment has all its shards.")
@wait_option
@json_option
@pass_home
def put_command(home: Path, file: str, target: str | None, no_wait: bool, wait: str | None, as_json: bool) -> None:
    """Store one file, or standard input.

    - is standard input, of any length. What was stored under the name before is replaced, at once and only when the
    new content is durable: when enough farmers have signed that they hold a shard of each segment. Then the command
    waits up to two minutes for the shards beyond. Interrupted, nothing is visible; running it again sends what is
    missing.

    Then the catalog is saved, so that the 24 words alone bring the object back (`stook recover`).

    BUCKET alone, or a name that ends in '/', takes the file's own name.

    \b
    stook put holiday.jpg photos/2026/holiday.jpg
    tar c ~/letters | stook put - backup/letters.tar
    """

    async def work() -> None:
        async with open_home(home, refresh=True) as renter:
            remote = await target_of(renter.client, file, target)
            item = item_of(file, remote.name)
            before = await renter.agent.status()
            with TransferLine(f"Storing {shown(str(remote))}", upload=True, quiet=as_json) as line:
                uploaded = await renter.client.put(remote.bucket, item, on_progress=line)
                seconds = line.seconds
                await settle(renter, before, wait=not no_wait)
            recoverable = await save_before_end(renter, wait)
            stat = await renter.client.stat(remote.bucket, remote.name)
            rate = uploaded.size_bytes / max(seconds, 1e-6)
            if as_json:
                full = sum(segment.stored >= segment.n for segment in stat.segments)
                emit(
                    {
                        "ok": True,
                        "object": str(remote),
                        "bytes": uploaded.size_bytes,
                        "seconds": round(seconds, 3),
                        "mb_s": round(rate / 1e6, 3),
                        "segments": len(stat.segments),
                        "segments_full": full,
                        "recoverable": recoverable,
                    }
                )
                return
            size, took = human_size(uploaded.size_bytes), human_duration(seconds)
            say(f"Stored {shown(str(remote))}: {size} in {took}, {human_rate(rate)}; {fullness(stat)}.")

    run(work())
