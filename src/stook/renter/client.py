"""The half of a renter that holds the content keys: buckets, objects, names.

Everything a person does with their files goes through `Client`; it talks to farmers for the bytes and to an `Agent` for
everything else.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from stook.clock import Clock, Entropy, Offload
from stook.errors import ConflictError, CorruptionError, NotEnoughError, NotFoundError, StookError
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, PublicKey
from stook.renter.arrival import Arrivals
from stook.renter.download import Downloader, Target, locate_range, whole
from stook.renter.drill import Driller, OnDrill
from stook.renter.drill_loop import DrillLoop, OnCertificate
from stook.renter.durability import DEFAULT_HAZARD, Hazard
from stook.renter.fetch import Fetcher
from stook.renter.files import BytesSink
from stook.renter.in_order import fetch_in_order
from stook.renter.journal_seal import JournalKeys
from stook.renter.meter import Meter
from stook.renter.mill import Mill
from stook.renter.objects import Objects
from stook.renter.outlook import Outlook, outlook
from stook.renter.pointers import RecoveryPointers
from stook.renter.ports import Agent, AgentStatus, Item, OnProgress, Sink
from stook.renter.push import Pusher
from stook.renter.saver import Saver, SaverRules
from stook.renter.slots import SlotPool
from stook.renter.undo import Undoer, Undone
from stook.renter.upload import Uploaded, Uploader
from stook.renter.vault import Vault
from stook.shards.erasure import Codec
from stook.shards.pointer import AnyObjectRecord
from stook.storage.drill_ports import BucketProof, ObjectProof
from stook.storage.journal_ports import Journal
from stook.storage.journal_records import Point
from stook.storage.presence import MemoryPresence, Presence
from stook.storage.renter_ports import (
    Bucket,
    BucketTotals,
    Catalog,
    Listing,
    ObjectEntry,
    ObjectSummary,
)
from stook.storage.s3_ports import S3Store
from stook.wire.endpoint import Endpoint

_PAGE = 500
_GARBAGE_PAGE = 1000
_GET_PAGE = 2000
INLINE_BYTES = 4096
"""Objects up to this size go into the catalog when they come alone (`docs/decisions/0333`)."""
STALE_UPLOAD_MS = 7 * 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """Everything the owner may know of one object."""

    bucket: str
    name: str
    version: int
    size_bytes: int
    modified_ms: int
    mode: int
    content_hash: bytes
    segments: tuple[SegmentStat, ...]
    proof: ObjectProof | None = None
    """When a restore drill last brought all of it back; None for an empty object, which has nothing at farmers."""


@dataclass(frozen=True, slots=True)
class SegmentStat:
    """One segment of an object: its code, and how many farmers hold a receipted shard of it."""

    segment_id: bytes
    k: int
    r: int
    n: int
    stored: int


@dataclass(frozen=True, slots=True)
class RenterStatus:
    """Sums over everything stored."""

    buckets: Mapping[str, BucketTotals]
    agent: AgentStatus
    segments_unknown: int
    """Segments that objects are made of and the agent knows nothing of: its database was lost, or is another's."""
    proofs: Mapping[str, BucketProof]
    """What restore drills of each bucket came to."""


class Client:
    """Stores and fetches objects. Use it on one event loop; `aclose` it before the endpoint closes."""

    def __init__(
        self,
        *,
        agent: Agent,
        endpoint: Endpoint,
        node_key: PublicKey,
        network: NetworkId,
        content_root: bytes,
        catalog: Catalog,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        codec: Codec,
        slots: SlotPool | None = None,
        presence: Presence | None = None,
    ) -> None:
        # Without a `presence` nobody else may use the catalog; without `slots` memory is this client's own.
        self._agent = agent
        self._node_key = node_key
        self._catalog = catalog
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._network = network
        self._slots = slots = slots if slots is not None else SlotPool()
        self.saver: Saver | None = None
        """Saves the catalog on the network, where it can be saved; see `save_with`."""
        self._arrivals = Arrivals(presence if presence is not None else MemoryPresence(), catalog, offload)
        self._vault = Vault(content_root, network, entropy)
        self._mill = Mill(
            agent=agent,
            pusher=Pusher(agent=agent, endpoint=endpoint, node_key=node_key, clock=clock),
            vault=self._vault,
            slots=slots,
            codec=codec,
            clock=clock,
            entropy=entropy,
            offload=offload,
        )
        self._uploader = Uploader(
            agent=agent,
            node_key=node_key,
            mill=self._mill,
            slots=slots,
            vault=self._vault,
            catalog=catalog,
            clock=clock,
            entropy=entropy,
            offload=offload,
        )
        self._downloader_with = partial(
            Downloader,
            agent=agent,
            node_key=node_key,
            fetcher=Fetcher(agent=agent, endpoint=endpoint, clock=clock, offload=offload),
            vault=self._vault,
            catalog=catalog,
            codec=codec,
            offload=offload,
        )
        self._downloader = self._downloader_with(slots=slots)

        self.driller = Driller(
            agent=agent,
            endpoint=endpoint,
            node_key=node_key,
            network=network,
            slots=slots,
            vault=self._vault,
            catalog=catalog,
            codec=codec,
            clock=clock,
            entropy=entropy,
            offload=offload,
        )
        """Proves that stored objects come back."""

    def save_with(
        self,
        *,
        journal: Journal,
        keys: JournalKeys,
        pointers: RecoveryPointers,
        rules: SaverRules,
        presence: Presence | None = None,
    ) -> Saver:
        """Have the catalog, whose `journal` this is, saved on the network: run its chore, or ask for `recoverable`.

        Without a `presence` no other process may save it.
        """
        self.saver = Saver(
            agent=self._agent,
            node_key=self._node_key,
            network=self._network,
            mill=self._mill,
            slots=self._slots,
            journal=journal,
            keys=keys,
            pointers=pointers,
            clock=self._clock,
            entropy=self._entropy,
            offload=self._offload,
            rules=rules,
            presence=presence,
        )
        return self.saver

    def objects(self, store: S3Store) -> Objects:
        """The way in and out for streams, over the S3 half of the same catalog: open it, and close it before this."""
        return Objects(
            agent=self._agent,
            mill=self._mill,
            slots=self._slots,
            vault=self._vault,
            # What comes in may be read from what goes out, as when a part is copied: room for one never waits for the
            # other, or both would wait for ever.
            downloader=self._downloader_with(slots=SlotPool(self._slots.budget_bytes // 2)),
            arrivals=self._arrivals,
            catalog=self._catalog,
            store=store,
            clock=self._clock,
            entropy=self._entropy,
            offload=self._offload,
        )

    def drill_loop(
        self,
        key: NodeKey,
        bytes_per_day: int,
        *,
        on_drill: OnDrill,
        on_certificate: OnCertificate,
        on_error: Callable[[str, Exception], None],
    ) -> DrillLoop:
        """Drilling without end, for a client that stays open: run its chore. `key` signs the certificates."""
        return DrillLoop(
            driller=self.driller,
            key=key,
            catalog=self._catalog,
            clock=self._clock,
            entropy=self._entropy,
            offload=self._offload,
            bytes_per_day=bytes_per_day,
            on_drill=on_drill,
            on_certificate=on_certificate,
            on_error=on_error,
        )

    async def aclose(self) -> None:
        """Stop what still runs behind: shards beyond the durable ones are then the agent's to fill."""
        await self._mill.aclose()

    # --- buckets -----------------------------------------------------------------------------------------------------

    async def make_bucket(self, name: str) -> Bucket:
        """Create a bucket. Raises `ConflictError` when the name is taken, `UserError` when it is no name."""
        bucket = Bucket(name, self._entropy(16), self._entropy(32), self._clock.now_ms())
        await self._offload(lambda: self._catalog.create_bucket(bucket))
        return bucket

    async def remove_bucket(self, name: str) -> None:
        """Remove an empty bucket. Raises `NotFoundError`, or `ConflictError` while it holds objects."""
        await self._offload(lambda: self._catalog.delete_bucket(name))
        await self.tidy()

    async def buckets(self) -> list[Bucket]:
        """All buckets by name."""
        return await self._offload(self._catalog.buckets)

    # --- in ----------------------------------------------------------------------------------------------------------

    async def put(self, bucket: str, item: Item, *, on_progress: OnProgress | None = None) -> Uploaded:
        """Store one object, whatever was there before; returns when it is durable.

        Where the catalog is saved, a tiny object goes into it, so that it is recoverable too when this returns: many
        that are stored at once are saved as one. Raises `NotEnoughError` when too few farmers took shards. Nothing is
        visible then, but for a tiny object, which is here and will be saved with the rest; running it again goes on.
        """
        saver = self.saver
        inline = INLINE_BYTES if saver is not None and not (await saver.state()).alarm else 0
        uploaded = await self.put_many(
            bucket, [item], on_progress=on_progress, bytes_total=item.size_bytes, again=True, inline_bytes=inline
        )
        if uploaded.inline_bytes and saver is not None:
            await saver.recoverable()
        return uploaded

    async def put_many(
        self,
        bucket: str,
        items: Iterable[Item],
        *,
        on_progress: OnProgress | None = None,
        bytes_total: int | None = None,
        again: bool = False,
        inline_bytes: int = 0,
    ) -> Uploaded:
        """Store many objects; returns when all are durable, but for those of at most `inline_bytes`: they are in the
        catalog then, and durable with its next save.

        Those whose size and time the catalog has already are left alone, unless `again`. Objects that were committed
        before an error stay.
        """
        found = await self._offload(lambda: self._catalog.bucket(bucket))
        meter = Meter(on_progress, bytes_total)
        try:
            async with self._arrivals.begin() as arrival:
                uploaded = await self._uploader.put(
                    found, self._pages(items), meter, arrival, again=again, inline_bytes=inline_bytes
                )
        except Exception:
            await self.tidy()
            raise
        await self.tidy()
        return uploaded

    async def _pages(self, items: Iterable[Item]) -> AsyncIterator[Sequence[Item]]:
        # Walking a directory blocks, so it is done off the loop.
        iterator = iter(items)
        while page := await self._offload(lambda: list(islice(iterator, _PAGE))):
            yield page

    async def settle(self) -> None:
        """Wait until every segment has its n shards, as far as farmers allow."""
        await self._mill.settle()
        await self._agent.settle()

    async def drain(self) -> None:
        """Wait until the shards that uploads left under way have arrived or been given up; see also `settle`."""
        await self._mill.settle()

    # --- out ---------------------------------------------------------------------------------------------------------

    async def get(
        self,
        bucket: str,
        name: str,
        sink: Sink,
        *,
        begin: int = 0,
        end: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Bring bytes `begin` to `end` (the whole, unless given) of one object to `sink`, verified.

        Raises `NotFoundError`, `NotEnoughError` when too few farmers give true bytes, or `ConflictError` when the
        object was replaced or removed meanwhile.
        """
        entry, record = await self._record(bucket, name)
        label = f"{bucket}/{name}"
        first, stop = locate_range(label, entry.size_bytes, begin, end)
        async with self._reading(entry):
            await self._downloader.get([Target(label, record, sink, first, stop)], Meter(on_progress, stop - first))

    async def read(self, bucket: str, name: str, *, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes `begin` to `end` of one object, in memory. Raises as `get`."""
        sink = BytesSink()
        await self.get(bucket, name, sink, begin=begin, end=end)
        return sink.data or b""

    async def stream(
        self,
        bucket: str,
        name: str,
        sink: Sink,
        *,
        begin: int = 0,
        end: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """As `get`, but `sink` is written from its beginning to its end, so that it may be a pipe. Raises as `get`."""
        entry, record = await self._record(bucket, name)
        label = f"{bucket}/{name}"
        first, stop = locate_range(label, entry.size_bytes, begin, end)
        meter = Meter(on_progress, stop - first)
        async with self._reading(entry):
            await fetch_in_order(self._downloader, label, record, sink, first, stop, meter, self._offload)

    @contextlib.asynccontextmanager
    async def _reading(self, entry: ObjectEntry) -> AsyncIterator[None]:
        """Segments that vanish under a reader are no damage when the object was replaced: say what happened."""
        try:
            yield
        except (CorruptionError, NotEnoughError, NotFoundError) as error:
            now = await self._offload(lambda: self._catalog.get(entry.bucket, entry.name))
            if now is not None and now.version == entry.version:
                raise
            what = "removed" if now is None else "replaced"
            raise ConflictError(f"{entry.bucket}/{entry.name} was {what} while it was read") from error

    async def get_many(
        self,
        bucket: str,
        names: Iterable[str],
        sink_of: Callable[[str], Sink],
        *,
        on_progress: OnProgress | None = None,
        bytes_total: int | None = None,
    ) -> int:
        """Bring many objects to the sinks that `sink_of` makes for their names; how many there were.

        Objects that share segments are fetched together, a name that comes twice once. Raises `NotFoundError` naming
        the first that is missing; those of earlier pages are there then.
        """
        found = await self._offload(lambda: self._catalog.bucket(bucket))
        meter = Meter(on_progress, bytes_total)
        iterator, count = iter(names), 0
        while page := await self._offload(lambda: list(dict.fromkeys(islice(iterator, _GET_PAGE)))):
            targets = await self._offload(lambda page=page: self._targets(found, page, sink_of))  # type: ignore[misc]
            await self._downloader.get(targets, meter)
            count += len(page)
        return count

    def _targets(self, bucket: Bucket, names: Sequence[str], sink_of: Callable[[str], Sink]) -> list[Target]:
        entries = self._catalog.get_many(bucket.name, names)
        missing = next((name for name in names if name not in entries), None)
        if missing is not None:
            raise NotFoundError(f"there is no {bucket.name}/{missing}")
        records = [self._vault.open_object(bucket, entries[name]) for name in names]
        # Sinks last: from here on whoever has one is sure to be told to commit or to abort.
        return [
            whole(f"{bucket.name}/{name}", record, sink_of(name)) for name, record in zip(names, records, strict=True)
        ]

    async def _record(self, bucket: str, name: str) -> tuple[ObjectEntry, AnyObjectRecord]:
        def work() -> tuple[ObjectEntry, AnyObjectRecord]:
            found = self._catalog.bucket(bucket)
            entry = self._catalog.get(bucket, name)
            if entry is None:
                raise NotFoundError(f"there is no {bucket}/{name}")
            return entry, self._vault.open_object(found, entry)

        return await self._offload(work)

    # --- looking and removing ----------------------------------------------------------------------------------------

    async def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """One page of names in byte order. Raises `NotFoundError` without the bucket."""
        return await self._offload(
            lambda: self._catalog.list_objects(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        )

    async def walk(self, bucket: str, *, prefix: str = "") -> AsyncIterator[ObjectSummary]:
        """Every object whose name begins with `prefix`, in byte order."""
        after = ""
        while True:
            page = await self.list_objects(bucket, prefix=prefix, after=after, limit=_PAGE)
            for summary in page.objects:
                yield summary
            if page.next_after is None:
                return
            after = page.next_after

    async def stat(self, bucket: str, name: str) -> ObjectStat:
        """All about one object, its segments' health included. Raises `NotFoundError`."""
        entry, record = await self._record(bucket, name)
        located = await self._agent.locate(entry.segment_ids, self._node_key)
        segments = await self._offload(lambda: self._catalog.segments(entry.segment_ids))
        proofs = await self.proofs(bucket, [name])
        return ObjectStat(
            bucket=bucket,
            name=name,
            version=entry.version,
            size_bytes=entry.size_bytes,
            modified_ms=entry.modified_ms,
            mode=record.mode,
            content_hash=entry.content_hash,
            segments=tuple(
                SegmentStat(
                    segment_id=segment_id,
                    k=segments[segment_id].k,
                    r=located[segment_id].facts.policy.r if segment_id in located else segments[segment_id].k,
                    n=located[segment_id].facts.policy.n if segment_id in located else segments[segment_id].total,
                    stored=len(located[segment_id].tickets) if segment_id in located else 0,
                )
                for segment_id in entry.segment_ids
                if segment_id in segments  # else the object was replaced this very moment
            ),
            proof=proofs.get(name),
        )

    async def proofs(self, bucket: str, names: Iterable[str]) -> Mapping[str, ObjectProof]:
        """When objects were last proved restorable; empty and missing ones are left out. Raises `NotFoundError`."""
        wanted = list(names)
        return await self._offload(lambda: self._catalog.drills.object_proofs(bucket, wanted))

    async def modes(self, bucket: str, names: Iterable[str]) -> dict[str, int]:
        """The permission bits of those of `names` that exist. Raises `NotFoundError` without the bucket."""
        wanted = list(names)

        def work() -> dict[str, int]:
            found = self._catalog.bucket(bucket)
            entries = self._catalog.get_many(bucket, wanted)
            return {name: self._vault.open_object(found, entry).mode for name, entry in entries.items()}

        return await self._offload(work)

    async def remove(self, bucket: str, names: Iterable[str]) -> frozenset[str]:
        """Delete objects; the names that existed. Their shards are erased at the farmers by the agent, behind.

        Raises `NotFoundError` without the bucket.
        """
        wanted = list(names)
        gone = await self._offload(lambda: self._catalog.delete_many(bucket, wanted, at_ms=self._clock.now_ms()))
        await self.tidy()
        return gone

    async def status(self) -> RenterStatus:
        """Sums over everything."""
        names = [bucket.name for bucket in await self.buckets()]
        totals = await self._offload(lambda: {name: self._catalog.totals(name) for name in names})
        proofs = await self._offload(lambda: {name: self._catalog.drills.bucket_proof(name) for name in names})
        unknown, after = 0, b""
        while page := await self._offload(partial(self._catalog.segment_ids, after, _GARBAGE_PAGE)):
            unknown += len(page) - len(await self._agent.known(page))
            after = page[-1]
        return RenterStatus(totals, await self._agent.status(), unknown, proofs)

    async def outlook(self, bucket: str, hazard: Hazard = DEFAULT_HAZARD) -> Outlook:
        """How likely a bucket, or some of it, is lost within a year, and what would do it. Raises `NotFoundError`."""
        targets = await self.driller.pool([bucket]).targets()
        wanted = [target.segment_id for target in targets]
        held, farmers = await self._agent.holdings(wanted), await self._agent.farmer_facts()
        return await self._offload(lambda: outlook(wanted, held, farmers, hazard))

    async def saved_points(self) -> tuple[Point, ...]:
        """Moments of the catalog that are saved and kept, oldest first."""
        return () if self.saver is None else await self.saver.points()

    async def bring_back(self, old: Catalog, *, exactly: bool, stores: tuple[S3Store, S3Store] | None = None) -> Undone:
        """Bring back what an older catalog of the same owner names; with `exactly`, remove what it does not.

        `stores` are the S3 halves of the old catalog and of ours: with them what S3 clients said of objects and buckets
        comes back too. Versions that others had taken the place of do not.

        Raises as `Undoer.run`.
        """
        undoer = Undoer(
            old,
            self._catalog,
            self._vault,
            self._agent,
            self._node_key,
            self._clock,
            self._offload,
            stores=stores,
        )
        undone = await undoer.run(exactly=exactly)
        await self.tidy()
        return undone

    async def tidy(self) -> None:
        """Collect garbage behind something that is done: what keeps us from it keeps, for the list of it is durable."""
        with contextlib.suppress(StookError):
            await self.collect_garbage()

    async def collect_garbage(self) -> int:
        """Give up segments that no object refers to any more, and uploads left behind long ago; how many segments.

        Where the catalog is saved, what was replaced or removed since the last save waits for the next.
        """
        count = 0
        before = self._clock.now_ms() - STALE_UPLOAD_MS
        for upload in await self._offload(lambda: self._catalog.stale_uploads(before, _GARBAGE_PAGE)):
            await self._offload(lambda upload=upload: self._catalog.abandon_upload(upload.upload_id))  # type: ignore[misc]
        while page := await self._offload(lambda: self._catalog.garbage(_GARBAGE_PAGE)):
            await self._agent.release(page)
            await self._offload(lambda page=page: self._catalog.confirm_released(page))  # type: ignore[misc]
            count += len(page)
        return count
