"""Objects of a bucket into files of this machine: those that changed, and nothing else (see `copy_up`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from stook.cli.copied import PAGE, Copied
from stook.cli.local_tree import Passed, TreeSink, look, open_folder, shown, unsafe, walk
from stook.cli.renting import with_news
from stook.errors import ConflictError, CorruptionError, EnvironmentFault, NotEnoughError, NotFoundError

if TYPE_CHECKING:
    from stook.assembly import Renter
    from stook.cli.remote import RemoteName
    from stook.renter.ports import OnProgress, Progress
    from stook.storage.renter_ports import ObjectSummary

_ONE_OBJECT = (NotEnoughError, CorruptionError, NotFoundError, ConflictError)
"""Errors that may concern one object of a batch."""
_HOPELESS = 20
"""Objects in a row that cannot be read before the farmers are taken for gone."""


class Coming:
    """Objects on their way into files below `root`; `place` gives an object's path there."""

    def __init__(
        self, renter: Renter, bucket: str, root: Path, place: Callable[[str], str], on_progress: OnProgress
    ) -> None:
        self._client = renter.client
        self._agent = renter.agent
        self._bucket = bucket
        self._root = root
        self._place = place
        self._on_progress = on_progress
        self._before: Progress | None = None
        self._latest: Progress | None = None
        self._failures_in_a_row = 0
        self.copied = Copied()

    async def bring(self, page: Sequence[ObjectSummary]) -> None:
        """Fetch those of a page that changed. Raises `NotEnoughError` when nothing can be read any more."""
        wanted = await asyncio.to_thread(self._changed, page)
        modes = await self._client.modes(self._bucket, wanted)
        sinks: dict[str, TreeSink] = {}

        def left() -> list[str]:
            return [name for name in modes if name not in sinks or not sinks[name].settled]

        try:
            await with_news(self._agent, lambda: self._fetch(left(), modes, sinks))
        except _ONE_OBJECT:
            for name in left():  # one bad object must not cost the others
                await self._fetch_alone(name, modes, sinks)
        done = [sink for sink in sinks.values() if sink.written]
        self.copied.files += len(done)
        self.copied.size_bytes += sum(sink.size_bytes for sink in done)

    def _changed(self, page: Sequence[ObjectSummary]) -> list[str]:
        changed = []
        for summary in page:
            below = self._place(summary.name)
            if why := unsafe(below):
                self.copied.passed.fail(summary.name, why)
                continue
            local = look(self._root, below)
            if local is not None and (local.size_bytes, local.modified_ms) == (summary.size_bytes, summary.modified_ms):
                self.copied.unchanged += 1
            else:
                changed.append(summary.name)
        return changed

    async def _fetch(self, names: Sequence[str], modes: dict[str, int], sinks: dict[str, TreeSink]) -> None:
        def sink_of(name: str) -> TreeSink:
            sinks[name] = TreeSink(self._root, self._place(name), modes[name], self.copied.passed)
            return sinks[name]

        self._before = self._latest
        await self._client.get_many(self._bucket, names, sink_of, on_progress=self._progress)

    async def _fetch_alone(self, name: str, modes: dict[str, int], sinks: dict[str, TreeSink]) -> None:
        try:
            await self._fetch([name], modes, sinks)
        except _ONE_OBJECT as error:
            self.copied.unreadable.append((shown(name), str(error)))
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= _HOPELESS:
                raise
        else:
            self._failures_in_a_row = 0

    def _progress(self, progress: Progress) -> None:
        """Pass on the numbers of this call on top of those of calls before it."""
        if self._before is not None:
            progress = replace(
                progress,
                bytes_durable=self._before.bytes_durable + progress.bytes_durable,
                shards_done=self._before.shards_done + progress.shards_done,
            )
        self._latest = progress
        self._on_progress(progress)


async def copy_down(
    renter: Renter, remote: RemoteName, root: Path, *, delete: bool, on_progress: OnProgress
) -> Copied | None:
    """Bring every object whose name begins with ``remote.name``, a folder, to files below `root`; None: there is none.

    With `delete` regular files below `root` go that have no object; symbolic links and directories stay.
    """
    client, after, found = renter.client, "", False
    coming = Coming(renter, remote.bucket, root, lambda name: name.removeprefix(remote.name), on_progress)
    while True:
        page = await client.list_objects(remote.bucket, prefix=remote.name, after=after, limit=PAGE)
        if page.objects:
            found = True
            await coming.bring(page.objects)
        if page.next_after is None:
            break
        after = page.next_after
    if found and delete:
        await _delete(renter, remote, root, coming.copied)
    return coming.copied if found else None


async def bring_one(renter: Renter, remote: RemoteName, path: Path, *, on_progress: OnProgress) -> Copied | None:
    """Bring one object to the file `path`, unless it is there unchanged; None when there is no such object."""
    page = await renter.client.list_objects(remote.bucket, prefix=remote.name, limit=1)
    if not page.objects or page.objects[0].name != remote.name:
        return None
    coming = Coming(renter, remote.bucket, path.parent, lambda _: path.name, on_progress)
    await coming.bring(page.objects)
    return coming.copied


async def _delete(renter: Renter, remote: RemoteName, root: Path, copied: Copied) -> None:
    files = walk(root, Passed())
    while page := await asyncio.to_thread(lambda: [file.name for file in islice(files, PAGE)]):
        there = await renter.client.modes(remote.bucket, [remote.name + name for name in page])
        gone = [name for name in page if remote.name + name not in there]
        copied.deleted += await asyncio.to_thread(_unlink, root, gone)


def _unlink(root: Path, names: Sequence[str]) -> int:
    for name in names:
        *parts, last = name.split("/")
        try:
            folder = open_folder(root, parts, make=False)
            try:
                os.unlink(last, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise EnvironmentFault(f"{shown(str(root / name))}: {error.strerror}") from error
    return len(names)
