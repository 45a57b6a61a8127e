"""Small objects of many writers, sealed together: whoever comes while segments are on their way shares the next one.

No timer: the first comes through at once, and the busier the gateway is the fuller its segments are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from stook.clock import Clock, Entropy, Offload
from stook.renter.arrival import PASSING
from stook.renter.meter import Meter
from stook.renter.mill import Mill
from stook.renter.ports import PlacementPolicy
from stook.renter.slots import SlotPool, segment_bytes
from stook.shards.geometry import Policy, smallest_shape
from stook.shards.pipeline import plain_hash
from stook.shards.pointer import Extent
from stook.storage.renter_ports import Bucket, Catalog, SegmentEntry, Upload

LANES = 2
"""Shared segments on their way at once. Fewer lanes make fuller segments."""


@dataclass(eq=False, slots=True)
class Shared:
    """One upload of the catalog's that several objects hang on; over when the last has let go."""

    upload_id: bytes
    holders: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Where some bytes are, and what to let go of once they are committed."""

    extent: Extent
    shared: Shared


@dataclass(eq=False, slots=True)
class _Waiting:
    bucket: Bucket
    name: str
    data: bytes | bytearray | memoryview
    turn: asyncio.Future[Placed] = field(repr=False)


class Flock:
    """Shares segments between objects of one bucket. Use it on one event loop."""

    def __init__(
        self,
        *,
        policy: Callable[[], Awaitable[PlacementPolicy]],
        mill: Mill,
        slots: SlotPool,
        catalog: Catalog,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        give_up: Callable[[bytes], Awaitable[None]],
        lanes: int = LANES,
    ) -> None:
        self._policy = policy
        self._mill = mill
        self._slots = slots
        self._catalog = catalog
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._give_up = give_up
        self._lanes = lanes
        self._waiting: list[_Waiting] = []
        self._running: set[asyncio.Task[None]] = set()

    async def place(self, bucket: Bucket, name: str, data: bytes | bytearray | memoryview) -> Placed:
        """Bring some bytes, which stay as they are meanwhile, into a shared segment; returns when it is durable.

        Call `let_go` for what it gives back. Raises as `Mill.send`.
        """
        each = _Waiting(bucket, name, data, asyncio.get_running_loop().create_future())
        self._waiting.append(each)
        self._start()
        try:
            return await each.turn
        except asyncio.CancelledError:
            if each in self._waiting:
                self._waiting.remove(each)
            elif each.turn.done() and not each.turn.cancelled() and each.turn.exception() is None:
                await asyncio.shield(self.let_go(each.turn.result().shared))
            raise

    async def let_go(self, shared: Shared) -> None:
        """One of those in a segment is committed, or has come to nothing."""
        shared.holders -= 1
        if not shared.holders:
            await self._give_up(shared.upload_id)

    async def aclose(self) -> None:
        """Stop what is under way."""
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._lanes:
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._start()

    async def _run(self) -> None:
        taken: list[_Waiting] = []
        try:
            placement = await self._policy()
            taken = self._take(placement.largest_shape(segment_bytes(self._slots.budget_bytes)).capacity)
            if taken:
                await self._send(taken, placement.policy, placement.total)
        except BaseException as error:
            for each in taken or self._waiting:
                if not each.turn.done():
                    each.turn.set_exception(error) if isinstance(error, Exception) else each.turn.cancel()
            if not taken:
                self._waiting.clear()
            if not isinstance(error, Exception):
                raise

    def _take(self, capacity: int) -> list[_Waiting]:
        """Those that fit into one segment, of the bucket whose turn it is."""
        taken: list[_Waiting] = []
        rest: list[_Waiting] = []
        room = capacity
        for each in self._waiting:
            if each.turn.done():
                continue
            same = not taken or taken[0].bucket.bucket_id == each.bucket.bucket_id
            if same and len(each.data) <= room:
                taken.append(each)
                room -= len(each.data)
            else:
                rest.append(each)
        self._waiting = rest
        return taken

    async def _send(self, taken: list[_Waiting], policy: Policy, total: int) -> None:
        used = sum(len(each.data) for each in taken)
        shape = smallest_shape(used, policy.k, total)
        slot = await self._slots.lease(shape)
        upload_id = self._entropy(16)

        def fill() -> list[tuple[int, bytes]]:
            at, places = 0, []
            for each in taken:
                part = slot.plain[at : at + len(each.data)]
                part[:] = each.data
                places.append((at, plain_hash(part)))
                at += len(part)
            return places

        async def register(entry: SegmentEntry) -> None:
            def work() -> None:
                now = self._clock.now_ms()
                first = taken[0]
                fresh = Upload(upload_id, first.bucket.name, first.name, PASSING + upload_id, now, now)
                self._catalog.begin_upload(fresh)
                self._catalog.add_upload_segment(upload_id, 0, entry, now)

            await self._offload(work)

        try:
            places = await self._offload(fill)
        except BaseException:
            self._slots.give_back(slot)
            raise
        try:
            entry = await self._mill.send(slot, shape, policy, used, Meter(), register=register)
        except BaseException:
            await asyncio.shield(self._give_up(upload_id))
            raise
        shared = Shared(upload_id, 0)
        for each, (offset, digest) in zip(taken, places, strict=True):
            if not each.turn.done():
                shared.holders += 1
                each.turn.set_result(Placed(Extent(entry.segment_id, offset, len(each.data), digest), shared))
        if not shared.holders:
            await self._give_up(upload_id)
