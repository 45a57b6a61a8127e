"""Between the catalog's values and the rows of `catalog.db`, and the small statements several calls share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, select, update

from stook.errors import ConflictError, NotFoundError
from stook.ids import SegmentId
from stook.storage.catalog_tables import (
    CURRENT,
    buckets,
    counters,
    garbage,
    multipart_segments,
    object_facts,
    object_segments,
    objects,
    segments,
    upload_segments,
    uploads,
)
from stook.storage.database import chunks, insert_rows
from stook.storage.names import name_bytes
from stook.storage.renter_ports import Bucket, ObjectEntry, SegmentEntry, Upload
from stook.storage.s3_ports import Standing, Versioning

# Statements of the single look-up, built once: building them costs more than running them.
_BUCKET = select(buckets.c.number, buckets.c.version_floor, buckets.c.versioning, buckets.c.lockable).where(
    buckets.c.name == bindparam("name")
)
_OBJECTS = select(objects).where(
    objects.c.bucket == bindparam("bucket"), objects.c.name.in_(bindparam("some", expanding=True)), CURRENT
)
_REFERS = (
    select(object_segments.c.object, segments.c.segment_id)
    .join(segments, segments.c.number == object_segments.c.segment)
    .where(object_segments.c.object.in_(bindparam("some", expanding=True)))
    .order_by(object_segments.c.object, object_segments.c.ordinal)
)


def read_bucket(row: Row[Any]) -> Bucket:
    """The bucket of a row."""
    return Bucket(name=row.name.decode(), bucket_id=row.bucket_id, salt=row.salt, created_ms=row.created_ms)


def read_segment(row: Row[Any]) -> SegmentEntry:
    """The segment of a row."""
    return SegmentEntry(
        segment_id=SegmentId(row.segment_id),
        sealed_record=row.sealed_record,
        plain_bytes=row.plain_bytes,
        plain_hash=row.plain_hash,
        k=row.k,
        total=row.total,
        shard_bytes=row.shard_bytes,
    )


def read_upload(row: Row[Any]) -> Upload:
    """The upload of a row that carries its bucket's name as `bucket_name`."""
    return Upload(
        upload_id=row.upload_id,
        bucket=row.bucket_name.decode(),
        name=row.name.decode(),
        fingerprint=row.fingerprint,
        started_ms=row.started_ms,
        touched_ms=row.touched_ms,
    )


def object_row(number: int, bucket: BucketRow, entry: ObjectEntry) -> dict[str, Any]:
    """The row of an object that is current."""
    return {
        "number": number,
        "bucket": bucket.number,
        "name": name_bytes(entry.name),
        "version": entry.version,
        "size_bytes": entry.size_bytes,
        "modified_ms": entry.modified_ms,
        "content_hash": entry.content_hash,
        "sealed_record": entry.sealed_record,
        "standing": Standing.CURRENT,
        "versioned": bucket.versioning is Versioning.ENABLED,
    }


# ---------------------------------------------------------------------------------------------------- shared statements


@dataclass(frozen=True, slots=True)
class BucketRow:
    """What a transaction needs of a bucket: its number, and the highest version any deleted object of it had."""

    number: int
    version_floor: int
    versioning: Versioning
    lockable: bool


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """What a transaction needs of an object that is current."""

    number: int
    version: int


def bucket_row(connection: Connection, name: str) -> BucketRow:
    """The bucket. Raises `NotFoundError`."""
    key = name.encode(errors="surrogatepass")  # no stored name has a surrogate: such a name is just not found
    row = connection.execute(_BUCKET, {"name": key}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no bucket {name!r}")
    return BucketRow(row.number, row.version_floor, Versioning(row.versioning), bool(row.lockable))


def object_rows(connection: Connection, bucket: int, names: Iterable[bytes]) -> dict[bytes, ObjectRow]:
    """Those of `names` that exist."""
    found = {}
    for some in chunks(names):
        query = select(objects.c.name, objects.c.number, objects.c.version)
        for row in connection.execute(query.where(objects.c.bucket == bucket, objects.c.name.in_(some), CURRENT)):
            found[row.name] = ObjectRow(row.number, row.version)
    return found


def highest_versions(connection: Connection, bucket: BucketRow, names: Iterable[bytes]) -> dict[bytes, int]:
    """The highest version of each name that has any row, old versions and markers included."""
    found: dict[bytes, int] = {}
    for some in chunks(names):
        query = select(objects.c.name, func.max(objects.c.version).label("highest")).group_by(objects.c.name)
        for row in connection.execute(query.where(objects.c.bucket == bucket.number, objects.c.name.in_(some))):
            found[row.name] = row.highest
    return found


def take_numbers(connection: Connection, counter: str, count: int) -> range:
    """`count` fresh numbers in a row. The row of the counter is locked till the end of the transaction."""
    statement = update(counters).where(counters.c.name == counter).values(next=counters.c.next + count)
    connection.execute(statement)
    end: int = connection.execute(select(counters.c.next).where(counters.c.name == counter)).scalar_one()
    return range(end - count, end)


def add_segments(connection: Connection, entries: Sequence[SegmentEntry]) -> dict[SegmentId, int]:
    """Insert new segments; their numbers. Raises `ConflictError` when an id is taken."""
    numbers = take_numbers(connection, "segment", len(entries)) if entries else range(0)
    rows = [
        {
            "number": number,
            "segment_id": entry.segment_id,
            "sealed_record": entry.sealed_record,
            "plain_bytes": entry.plain_bytes,
            "plain_hash": entry.plain_hash,
            "k": entry.k,
            "total": entry.total,
            "shard_bytes": entry.shard_bytes,
        }
        for number, entry in zip(numbers, entries, strict=True)
    ]
    insert_rows(connection, segments, rows)
    return {entry.segment_id: number for number, entry in zip(numbers, entries, strict=True)}


def live_segments(connection: Connection, segment_ids: Collection[SegmentId]) -> dict[SegmentId, int]:
    """Numbers of known segments. Raises `NotFoundError` unless all are known, `ConflictError` when one is garbage."""
    found = {}
    for some in chunks(segment_ids):
        query = (
            select(segments.c.segment_id, segments.c.number, garbage.c.segment)
            .outerjoin(garbage, garbage.c.segment == segments.c.number)
            .where(segments.c.segment_id.in_(some))
        )
        for segment_id, number, dead in connection.execute(query):
            if dead is not None:
                raise ConflictError(f"segment {segment_id.hex()} is given up already: seal it anew")
            found[SegmentId(segment_id)] = number
    for segment_id in segment_ids:
        if segment_id not in found:
            raise NotFoundError(f"there is no segment {segment_id.hex()}")
    return found


def delete_objects(connection: Connection, numbers: Sequence[int]) -> set[int]:
    """Delete objects and their references; the segments they referred to."""
    freed: set[int] = set()
    for some in chunks(numbers):
        which = object_segments.c.object.in_(some)
        freed.update(connection.scalars(select(object_segments.c.segment).where(which)))
        connection.execute(delete(object_segments).where(which))
        connection.execute(delete(object_facts).where(object_facts.c.object.in_(some)))
        connection.execute(delete(objects).where(objects.c.number.in_(some)))
    return freed


def delete_uploads(connection: Connection, numbers: Sequence[int]) -> set[int]:
    """Delete uploads and their references; the segments they referred to."""
    freed: set[int] = set()
    for some in chunks(numbers):
        which = upload_segments.c.upload.in_(some)
        freed.update(connection.scalars(select(upload_segments.c.segment).where(which)))
        connection.execute(delete(upload_segments).where(which))
        connection.execute(delete(uploads).where(uploads.c.number.in_(some)))
    return freed


def bury(connection: Connection, candidates: Collection[int]) -> None:
    """Put those segments that nothing refers to any more on the garbage list. The references decide, not a count."""
    for some in chunks(sorted(candidates)):
        dead = set(some)
        for table in (object_segments, upload_segments, multipart_segments):
            query = select(table.c.segment).where(table.c.segment.in_(some)).distinct()
            dead.difference_update(connection.scalars(query))
        insert_rows(connection, garbage, [{"segment": number} for number in sorted(dead)])


def read_objects(connection: Connection, bucket: str, names: Mapping[bytes, str]) -> dict[str, ObjectEntry]:
    """Those objects of `names` (UTF-8 to name) that exist. Raises `NotFoundError` without the bucket."""
    number = bucket_row(connection, bucket).number
    found = {}
    for some in chunks(names):
        rows = connection.execute(_OBJECTS, {"bucket": number, "some": some}).all()
        refers = _refers(connection, [row.number for row in rows])
        for row in rows:
            name = names[row.name]
            found[name] = ObjectEntry(
                bucket=bucket,
                name=name,
                version=row.version,
                size_bytes=row.size_bytes,
                modified_ms=row.modified_ms,
                content_hash=row.content_hash,
                sealed_record=row.sealed_record,
                segment_ids=tuple(refers.get(row.number, ())),
            )
    return found


def _refers(connection: Connection, numbers: Sequence[int]) -> Mapping[int, list[SegmentId]]:
    """The segment ids each object refers to, in order; objects without any are left out."""
    found: dict[int, list[SegmentId]] = {}
    for number, segment_id in connection.execute(_REFERS, {"some": numbers}) if numbers else ():
        found.setdefault(number, []).append(SegmentId(segment_id))
    return found
