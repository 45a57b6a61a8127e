"""Objects in order: windows that cover them, and never more than two in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stook.errors import NotEnoughError
from stook.ids import SegmentId
from stook.renter import in_order
from stook.renter.download import Target
from stook.renter.in_order import fetch_in_order, windows
from stook.renter.meter import Meter
from stook.shards.pointer import POINTER_VERSION, Extent, ObjectRecord

T = TypeVar("T")


def record(*lengths: int) -> ObjectRecord:
    extents = tuple(Extent(SegmentId(bytes([n] * 16)), 0, length, bytes(32)) for n, length in enumerate(lengths))
    return ObjectRecord(POINTER_VERSION, sum(lengths), bytes(32), extents, 7_000_000, 0o644, ())


async def inline(work: Callable[[], T], /) -> T:
    return work()


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 60), st.data())
def test_windows_cover_the_range_in_order(lengths: list[int], size: int, data: st.DataObject) -> None:
    whole = sum(lengths)
    begin = data.draw(st.integers(0, whole))
    end = data.draw(st.integers(begin, whole))
    cut = list(windows(record(*lengths), begin, end, size))
    assert [at for low, high in cut for at in range(low, high)] == list(range(begin, end))
    assert all(high - low >= size for low, high in cut[:-1])
    longest = max(lengths, default=0)
    assert all(high - low < size + longest for low, high in cut)


class FakeDownloader:
    def __init__(self, data: bytes, fail_at: int = -1) -> None:
        self._data = data
        self._fail_at = fail_at
        self.alive = self.most = 0

    async def get(self, targets: Sequence[Target], meter: Meter) -> None:
        (target,) = targets
        if target.begin <= self._fail_at < target.end:
            raise NotEnoughError("gone")
        self.alive += 1
        self.most = max(self.most, self.alive)
        await asyncio.sleep(0)
        target.sink.begin(target.end - target.begin)
        target.sink.write_at(0, memoryview(self._data[target.begin : target.end]))
        target.sink.commit(0)


class Collecting:
    def __init__(self, downloader: FakeDownloader) -> None:
        self._downloader = downloader
        self.data = b""
        self.size = -1
        self.committed_ms = -1
        self.aborted = False

    def begin(self, size_bytes: int) -> None:
        self.size = size_bytes

    def write_at(self, offset: int, data: memoryview) -> None:
        assert offset == len(self.data)
        self.data += data
        self._downloader.alive -= 1

    def commit(self, modified_ms: int) -> None:
        self.committed_ms = modified_ms

    def abort(self) -> None:
        self.aborted = True


def stream(downloader: FakeDownloader, lengths: Sequence[int], begin: int, end: int) -> Collecting:
    sink = Collecting(downloader)
    work = fetch_in_order(downloader, "b/x", record(*lengths), sink, begin, end, Meter(), inline)  # type: ignore[arg-type]
    try:
        asyncio.run(work)
    except NotEnoughError:
        assert sink.aborted
    return sink


def test_bytes_arrive_in_order_two_windows_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_order.windows, "__defaults__", (10,))
    data = bytes(range(200))
    downloader = FakeDownloader(data)
    sink = stream(downloader, [7] * 20, 3, 130)
    assert sink.data == data[3:130]
    assert (sink.size, sink.committed_ms, sink.aborted) == (127, 7, False)
    assert downloader.most <= 2


def test_what_came_before_a_failure_is_kept_and_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_order.windows, "__defaults__", (10,))
    data = bytes(range(140))
    sink = stream(FakeDownloader(data, fail_at=70), [10] * 14, 0, 140)
    assert data.startswith(sink.data)
    assert len(sink.data) <= 70
    assert sink.committed_ms == -1


def test_an_empty_range_writes_nothing() -> None:
    sink = stream(FakeDownloader(b""), [], 0, 0)
    assert (sink.data, sink.size, sink.committed_ms) == (b"", 0, 7)
