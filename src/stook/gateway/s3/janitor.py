"""Carries out what lifecycle rules decide, bucket by bucket, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from stook.errors import StookError
from stook.gateway.s3.configuration import LIFECYCLE
from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.lifecycle import Rule, expired, parse_rules, stale
from stook.renter.objects import Objects
from stook.storage.s3_ports import MissingError, Pairs, StoredObject, Version, Wanted

_PAGE = 1000


class Janitor:
    """One sweep after the other, as a chore."""

    def __init__(self, objects: Objects, on_error: Callable[[str, Exception], None]) -> None:
        self._objects = objects
        self._on_error = on_error

    async def sweep(self) -> int:
        """Delete everything that is over now; how many versions and uploads."""
        objects, count = self._objects, 0
        for each in await objects.offload(objects.store.buckets):
            bucket = each.bucket.name
            try:
                data = await objects.offload(lambda bucket=bucket: objects.store.setting(bucket, LIFECYCLE))  # type: ignore[misc]
                if data is not None:
                    count += await self._sweep_bucket(bucket, parse_rules(data))
            except (StookError, S3Error) as error:  # the bucket went, or is in trouble: the others have their turn
                self._on_error(f"lifecycle of {bucket}", error)
        return count

    async def _sweep_bucket(self, bucket: str, rules: tuple[Rule, ...]) -> int:
        objects, now_ms, count = self._objects, self._objects.clock.now_ms(), 0
        due: list[Wanted] = []
        async for versions in self._names(bucket):
            tags = await self._tags(bucket, versions[0]) if any(rule.tags for rule in rules) else ()
            due += expired(rules, versions, tags, now_ms)
            if len(due) >= _PAGE:
                count += await self._delete(bucket, due, now_ms)
                due = []
        count += await self._delete(bucket, due, now_ms)
        after, after_id = "", b""
        while True:
            page = await objects.offload(
                lambda after=after, after_id=after_id: objects.store.multiparts(  # type: ignore[misc]
                    bucket, prefix="", after=after, after_id=after_id, limit=_PAGE
                )
            )
            for upload in stale(rules, page, now_ms):
                try:
                    await objects.offload(
                        lambda upload=upload: objects.store.abort_multipart(bucket, upload.name, upload.multipart_id)  # type: ignore[misc]
                    )
                    count += 1
                except MissingError:
                    continue
            if len(page) < _PAGE:
                return count
            after, after_id = page[-1].name, page[-1].multipart_id

    async def _names(self, bucket: str) -> AsyncIterator[list[Version]]:
        """All versions of one name after the other."""
        objects, after, after_version = self._objects, "", 0
        versions: list[Version] = []
        while True:
            page = await objects.offload(
                lambda after=after, after_version=after_version: objects.store.list_versions(  # type: ignore[misc]
                    bucket, prefix="", delimiter="", after=after, after_version=after_version, limit=_PAGE
                )
            )
            for version in page.items:
                if versions and versions[0].name != version.name:
                    yield versions
                    versions = []
                versions.append(version)
            if not page.truncated:
                break
            after, after_version = page.last_name, page.last_version
        if versions:
            yield versions

    async def _tags(self, bucket: str, latest: Version) -> Pairs:
        found = await self._objects.find(bucket, latest.name)
        return found.tags if isinstance(found, StoredObject) else ()

    async def _delete(self, bucket: str, due: list[Wanted], now_ms: int) -> int:
        if not due:
            return 0
        store = self._objects.store
        results = await self._objects.offload(lambda: store.delete(bucket, due, now_ms=now_ms, bypass=False))
        return sum(not isinstance(result, StookError) for result in results)
