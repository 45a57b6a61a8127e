"""Sources that are short, early, stubborn or broken, and sinks that remember what they were told."""

from __future__ import annotations

from collections.abc import Callable

from stook.renter.files import BytesSource
from stook.renter.ports import Item, Progress, Sink, Source


class Stream:
    """A source without a size, or with a promised one; gives at most `sip` bytes at a time."""

    def __init__(self, data: bytes, *, sip: int = 1 << 30, promised: int | None = None) -> None:
        self._data = memoryview(data)
        self._sip = sip
        self.size_bytes = promised
        self.modified_ms = 1
        self.closed = 0

    def read_into(self, buffer: memoryview) -> int:
        part = self._data[: min(len(buffer), self._sip)]
        self._data = self._data[len(part) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self.closed += 1


class Broken(Stream):
    """Fails after so many bytes."""

    def __init__(self, data: bytes, good: int) -> None:
        super().__init__(data, promised=len(data))
        self._good = good

    def read_into(self, buffer: memoryview) -> int:
        if self._good <= 0:
            raise OSError("the disk is gone")
        got = super().read_into(buffer[: self._good])
        self._good -= got
        return got


def item(name: str, data: bytes, modified_ms: int = 1, mode: int = 0o644) -> Item:
    return Item(name, lambda: BytesSource(data, modified_ms), len(data), modified_ms, mode)


def item_of(name: str, source: Source) -> Item:
    return Item(name, lambda: source)


class Told:
    """A sink that notes every call and insists on their order."""

    def __init__(self, fail_at: str = "") -> None:
        self.calls: list[str] = []
        self.data = bytearray()
        self._fail_at = fail_at

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self._fail_at:
            raise OSError(f"no {call}")

    def begin(self, size_bytes: int) -> None:
        assert self.calls == []
        self.data = bytearray(size_bytes)
        self._note("begin")

    def write_at(self, offset: int, data: memoryview) -> None:
        assert "commit" not in self.calls
        assert "abort" not in self.calls
        assert offset + len(data) <= len(self.data)
        self.data[offset : offset + len(data)] = data
        self._note("write")

    def commit(self, modified_ms: int) -> None:
        assert "begin" in self.calls
        assert "commit" not in self.calls
        self._note("commit")

    def abort(self) -> None:
        self._note("abort")

    @property
    def open(self) -> bool:
        return self.calls != [] and self.calls[-1] not in ("commit", "abort")


class Watch:
    """Progress that must never run backwards, nor call durable what was never accepted."""

    def __init__(self, upload: bool = True) -> None:
        self.last: Progress | None = None
        self._upload = upload

    def __call__(self, now: Progress) -> None:
        before, self.last = self.last, now
        if self._upload:
            assert now.bytes_accepted >= now.bytes_durable
        if before is not None:
            assert now.bytes_accepted >= before.bytes_accepted
            assert now.bytes_durable >= before.bytes_durable
            assert now.objects_done >= before.objects_done
            assert now.shards_done >= before.shards_done
            assert now.shard_bytes_moved >= before.shard_bytes_moved
            assert all(now.farmer_shards[farmer] >= count for farmer, count in before.farmer_shards.items())


SinkOf = Callable[[str], Sink]
