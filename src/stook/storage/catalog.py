"""The owner's half in `catalog.db`: buckets, objects, their segments and uploads under way, in SQL.

The file holds names in the clear and records sealed with content keys: it stays with the owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, delete, func, select, update

from stook.errors import ConflictError
from stook.ids import SegmentId
from stook.storage.catalog_drills import SqlDrills, forget_drills
from stook.storage.catalog_listing import walk
from stook.storage.catalog_rows import (
    BucketRow,
    ObjectRow,
    add_segments,
    bucket_row,
    bury,
    delete_uploads,
    highest_versions,
    live_segments,
    object_row,
    object_rows,
    read_bucket,
    read_objects,
    read_segment,
    read_upload,
    take_numbers,
)
from stook.storage.catalog_s3 import SqlS3
from stook.storage.catalog_tables import (
    CATALOG_SCHEMA,
    CURRENT,
    buckets,
    garbage,
    object_segments,
    objects,
    proofs,
    segments,
    upload_segments,
    uploads,
)
from stook.storage.catalog_versions import forget_s3, last_version, mark_deleted, retire
from stook.storage.database import Database, chunks, insert_rows
from stook.storage.journal import SqlJournal, saved_garbage
from stook.storage.names import bucket_name_bytes, name_bytes, prefix_bytes
from stook.storage.renter_ports import (
    MAX_LIST,
    Bucket,
    BucketTotals,
    Listing,
    ObjectEntry,
    ObjectSummary,
    SegmentEntry,
    Upload,
    UploadOverError,
    VersionConflictError,
)


class SqlCatalog:
    """`renter_ports.Catalog` over one database file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.drills = SqlDrills(database)
        self.journal = SqlJournal(database)
        """What of all this is saved on the network."""
        self.s3 = SqlS3(database)

    @classmethod
    def open(cls, path: Path) -> SqlCatalog:
        """The catalog in the file at `path`, made or migrated as needed. Raises as `Database` does."""
        return cls(Database(path, CATALOG_SCHEMA))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # -- buckets

    def create_bucket(self, bucket: Bucket) -> None:
        """See the port."""
        name = bucket_name_bytes(bucket.name)
        with self._database.write() as connection:
            if connection.execute(select(buckets.c.number).where(buckets.c.name == name)).first() is not None:
                raise ConflictError(f"there is a bucket {bucket.name!r} already")
            row = {
                "name": name,
                "bucket_id": bucket.bucket_id,
                "salt": bucket.salt,
                "created_ms": bucket.created_ms,
                "version_floor": 0,
            }
            insert_rows(connection, buckets, [row])

    def bucket(self, name: str) -> Bucket:
        """See the port."""
        with self._database.read() as connection:
            number = bucket_row(connection, name).number
            return read_bucket(connection.execute(select(buckets).where(buckets.c.number == number)).one())

    def buckets(self) -> list[Bucket]:
        """See the port."""
        with self._database.read() as connection:
            return [read_bucket(row) for row in connection.execute(select(buckets).order_by(buckets.c.name))]

    def delete_bucket(self, name: str) -> None:
        """See the port."""
        with self._database.write() as connection:
            number = bucket_row(connection, name).number
            if connection.execute(select(objects.c.number).where(objects.c.bucket == number).limit(1)).first():
                raise ConflictError(f"the bucket {name!r} is not empty")
            left = connection.scalars(select(uploads.c.number).where(uploads.c.bucket == number)).all()
            bury(connection, delete_uploads(connection, left))
            bury(connection, forget_s3(connection, number))
            forget_drills(connection, number)
            connection.execute(delete(buckets).where(buckets.c.number == number))

    def totals(self, bucket: str) -> BucketTotals:
        """See the port."""
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            query = select(func.count(), func.coalesce(func.sum(objects.c.size_bytes), 0))
            count, size = connection.execute(query.where(objects.c.bucket == number, CURRENT)).one()
        return BucketTotals(objects=count, size_bytes=size)

    # -- objects

    def next_versions(self, bucket: str, names: Iterable[str]) -> Mapping[str, int]:
        """See the port."""
        wanted = {name_bytes(name): name for name in names}
        with self._database.read() as connection:
            of = bucket_row(connection, bucket)
            present = highest_versions(connection, of, wanted)
        return {name: last_version(of, present.get(key)) + 1 for key, name in wanted.items()}

    def commit(
        self,
        entries: Sequence[ObjectEntry],
        segments: Sequence[SegmentEntry] = (),
        *,
        upload_id: bytes | None = None,
        expected: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        """See the port."""
        with self._database.write() as connection:
            named = {each.bucket for each in entries} | {bucket for bucket, _ in expected or ()}
            rows = {name: bucket_row(connection, name) for name in sorted(named)}
            _check_versions(connection, rows, entries, expected or {})
            numbers = add_segments(connection, segments)
            loose = set(numbers.values())
            if upload_id is not None:
                loose |= delete_uploads(connection, [_upload_number(connection, upload_id)])
            known = {segment_id for each in entries for segment_id in each.segment_ids} - numbers.keys()
            numbers.update(live_segments(connection, known))
            for of, names in _by_bucket(entries, rows):
                loose |= retire(connection, of, names)
            _insert_objects(connection, entries, rows, numbers)
            bury(connection, loose)

    def get(self, bucket: str, name: str) -> ObjectEntry | None:
        """See the port."""
        return self.get_many(bucket, [name]).get(name)

    def get_many(self, bucket: str, names: Iterable[str]) -> Mapping[str, ObjectEntry]:
        """See the port."""
        wanted = {name_bytes(name): name for name in names}
        with self._database.read() as connection:
            return read_objects(connection, bucket, wanted)

    def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """See the port."""
        if not 1 <= limit <= MAX_LIST:
            raise ValueError(f"a page has 1 to {MAX_LIST} names, not {limit}")
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            names = walk(connection, number, prefix_bytes(prefix), prefix_bytes(delimiter), prefix_bytes(after), limit)
            page = list(islice(names, limit + 1))
        shown = page[:limit]
        last = shown[-1] if len(page) > limit else None
        return Listing(
            objects=tuple(each for each in shown if isinstance(each, ObjectSummary)),
            prefixes=tuple(each for each in shown if isinstance(each, str)),
            next_after=last.name if isinstance(last, ObjectSummary) else last,
        )

    def delete(self, bucket: str, name: str, *, expected: int | None = None, at_ms: int = 0) -> bool:
        """See the port."""
        return bool(self._delete(bucket, [name], expected, at_ms))

    def delete_many(self, bucket: str, names: Iterable[str], *, at_ms: int = 0) -> frozenset[str]:
        """See the port."""
        return self._delete(bucket, names, None, at_ms)

    def _delete(self, bucket: str, names: Iterable[str], expected: int | None, at_ms: int) -> frozenset[str]:
        wanted = {name_bytes(name): name for name in names}
        with self._database.write() as connection:
            of = bucket_row(connection, bucket)
            present = object_rows(connection, of.number, wanted)
            for key, name in wanted.items():
                if expected is not None and expected != _version_of(present.get(key)):
                    raise VersionConflictError([(bucket, name)])
            bury(connection, mark_deleted(connection, of, present, now_ms=at_ms))
        return frozenset(wanted[key] for key in present)

    # -- segments

    def segments(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, SegmentEntry]:
        """See the port."""
        found = {}
        with self._database.read() as connection:
            for some in chunks(segment_ids):
                for row in connection.execute(select(segments).where(segments.c.segment_id.in_(some))):
                    found[SegmentId(row.segment_id)] = read_segment(row)
        return found

    def segment_ids(self, after: bytes, limit: int) -> list[SegmentId]:
        """See the port."""
        query = (
            select(segments.c.segment_id)
            .where(segments.c.segment_id > after)
            .where(select(object_segments.c.object).where(object_segments.c.segment == segments.c.number).exists())
            .order_by(segments.c.segment_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [SegmentId(value) for value in connection.scalars(query)]

    def known_segments(self, segment_ids: Iterable[SegmentId]) -> frozenset[SegmentId]:
        """See the port."""
        found: set[SegmentId] = set()
        with self._database.read() as connection:
            for some in chunks(segment_ids):
                query = select(segments.c.segment_id).where(segments.c.segment_id.in_(some))
                found.update(SegmentId(value) for value in connection.scalars(query))
        return frozenset(found)

    def garbage(self, limit: int) -> list[SegmentId]:
        """See the port."""
        query = (
            select(segments.c.segment_id)
            .join(garbage, garbage.c.segment == segments.c.number)
            .order_by(garbage.c.segment)
            .limit(limit)
        )
        with self._database.read() as connection:
            saved = saved_garbage(connection)
            if saved is None:
                return []
            return [SegmentId(value) for value in connection.scalars(query.where(saved))]

    def confirm_released(self, segment_ids: Iterable[SegmentId]) -> None:
        """See the port."""
        with self._database.write() as connection:
            for some in chunks(segment_ids):
                query = (
                    select(garbage.c.segment)
                    .join(segments, garbage.c.segment == segments.c.number)
                    .where(segments.c.segment_id.in_(some))
                )
                numbers = connection.scalars(query).all()
                connection.execute(delete(garbage).where(garbage.c.segment.in_(numbers)))
                connection.execute(delete(proofs).where(proofs.c.segment.in_(numbers)))
                connection.execute(delete(segments).where(segments.c.number.in_(numbers)))

    # -- uploads

    def begin_upload(self, upload: Upload) -> Upload:
        """See the port."""
        name = name_bytes(upload.name)
        with self._database.write() as connection:
            number = bucket_row(connection, upload.bucket).number
            table = uploads.c
            same = (table.bucket == number) & (table.name == name) & (table.fingerprint == upload.fingerprint)
            earlier = connection.execute(select(uploads).where(same)).one_or_none()
            if earlier is not None:
                connection.execute(update(uploads).where(same).values(touched_ms=upload.touched_ms))
                return Upload(
                    earlier.upload_id,
                    upload.bucket,
                    upload.name,
                    upload.fingerprint,
                    earlier.started_ms,
                    upload.touched_ms,
                )
            row = {
                "upload_id": upload.upload_id,
                "bucket": number,
                "name": name,
                "fingerprint": upload.fingerprint,
                "started_ms": upload.started_ms,
                "touched_ms": upload.touched_ms,
            }
            insert_rows(connection, uploads, [row])
        return upload

    def add_upload_segment(self, upload_id: bytes, ordinal: int, segment: SegmentEntry, at_ms: int) -> None:
        """See the port."""
        with self._database.write() as connection:
            upload = _upload_number(connection, upload_id)
            number = add_segments(connection, [segment])[segment.segment_id]
            same = (upload_segments.c.upload == upload) & (upload_segments.c.ordinal == ordinal)
            before = connection.scalars(select(upload_segments.c.segment).where(same)).all()
            connection.execute(delete(upload_segments).where(same))
            insert_rows(connection, upload_segments, [{"upload": upload, "ordinal": ordinal, "segment": number}])
            bury(connection, before)
            connection.execute(update(uploads).where(uploads.c.number == upload).values(touched_ms=at_ms))

    def upload_segments(self, upload_id: bytes) -> Mapping[int, SegmentEntry]:
        """See the port."""
        query = (
            select(upload_segments.c.ordinal, segments)
            .join(segments, segments.c.number == upload_segments.c.segment)
            .join(uploads, uploads.c.number == upload_segments.c.upload)
            .where(uploads.c.upload_id == upload_id)
            .order_by(upload_segments.c.ordinal)
        )
        with self._database.read() as connection:
            return {row.ordinal: read_segment(row) for row in connection.execute(query)}

    def abandon_upload(self, upload_id: bytes) -> bool:
        """See the port."""
        with self._database.write() as connection:
            numbers = connection.scalars(select(uploads.c.number).where(uploads.c.upload_id == upload_id)).all()
            bury(connection, delete_uploads(connection, numbers))
        return bool(numbers)

    def stale_uploads(self, touched_before_ms: int, limit: int) -> list[Upload]:
        """See the port."""
        query = (
            select(uploads, buckets.c.name.label("bucket_name"))
            .join(buckets, buckets.c.number == uploads.c.bucket)
            .where(uploads.c.touched_ms < touched_before_ms)
            .order_by(uploads.c.touched_ms, uploads.c.number)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [read_upload(row) for row in connection.execute(query)]


def _version_of(row: ObjectRow | None) -> int:
    """The present version; 0: none."""
    return 0 if row is None else row.version


def _by_bucket(
    entries: Sequence[ObjectEntry], rows: Mapping[str, BucketRow]
) -> Iterator[tuple[BucketRow, list[bytes]]]:
    for name, of in rows.items():
        yield of, [name_bytes(each.name) for each in entries if each.bucket == name]


def _check_versions(
    connection: Connection,
    rows: Mapping[str, BucketRow],
    entries: Sequence[ObjectEntry],
    expected: Mapping[tuple[str, str], int],
) -> None:
    """Raises `VersionConflictError`."""
    wrong: list[tuple[str, str]] = []
    for bucket, of in rows.items():
        mine = [each for each in entries if each.bucket == bucket]
        named = {name: version for (where, name), version in expected.items() if where == bucket}
        keys = {name: name_bytes(name) for name in {each.name for each in mine} | named.keys()}
        present = object_rows(connection, of.number, map(name_bytes, named)) if named else {}
        highest = highest_versions(connection, of, keys.values())
        wrong += [(bucket, name) for name, version in named.items() if version != _version_of(present.get(keys[name]))]
        seen: set[str] = set()
        for each in mine:
            if each.version <= last_version(of, highest.get(keys[each.name])) or each.name in seen:
                wrong.append((bucket, each.name))
            seen.add(each.name)
    if wrong:
        raise VersionConflictError(wrong)


def _insert_objects(
    connection: Connection,
    entries: Sequence[ObjectEntry],
    rows: Mapping[str, BucketRow],
    segment_numbers: Mapping[SegmentId, int],
) -> None:
    numbers = take_numbers(connection, "object", len(entries)) if entries else range(0)
    insert_rows(
        connection,
        objects,
        [object_row(number, rows[each.bucket], each) for number, each in zip(numbers, entries, strict=True)],
    )
    refers = [
        {"object": number, "ordinal": ordinal, "segment": segment_numbers[segment_id]}
        for number, each in zip(numbers, entries, strict=True)
        for ordinal, segment_id in enumerate(each.segment_ids)
    ]
    insert_rows(connection, object_segments, refers)


def _upload_number(connection: Connection, upload_id: bytes) -> int:
    number: int | None = connection.scalar(select(uploads.c.number).where(uploads.c.upload_id == upload_id))
    if number is None:
        raise UploadOverError(upload_id)
    return number
