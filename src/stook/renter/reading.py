"""Bytes of an object on their way out, in order, a window at a time, at the reader's speed.

While one window is handed out the next is fetched; what all readers of a process hold together is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from stook.renter.download import Downloader, Target
from stook.renter.meter import Meter
from stook.shards.pointer import AnyObjectRecord

WINDOW_BYTES = 8 << 20
BUDGET_BYTES = 192 << 20


def windows(
    record: AnyObjectRecord, begin: int, end: int, window_bytes: int = WINDOW_BYTES
) -> Iterator[tuple[int, int]]:
    """Cut ``begin`` to ``end`` into ranges of at most `window_bytes`, where segments end if that is near. Pure."""
    low = held = begin
    at = 0
    for extent in record.extents:
        at += extent.length
        stop = min(at, end)
        if stop <= low or low >= end:
            continue
        if stop - low > window_bytes:
            if held > low:  # small extents before a large one
                yield low, held
                low = held
            while stop - low > window_bytes:
                yield low, low + window_bytes
                low += window_bytes
        held = stop
    if low < end:
        yield low, end


class _Window:
    """A sink in memory."""

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


class Reader:
    """Streams objects out. Use it on one event loop."""

    def __init__(self, downloader: Downloader, *, budget_bytes: int = BUDGET_BYTES) -> None:
        self._downloader = downloader
        self._windows = asyncio.Semaphore(max(2, budget_bytes // WINDOW_BYTES))

    async def stream(self, label: str, record: AnyObjectRecord, begin: int, end: int) -> AsyncIterator[memoryview]:
        """Bytes `begin` to `end`, which lie in the object, verified. Close the iterator. Raises as `Downloader.get`."""
        ahead: asyncio.Task[memoryview] | None = None
        held = 0
        try:
            cut = list(windows(record, begin, end))
            for place, (low, high) in enumerate(cut):
                if ahead is None:
                    await self._windows.acquire()
                    held += 1
                    ahead = asyncio.create_task(self._fetch(label, record, low, high))
                data = await ahead
                ahead = None
                # The next one is fetched ahead only where there is room: nobody waits for a second one with the first.
                if place + 1 < len(cut) and not self._windows.locked():
                    await self._windows.acquire()
                    held += 1
                    ahead = asyncio.create_task(self._fetch(label, record, *cut[place + 1]))
                yield data
                self._windows.release()
                held -= 1
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])
            for _ in range(held):
                self._windows.release()

    async def _fetch(self, label: str, record: AnyObjectRecord, low: int, high: int) -> memoryview:
        window = _Window()
        await self._downloader.get([Target(label, record, window, low, high)], Meter())
        return window.data
