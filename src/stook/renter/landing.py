"""One writer's bytes on their way in: cut into segments while they come, at farmers before anything is visible.

Unlike `upload`, which reads files of a batch, the bytes come from a peer at the peer's speed, so reading them holds no
thread; and whoever reads them decides at their end whether they are what was promised. Until the commit nothing shows;
without one everything is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from stook.clock import Clock, Entropy, Offload
from stook.errors import UserError
from stook.ids import SegmentId
from stook.renter.arrival import PASSING
from stook.renter.flock import Flock, Shared
from stook.renter.meter import Meter
from stook.renter.mill import Mill
from stook.renter.ports import PlacementPolicy
from stook.renter.slots import Slot, SlotPool, segment_bytes
from stook.renter.tasks import Tasks
from stook.shards.geometry import SMALL_OBJECT_BYTES, Plan, SegmentShape, plan, plan_rest
from stook.shards.pointer import MAX_EXTENTS, Extent
from stook.storage.renter_ports import Bucket, Catalog, SegmentEntry, Upload

_AT_ONCE = 3
"""Segments of one writer on their way at once: one more than hides the network's delay."""


class Body(Protocol):
    """Bytes that come from somewhere."""

    async def fill(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as there are bytes; fewer than its length only at the end. What it raises ends all."""
        ...


@dataclass(slots=True)
class Landed:
    """Bytes at farmers that nothing refers to yet."""

    size_bytes: int = 0
    extents: list[Extent] = field(default_factory=list)
    upload_id: bytes | None = None
    """The upload of the catalog's that owns its segments; a commit that names it ends it."""
    shared: list[Shared] = field(default_factory=list)


class Lander:
    """Brings bodies to farmers. Use it on one event loop."""

    def __init__(
        self,
        *,
        policy: Callable[[], Awaitable[PlacementPolicy]],
        flock: Flock,
        mill: Mill,
        slots: SlotPool,
        catalog: Catalog,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        give_up: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._policy = policy
        self._flock = flock
        self._mill = mill
        self._slots = slots
        self._catalog = catalog
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._give_up = give_up

    @asynccontextmanager
    async def land(self, bucket: Bucket, name: str, body: Body, size: int | None) -> AsyncIterator[Landed]:
        """Everything `body` gives, durable, for the length of a block in which it is committed or not.

        `size` is what it promises, if it does. What no commit refers to at the end of the block is garbage.
        """
        landed = Landed()
        try:
            await self._bring(landed, bucket, name, body, size)
            yield landed
        finally:
            await asyncio.shield(self._leave(landed))

    def largest(self, placement: PlacementPolicy) -> SegmentShape:
        """What large bodies are cut into."""
        return placement.largest_shape(segment_bytes(self._slots.budget_bytes))

    async def _leave(self, landed: Landed) -> None:
        for shared in landed.shared:
            await self._flock.let_go(shared)
        if landed.upload_id is not None:
            await self._give_up(landed.upload_id)

    async def _bring(self, landed: Landed, bucket: Bucket, name: str, body: Body, size: int | None) -> None:
        if size is None or size <= SMALL_OBJECT_BYTES:
            # Read before any memory is leased that others wait for.
            head = bytearray(SMALL_OBJECT_BYTES + 1 if size is None else size)
            got = await body.fill(memoryview(head))
            if got <= SMALL_OBJECT_BYTES:
                await self._share(landed, bucket, name, memoryview(head)[:got])
                return
            body = _Again(memoryview(head)[:got], body)
        placement = await self._policy()
        work = _Work(self, landed, bucket, name, body, placement)
        try:
            async with Tasks() as group:
                if size is None:
                    await work.stream(group)
                else:
                    await work.planned(group, plan(size, work.largest))
        finally:
            work.give_back()
        if work.tail:
            await self._share(landed, bucket, name, work.tail)

    async def _share(self, landed: Landed, bucket: Bucket, name: str, data: memoryview) -> None:
        placement = await self._policy() if data else None
        while data and placement is not None:
            most = min(SMALL_OBJECT_BYTES, self.largest(placement).capacity)
            placed = await self._flock.place(bucket, name, data[:most])
            landed.shared.append(placed.shared)
            landed.extents.append(placed.extent)
            landed.size_bytes += placed.extent.length
            data = data[most:]


class _Again:
    """A body of which the beginning has been read already."""

    def __init__(self, head: memoryview, rest: Body) -> None:
        self._head = head
        self._rest = rest

    async def fill(self, buffer: memoryview) -> int:
        part, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        buffer[: len(part)] = part
        if len(part) == len(buffer):
            return len(part)
        return len(part) + await self._rest.fill(buffer[len(part) :])


class _Work:
    """The segments of one body that it has to itself."""

    def __init__(
        self, lander: Lander, landed: Landed, bucket: Bucket, name: str, body: Body, placement: PlacementPolicy
    ) -> None:
        self._of = lander
        self._landed = landed
        self._bucket = bucket
        self._name = name
        self._body = body
        self._policy = placement.policy
        self.largest = lander.largest(placement)
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._beginning = asyncio.Lock()
        self._held: set[Slot] = set()
        """Slots that are ours to give back: leased, and not handed to the mill."""
        self.tail = memoryview(b"")
        """What is left for a shared segment."""

    def give_back(self) -> None:
        """Let go of what never got to the mill."""
        while self._held:
            self._of._slots.give_back(self._held.pop())

    async def _lease(self, shape: SegmentShape) -> Slot:
        await self._gate.acquire()
        slot = await self._of._slots.lease(shape)
        self._held.add(slot)
        return slot

    def _free(self, slot: Slot) -> None:
        self._held.discard(slot)
        self._of._slots.give_back(slot)
        self._gate.release()

    async def planned(self, group: Tasks, cut: Plan) -> None:
        for piece in cut.pieces:
            if await self._piece(group, piece.shape, piece.length) < piece.length:
                return
        tail = bytearray(cut.tail_bytes)
        self.tail = memoryview(tail)[: await self._body.fill(memoryview(tail))]

    async def stream(self, group: Tasks) -> None:
        """Largest segments until the body ends inside one; that rest is planned from memory."""
        largest = self.largest
        while True:
            slot = await self._lease(largest)
            got = await self._body.fill(slot.plain[: largest.capacity])
            if got == largest.capacity:
                self._send(group, slot, largest, got)
                continue
            at = self._landed.size_bytes
            rest = plan_rest(at + got, at, largest)
            self._body = _Again(memoryview(bytes(slot.plain[:got])), _Nothing())
            self._free(slot)
            await self.planned(group, rest)
            return

    async def _piece(self, group: Tasks, shape: SegmentShape, length: int) -> int:
        slot = await self._lease(shape)
        got = await self._body.fill(slot.plain[:length])
        if got:
            self._send(group, slot, shape, got)
        else:
            self._free(slot)
        return got

    def _send(self, group: Tasks, slot: Slot, shape: SegmentShape, length: int) -> None:
        ordinal = len(self._landed.extents)
        if ordinal == MAX_EXTENTS:
            raise UserError(f"{self._name} is too large: an object has at most {MAX_EXTENTS} segments")
        self._landed.size_bytes += length
        self._landed.extents.append(_PENDING)
        group.create_task(self._run(slot, shape, length, ordinal))

    async def _run(self, slot: Slot, shape: SegmentShape, length: int, ordinal: int) -> None:
        async def register(entry: SegmentEntry) -> None:
            await self._register(ordinal, entry)

        self._held.discard(slot)
        try:
            entry = await self._of._mill.send(slot, shape, self._policy, length, Meter(), register=register)
        finally:
            self._gate.release()
        self._landed.extents[ordinal] = Extent(entry.segment_id, 0, length, entry.plain_hash)

    async def _register(self, ordinal: int, entry: SegmentEntry) -> None:
        of, now = self._of, self._of._clock.now_ms()
        async with self._beginning:
            if self._landed.upload_id is None:
                upload_id = of._entropy(16)
                fresh = Upload(upload_id, self._bucket.name, self._name, PASSING + upload_id, now, now)
                await of._offload(lambda: of._catalog.begin_upload(fresh))
                self._landed.upload_id = upload_id
        upload_id = self._landed.upload_id
        await of._offload(lambda: of._catalog.add_upload_segment(upload_id, ordinal, entry, now))


class _Nothing:
    async def fill(self, buffer: memoryview) -> int:
        return 0


_PENDING = Extent(SegmentId(bytes(16)), 0, 1, bytes(32))
"""Holds the place of a segment that is on its way."""
