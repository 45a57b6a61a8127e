"""`stook rm`: remove objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stook.cli.catalogued import save_before_end
from stook.cli.local_tree import shown
from stook.cli.output import emit, plural, say
from stook.cli.remote import REMOTE, RemoteName
from stook.cli.renting import erase, open_home
from stook.cli.run import json_option, pass_home, run
from stook.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from stook.renter.client import Client

_PAGE = 1000


async def _names(client: Client, remote: RemoteName, *, recursive: bool) -> AsyncIterator[list[str]]:
    """The names meant, page by page: the object itself, and with `recursive` everything in the folder."""
    if remote.name and not remote.name.endswith("/"):
        yield [remote.name]
    if not recursive:
        return
    folder = remote.name if not remote.name or remote.name.endswith("/") else remote.name + "/"
    while page := (await client.list_objects(remote.bucket, prefix=folder, limit=_PAGE)).objects:
        yield [summary.name for summary in page]


@click.command("rm")
@click.argument("remotes", metavar="BUCKET/NAME...", nargs=-1, required=True, type=REMOTE)
@click.option("-r", "--recursive", is_flag=True, help="Everything in these folders too: all names below NAME/.")
@json_option
@pass_home
def rm_command(home: Path, remotes: tuple[RemoteName, ...], recursive: bool, as_json: bool) -> None:
    """Remove objects. Farmers are told to erase their shards and sign that they did.

    A farmer that does not answer within 20 seconds is told by a later command, or by `stook agent run`. Shards that
    other objects share are erased with the last of them. With -r a bucket alone means everything in it; the bucket
    stays. Of several names those that are missing are named at the end, with exit code 3; the others are removed.
    """
    for remote in remotes:
        if not recursive and (not remote.name or remote.name.endswith("/")):
            raise UserError(f"{remote} is no object; `stook rm -r` removes everything below it")

    async def work() -> tuple[int, int, list[str]]:
        async with open_home(home, refresh=False) as renter:
            removed, missing = 0, []
            for remote in remotes:
                gone = 0
                async for names in _names(renter.client, remote, recursive=recursive):
                    gone += len(await renter.client.remove(remote.bucket, names))
                removed += gone
                if not gone and remote.name:
                    missing.append(str(remote))
            await save_before_end(renter, None)
            waiting = await erase(renter.agent)
            return removed, waiting, missing

    removed, waiting, missing = run(work())
    if missing:
        raise NotFoundError(f"there is no {', '.join(shown(name) for name in missing)}; {removed:,} removed")
    if as_json:
        emit({"ok": True, "removed": removed, "erasures_waiting": waiting})
        return
    said = f"Removed {plural(removed, 'object')}"
    if waiting:
        say(f"{said}; {plural(waiting, 'shard')} still to be erased at farmers, which are told again later.")
    else:
        say(f"{said}; no shard is left to be erased.")
