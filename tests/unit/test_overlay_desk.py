"""What the desk keeps for others: on disk when it says so, in whatever order things happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeVar

import pytest
from tests.support.overlay_samples import NETWORK, NOW_MS, key_of

from stook.codec import encode
from stook.errors import EnvironmentFault, ReasonCode
from stook.ids import NodeId
from stook.overlay.desk import Desk
from stook.overlay.memory import BlobMemory
from stook.overlay.messages import Store
from stook.overlay.record_store import RecordStore
from stook.overlay.records import RecordKind, SignedRecord, sign_record
from stook.overlay.routing_table import RoutingTable
from stook.storage.blobs import MemoryBlobs

T = TypeVar("T")
OWN_ID = NodeId(bytes(20))


def pointer(sequence: int = 1, *, key: int = 1, issued_ms: int = NOW_MS) -> SignedRecord:
    return sign_record(
        key_of(key), network=NETWORK, kind=RecordKind.POINTER, body=b"sealed", sequence=sequence, issued_ms=issued_ms
    )


class Counter:
    """A desk over a disk that is slow, or full, when a test says so."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.memory = BlobMemory(MemoryBlobs())
        self.store = RecordStore(OWN_ID, NETWORK)
        self.full = False
        self.held: list[asyncio.Event] = []
        self.slow = False
        self.desk = Desk(
            SimpleNamespace(table=RoutingTable(OWN_ID), called=lambda _: None),  # type: ignore[arg-type]
            self.store,
            self.memory,
            SimpleNamespace(now_ms=lambda: self.now_ms),
            self.offload,
            lambda _: None,
        )

    async def offload(self, work: Callable[[], T]) -> T:
        if self.slow:
            self.held.append(asyncio.Event())
            await self.held[-1].wait()
        if self.full:
            raise EnvironmentFault(ReasonCode.DISK_LOW, "full")
        return work()

    async def turns(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    @property
    def shown(self) -> tuple[SignedRecord, ...]:
        return self.store.get(pointer().key, now_ms=self.now_ms)


def test_what_the_disk_refused_is_not_kept_and_not_said_to_be() -> None:
    async def main() -> None:
        counter = Counter()
        counter.full = True
        for _ in range(2):  # the second time is no duplicate of something kept
            assert (await counter.desk.keep(pointer())).code == ReasonCode.DISK_LOW
            assert counter.shown == counter.memory.records() == ()
        counter.full = False
        assert (await counter.desk.keep(pointer())).code == 0
        counter.full = True
        assert (await counter.desk.keep(pointer(2))).code == ReasonCode.DISK_LOW
        assert counter.shown == counter.memory.records() == (pointer(),)  # the older one is there still

    asyncio.run(main())


def test_a_duplicate_waits_until_the_first_is_on_disk() -> None:
    async def main() -> None:
        counter = Counter()
        counter.slow = True
        first, second = (asyncio.create_task(counter.desk.keep(pointer())) for _ in range(2))
        await counter.turns()
        assert [first.done(), second.done()] == [False, False]
        counter.held[0].set()
        assert (await first).code == (await second).code == 0
        assert counter.memory.records() == (pointer(),)

    asyncio.run(main())


def test_one_that_was_cancelled_while_it_was_saved_is_not_kept() -> None:
    async def main() -> None:
        counter = Counter()
        counter.slow = True
        task = asyncio.create_task(counter.desk.keep(pointer()))
        await counter.turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counter.shown == ()
        counter.slow = False
        assert (await counter.desk.keep(pointer())).code == 0
        assert counter.memory.records() == (pointer(),)

    asyncio.run(main())


def test_saves_and_removals_happen_in_the_order_of_the_decisions() -> None:
    async def main() -> None:
        counter = Counter()
        counter.slow = True
        older, newer = (asyncio.create_task(counter.desk.keep(pointer(number))) for number in (1, 2))
        await counter.turns()
        assert len(counter.held) == 1  # never two of them at once
        counter.held[0].set()
        await counter.turns()
        counter.held[1].set()
        await asyncio.gather(older, newer)
        assert counter.memory.records() == (pointer(2),)
        # What is over is removed, and its publisher brings the next one at that moment.
        counter.now_ms = pointer().record.expires_ms
        ending = asyncio.create_task(counter.desk.expire())
        await counter.turns()
        latest = pointer(3, issued_ms=counter.now_ms)
        keeping = asyncio.create_task(counter.desk.keep(latest))
        await counter.turns()
        while not keeping.done():
            counter.held[-1].set()
            await counter.turns()
        await ending
        assert counter.memory.records() == (latest,) == counter.shown

    asyncio.run(main())


def test_others_come_between_the_records_of_a_request() -> None:
    async def main() -> None:
        counter = Counter()
        order: list[str] = []

        async def reply(_: bytes) -> None:
            order.append("reply")

        exchange = SimpleNamespace(peer_id=key_of(9).node_id, reply=reply)
        records = tuple(pointer(key=number) for number in range(1, 5))
        serving = asyncio.create_task(counter.desk.store(exchange, encode(Store(records))))  # type: ignore[arg-type]
        while not serving.done():
            order.append("other")
            await asyncio.sleep(0)
        assert order.index("reply") >= len(records)

    asyncio.run(main())


def test_a_start_takes_up_what_is_good_and_removes_what_is_not() -> None:
    async def main() -> None:
        counter = Counter()
        good, over = pointer(), pointer(key=2, issued_ms=NOW_MS - 400 * 86_400_000)
        early = pointer(key=3, issued_ms=NOW_MS + 3_600_000)
        for signed in (good, over, early):
            counter.memory.save_record(signed)
        assert await counter.desk.load() == (good,)
        assert set(counter.memory.records()) == {good, early}

    asyncio.run(main())
