"""Bringing back what a catalog named earlier, beside what it names now: nothing newer is touched unless that is asked.

An object comes back under a new version, like any other that is stored, for versions never come twice. It can come
back while its segments are still at farmers; those whose bytes were erased since are named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from stook.clock import Clock, Offload
from stook.errors import BugError, ConflictError, NotFoundError, StookError
from stook.ids import PublicKey, SegmentId
from stook.renter.ports import Agent
from stook.renter.vault import Vault
from stook.shards.pointer import AnyObjectRecord
from stook.storage.renter_ports import Bucket, Catalog, ObjectEntry, ObjectSummary
from stook.storage.s3_ports import ObjectDraft, S3Store, StoredObject

_PAGE = 200
_NAMES = 20
_VERSIONS_APART = 1 << 32
"""A bucket that was removed had versions after the old catalog was saved, which nobody knows any more: never again."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What came of going back."""

    restored: int
    unchanged: int
    lost: int
    """Objects whose bytes were erased meanwhile."""
    lost_names: tuple[str, ...]
    """The first of them."""
    newer: int
    """Objects that exist now and did not then."""
    removed: int
    """Of those: removed, because that was asked."""


class Undoer:
    """Compares an old catalog with the one in use and brings back what differs."""

    def __init__(
        self,
        old: Catalog,
        catalog: Catalog,
        vault: Vault,
        agent: Agent,
        node_key: PublicKey,
        clock: Clock,
        offload: Offload,
        *,
        stores: tuple[S3Store, S3Store] | None = None,
    ) -> None:
        # `stores` are the S3 halves of both, the old one first: without them only what is not of S3 comes back.
        self._stores = stores
        self._clock = clock
        self._old = old
        self._catalog = catalog
        self._vault = vault
        self._agent = agent
        self._node_key = node_key
        self._offload = offload
        self._restored = self._unchanged = self._lost = self._newer = self._removed = 0
        self._names: list[str] = []

    async def run(self, *, exactly: bool) -> Undone:
        """Bring back every bucket and object. With `exactly`, remove objects that did not exist then.

        Raises `ConflictError` when a bucket's name belongs to another bucket now.
        """
        then = await self._offload(self._old.buckets)
        for bucket in then:
            await self._offload(partial(self._same_bucket, bucket))
            async for page in _pages(self._old, bucket.name, self._offload):
                await self._bring_back(bucket, page)
        for bucket in await self._offload(self._catalog.buckets):
            known = bucket.name in {each.name for each in then}
            async for page in _pages(self._catalog, bucket.name, self._offload):
                await self._newer_than(bucket, page, known=known, exactly=exactly)
        return Undone(self._restored, self._unchanged, self._lost, tuple(self._names), self._newer, self._removed)

    def _same_bucket(self, bucket: Bucket) -> None:
        try:
            now = self._catalog.bucket(bucket.name)
        except NotFoundError:
            if self._stores is None:
                self._catalog.create_bucket(bucket)
                return
            old, store = self._stores
            floor = old.highest_version(bucket.name) + _VERSIONS_APART
            store.remake_bucket(old.bucket(bucket.name), old.settings(bucket.name), floor)
            return
        if now.bucket_id != bucket.bucket_id:
            raise ConflictError(f"the bucket {bucket.name!r} was made anew since: its objects then are not these")

    async def _bring_back(self, bucket: Bucket, page: Sequence[ObjectSummary]) -> None:
        names = [each.name for each in page]
        before, now = await self._offload(
            lambda: (self._old.get_many(bucket.name, names), self._catalog.get_many(bucket.name, names))
        )
        changed = {name: entry for name, entry in before.items() if not _same(entry, now.get(name))}
        self._unchanged += len(before) - len(changed)
        missing = {each for entry in changed.values() for each in entry.segment_ids}
        usable = await self._usable(missing)
        for name, entry in changed.items():
            if usable.issuperset(entry.segment_ids) and await self._offload(partial(self._commit, bucket, entry)):
                self._restored += 1
            else:
                self._lost += 1
                if len(self._names) < _NAMES:
                    self._names.append(f"{bucket.name}/{name}")

    async def _usable(self, segment_ids: set[SegmentId]) -> set[SegmentId]:
        """Those that enough farmers still hold, and that were not given up."""
        located = await self._agent.locate(segment_ids, self._node_key)
        return {each for each, where in located.items() if len(where.tickets) >= where.facts.k}

    def _commit(self, bucket: Bucket, entry: ObjectEntry) -> bool:
        """Whether the object is there again; not when a segment of it is on its way out."""
        record = self._vault.open_object(bucket, entry)
        version = self._catalog.next_versions(bucket.name, [entry.name])[entry.name]
        known = self._catalog.known_segments(entry.segment_ids)
        unknown = self._old.segments([each for each in entry.segment_ids if each not in known])
        if self._stores is not None and not unknown:
            return self._commit_whole(self._stores, bucket, entry, record)
        sealed = self._vault.seal_object(bucket, entry.name, version, record)
        try:
            self._catalog.commit([replace(entry, version=version, sealed_record=sealed)], list(unknown.values()))
        except ConflictError:
            return False
        return True

    def _commit_whole(
        self, stores: tuple[S3Store, S3Store], bucket: Bucket, entry: ObjectEntry, record: AnyObjectRecord
    ) -> bool:
        """The same with everything that S3 clients said of it, its lock above all."""
        old, store = stores
        found = old.find(bucket.name, entry.name)
        if not isinstance(found, StoredObject):
            raise BugError("an object of the old catalog is not in its S3 half")
        draft = ObjectDraft(
            bucket=bucket,
            name=entry.name,
            size_bytes=entry.size_bytes,
            modified_ms=entry.modified_ms,
            content_hash=entry.content_hash,
            segment_ids=entry.segment_ids,
            seal=lambda version: self._vault.seal_object(bucket, entry.name, version, record),
            etag=found.version.etag,
            facts=found.facts,
            tags=found.tags,
            lock=found.lock,
        )
        (result,) = store.commit([draft])
        if isinstance(result, ConflictError):
            return False
        if isinstance(result, StookError):
            raise result
        return True

    async def _newer_than(self, bucket: Bucket, page: Sequence[ObjectSummary], *, known: bool, exactly: bool) -> None:
        names = [each.name for each in page]
        before: Mapping[str, ObjectEntry] = (
            await self._offload(lambda: self._old.get_many(bucket.name, names)) if known else {}
        )
        newer = [name for name in names if name not in before]
        self._newer += len(newer)
        if exactly and newer:
            now_ms = self._clock.now_ms()
            gone = await self._offload(lambda: self._catalog.delete_many(bucket.name, newer, at_ms=now_ms))
            self._removed += len(gone)


def _same(before: ObjectEntry, now: ObjectEntry | None) -> bool:
    return now is not None and (now.version == before.version or now.content_hash == before.content_hash)


async def _pages(catalog: Catalog, bucket: str, offload: Offload) -> AsyncIterator[Sequence[ObjectSummary]]:
    after = ""
    while True:
        page = await offload(partial(catalog.list_objects, bucket, after=after, limit=_PAGE))
        if page.objects:
            yield page.objects
        if page.next_after is None:
            return
        after = page.next_after
