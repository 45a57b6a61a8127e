"""A client and an agent in memory, for tests of what the command line does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from stook.errors import NotEnoughError, NotFoundError
from stook.renter.ports import Item, OnProgress, Progress, Sink
from stook.renter.upload import Uploaded
from stook.storage.renter_ports import Listing, ObjectSummary


@dataclass
class Stored:
    data: bytes
    modified_ms: int
    mode: int


@dataclass
class FakeClient:
    """One bucket, ``b``. Fetching a name in `lost` fails as it does when farmers are gone."""

    objects: dict[str, Stored] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    page: int = 3
    fetched: int = 0

    async def put_many(
        self, bucket: str, items: Iterable[Item], *, on_progress: OnProgress, bytes_total: int | None = None
    ) -> Uploaded:
        stored = unchanged = size = 0
        for item in items:
            known = self.objects.get(item.name)
            if known is not None and (len(known.data), known.modified_ms) == (item.size_bytes, item.modified_ms):
                unchanged += 1
                continue
            source = item.open()
            buffer = bytearray(1 << 16)
            data = b""
            while got := source.read_into(memoryview(buffer)):
                data += buffer[:got]
            self.objects[item.name] = Stored(data, source.modified_ms, item.mode)
            source.close()
            stored += 1
            size += len(data)
        return Uploaded(stored, unchanged, size)

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        names = sorted(name for name in self.objects if name.startswith(prefix) and name > after)
        limit = min(limit, self.page)
        found = tuple(
            ObjectSummary(name, 1, len(self.objects[name].data), self.objects[name].modified_ms, bytes(32))
            for name in names[:limit]
        )
        return Listing(found, (), found[-1].name if len(names) > limit else None)

    async def modes(self, bucket: str, names: Iterable[str]) -> dict[str, int]:
        return {name: self.objects[name].mode for name in names if name in self.objects}

    async def remove(self, bucket: str, names: Iterable[str]) -> frozenset[str]:
        return frozenset(name for name in names if self.objects.pop(name, None) is not None)

    async def get_many(
        self, bucket: str, names: Iterable[str], sink_of: Callable[[str], Sink], *, on_progress: OnProgress
    ) -> int:
        """As the real one: whatever is complete is committed, the rest aborted."""
        sinks = {name: sink_of(name) for name in names}
        done = 0
        for name, sink in sinks.items():
            if name not in self.objects:
                raise NotFoundError(f"there is no {name}")
            if name in self.lost:
                for other in sinks.values():
                    other.abort()
                raise NotEnoughError(f"{name}: 0 of the 2 shards needed could be fetched")
            stored = self.objects[name]
            sink.begin(len(stored.data))
            sink.write_at(0, memoryview(stored.data))
            sink.commit(stored.modified_ms)
            self.fetched += 1
            done += 1
            on_progress(progress(len(stored.data)))
        return done


def progress(durable: int) -> Progress:
    return Progress(None, durable, durable, 0, 1, durable, {})


@dataclass
class FakeAgent:
    refreshed: int = 0

    async def refresh(self) -> int:
        self.refreshed += 1
        return 0


@dataclass
class FakeRenter:
    client: Any = field(default_factory=FakeClient)
    agent: Any = field(default_factory=FakeAgent)


def silent(_: Progress) -> None:
    """Nobody watches."""
