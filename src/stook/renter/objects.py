"""Objects as S3 and the library see them: streams in and out, versions, conditions, uploads in parts.

`Client` is for whole files of a person; this is for whoever serves others. Both work on the same buckets.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from stook.clock import Clock, Entropy, Offload
from stook.errors import ConflictError, CorruptionError, NotEnoughError, NotFoundError
from stook.renter.arrival import Arrivals
from stook.renter.commits import CommitDesk
from stook.renter.download import Downloader
from stook.renter.flock import Flock
from stook.renter.landing import Body, Landed, Lander
from stook.renter.mill import Mill
from stook.renter.ports import Agent
from stook.renter.reading import Reader
from stook.renter.slots import SlotPool
from stook.renter.vault import Vault
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
from stook.storage.renter_ports import Bucket, Catalog
from stook.storage.s3_ports import (
    AccessKey,
    Conditions,
    Lock,
    ObjectDraft,
    ObjectFacts,
    Pairs,
    Part,
    PartFacts,
    S3Store,
    StoredObject,
    Version,
    make_facts,
    segments_of,
)

DEFAULT_MODE = 0o644
_COPY_TRIES = 5


@dataclass(frozen=True, slots=True)
class NewObject:
    """What an object is to be, but for its bytes."""

    bucket: Bucket
    name: str
    etag: str
    facts: ObjectFacts = make_facts()  # noqa: RUF009 - frozen
    tags: Pairs = ()
    lock: Lock = Lock()  # noqa: RUF009 - frozen
    conditions: Conditions = Conditions()  # noqa: RUF009 - frozen
    modified_ms: int | None = None
    """None: now."""
    mode: int = DEFAULT_MODE


class Objects:
    """The way in and out for streams. Open it once for a process; close it before the client closes."""

    def __init__(
        self,
        *,
        agent: Agent,
        mill: Mill,
        slots: SlotPool,
        vault: Vault,
        downloader: Downloader,
        arrivals: Arrivals,
        catalog: Catalog,
        store: S3Store,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
    ) -> None:
        self.store = store
        self.clock = clock
        self.entropy = entropy
        self.offload = offload
        self._vault = vault
        self._arrivals = arrivals
        self._catalog = catalog
        self._exits = AsyncExitStack()
        self._desk = CommitDesk(store, offload)
        self._flock = Flock(
            policy=agent.policy,
            mill=mill,
            slots=slots,
            catalog=catalog,
            clock=clock,
            entropy=entropy,
            offload=offload,
            give_up=self._desk.finish,
        )
        self._lander = Lander(
            policy=agent.policy,
            flock=self._flock,
            mill=mill,
            slots=slots,
            catalog=catalog,
            clock=clock,
            entropy=entropy,
            offload=offload,
            give_up=self._desk.finish,
        )
        self._reader = Reader(downloader)

    async def open(self) -> None:
        """Clear up what the dead left, unless others are at work; while it is open, others leave ours alone."""
        await self._exits.enter_async_context(self._arrivals.begin())

    async def aclose(self) -> None:
        """Commit what waits, and stop the rest."""
        await self._flock.aclose()
        await self._desk.aclose()
        await self._exits.aclose()

    # --- in ----------------------------------------------------------------------------------------------------------

    def land(
        self, bucket: Bucket, name: str, body: Body, size: int | None
    ) -> contextlib.AbstractAsyncContextManager[Landed]:
        """Bring `body` to farmers; inside the block it is durable, and `commit` or `commit_part` makes it count.

        Raises `NotEnoughError` when too few farmers take shards, and what reading the body raises.
        """
        return self._lander.land(bucket, name, body, size)

    async def commit(self, new: NewObject, landed: Landed) -> Version:
        """Make it exist. Raises as `S3Store.commit` says of a draft."""
        return await self._desk.commit(self._draft(new, tuple(landed.extents), upload_id=landed.upload_id))

    async def commit_part(
        self, multipart_id: bytes, number: int, landed: Landed, etag: str, checksum: tuple[str, str] | None
    ) -> Part:
        """Keep it as a part. Raises `MissingError` when the upload is over."""
        part = Part(number, landed.size_bytes, self.clock.now_ms(), etag, PartFacts(tuple(landed.extents), checksum))
        upload_id = landed.upload_id or b""
        await self.offload(lambda: self.store.put_part(multipart_id, part, upload_id))
        return part

    async def share_part(self, multipart_id: bytes, number: int, source: StoredObject, record: ObjectRecord) -> Part:
        """Keep a whole object as a part without moving a byte. Raises `MissingError`, `ConflictError` when it went."""
        facts = PartFacts(record.extents, None)
        part = Part(number, record.size, self.clock.now_ms(), source.version.etag, facts)
        await self.offload(lambda: self.store.put_part(multipart_id, part, b""))
        return part

    async def complete(self, new: NewObject, multipart_id: bytes, parts: Sequence[Part]) -> Version:
        """Make the object of these parts exist, and the upload be over. Raises as `S3Store.commit` says of a draft."""
        extents = tuple(extent for part in parts for extent in part.facts.extents)
        return await self._desk.commit(self._draft(new, extents, multipart_id=multipart_id))

    async def copy(self, new: NewObject, record: AnyObjectRecord) -> Version:
        """Another object of the same bytes; none of them moves. Raises `ConflictError` when the source just went."""
        return await self._desk.commit(self._draft(new, record.extents, data=record.data))

    def _draft(
        self,
        new: NewObject,
        extents: tuple[Extent, ...],
        *,
        upload_id: bytes | None = None,
        multipart_id: bytes | None = None,
        data: bytes = b"",
    ) -> ObjectDraft:
        if len(extents) > MAX_EXTENTS:
            raise ConflictError(f"{new.name} has more than {MAX_EXTENTS} pieces: use larger parts")
        modified_ms = self.clock.now_ms() if new.modified_ms is None else new.modified_ms
        record: AnyObjectRecord
        if data:
            record = InlineRecord(INLINE_VERSION, data, modified_ms * 1_000_000, new.mode, ())
        else:
            record = ObjectRecord(
                version=POINTER_VERSION,
                size=sum(extent.length for extent in extents),
                content_hash=content_hash(extents),
                extents=extents,
                modified_ns=modified_ms * 1_000_000,
                mode=new.mode,
                metadata=(),
            )
        return ObjectDraft(
            bucket=new.bucket,
            name=new.name,
            size_bytes=record.size,
            modified_ms=modified_ms,
            content_hash=record.content_hash,
            segment_ids=segments_of(extents),
            seal=lambda version: self._vault.seal_object(new.bucket, new.name, version, record),
            etag=new.etag,
            facts=new.facts,
            tags=new.tags,
            lock=new.lock,
            conditions=new.conditions,
            upload_id=upload_id,
            multipart_id=multipart_id,
        )

    async def remove_bucket(self, name: str) -> None:
        """Remove an empty bucket. Raises `NotFoundError`, or `ConflictError` while it holds any version."""
        await self.offload(lambda: self._catalog.delete_bucket(name))

    # --- out ---------------------------------------------------------------------------------------------------------

    async def find(self, bucket: str, name: str, version_id: str = "") -> StoredObject | Version | None:
        """As `S3Store.find`."""
        return await self.offload(lambda: self.store.find(bucket, name, version_id))

    def open_record(self, bucket: Bucket, found: StoredObject) -> AnyObjectRecord:
        """Where an object's bytes are. Raises `CorruptionError`."""
        return self._vault.open_object(bucket, found.entry)

    @asynccontextmanager
    async def read(
        self, bucket: Bucket, found: StoredObject, begin: int, end: int
    ) -> AsyncIterator[AsyncIterator[memoryview]]:
        """Bytes `begin` to `end` in order. A version that is removed while it is read ends with `ConflictError`."""
        record = self.open_record(bucket, found)
        label = f"{bucket.name}/{found.version.name}"
        stream = self._reader.stream(label, record, begin, end)
        try:
            async with contextlib.aclosing(stream):  # type: ignore[type-var]
                yield stream
        except (CorruptionError, NotEnoughError, NotFoundError) as error:
            now = await self.find(bucket.name, found.version.name, found.version.version_id)
            if isinstance(now, StoredObject) and now.version.version == found.version.version:
                raise
            raise ConflictError(f"{label} was removed while it was read") from error

    # --- access keys -------------------------------------------------------------------------------------------------

    def seal_secret(self, key_id: str, secret: str) -> bytes:
        """A key's secret as the catalog keeps it."""
        return self._vault.seal_secret(key_id, secret)

    async def keys(self) -> list[AccessKey]:
        """All keys, revoked ones included."""
        return await self.offload(self.store.keys)

    async def revoke(self, key_id: str) -> bool:
        """Whether it was in force."""
        return await self.offload(lambda: self.store.revoke_key(key_id, self.clock.now_ms()))

    async def secret_of(self, key_id: str) -> tuple[AccessKey, str] | None:
        """A key that is in force, and its secret."""
        key = await self.offload(partial(self.store.key, key_id))
        if key is None or key.revoked_ms:
            return None
        return key, self._vault.open_secret(key_id, key.sealed_secret)
