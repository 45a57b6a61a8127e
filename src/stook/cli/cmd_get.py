"""`stook get`: one object back into a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stook.cli.cmd_cat import stream_to
from stook.cli.local_tree import Passed, TreeSink, shown, unsafe
from stook.cli.output import emit, human_duration, human_rate, human_size, say
from stook.cli.pipes import opened_device
from stook.cli.progress import TransferLine
from stook.cli.remote import REMOTE_OBJECT, RemoteName
from stook.cli.renting import open_home, with_news
from stook.cli.run import json_option, pass_home, run
from stook.errors import EnvironmentFault, UserError


def destination(remote: RemoteName, file: str | None) -> Path:
    """The file to write: as given; below a directory or without a word the last part of the object's name.

    A symbolic link is followed, as `cp` does. Raises `UserError` when the name has no last part to use.
    """
    path = Path(file or ".")
    if not path.is_dir() and not (file or "").endswith("/"):
        return path.resolve() if path.is_symlink() else path
    last = remote.name.rpartition("/")[2]
    if unsafe(last):
        raise UserError(f"{remote} has no file name of its own: say which FILE to write")
    return path / last


@click.command("get")
@click.argument("remote", metavar="BUCKET/NAME", type=REMOTE_OBJECT)
@click.argument("file", metavar="[FILE|-]", required=False)
@json_option
@pass_home
def get_command(home: Path, remote: RemoteName, file: str | None, as_json: bool) -> None:
    """Fetch one object into a file.

    A file of that name is replaced when everything is there and verified, never before. Without FILE, or with a
    directory, the file is called as the last part of the object's name. With - it goes to standard output, as `stook
    cat` does. Permissions and time are those it was stored with.
    """
    if file == "-":
        run(stream_to(home, remote, sys.stdout.fileno(), "standard output", 0, None))
        return
    path = destination(remote, file)
    if path.exists() and not path.is_file():
        with opened_device(path) as descriptor:
            run(stream_to(home, remote, descriptor, str(path), 0, None))
        return

    async def work() -> tuple[int, float]:
        async with open_home(home, refresh=False) as renter:
            client = renter.client
            mode = (await client.modes(remote.bucket, [remote.name])).get(remote.name, 0o644)
            passed = Passed()
            with TransferLine(f"Fetching {shown(str(remote))}", upload=False, quiet=as_json) as line:

                async def fetch() -> int:
                    sink = TreeSink(path.parent, path.name, mode, passed)
                    await client.get(remote.bucket, remote.name, sink, on_progress=line)
                    return sink.size_bytes

                size = await with_news(renter.agent, fetch)
                seconds = line.seconds
            for _, why in passed.failed:
                raise EnvironmentFault(f"{shown(str(path))}: {why}")
            return size, seconds

    size, seconds = run(work())
    if as_json:
        rate = round(size / max(seconds, 1e-6) / 1e6, 3)
        emit({"ok": True, "file": str(path), "bytes": size, "seconds": round(seconds, 3), "mb_s": rate})
    else:
        took = f"{human_duration(seconds)}, {human_rate(size / max(seconds, 1e-6))}"
        say(f"Fetched {shown(str(path))}: {human_size(size)} in {took}.")
