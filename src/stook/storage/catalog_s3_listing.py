"""Walking a bucket's names and versions in byte order, with common prefixes counted once and jumped over."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select

from stook.storage.catalog_tables import CURRENT, object_facts, objects
from stook.storage.names import after_prefix, common_prefix
from stook.storage.s3_ports import Page, Standing, Version, version_id_of

_COLUMNS = (
    objects.c.name,
    objects.c.version,
    objects.c.versioned,
    objects.c.standing,
    objects.c.size_bytes,
    objects.c.modified_ms,
    objects.c.content_hash,
    object_facts.c.etag,
)
_QUERY = select(*_COLUMNS).outerjoin(object_facts, object_facts.c.object == objects.c.number)
_MOST_AT_ONCE = 1001
_VERSION_LIMIT = 2**62


def read_version(row: Row[Any], *, latest: bool) -> Version:
    """The version of a row of `objects` joined with its facts."""
    etag = row.etag if row.etag is not None else f"{row.content_hash[:16].hex()}-0"
    standing = Standing(row.standing)
    return Version(
        name=row.name.decode(),
        version=row.version,
        version_id=version_id_of(row.version, row.versioned),
        standing=standing,
        latest=latest,
        size_bytes=row.size_bytes,
        modified_ms=row.modified_ms,
        content_hash=row.content_hash,
        etag="" if standing is Standing.MARKER else etag,
    )


def walk_names(connection: Connection, bucket: int, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """See `S3Store.list_names`."""
    key, cut, start = _bytes(prefix), _bytes(delimiter), _bytes(after)

    def rows(begin: bytes, count: int) -> list[Row[Any]]:
        query = _QUERY.where(objects.c.bucket == bucket, objects.c.name >= begin, CURRENT)
        if key:
            query = query.where(objects.c.name < after_prefix(key))
        return list(connection.execute(query.order_by(objects.c.name).limit(count)))

    def walk() -> Iterator[Version | str]:
        begin = max(key, start + b"\0" if start else b"")
        passed = common_prefix(start, key, cut) if start.startswith(key) else None
        while True:
            if passed is not None:
                begin = max(begin, after_prefix(passed))
            count = min(limit + 1, _MOST_AT_ONCE)
            some = rows(begin, count)
            for row in some:
                if passed is not None and row.name.startswith(passed):
                    continue
                passed = common_prefix(row.name, key, cut)
                yield read_version(row, latest=True) if passed is None else passed.decode()
            if len(some) < count:
                return
            begin = some[-1].name + b"\0"

    return _page(walk(), limit)


def walk_versions(
    connection: Connection, bucket: int, prefix: str, delimiter: str, after: str, after_version: int, limit: int
) -> Page:
    """See `S3Store.list_versions`."""
    key, cut, start = _bytes(prefix), _bytes(delimiter), _bytes(after)

    def rows(begin: bytes, below: int, count: int) -> list[Row[Any]]:
        # Behind version `below` of the name `begin`; all versions of later names.
        place = or_(objects.c.name > begin, and_(objects.c.name == begin, objects.c.version < below))
        query = _QUERY.where(objects.c.bucket == bucket, objects.c.name >= begin, place)
        if key:
            query = query.where(objects.c.name < after_prefix(key))
        return list(connection.execute(query.order_by(objects.c.name, objects.c.version.desc()).limit(count)))

    def walk() -> Iterator[Version | str]:
        begin, below = (start, after_version) if start >= key and start else (key, _VERSION_LIMIT)
        passed = common_prefix(start, key, cut) if start.startswith(key) else None
        last: bytes | None = start if begin == start and after_version else None
        while True:
            if passed is not None and after_prefix(passed) > begin:
                begin, below = after_prefix(passed), _VERSION_LIMIT
            count = min(limit + 1, _MOST_AT_ONCE)
            some = rows(begin, below, count)
            for row in some:
                if passed is not None and row.name.startswith(passed):
                    continue
                passed = common_prefix(row.name, key, cut)
                if passed is None:
                    yield read_version(row, latest=row.name != last)
                    last = row.name
                else:
                    yield passed.decode()
            if len(some) < count:
                return
            begin, below = some[-1].name, some[-1].version

    return _page(walk(), limit)


def _page(items: Iterator[Version | str], limit: int) -> Page:
    """A page of `limit` items is full, and truncated when one more follows; one of no item never is."""
    page = list(islice(items, limit + 1)) if limit else []
    shown = page[:limit]
    last = shown[-1] if shown else ""
    return Page(
        items=tuple(each for each in shown if isinstance(each, Version)),
        prefixes=tuple(each for each in shown if isinstance(each, str)),
        truncated=len(page) > limit,
        last_name=last.name if isinstance(last, Version) else last,
        last_version=last.version if isinstance(last, Version) else 0,
    )


def _bytes(text: str) -> bytes:
    """A prefix or marker as clients send it: any length, and what is no Unicode matches nothing above it."""
    return text.encode("utf-8", "surrogatepass")
