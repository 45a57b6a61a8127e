"""A batch of objects on its way out: read, cut, bundle, send, and commit what is durable.

One reader goes through the items in order; segments are sealed and sent side by side within the memory budget; an
object is committed to the catalog, together with others that are ready, as soon as its last segment is durable
(`docs/protocol/upload.md`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from stook.clock import Clock, Entropy, Offload
from stook.errors import BugError, ConflictError, UserError
from stook.hashing import Tag, tagged_hash
from stook.ids import PublicKey
from stook.renter.arrival import PASSING, Arrival
from stook.renter.bundle import Bundle
from stook.renter.meter import Meter
from stook.renter.mill import Mill, Register, Reuse
from stook.renter.ports import Agent, Item, PlacementPolicy, Source
from stook.renter.slots import Slot, SlotPool, segment_bytes
from stook.renter.tasks import Tasks
from stook.renter.vault import Vault
from stook.shards.geometry import (
    Plan,
    SegmentShape,
    plan,
    plan_rest,
)
from stook.shards.pipeline import plain_hash
from stook.shards.pointer import (
    INLINE_VERSION,
    MAX_EXTENTS,
    POINTER_VERSION,
    AnyObjectRecord,
    Extent,
    InlineRecord,
    ObjectRecord,
    content_hash,
)
from stook.storage.names import name_bytes
from stook.storage.renter_ports import (
    Bucket,
    Catalog,
    ObjectEntry,
    SegmentEntry,
    Upload,
    VersionConflictError,
)

_LOOK_AHEAD = 500
_COMMIT_TRIES = 5
_LATEST_NS = 2**63 - 1
_UPLOAD_ID_BYTES = 16


@dataclass(eq=False, slots=True)
class _Growing:
    """One object that is being stored. Extents are filled in as their segments become durable."""

    item: Item
    modified_ms: int = 0
    extents: list[Extent | None] = field(default_factory=list)
    read: bool = False
    upload_id: bytes | None = None
    earlier: Mapping[int, SegmentEntry] = field(default_factory=dict)
    size_bytes: int = 0
    inline: bytes = b""
    """All of it, when it goes into its record."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """It is committed."""

    def room(self) -> int:
        """A place for one more extent. Raises `UserError` beyond what a record holds."""
        if len(self.extents) == MAX_EXTENTS:
            raise UserError(f"{self.item.name} is too large: an object has at most {MAX_EXTENTS} segments")
        self.extents.append(None)
        return len(self.extents) - 1

    @property
    def ready(self) -> bool:
        """Whether every byte is durable."""
        return self.read and None not in self.extents


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What came of a batch."""

    stored: int
    unchanged: int
    size_bytes: int
    inline_bytes: int = 0
    """Of these: in records, and so as durable as the catalog is."""


class Uploader:
    """Stores batches into buckets. One may run at a time per instance of `_Batch`; instances share slots and mill."""

    def __init__(
        self,
        *,
        agent: Agent,
        node_key: PublicKey,
        mill: Mill,
        slots: SlotPool,
        vault: Vault,
        catalog: Catalog,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
    ) -> None:
        self.agent = agent
        self.node_key = node_key
        self.mill = mill
        self.slots = slots
        self.vault = vault
        self.catalog = catalog
        self.clock = clock
        self.entropy = entropy
        self.offload = offload

    async def put(
        self,
        bucket: Bucket,
        items: AsyncIterator[Sequence[Item]],
        meter: Meter,
        arrival: Arrival,
        *,
        again: bool,
        inline_bytes: int = 0,
    ) -> Uploaded:
        """Store all items; returns when every one is durable and committed.

        Items of at most `inline_bytes` are committed with their content, which the caller has to make durable.

        Items of the size and time that the catalog has are left alone, unless `again`. Raises the first error; objects
        committed before it stay, and running the same again goes on.
        """
        batch = _Batch(self, bucket, await self.agent.policy(), meter, arrival, inline_bytes)
        return await batch.run(items, again=again)


class _Batch:
    def __init__(
        self,
        uploader: Uploader,
        bucket: Bucket,
        placement: PlacementPolicy,
        meter: Meter,
        arrival: Arrival,
        inline_bytes: int,
    ) -> None:
        self._inline_bytes = inline_bytes
        self._inlined = 0
        self._up = uploader
        self._bucket = bucket
        self._policy = placement.policy
        self._total = placement.total
        self._largest = placement.largest_shape(segment_bytes(uploader.slots.budget_bytes))
        self._meter = meter
        self._arrival = arrival
        self._bundle: Bundle[tuple[_Growing, int]] | None = None
        self._ready: list[_Growing] = []
        self._bundles_id: bytes | None = None
        self._bundles = 0
        self._slots: set[Slot] = set()
        """Those that are ours to give back: leased, and not handed to the mill."""
        self._under_way: dict[str, _Growing] = {}
        self._beginning = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._stored = self._unchanged = self._size = 0

    async def run(self, items: AsyncIterator[Sequence[Item]], *, again: bool) -> Uploaded:
        try:
            async with Tasks() as group:
                async for page in items:
                    for item in await self._changed(page, again=again):
                        await self._turn(group, item.name)
                        await self._store(group, item)
                self._close_bundle(group)
            await self._commit()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell; the next upload clears up
                await self._leave()
            raise
        await self._leave()
        if self._under_way:
            raise BugError(f"{len(self._under_way)} objects were sent and never committed")
        return Uploaded(self._stored, self._unchanged, self._size, self._inlined)

    async def _leave(self) -> None:
        """Give back memory, and let go of bundles: those that no object came to refer to are garbage now."""
        while self._slots:
            self._up.slots.give_back(self._slots.pop())
        await self._give_up(self._bundles_id)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _changed(self, page: Sequence[Item], *, again: bool) -> list[Item]:
        if again:
            return list(page)
        names = [item.name for item in page if item.size_bytes is not None]
        known = await self._up.offload(lambda: self._up.catalog.get_many(self._bucket.name, names))
        changed = []
        for item in page:
            entry = known.get(item.name)
            if entry is not None and (entry.size_bytes, entry.modified_ms) == (item.size_bytes, item.modified_ms):
                await self._supersede(item.name)
                self._unchanged += 1
                self._meter.objects(1)
                self._meter.accepted(entry.size_bytes)
                self._meter.durable(entry.size_bytes)
            else:
                changed.append(item)
        return changed

    async def _turn(self, group: Tasks, name: str) -> None:
        """An object may come twice in a batch: the second waits until the first exists, and then replaces it."""
        while (earlier := self._under_way.get(name)) is not None:
            self._close_bundle(group)
            await self._commit()
            await earlier.over.wait()

    async def _store(self, group: Tasks, item: Item) -> None:
        name_bytes(item.name)  # a name that cannot be is told before anything is sent
        source = await self._up.offload(item.open)
        try:
            growing = self._under_way[item.name] = _Growing(item, source.modified_ms)
            size = source.size_bytes
            if size is not None and 0 < size <= self._inline_bytes:
                growing.inline = await self._up.offload(partial(_read_all, source, size))
                growing.size_bytes = len(growing.inline)
            elif size is None:
                await self._resume(growing)
                await self._stream(group, growing, source)
            else:
                cut = plan(size, self._largest)
                if cut.pieces:
                    await self._resume(growing)
                await self._planned(group, growing, source, cut)
        finally:
            await self._up.offload(source.close)
        growing.read = True
        await self._check(growing)

    async def _planned(self, group: Tasks, growing: _Growing, source: Source, cut: Plan) -> None:
        """Segments of its own first, then the rest into a bundle; ends early when the source does."""
        for piece in cut.pieces:
            slot = await self._lease(group, piece.shape)
            got = await self._up.offload(partial(_fill, source, slot.plain[: piece.length]))
            if got:
                await self._send(group, growing, slot, piece.shape, got)
            else:
                self._give_back(slot)
            if got < piece.length:
                return
        await self._into_bundle(group, growing, source, cut.tail_bytes)

    async def _stream(self, group: Tasks, growing: _Growing, source: Source) -> None:
        """Largest segments until the source ends inside one; that rest is planned from memory."""
        while True:
            slot = await self._lease(group, self._largest)
            got = await self._fill_from(source, slot.plain[: self._largest.capacity])
            if got == self._largest.capacity:
                await self._send(group, growing, slot, self._largest, got)
                continue
            rest = plan_rest(growing.size_bytes + got, growing.size_bytes, self._largest)
            if len(rest.pieces) == 1 and not rest.tail_bytes:
                await self._send(group, growing, slot, rest.pieces[0].shape, got)
                return
            memory = _Rest(bytes(slot.plain[:got]))
            self._give_back(slot)
            await self._planned(group, growing, memory, rest)
            return

    async def _fill_from(self, source: Source, buffer: memoryview) -> int:
        """`_fill`, for a source that may wait for its input for ever: cancelled, it is closed, which ends the wait."""
        reading = asyncio.ensure_future(self._up.offload(partial(_fill, source, buffer)))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            tasks = (reading, asyncio.ensure_future(self._up.offload(source.close)))
            while not all(task.done() for task in tasks):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(tasks)
            for task in tasks:
                task.exception()  # nobody asks for it any more
            raise

    async def _into_bundle(self, group: Tasks, growing: _Growing, source: Source, size: int) -> None:
        """The next `size` bytes, or fewer where the source ends early, go into shared segments: one, but for codes so
        wide that a segment holds less than a small object.
        """
        while size:
            part = min(size, self._largest.capacity)
            if self._bundle is not None and not self._bundle.room_for(part):
                self._close_bundle(group)
            if self._bundle is None:
                self._bundle = Bundle(await self._lease(group, self._largest), self._largest)
            bundle, ordinal = self._bundle, growing.room()
            got = await self._up.offload(partial(bundle.add, (growing, ordinal), part, partial(_fill, source)))
            growing.size_bytes += got
            if not got:
                growing.extents.pop()
            if got < part:
                return
            size -= part

    async def _lease(self, group: Tasks, shape: SegmentShape) -> Slot:
        """A slot. The open bundle must not hold the last memory while we, or another batch, wait for some."""
        let_go = None if self._bundle is None else partial(self._close_bundle, group)
        slot = await self._up.slots.lease(shape, let_go=let_go)
        self._slots.add(slot)
        return slot

    def _give_back(self, slot: Slot) -> None:
        self._slots.discard(slot)
        self._up.slots.give_back(slot)

    # --- sending -----------------------------------------------------------------------------------------------------

    async def _begin(self, name: str, *, passing: bool) -> tuple[bytes, bool]:
        """An upload of the catalog's, which owns segments from before they are placed; whether it existed."""
        now, upload_id = self._up.clock.now_ms(), self._up.entropy(_UPLOAD_ID_BYTES)
        like = PASSING + upload_id if passing else tagged_hash(Tag.CONTENT, f"{self._policy}/{self._total}".encode())
        fresh = Upload(upload_id, self._bucket.name, name, like, started_ms=now, touched_ms=now)
        upload = await self._up.offload(lambda: self._up.catalog.begin_upload(fresh))
        return upload.upload_id, upload.upload_id != upload_id

    async def _resume(self, growing: _Growing) -> None:
        # Beside another upload nothing is taken over: it might be what that one is sending.
        upload_id, existed = await self._begin(growing.item.name, passing=not self._arrival.alone)
        growing.upload_id = upload_id
        if existed:
            growing.earlier = await self._up.offload(lambda: self._up.catalog.upload_segments(upload_id))

    def _register(self, upload_id: bytes, ordinal: int) -> Register:
        catalog, clock = self._up.catalog, self._up.clock

        async def register(entry: SegmentEntry) -> None:
            await self._up.offload(lambda: catalog.add_upload_segment(upload_id, ordinal, entry, clock.now_ms()))

        return register

    async def _supersede(self, name: str, *, by: bytes | None = None) -> None:
        """The object is there as it should be: what the dead left of other attempts at it is garbage."""
        left = self._arrival.left.pop((self._bucket.name, name), ())
        await self._give_up(*(other for other in left if other != by))

    async def _give_up(self, *upload_ids: bytes | None) -> None:
        for upload_id in upload_ids:
            if upload_id is not None:
                await self._up.offload(partial(self._up.catalog.abandon_upload, upload_id))

    async def _send(self, group: Tasks, growing: _Growing, slot: Slot, shape: SegmentShape, length: int) -> None:
        ordinal = growing.room()
        growing.size_bytes += length
        reuse = await self._earlier(growing, ordinal, slot, shape, length)
        group.create_task(self._send_piece(growing, ordinal, slot, shape, length, reuse))

    async def _earlier(
        self, growing: _Growing, ordinal: int, slot: Slot, shape: SegmentShape, length: int
    ) -> Reuse | None:
        """The sealed segment that holds these very bytes already, if an earlier run left it."""
        entry = growing.earlier.get(ordinal)
        if entry is None or entry.plain_bytes != length:
            return None
        if SegmentShape(entry.k, entry.total, entry.shard_bytes) != shape:
            return None
        if await self._up.offload(lambda: plain_hash(slot.plain[:length])) != entry.plain_hash:
            return None
        located = (await self._up.agent.locate([entry.segment_id], self._up.node_key)).get(entry.segment_id)
        if located is None:
            return None  # the agent never heard of it: the earlier run ended before it was placed
        return Reuse(self._up.vault.open_segment(entry), entry, located.mask_key)

    async def _send_piece(
        self, growing: _Growing, ordinal: int, slot: Slot, shape: SegmentShape, length: int, reuse: Reuse | None
    ) -> None:
        if growing.upload_id is None:
            raise BugError("an object is sent in pieces without an upload")
        register = self._register(growing.upload_id, ordinal)
        self._slots.discard(slot)
        entry = await self._up.mill.send(slot, shape, self._policy, length, self._meter, reuse=reuse, register=register)
        growing.extents[ordinal] = Extent(entry.segment_id, 0, length, entry.plain_hash)
        await self._check(growing)

    def _close_bundle(self, group: Tasks) -> None:
        bundle, self._bundle = self._bundle, None
        if bundle is None:
            return
        if not bundle.used_bytes:
            self._give_back(bundle.slot)
            return
        group.create_task(self._send_bundle(bundle))

    async def _send_bundle(self, bundle: Bundle[tuple[_Growing, int]]) -> None:
        plain = bundle.slot.plain
        hashes = await self._up.offload(
            lambda: [plain_hash(plain[begin : begin + length]) for _, begin, length in bundle.members]
        )
        register = await self._register_bundle(bundle.members[0][0][0].item.name)
        self._slots.discard(bundle.slot)
        entry = await self._up.mill.send(
            bundle.slot, bundle.final_shape(), self._policy, bundle.used_bytes, self._meter, register=register
        )
        for ((growing, ordinal), begin, length), digest in zip(bundle.members, hashes, strict=True):
            growing.extents[ordinal] = Extent(entry.segment_id, begin, length, digest)
            if growing.ready:
                self._ready.append(growing)
        await self._commit()

    async def _register_bundle(self, name: str) -> Register:
        """All bundles of a batch belong to one passing upload, called after the first object in them."""
        async with self._beginning:
            if self._bundles_id is None:
                self._bundles_id, _ = await self._begin(name, passing=True)
            ordinal, self._bundles = self._bundles, self._bundles + 1
            return self._register(self._bundles_id, ordinal)

    # --- committing --------------------------------------------------------------------------------------------------

    async def _check(self, growing: _Growing) -> None:
        if growing.ready:
            self._ready.append(growing)
            if growing.upload_id is not None or len(self._ready) >= _LOOK_AHEAD:
                await self._commit()

    async def _commit(self) -> None:
        """Make everything that is ready exist: those with an upload one by one, all others in one transaction."""
        async with self._committing:
            ready, self._ready = list(dict.fromkeys(self._ready)), []
            together = [growing for growing in ready if growing.upload_id is None]
            groups = [[growing] for growing in ready if growing.upload_id is not None]
            for group in (*groups, together):
                if group:
                    await self._commit_group(group, group[0].upload_id)

    async def _commit_group(self, group: Sequence[_Growing], upload_id: bytes | None) -> None:
        catalog, bucket = self._up.catalog, self._bucket
        names = [growing.item.name for growing in group]

        def work() -> list[ObjectEntry]:
            if catalog.bucket(bucket.name) != bucket:
                raise ConflictError(f"the bucket {bucket.name!r} was removed and made anew meanwhile")
            versions = catalog.next_versions(bucket.name, names)
            entries = [self._entry(growing, versions[growing.item.name]) for growing in group]
            catalog.commit(entries, upload_id=upload_id)
            return entries

        for tries_left in reversed(range(_COMMIT_TRIES)):
            try:
                entries = await self._up.offload(work)
            except VersionConflictError:
                # Somebody else was faster: the records are sealed anew, under the versions that come next.
                if not tries_left:
                    raise
            else:
                break
        for name in names:
            await self._supersede(name, by=upload_id)
        self._stored += len(entries)
        self._size += sum(entry.size_bytes for entry in entries)
        self._inlined += sum(len(growing.inline) for growing in group)
        self._meter.objects(len(entries))
        for growing in group:
            del self._under_way[growing.item.name]
            growing.over.set()

    def _entry(self, growing: _Growing, version: int) -> ObjectEntry:
        record = self._record(growing)
        return ObjectEntry(
            bucket=self._bucket.name,
            name=growing.item.name,
            version=version,
            size_bytes=record.size,
            modified_ms=growing.modified_ms,
            content_hash=record.content_hash,
            sealed_record=self._up.vault.seal_object(self._bucket, growing.item.name, version, record),
            segment_ids=tuple(dict.fromkeys(extent.segment_id for extent in record.extents)),
        )

    def _record(self, growing: _Growing) -> AnyObjectRecord:
        # What the format cannot say is cut: an object with an absurd time or mode must stay readable.
        modified_ns = max(-_LATEST_NS, min(growing.modified_ms * 1_000_000, _LATEST_NS))
        mode = growing.item.mode & 0o7777
        if growing.inline:
            return InlineRecord(INLINE_VERSION, growing.inline, modified_ns, mode, ())
        extents = tuple(extent for extent in growing.extents if extent is not None)
        return ObjectRecord(
            version=POINTER_VERSION,
            size=growing.size_bytes,
            content_hash=content_hash(extents),
            extents=extents,
            modified_ns=modified_ns,
            mode=mode,
            metadata=(),
        )


def _read_all(source: Source, size_bytes: int) -> bytes:
    """Up to so many bytes, fewer when the source ends early. Blocks."""
    data = bytearray(size_bytes)
    return bytes(data[: _fill(source, memoryview(data))])


def _fill(source: Source, buffer: memoryview) -> int:
    """Read until `buffer` is full or the source has no more, however little it gives at a time. Blocks."""
    filled = 0
    while filled < len(buffer) and (got := source.read_into(buffer[filled:])):
        filled += got
    return filled


class _Rest:
    """The last bytes of a stream, in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size_bytes: int | None = len(data)
        self.modified_ms = 0

    def read_into(self, buffer: memoryview) -> int:
        part, self._data = self._data[: len(buffer)], self._data[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Nothing to let go of."""
