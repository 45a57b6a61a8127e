"""What becomes of a version when another takes its place or its name is deleted. Inside a caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Connection, delete, select, update

from stook.storage.catalog_rows import BucketRow, ObjectRow, delete_objects, highest_versions, take_numbers
from stook.storage.catalog_tables import (
    CURRENT,
    bucket_settings,
    buckets,
    multipart,
    multipart_parts,
    multipart_segments,
    objects,
)
from stook.storage.database import chunks, insert_rows
from stook.storage.s3_ports import Standing, Versioning


def last_version(of: BucketRow, highest: int | None) -> int:
    """The highest version that a name ever had, given the highest that it has now. No version comes twice."""
    if of.versioning is Versioning.NEVER:
        return of.version_floor if highest is None else highest
    return max(highest or 0, of.version_floor)


def retire(connection: Connection, of: BucketRow, names: Iterable[bytes]) -> set[int]:
    """Make way for new current versions of `names`; segments that lost a reference.

    Without versions what was there is deleted. With versions it becomes an old one; while they are suspended, the
    version that is called ``null`` is deleted wherever it stands.
    """
    freed: set[int] = set()
    for some in chunks(names):
        mine = (objects.c.bucket == of.number) & objects.c.name.in_(some)
        if of.versioning is Versioning.NEVER:
            freed |= delete_objects(connection, connection.scalars(select(objects.c.number).where(mine, CURRENT)).all())
            continue
        if of.versioning is Versioning.SUSPENDED:
            # Its number may be the highest its name has: the floor remembers it.
            rows = connection.execute(
                select(objects.c.number, objects.c.version).where(mine, objects.c.versioned == 0)
            ).all()
            freed |= delete_objects(connection, [row.number for row in rows])
            raise_floor(connection, of, max((row.version for row in rows), default=0))
        connection.execute(update(objects).where(mine, CURRENT).values(standing=Standing.OLD))
    return freed


def raise_floor(connection: Connection, of: BucketRow, version: int) -> None:
    """Remember a version that is deleted."""
    statement = update(buckets).where(buckets.c.number == of.number, buckets.c.version_floor < version)
    connection.execute(statement.values(version_floor=version))


def mark_deleted(connection: Connection, of: BucketRow, present: Mapping[bytes, ObjectRow], *, now_ms: int) -> set[int]:
    """Delete the names of `present`; segments that lost a reference. With versions each gets a delete marker."""
    if of.versioning is Versioning.NEVER:
        freed = delete_objects(connection, [row.number for row in present.values()])
        raise_floor(connection, of, max((row.version for row in present.values()), default=0))
        return freed
    return put_markers(connection, of, present, now_ms=now_ms)[0]


def put_markers(
    connection: Connection, of: BucketRow, names: Collection[bytes], *, now_ms: int
) -> tuple[set[int], dict[bytes, int]]:
    """A delete marker for each of `names`, whether there was anything or not; freed segments, and the versions."""
    highest = highest_versions(connection, of, names)
    freed = retire(connection, of, names)
    versions = {name: last_version(of, highest.get(name)) + 1 for name in names}
    numbers = take_numbers(connection, "object", len(versions)) if versions else range(0)
    rows = [
        {
            "number": number,
            "bucket": of.number,
            "name": name,
            "version": version,
            "size_bytes": 0,
            "modified_ms": now_ms,
            "content_hash": bytes(32),
            "sealed_record": b"",
            "standing": Standing.MARKER,
            "versioned": of.versioning is Versioning.ENABLED,
        }
        for number, (name, version) in zip(numbers, versions.items(), strict=True)
    ]
    insert_rows(connection, objects, rows)
    return freed, versions


def promote(connection: Connection, of: BucketRow, name: bytes) -> None:
    """After a version was removed: the highest that is left is what the name stands for, unless it is a marker."""
    mine = (objects.c.bucket == of.number) & (objects.c.name == name)
    top = connection.execute(
        select(objects.c.number, objects.c.standing).where(mine).order_by(objects.c.version.desc()).limit(1)
    ).first()
    if top is not None and top.standing == Standing.OLD:
        connection.execute(update(objects).where(objects.c.number == top.number).values(standing=Standing.CURRENT))


def forget_multipart(connection: Connection, numbers: Iterable[int]) -> set[int]:
    """Delete uploads in parts; the segments they referred to."""
    freed: set[int] = set()
    for some in chunks(numbers):
        which = multipart_segments.c.multipart.in_(some)
        freed.update(connection.scalars(select(multipart_segments.c.segment).where(which)))
        connection.execute(delete(multipart_segments).where(which))
        connection.execute(delete(multipart_parts).where(multipart_parts.c.multipart.in_(some)))
        connection.execute(delete(multipart).where(multipart.c.number.in_(some)))
    return freed


def forget_s3(connection: Connection, bucket: int) -> set[int]:
    """Everything of a bucket that is about to be deleted, but for its objects; segments that lost a reference."""
    connection.execute(delete(bucket_settings).where(bucket_settings.c.bucket == bucket))
    numbers = connection.scalars(select(multipart.c.number).where(multipart.c.bucket == bucket)).all()
    return forget_multipart(connection, numbers)
