"""Files of this machine into a bucket: those that changed, and nothing else.

A file is unchanged when its size and modification time (to the millisecond) are those the catalog has.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stook.cli.copied import PAGE, Copied
from stook.cli.local_tree import LocalFile, Passed, look, unsafe, walk
from stook.errors import EnvironmentFault, NotFoundError, StookError, UserError

if TYPE_CHECKING:
    from stook.cli.remote import RemoteName
    from stook.renter.client import Client
    from stook.renter.ports import Item, OnProgress, Source

_GONE_ERRNOS = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.ESTALE})
_MAX_GONE = 100


class GoneError(EnvironmentFault):
    """A file that was there when its directory was read cannot be opened when its turn comes."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: it went away meanwhile, or may not be read any more")
        self.name = name


class Leaving:
    """Local files as items to store under `folder`: one file, or all below a directory."""

    def __init__(self, files: LocalFile | Path, folder: str) -> None:
        self._files = files
        self._folder = folder
        self._opened: set[str] = set()
        self._gone: list[str] = []
        self.seen = 0
        self.copied = Copied()

    def give_up(self, error: GoneError) -> None:
        """Pass this file over from now on. Raises the error when it is one too many."""
        self._gone.append(error.name)
        if len(self._gone) > _MAX_GONE:
            raise error

    def items(self) -> Iterator[Item]:
        """Everything to store, from the beginning; `seen` and what was passed over are counted anew."""
        from stook.renter.ports import Item

        self.seen = 0
        self.copied.passed = passed = Passed()
        files = self._files
        for file in walk(files, passed, prefix=self._folder) if isinstance(files, Path) else [files]:
            if file.name in self._gone:
                passed.fail(file.name, "it went away meanwhile, or may not be read any more")
                continue
            self.seen += 1
            name, opened = self._folder + file.name, partial(self._open, file)
            yield Item(name, opened, file.size_bytes, file.modified_ms, file.mode)

    def _open(self, file: LocalFile) -> Source:
        from stook.renter.files import FileSource

        try:
            source = FileSource(Path(file.path))
        except StookError as error:
            cause = error.__cause__
            if isinstance(error, NotFoundError) or (isinstance(cause, OSError) and cause.errno in _GONE_ERRNOS):
                raise GoneError(file.name) from None
            raise
        if file.name not in self._opened:
            self._opened.add(file.name)
            self.copied.files += 1
            self.copied.size_bytes += file.size_bytes
        return source


async def copy_up(
    client: Client, files: LocalFile | Path, remote: RemoteName, *, delete: bool, on_progress: OnProgress, total: int
) -> Copied:
    """Store one file, or all below a directory, under ``remote.name`` followed by their names.

    `total` is how many bytes there are, as far as known, for progress. Files that vanish meanwhile are passed over.
    With `delete` objects go whose names begin with ``remote.name`` and that are no file below the directory. Raises as
    `Client.put_many`; what was durable by then stays.
    """
    leaving = Leaving(files, remote.name)
    while True:
        try:
            await client.put_many(remote.bucket, leaving.items(), on_progress=on_progress, bytes_total=total or None)
        except GoneError as error:
            leaving.give_up(error)  # and begin again: what was stored by now is unchanged this time
        else:
            break
    leaving.copied.unchanged = leaving.seen - leaving.copied.files
    if delete and isinstance(files, Path):
        await _delete(client, files, remote, leaving)
    return leaving.copied


async def _delete(client: Client, root: Path, remote: RemoteName, leaving: Leaving) -> None:
    if leaving.copied.passed.unread_directories:
        raise EnvironmentFault("everything else is stored, but nothing was deleted: a directory could not be read")
    if not leaving.seen:
        raise UserError(f"nothing was deleted, for {root} holds no file; `stook rm -r` removes what is stored")
    after = ""
    while True:
        page = await client.list_objects(remote.bucket, prefix=remote.name, after=after, limit=PAGE)
        names = [summary.name for summary in page.objects]
        if gone := await asyncio.to_thread(without_file, root, remote.name, names):
            leaving.copied.deleted += len(await client.remove(remote.bucket, gone))
        if page.next_after is None:
            return
        after = page.next_after


def without_file(root: Path, folder: str, names: Sequence[str]) -> list[str]:
    """Those of the names in `folder` that are no file below `root`, though they could be. Blocks."""
    parts = ((name, name.removeprefix(folder)) for name in names)
    return [name for name, below in parts if not unsafe(below) and look(root, below) is None]
