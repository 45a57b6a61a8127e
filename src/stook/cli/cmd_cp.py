"""`stook cp`: files and whole directories, either way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stook.cli.catalogued import save_before_end, wait_option
from stook.cli.copied import Copied
from stook.cli.local_tree import LocalFile, Passed, shown, single_file, unsafe, walk
from stook.cli.output import emit, human_duration, human_rate, human_size, on_terminal, plural, say, warn
from stook.cli.progress import TransferLine
from stook.cli.remote import SCHEME, RemoteName
from stook.cli.renting import Settled, open_home, settle
from stook.cli.run import json_option, pass_home, run
from stook.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from stook.assembly import Renter

_FAILURES_SHOWN = 20


def folder_of(name: str) -> str:
    """What the names in a folder begin with: nothing for the whole bucket."""
    return name if not name or name.endswith("/") else name + "/"


def what_to_store(source: Path, remote: RemoteName, *, recursive: bool) -> tuple[LocalFile | Path, RemoteName]:
    """A file, or a directory, and what goes before the names of its files in the bucket.

    Raises `UserError` for a directory without `recursive`, `NotFoundError`, `EnvironmentFault`.
    """
    if source.is_dir():
        if not recursive:
            raise UserError(f"{shown(str(source))} is a directory: use `stook cp -r`")
        return source, RemoteName(remote.bucket, folder_of(remote.name))
    file = single_file(source)
    if not remote.name or remote.name.endswith("/"):
        return file, remote
    folder, _, last = remote.name.rpartition("/")
    renamed = LocalFile(last, file.path, file.size_bytes, file.modified_ms, file.mode)
    return renamed, RemoteName(remote.bucket, folder_of(folder))


def where_to_write(remote: RemoteName, target: str) -> Path:
    """The file that one object goes to. Raises `UserError` when its name has no last part to use."""
    path = Path(target)
    if not path.is_dir() and not target.endswith("/"):
        return path
    last = remote.name.rpartition("/")[2]
    if unsafe(last):
        raise UserError(f"{remote} has no file name of its own: say which file to write")
    return path / last


def refuse_to_delete_in(root: Path) -> None:
    """Raise `UserError` for directories in which nobody means to delete all that is not stored."""
    whole = root.resolve()
    if whole in (Path(whole.anchor), Path.home().resolve()):
        raise UserError(f"--delete in {whole} would remove every other file in it; copy to a directory of its own")


async def _up(
    home: Path,
    source: str,
    target: str,
    *,
    recursive: bool,
    delete: bool,
    wait: bool,
    until: str | None,
    quiet: bool,
) -> int:
    from stook.cli.copy_up import copy_up

    files, remote = what_to_store(Path(source), RemoteName.parse(target), recursive=recursive)
    if delete and isinstance(files, LocalFile):
        raise UserError("--delete needs a directory as SRC")
    async with open_home(home, refresh=True) as renter:
        before = await renter.agent.status()
        total = await asyncio.to_thread(_size_of, files) if on_terminal() and not quiet else 0
        with TransferLine(f"Storing {shown(source)}", upload=True, quiet=quiet) as line:
            copied = await copy_up(renter.client, files, remote, delete=delete, on_progress=line, total=total)
            seconds = line.seconds
            settled = await settle(renter, before, wait=wait)
        await save_before_end(renter, until)
        return _report(copied, seconds, "Stored", as_json=quiet, settled=settled)


def _size_of(files: LocalFile | Path) -> int:
    if isinstance(files, LocalFile):
        return files.size_bytes
    return sum(file.size_bytes for file in walk(files, Passed()))


async def _down(home: Path, source: str, target: str, *, recursive: bool, delete: bool, quiet: bool) -> int:
    from stook.cli.copy_down import bring_one, copy_down

    remote, root = RemoteName.parse(source), Path(target)
    if delete:
        if not recursive:
            raise UserError("--delete needs -r")
        refuse_to_delete_in(root)
    async with open_home(home, refresh=False) as renter:
        with TransferLine(f"Fetching {shown(source)}", upload=False, quiet=quiet) as line:
            copied: Copied | None = None
            if recursive:
                folder = RemoteName(remote.bucket, folder_of(remote.name))
                copied = await copy_down(renter, folder, root, delete=delete, on_progress=line)
            if copied is None and remote.name:
                copied = await bring_one(renter, remote, where_to_write(remote, target), on_progress=line)
            seconds = line.seconds
        if copied is None:
            raise NotFoundError(await _missing(renter, remote, recursive=recursive))
        return _report(copied, seconds, "Fetched", as_json=quiet, settled=None)


async def _missing(renter: Renter, remote: RemoteName, *, recursive: bool) -> str:
    below = (await renter.client.list_objects(remote.bucket, prefix=folder_of(remote.name), limit=1)).objects
    if below and not recursive:
        return f"{shown(str(remote))} is a folder: use `stook cp -r`"
    return f"there is no {shown(str(remote))}"


def _report(copied: Copied, seconds: float, verb: str, *, as_json: bool, settled: Settled | None) -> int:
    """Print what was done; the exit status."""
    rate = copied.size_bytes / max(seconds, 1e-6)
    if as_json:
        more: dict[str, Any] = {"seconds": round(seconds, 3), "mb_s": round(rate / 1e6, 3)}
        if settled is not None:
            more |= {"segments": settled.segments, "segments_below_n": settled.segments_below_n}
        emit(copied.as_dictionary() | more | {"exit_code": copied.exit_code})
        return copied.exit_code
    words = [f"{verb} {plural(copied.files, 'file')}, {human_size(copied.size_bytes)} in {human_duration(seconds)}"]
    if copied.files:
        words[0] += f" ({human_rate(rate)})"
    if copied.unchanged:
        words.append(f"{copied.unchanged:,} unchanged")
    if copied.deleted:
        words.append(f"{copied.deleted:,} deleted")
    if copied.passed.symlinks:
        words.append(f"{plural(copied.passed.symlinks, 'symbolic link')} skipped")
    if copied.passed.special:
        words.append(f"{plural(copied.passed.special, 'special file')} skipped")
    say("; ".join(words) + ".")
    if settled is not None and copied.files:
        say(settled.words())
    _report_failures(copied)
    return copied.exit_code


def _report_failures(copied: Copied) -> None:
    failures = [*copied.unreadable, *copied.passed.failed]
    for name, why in failures[:_FAILURES_SHOWN]:
        warn(f"  not copied: {name}: {why}")
    if len(failures) > _FAILURES_SHOWN:
        warn(f"  and {len(failures) - _FAILURES_SHOWN:,} more (all with --json)")
    if failures:
        warn(f"stook: {plural(len(failures), 'file')} could not be copied; everything else was")


@click.command("cp")
@click.argument("source", metavar="SRC", type=click.Path(exists=False))
@click.argument("target", metavar="DST", type=click.Path(exists=False))
@click.option("-r", "--recursive", is_flag=True, help="A whole directory, or a whole folder of a bucket.")
@click.option("--delete", is_flag=True, help="With -r: remove from DST what SRC does not have. There is no way back.")
@click.option("--no-wait", is_flag=True, help="Upwards: return when all is durable, not when each segment is full.")
@wait_option
@json_option
@pass_home
def cp_command(
    home: Path,
    /,
    source: str,
    target: str,
    recursive: bool,
    delete: bool,
    no_wait: bool,
    wait: str | None,
    as_json: bool,
) -> None:
    """Copy files into a bucket, or back. Exactly one of SRC and DST is stook:BUCKET/NAME.

    With -r the files below SRC go below DST, under the same names, whether DST exists or not: a second run copies only
    what changed, which is what differs in size or modification time. A file alone may be renamed by the way; DST
    ending in '/' keeps its name.

    \b
    stook cp -r ~/Pictures stook:photos/pictures     all that is in Pictures, below photos/pictures/
    stook cp -r stook:photos/pictures ~/restored     and back
    stook cp letter.txt stook:photos/                one file

    Kept are content, modification time and permissions. Not kept: owners, empty directories, symbolic links (they are
    counted, and none below SRC is followed), sockets and devices. Files with names that are no UTF-8 are refused, not
    renamed. On the way back nothing is written outside DST: names that are absolute or hold '..', and symbolic links
    in DST, are refused, and a file appears when it is complete. One that fails does not stop the others; they are
    named at the end, and the exit code is 5 for this machine's fault, 7 for objects that farmers could not give back.

    --delete leaves symbolic links and directories in DST. It deletes nothing when SRC holds no file or could not be
    read whole. A local path that begins with stook: is written ./stook:…
    """
    to_bucket, from_bucket = target.startswith(SCHEME), source.startswith(SCHEME)
    if to_bucket and from_bucket:
        raise UserError("both are in buckets: copy to a directory first, then from there")
    if not to_bucket and not from_bucket:
        raise UserError(f"neither is in a bucket: write {SCHEME}BUCKET/NAME for the one that is")
    if to_bucket:
        up = _up(home, source, target, recursive=recursive, delete=delete, wait=not no_wait, until=wait, quiet=as_json)
        code = run(up)
    else:
        code = run(_down(home, source, target, recursive=recursive, delete=delete, quiet=as_json))
    if code:
        raise SystemExit(code)
