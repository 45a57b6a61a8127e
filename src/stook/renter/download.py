"""Objects on their way back: each segment is fetched once for all objects of the batch that lie in it.

Only the units that are wanted travel, from the farmers that answer first; every unit is verified before it is opened
(`docs/protocol/download.md`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from stook.clock import Offload
from stook.errors import CorruptionError, NotEnoughError, NotFoundError
from stook.ids import PublicKey, SegmentId
from stook.renter.fetch import Fetcher, Wish
from stook.renter.meter import Meter
from stook.renter.ports import Agent, Located, Sink
from stook.renter.slots import SlotPool
from stook.renter.tasks import Tasks
from stook.renter.vault import Vault
from stook.shards.erasure import Codec
from stook.shards.geometry import LADDER, SegmentShape, units_of
from stook.shards.pipeline import plain_hash, unseal
from stook.shards.pointer import AnyObjectRecord, SegmentRecord
from stook.storage.renter_ports import Catalog

_EXTRA_ROWS = 2
_PARALLEL_SEGMENTS = 16
_LOCATED_AT_ONCE = 8
"""Grants run out, so segments are not asked for long before their turn."""
_OPEN_AT_ONCE = 64
"""Sinks that are open while they wait for further segments: a process has few file descriptors."""


@dataclass(eq=False, slots=True)
class Target:
    """One object wanted: bytes `begin` to `end` of it, and where they go."""

    label: str
    record: AnyObjectRecord
    sink: Sink
    begin: int
    end: int
    pieces_left: int = 0
    opened: bool = False
    done: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes of one segment for one target: `length` from `offset` of the segment to `at` of the sink."""

    target: Target
    offset: int
    length: int
    at: int
    plain_hash: bytes | None
    """What these bytes must hash to; None for a part of an extent, whose hash nobody keeps."""


@dataclass(slots=True)
class _Job:
    """One segment to fetch and what to cut from it."""

    segment_id: SegmentId
    parts: list[_Part] = field(default_factory=list)

    @property
    def begin(self) -> int:
        """First byte wanted."""
        return min(part.offset for part in self.parts)

    @property
    def end(self) -> int:
        """Behind the last byte wanted."""
        return max(part.offset + part.length for part in self.parts)


def jobs_of(targets: Iterable[Target]) -> list[_Job]:
    """The segments that hold the targets' ranges, in the order they are met. Pure but for counting pieces."""
    jobs: dict[SegmentId, _Job] = {}
    for target in targets:
        at = 0
        for extent in target.record.extents:
            low, high = max(at, target.begin), min(at + extent.length, target.end)
            if low < high:
                job = jobs.setdefault(extent.segment_id, _Job(extent.segment_id))
                known = extent.plain_hash if high - low == extent.length else None
                job.parts.append(_Part(target, extent.offset + low - at, high - low, low - target.begin, known))
                target.pieces_left += 1
            at += extent.length
    return list(jobs.values())


def waves(targets: Sequence[Target], most: int = _OPEN_AT_ONCE) -> Iterator[Sequence[Target]]:
    """Cut `targets` where more than `most` would wait half written for another segment. Pure."""
    first = waiting = 0
    for at, target in enumerate(targets):
        waiting += len({extent.segment_id for extent in target.record.extents}) > 1
        if waiting > most:
            yield targets[first:at]
            first, waiting = at, 1
    yield targets[first:]


class Downloader:
    """Fetches objects. Segments run side by side within the memory budget."""

    def __init__(
        self,
        *,
        agent: Agent,
        node_key: PublicKey,
        fetcher: Fetcher,
        slots: SlotPool,
        vault: Vault,
        catalog: Catalog,
        codec: Codec,
        offload: Offload,
    ) -> None:
        self._agent = agent
        self._node_key = node_key
        self._fetcher = fetcher
        self._slots = slots
        self._vault = vault
        self._catalog = catalog
        self._codec = codec
        self._offload = offload
        self._delivering = asyncio.Lock()

    async def get(self, targets: Sequence[Target], meter: Meter) -> None:
        """Bring every target to its sink and commit it; all others are aborted when one fails.

        Raises `NotEnoughError` naming the object when too few farmers give true bytes, and what sinks raise.
        """
        try:
            for wave in waves(targets):
                await self._get_wave(wave, meter)
        except BaseException:
            unfinished = [target for target in targets if not target.done]
            await asyncio.shield(self._offload(lambda: _abort(unfinished)))
            raise

    async def _get_wave(self, targets: Sequence[Target], meter: Meter) -> None:
        jobs = jobs_of(targets)
        empty = [target for target in targets if not target.pieces_left]
        async with self._delivering:
            await self._offload(lambda: _hand_out(empty))
        meter.durable(sum(target.end - target.begin for target in empty))
        meter.objects(len(empty))
        gate = asyncio.Semaphore(_PARALLEL_SEGMENTS)
        async with Tasks() as group:
            for first in range(0, len(jobs), _LOCATED_AT_ONCE):
                await self._start(group, gate, jobs[first : first + _LOCATED_AT_ONCE], meter)

    async def _start(self, group: Tasks, gate: asyncio.Semaphore, jobs: Sequence[_Job], meter: Meter) -> None:
        ids = [job.segment_id for job in jobs]
        entries = await self._offload(lambda: self._catalog.segments(ids))
        located = await self._agent.locate(ids, self._node_key)
        for job in jobs:
            label = job.parts[0].target.label
            entry = entries.get(job.segment_id)
            if entry is None:
                raise CorruptionError(f"{label}: the catalog has lost segment {job.segment_id.hex()}")
            where = located.get(job.segment_id)
            if where is None:
                raise NotFoundError(
                    f"{label}: the agent knows no farmer for one of its segments; try `stook agent sync`"
                )
            record = self._vault.open_segment(entry)
            await gate.acquire()
            task = group.create_task(self._fetch(job, record, where, meter))
            task.add_done_callback(lambda _: gate.release())

    async def _fetch(self, job: _Job, record: SegmentRecord, located: Located, meter: Meter) -> None:
        begin, length = job.begin, job.end - job.begin
        units = units_of(record.shape, begin, length)
        wish = Wish(
            k=record.k,
            shard_bytes=record.shard_bytes,
            first_unit=units.first,
            end_unit=units.end,
            roots=dict(enumerate(record.roots)),
            exactly=units.data_indices,
        )
        rows = min(len(record.roots), record.k + _EXTRA_ROWS)
        step = next(step for step in LADDER if step >= units.run_bytes)
        async with self._slots.leased(SegmentShape(record.k, rows, step), length) as slot:
            await self._open(job, record, located, wish, slot.rows(step), slot.plain, meter)
            # Nobody looks at the shards any more: the next segment may come in while this one is written.
            self._slots.give_back_shards(slot)
            async with self._delivering:  # sinks are told one thing at a time
                complete = await self._offload(lambda: _deliver(job, slot.plain[:length], begin))
        meter.durable(sum(part.length for part in job.parts))
        meter.objects(complete)

    async def _open(
        self,
        job: _Job,
        record: SegmentRecord,
        located: Located,
        wish: Wish,
        lines: Sequence[memoryview],
        plain: memoryview,
        meter: Meter,
    ) -> None:
        """Fetch what is wanted of a segment, and decrypt it into `plain`."""
        try:
            shards = await self._fetcher.fetch(located, wish, lines, on_stored=meter.shard)
        except NotEnoughError as error:
            raise NotEnoughError(f"{job.parts[0].target.label}: {error}") from error
        into = plain[: job.end - job.begin]

        def work() -> None:
            with self._slots.scratch() as scratch:
                unseal(
                    shards,
                    key=record.key,
                    mask_key=located.mask_key,
                    shape=record.shape,
                    into=into,
                    codec=self._codec,
                    scratch=scratch,
                    begin=job.begin,
                    copies={ticket.index: ticket.copy for ticket in located.tickets},
                )
            _check(job, into, job.begin)

        await self._offload(work)


def _check(job: _Job, plain: memoryview, begin: int) -> None:
    """The last look before bytes are handed out. Roots vouch for what farmers sent; what is made of it also hangs on
    the mask key, which is the agent's word, and on our own decoding.
    """
    for part in job.parts:
        at = part.offset - begin
        if part.plain_hash is not None and plain_hash(plain[at : at + part.length]) != part.plain_hash:
            raise CorruptionError(
                f"{part.target.label}: its shards are true and give other bytes than were stored: "
                "the agent's mask key is wrong, or this machine's memory is"
            )


def _abort(targets: Sequence[Target]) -> None:
    for target in targets:
        with contextlib.suppress(Exception):  # the error that brought us here is the one to tell
            target.sink.abort()


def _open(target: Target) -> None:
    if not target.opened:
        target.sink.begin(target.end - target.begin)
        target.opened = True


def _commit(targets: Iterable[Target]) -> None:
    for target in targets:
        _open(target)
        target.sink.commit(target.record.modified_ns // 1_000_000)
        target.done = True


def _hand_out(targets: Iterable[Target]) -> None:
    """Those of which nothing is in segments: empty ones, and those whose content is in their record."""
    for target in targets:
        _open(target)
        if target.record.data and target.begin < target.end:
            target.sink.write_at(0, memoryview(target.record.data)[target.begin : target.end])
        _commit([target])


def _deliver(job: _Job, plain: memoryview, begin: int) -> int:
    """Hand out what was fetched; how many targets have everything now. Each is committed before the next is opened,
    so that a bundle of a thousand files needs one descriptor at a time.
    """
    complete = 0
    for part in job.parts:
        target = part.target
        _open(target)
        target.sink.write_at(part.at, plain[part.offset - begin : part.offset - begin + part.length])
        target.pieces_left -= 1
        if not target.pieces_left:
            _commit([target])
            complete += 1
    return complete


def whole(label: str, record: AnyObjectRecord, sink: Sink) -> Target:
    """A target for a whole object."""
    return Target(label, record, sink, 0, record.size)


def locate_range(label: str, size: int, begin: int, end: int | None) -> tuple[int, int]:
    """The range as it lies within an object: cut at its end. Raises `NotFoundError` when it is outside."""
    stop = size if end is None else min(end, size)
    if begin < 0 or begin > stop:
        raise NotFoundError(f"{label} has {size} bytes; there is nothing from byte {begin} on")
    return begin, stop
