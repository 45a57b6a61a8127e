"""The S3 half of the catalog in SQL: conditions, versions and locks decided inside one transaction each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from stook.codec import decode, encode
from stook.errors import ConflictError, StookError, UserError
from stook.ids import SegmentId
from stook.storage.catalog_keys import SqlKeys
from stook.storage.catalog_multipart import SqlMultipart, multipart_number
from stook.storage.catalog_rows import (
    BucketRow,
    bucket_row,
    bury,
    delete_objects,
    delete_uploads,
    highest_versions,
    live_segments,
    read_bucket,
    take_numbers,
)
from stook.storage.catalog_s3_listing import read_version, walk_names, walk_versions
from stook.storage.catalog_tables import (
    CURRENT,
    bucket_settings,
    buckets,
    object_facts,
    object_segments,
    objects,
    segments,
    uploads,
)
from stook.storage.catalog_versions import forget_multipart, last_version, promote, put_markers, raise_floor, retire
from stook.storage.database import Database, insert_rows, upsert
from stook.storage.names import bucket_name_bytes, name_bytes
from stook.storage.renter_ports import Bucket, ObjectEntry
from stook.storage.s3_ports import (
    MAX_FACT_BYTES,
    BucketFacts,
    BucketStateError,
    ConditionFailedError,
    Conditions,
    Gone,
    Lock,
    LockedError,
    MissingError,
    ObjectDraft,
    ObjectFacts,
    Page,
    Pairs,
    Retention,
    Standing,
    StoredObject,
    Version,
    Versioning,
    Wanted,
    is_version_id,
    make_facts,
    version_id_of,
    version_of_id,
)


class SqlS3(SqlMultipart, SqlKeys):
    """`s3_ports.S3Store` over the catalog's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- buckets

    def make_bucket(self, bucket: Bucket, *, lockable: bool) -> None:
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
                "versioning": Versioning.ENABLED if lockable else Versioning.NEVER,
                "lockable": lockable,
            }
            insert_rows(connection, buckets, [row])

    def bucket(self, name: str) -> BucketFacts:
        """See the port."""
        with self._database.read() as connection:
            number = bucket_row(connection, name).number
            return _bucket_facts(connection.execute(select(buckets).where(buckets.c.number == number)).one())

    def buckets(self) -> list[BucketFacts]:
        """See the port."""
        with self._database.read() as connection:
            return [_bucket_facts(row) for row in connection.execute(select(buckets).order_by(buckets.c.name))]

    def set_versioning(self, name: str, versioning: Versioning) -> None:
        """See the port."""
        with self._database.write() as connection:
            of = bucket_row(connection, name)
            if of.lockable and versioning is not Versioning.ENABLED:
                raise BucketStateError(f"the bucket {name!r} has object lock: its versions cannot be suspended")
            connection.execute(update(buckets).where(buckets.c.number == of.number).values(versioning=versioning))

    def set_lockable(self, name: str) -> None:
        """See the port."""
        with self._database.write() as connection:
            of = bucket_row(connection, name)
            if of.versioning is not Versioning.ENABLED:
                raise BucketStateError(f"object lock needs versions, and the bucket {name!r} keeps none")
            connection.execute(update(buckets).where(buckets.c.number == of.number).values(lockable=1))

    def setting(self, bucket: str, kind: str) -> bytes | None:
        """See the port."""
        table = bucket_settings.c
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            query = select(table.value).where(table.bucket == number, table.kind == kind)
            value: bytes | None = connection.scalar(query)
            return value

    def set_setting(self, bucket: str, kind: str, value: bytes | None) -> None:
        """See the port."""
        table = bucket_settings.c
        with self._database.write() as connection:
            number = bucket_row(connection, bucket).number
            if value is None:
                connection.execute(delete(bucket_settings).where(table.bucket == number, table.kind == kind))
            else:
                row = {"bucket": number, "kind": kind, "value": value}
                connection.execute(upsert(connection, bucket_settings), row)

    def settings(self, bucket: str) -> Mapping[str, bytes]:
        """See the port."""
        table = bucket_settings.c
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            query = select(table.kind, table.value).where(table.bucket == number)
            return {row.kind: row.value for row in connection.execute(query)}

    def highest_version(self, bucket: str) -> int:
        """See the port."""
        with self._database.read() as connection:
            of = bucket_row(connection, bucket)
            highest = connection.scalar(select(func.max(objects.c.version)).where(objects.c.bucket == of.number))
            return max(of.version_floor, highest or 0)

    def remake_bucket(self, facts: BucketFacts, settings: Mapping[str, bytes], floor: int) -> None:
        """See the port."""
        bucket = facts.bucket
        with self._database.write() as connection:
            name = bucket_name_bytes(bucket.name)
            if connection.execute(select(buckets.c.number).where(buckets.c.name == name)).first() is not None:
                raise ConflictError(f"there is a bucket {bucket.name!r} already")
            row = {
                "name": name,
                "bucket_id": bucket.bucket_id,
                "salt": bucket.salt,
                "created_ms": bucket.created_ms,
                "version_floor": floor,
                "versioning": facts.versioning,
                "lockable": facts.lockable,
            }
            insert_rows(connection, buckets, [row])
            number = bucket_row(connection, bucket.name).number
            kept = [{"bucket": number, "kind": kind, "value": value} for kind, value in settings.items()]
            insert_rows(connection, bucket_settings, kept)

    # -- objects

    def commit(self, drafts: Sequence[ObjectDraft], finished: Sequence[bytes] = ()) -> list[Version | StookError]:
        """See the port."""
        results: list[Version | StookError] = []
        with self._database.write() as connection:
            loose: set[int] = set()
            over = [each.upload_id for each in drafts if each.upload_id is not None]
            numbers = connection.scalars(select(uploads.c.number).where(uploads.c.upload_id.in_([*over, *finished])))
            loose |= delete_uploads(connection, numbers.all())
            for draft in drafts:
                try:
                    results.append(_place(connection, draft, loose))
                except StookError as error:  # raised before anything of this draft was written
                    results.append(error)
            bury(connection, loose)
        return results

    def find(self, bucket: str, name: str, version_id: str = "") -> StoredObject | Version | None:
        """See the port."""
        with self._database.read() as connection:
            of = bucket_row(connection, bucket)
            row = _find(connection, of, name, version_id)
            if row is None:
                return None
            version = read_version(row, latest=row.version == _latest(connection, of, name))
            if version.marker:
                return version
            query = (
                select(segments.c.segment_id)
                .join(object_segments, object_segments.c.segment == segments.c.number)
                .where(object_segments.c.object == row.number)
                .order_by(object_segments.c.ordinal)
            )
            refers = tuple(SegmentId(each) for each in connection.scalars(query))
        entry = ObjectEntry(
            bucket=bucket,
            name=name,
            version=row.version,
            size_bytes=row.size_bytes,
            modified_ms=row.modified_ms,
            content_hash=row.content_hash,
            sealed_record=row.sealed_record,
            segment_ids=refers,
        )
        if row.facts is None:
            return StoredObject(version, entry, make_facts(), (), Lock())
        return StoredObject(
            version=version,
            entry=entry,
            facts=decode(ObjectFacts, row.facts, max_bytes=MAX_FACT_BYTES),
            tags=decode(Pairs, row.tags, max_bytes=MAX_FACT_BYTES),
            lock=_lock_of(row),
        )

    def list_names(self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int) -> Page:
        """See the port."""
        with self._database.read() as connection:
            return walk_names(connection, bucket_row(connection, bucket).number, prefix, delimiter, after, limit)

    def list_versions(
        self, bucket: str, *, prefix: str, delimiter: str, after: str, after_version: int, limit: int
    ) -> Page:
        """See the port."""
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            return walk_versions(connection, number, prefix, delimiter, after, after_version, limit)

    def delete(self, bucket: str, wanted: Sequence[Wanted], *, now_ms: int, bypass: bool) -> list[Gone | StookError]:
        """See the port."""
        results: list[Gone | StookError] = []
        with self._database.write() as connection:
            of = bucket_row(connection, bucket)
            loose: set[int] = set()
            for each in wanted:
                try:
                    if each.version_id:
                        results.append(_delete_version(connection, of, each, loose, now_ms, bypass=bypass))
                    else:
                        results.append(_delete_name(connection, of, each, loose, now_ms))
                except StookError as error:
                    results.append(error)
            bury(connection, loose)
        return results

    def set_tags(self, bucket: str, name: str, version_id: str, tags: Pairs) -> str:
        """See the port."""
        with self._database.write() as connection:
            row = _existing(connection, bucket_row(connection, bucket), name, version_id)
            _ensure_facts(connection, row)
            which = object_facts.c.object == row.number
            connection.execute(update(object_facts).where(which).values(tags=encode(tags)))
        return version_id_of(row.version, row.versioned)

    def set_lock(
        self,
        bucket: str,
        name: str,
        version_id: str,
        *,
        now_ms: int,
        bypass: bool = False,
        retention: tuple[Retention, int] | None = None,
        legal_hold: bool | None = None,
    ) -> str:
        """See the port."""
        with self._database.write() as connection:
            of = bucket_row(connection, bucket)
            row = _existing(connection, of, name, version_id)
            if not of.lockable:
                raise BucketStateError(f"the bucket {bucket!r} has no object lock")
            values: dict[str, Any] = {}
            if retention is not None:
                _check_retention(_lock_of(row), retention, now_ms, bypass=bypass)
                values |= {"retention": retention[0], "retain_until_ms": retention[1]}
            if legal_hold is not None:
                values["legal_hold"] = legal_hold
            _ensure_facts(connection, row)
            connection.execute(update(object_facts).where(object_facts.c.object == row.number).values(values))
        return version_id_of(row.version, row.versioned)


def _bucket_facts(row: Row[Any]) -> BucketFacts:
    return BucketFacts(read_bucket(row), Versioning(row.versioning), bool(row.lockable))


def _lock_of(row: Row[Any]) -> Lock:
    if row.facts is None:
        return Lock()
    return Lock(Retention(row.retention), row.retain_until_ms, bool(row.legal_hold))


def _check_retention(now: Lock, wanted: tuple[Retention, int], now_ms: int, *, bypass: bool) -> None:
    """COMPLIANCE is only ever made longer; GOVERNANCE too, without leave to bypass it."""
    mode, until_ms = wanted
    if now.retention is Retention.NONE or now.until_ms <= now_ms:
        return
    longer = mode is not Retention.NONE and until_ms >= now.until_ms and mode >= now.retention
    if not longer and not (bypass and now.retention is Retention.GOVERNANCE):
        raise LockedError("the retention of this version may only be made longer")


# ------------------------------------------------------------------------------------------------------------ finding


def _query(of: BucketRow, name: str) -> Any:
    try:
        key = name.encode()
    except UnicodeEncodeError:
        key = b""
    return (
        select(objects, object_facts)
        .outerjoin(object_facts, object_facts.c.object == objects.c.number)
        .where(objects.c.bucket == of.number, objects.c.name == key)
    )


def _find(connection: Connection, of: BucketRow, name: str, version_id: str = "") -> Row[Any] | None:
    """The row of a version; without one the latest, which may be a marker."""
    query = _query(of, name)
    if not version_id:
        row = connection.execute(query.where(CURRENT)).one_or_none()
        if row is not None or of.versioning is Versioning.NEVER:
            return row
        return connection.execute(query.order_by(objects.c.version.desc()).limit(1)).first()
    if not is_version_id(version_id):
        return None
    number = version_of_id(version_id)
    if number is None:
        return connection.execute(query.where(objects.c.versioned == 0)).first()
    return connection.execute(query.where(objects.c.version == number, objects.c.versioned == 1)).one_or_none()


def _existing(connection: Connection, of: BucketRow, name: str, version_id: str) -> Row[Any]:
    row = _find(connection, of, name, version_id)
    if row is None or row.standing == Standing.MARKER:
        raise MissingError(f"there is no {name!r}" + (f" of version {version_id}" if version_id else ""))
    return row


def _latest(connection: Connection, of: BucketRow, name: str) -> int:
    return highest_versions(connection, of, [name.encode()]).get(name.encode(), 0)


def etag_of(row: Row[Any]) -> str:
    """The entity tag of a row; what came without S3 has one made of its content hash, in a form that no MD5 has."""
    return row.etag if row.etag is not None else f"{row.content_hash[:16].hex()}-0"


def _ensure_facts(connection: Connection, row: Row[Any]) -> None:
    """Objects that came without S3 have no row of facts until something is to be kept there."""
    if row.facts is None:
        insert_rows(connection, object_facts, [_facts_row(row.number, etag_of(row), make_facts(), (), Lock())])


def _facts_row(number: int, etag: str, facts: ObjectFacts, tags: Pairs, lock: Lock) -> dict[str, Any]:
    return {
        "object": number,
        "etag": etag,
        "facts": encode(facts),
        "tags": encode(tags),
        "retention": lock.retention,
        "retain_until_ms": lock.until_ms,
        "legal_hold": lock.legal_hold,
    }


# ------------------------------------------------------------------------------------------------------------ writing


def check_conditions(conditions: Conditions, row: Row[Any] | None) -> None:
    """Raises `ConditionFailedError` or `MissingError` when a write may not replace what is there, if anything."""
    present = row is not None and row.standing != Standing.MARKER
    if conditions.if_match:
        if not present or row is None:
            raise MissingError("there is no object to match")
        if conditions.if_match not in ("*", etag_of(row)):
            raise ConditionFailedError("If-Match", "the object has another entity tag")
    if present and row is not None and conditions.if_none_match in ("*", etag_of(row)):
        raise ConditionFailedError("If-None-Match", "there is such an object already")


def _place(connection: Connection, draft: ObjectDraft, loose: set[int]) -> Version:
    """One draft's part of a transaction. It raises only before it has written anything."""
    of = bucket_row(connection, draft.bucket.name)
    row = connection.execute(select(buckets.c.bucket_id).where(buckets.c.number == of.number)).one()
    if row.bucket_id != draft.bucket.bucket_id:
        raise ConflictError(f"the bucket {draft.bucket.name!r} was removed and made anew meanwhile")
    if (draft.lock.retention or draft.lock.legal_hold) and not of.lockable:
        raise BucketStateError(f"the bucket {draft.bucket.name!r} has no object lock")
    name = name_bytes(draft.name)
    if draft.conditions != Conditions():
        check_conditions(draft.conditions, _find(connection, of, draft.name))
    parts = None if draft.multipart_id is None else multipart_number(connection, draft.multipart_id)
    numbers = live_segments(connection, draft.segment_ids)

    version = last_version(of, highest_versions(connection, of, [name]).get(name)) + 1
    try:
        draft.etag.encode()
        sealed = draft.seal(version)
        facts = _facts_row(0, draft.etag, draft.facts, draft.tags, draft.lock)
    except ValueError as error:  # what cannot be written down is the trouble of this draft alone
        raise UserError(f"the object cannot be kept: {error}") from error
    loose |= retire(connection, of, [name])
    (number,) = take_numbers(connection, "object", 1)
    versioned = of.versioning is Versioning.ENABLED
    object_row = {
        "number": number,
        "bucket": of.number,
        "name": name,
        "version": version,
        "size_bytes": draft.size_bytes,
        "modified_ms": draft.modified_ms,
        "content_hash": draft.content_hash,
        "sealed_record": sealed,
        "standing": Standing.CURRENT,
        "versioned": versioned,
    }
    insert_rows(connection, objects, [object_row])
    insert_rows(connection, object_facts, [facts | {"object": number}])
    refers = [
        {"object": number, "ordinal": ordinal, "segment": numbers[segment_id]}
        for ordinal, segment_id in enumerate(draft.segment_ids)
    ]
    insert_rows(connection, object_segments, refers)
    if parts is not None:
        loose |= forget_multipart(connection, [parts])
    return Version(
        name=draft.name,
        version=version,
        version_id=version_id_of(version, versioned),
        standing=Standing.CURRENT,
        latest=True,
        size_bytes=draft.size_bytes,
        modified_ms=draft.modified_ms,
        content_hash=draft.content_hash,
        etag=draft.etag,
    )


# ----------------------------------------------------------------------------------------------------------- deleting


def _delete_name(connection: Connection, of: BucketRow, wanted: Wanted, loose: set[int], now_ms: int) -> Gone:
    row = _find(connection, of, wanted.name)
    check_conditions(Conditions(if_match=wanted.if_match), row)
    name = name_bytes(wanted.name)
    if of.versioning is Versioning.NEVER:
        if row is not None:
            loose |= delete_objects(connection, [row.number])
            raise_floor(connection, of, row.version)
        return Gone(wanted.name)
    freed, versions = put_markers(connection, of, [name], now_ms=now_ms)
    loose |= freed
    versioned = of.versioning is Versioning.ENABLED
    return Gone(wanted.name, version_id_of(versions[name], versioned), marker=True)


def _delete_version(
    connection: Connection, of: BucketRow, wanted: Wanted, loose: set[int], now_ms: int, *, bypass: bool
) -> Gone:
    row = _find(connection, of, wanted.name, wanted.version_id)
    if wanted.if_match:
        check_conditions(Conditions(if_match=wanted.if_match), row)
    if row is None:
        return Gone(wanted.name, wanted.version_id)
    if _lock_of(row).forbids(now_ms, bypass=bypass):
        raise LockedError("this version is locked")
    loose |= delete_objects(connection, [row.number])
    raise_floor(connection, of, row.version)
    promote(connection, of, row.name)
    return Gone(wanted.name, wanted.version_id, marker=row.standing == Standing.MARKER)
