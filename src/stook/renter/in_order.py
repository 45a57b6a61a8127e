"""One object in order of its bytes, for sinks that cannot seek: a pipe, a terminal, a socket.

Segments come back in any order, so the object is fetched in windows of some whole segments; while one window is written
the next is fetched. At most two windows are in memory, whatever the object's size.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from stook.clock import Offload
from stook.renter.download import Downloader, Target
from stook.renter.meter import Meter
from stook.renter.ports import Sink
from stook.renter.tasks import Tasks
from stook.shards.pointer import AnyObjectRecord

WINDOW_BYTES = 32 << 20


def windows(
    record: AnyObjectRecord, begin: int, end: int, window_bytes: int = WINDOW_BYTES
) -> Iterator[tuple[int, int]]:
    """Cut ``begin`` to ``end`` at ends of extents into ranges of at least `window_bytes`, but for the last. Pure."""
    low, at = begin, 0
    for extent in record.extents:
        at += extent.length
        if at - low >= window_bytes and at < end:
            yield low, at
            low = at
    if low < end:
        yield low, end


class _Window:
    """A sink in memory for one range."""

    def __init__(self) -> None:
        self.data = memoryview(b"")

    def begin(self, size_bytes: int) -> None:
        self.data = memoryview(bytearray(size_bytes))

    def write_at(self, offset: int, data: memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def commit(self, modified_ms: int) -> None:
        """It is complete."""

    def abort(self) -> None:
        self.data = memoryview(b"")


async def fetch_in_order(
    downloader: Downloader,
    label: str,
    record: AnyObjectRecord,
    sink: Sink,
    begin: int,
    end: int,
    meter: Meter,
    offload: Offload,
) -> None:
    """Bring bytes `begin` to `end` to `sink`, whose `write_at` is called with growing offsets without gaps.

    What was written before an error stays written. Raises as `Downloader.get`, and what the sink raises.
    """
    room = asyncio.Semaphore(2)
    fetched: asyncio.Queue[tuple[int, memoryview]] = asyncio.Queue()
    ranges = list(windows(record, begin, end))

    async def fetch() -> None:
        for low, high in ranges:
            await room.acquire()
            window = _Window()
            await downloader.get([Target(label, record, window, low, high)], meter)
            fetched.put_nowait((low - begin, window.data))

    async def write() -> None:
        for _ in ranges:
            offset, data = await fetched.get()
            await offload(lambda offset=offset, data=data: sink.write_at(offset, data))  # type: ignore[misc]
            room.release()

    try:
        await offload(lambda: sink.begin(end - begin))
        async with Tasks() as group:
            group.create_task(fetch())
            group.create_task(write())
        await offload(lambda: sink.commit(record.modified_ns // 1_000_000))
    except BaseException:
        with contextlib.suppress(Exception):  # the error that brought us here is the one to tell
            await asyncio.shield(offload(sink.abort))
        raise
