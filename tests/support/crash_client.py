"""A renter's life in a process that will be killed: it stores a directory, fills it up, removes an older one."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from stook.assembly import open_renter
from stook.errors import StookError
from stook.renter.files import FileSource
from stook.renter.ports import Item, Progress

BUCKET = "crash"


@dataclass(frozen=True, slots=True)
class Errand:
    """What one client process is to do in `home`."""

    home: Path
    tree: Path
    prefix: str
    remove: tuple[str, ...] = ()
    settle: bool = True


def items_of(tree: Path, prefix: str) -> Iterator[Item]:
    """Every file of `tree`, smallest names first."""
    for path in sorted(tree.iterdir()):
        status = path.stat()
        yield Item(prefix + path.name, lambda path=path: FileSource(path), status.st_size, status.st_mtime_ns // 10**6)  # type: ignore[misc]


def live(errand: Errand, pipe: Connection) -> None:
    """Do the errand; say ``open`` when it begins, ``half`` on the way, ``stored`` when everything is durable, and at
    the end ``done``, or ``failed`` with the reason.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asyncio.run(_live(errand, pipe))


async def _live(errand: Errand, pipe: Connection) -> None:
    halves = sum(path.stat().st_size for path in errand.tree.iterdir()) // 2

    def watch(progress: Progress) -> None:
        nonlocal halves
        if progress.bytes_durable > halves:
            halves = 2**62
            pipe.send(("half", progress.bytes_durable))

    async with open_renter(errand.home) as renter:
        pipe.send(("open", ""))
        try:
            items = items_of(errand.tree, errand.prefix)
            uploaded = await renter.client.put_many(BUCKET, items, on_progress=watch)
            pipe.send(("stored", uploaded.stored))
            if errand.remove:
                await renter.client.remove(BUCKET, errand.remove)
            if errand.settle:
                await renter.client.settle()
        except StookError as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
        else:
            pipe.send(("done", uploaded.unchanged))
