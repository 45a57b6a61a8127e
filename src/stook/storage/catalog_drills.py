"""What restore drills leave behind in `catalog.db`, in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, case, delete, func, select, update

from stook.errors import ConflictError
from stook.ids import SegmentId
from stook.storage.catalog_rows import bucket_row, read_objects
from stook.storage.catalog_tables import (
    CURRENT,
    buckets,
    certificates,
    drill_days,
    object_segments,
    objects,
    proofs,
    segments,
)
from stook.storage.database import Database, chunks, insert_rows
from stook.storage.drill_ports import (
    DAY_MS,
    ROWS_BYTES,
    BucketProof,
    DrillOutcome,
    DrillSums,
    DrillTarget,
    ObjectProof,
    after,
)
from stook.storage.names import name_bytes
from stook.storage.renter_ports import ObjectEntry

_CHANGING = ("tried_ms", "proved_ms", "spot_ms", "failures", "rows", "why")


class SqlDrills:
    """`drill_ports.Drills` over the catalog's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enlist(self, now_ms: int) -> int:
        """See the port."""
        query = (
            select(object_segments.c.segment)
            .outerjoin(proofs, proofs.c.segment == object_segments.c.segment)
            .where(proofs.c.segment.is_(None))
            .distinct()
        )
        with self._database.read() as connection:  # most calls find nothing, and need not lock out writers for it
            if connection.execute(query.limit(1)).first() is None:
                return 0
        fresh = {"since_ms": now_ms, "tried_ms": 0, "proved_ms": 0, "spot_ms": 0, "failures": 0, "why": ""}
        with self._database.write() as connection:
            numbers = connection.scalars(query).all()
            insert_rows(connection, proofs, [fresh | {"segment": each, "rows": bytes(ROWS_BYTES)} for each in numbers])
        return len(numbers)

    def targets(self, buckets: Iterable[str] | None = None) -> list[DrillTarget]:
        """See the port."""
        query = select(segments.c.segment_id, segments.c.k, segments.c.plain_bytes, proofs).join(
            proofs, proofs.c.segment == segments.c.number
        )
        uses = select(object_segments.c.object).where(object_segments.c.segment == segments.c.number)
        with self._database.read() as connection:
            if buckets is not None:
                numbers = [bucket_row(connection, name).number for name in buckets]
                uses = uses.join(objects, objects.c.number == object_segments.c.object)
                uses = uses.where(objects.c.bucket.in_(numbers))
            rows = connection.execute(query.where(uses.exists()).order_by(segments.c.segment_id))
            return [_target(row) for row in rows]

    def objects_of(self, segment_id: SegmentId) -> list[ObjectEntry]:
        """See the port."""
        query = (
            select(buckets.c.name.label("bucket"), objects.c.name)
            .join(objects, objects.c.bucket == buckets.c.number)
            .join(object_segments, object_segments.c.object == objects.c.number)
            .join(segments, segments.c.number == object_segments.c.segment)
            .where(segments.c.segment_id == segment_id, CURRENT)
            .distinct()
            .order_by(buckets.c.name, objects.c.name)
        )
        found: list[ObjectEntry] = []
        with self._database.read() as connection:
            names: dict[str, dict[bytes, str]] = {}
            for row in connection.execute(query):
                names.setdefault(row.bucket.decode(), {})[row.name] = row.name.decode()
            for bucket, wanted in names.items():
                entries = read_objects(connection, bucket, wanted)
                found += [entries[name] for name in wanted.values()]
        return found

    def record(self, outcome: DrillOutcome) -> None:
        """See the port."""
        with self._database.write() as connection:
            query = (
                select(segments.c.segment_id, segments.c.k, segments.c.plain_bytes, proofs)
                .join(proofs, proofs.c.segment == segments.c.number)
                .where(segments.c.segment_id == outcome.segment_id)
            )
            row = connection.execute(query).one_or_none()
            if row is None:
                return
            now = after(_target(row), outcome)
            values = {name: getattr(now, name) for name in _CHANGING}
            connection.execute(update(proofs).where(proofs.c.segment == row.segment).values(values))
            uses = (
                select(objects.c.bucket)
                .join(object_segments, object_segments.c.object == objects.c.number)
                .where(object_segments.c.segment == row.segment)
                .distinct()
            )
            for bucket in connection.scalars(uses).all():
                _count(connection, bucket, outcome)

    def object_proofs(self, bucket: str, names: Iterable[str]) -> Mapping[str, ObjectProof]:
        """See the port."""
        wanted = {name_bytes(name): name for name in names}
        found = {}
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            for some in chunks(wanted):
                for row in connection.execute(_proved_objects(number).where(objects.c.name.in_(some))):
                    found[wanted[row.name]] = ObjectProof(row.proved_ms, bool(row.failures))
        return found

    def bucket_proof(self, bucket: str) -> BucketProof:
        """See the port."""
        with self._database.read() as connection:
            each = _proved_objects(bucket_row(connection, bucket).number).subquery()
            known = case((each.c.proved_ms > 0, each.c.proved_ms))
            query = select(
                func.coalesce(func.sum(case((each.c.proved_ms == 0, 1), else_=0)), 0).label("never"),
                func.coalesce(func.sum(case((each.c.failures > 0, 1), else_=0)), 0).label("failing"),
                func.coalesce(func.min(known), 0).label("oldest"),
                func.coalesce(func.max(known), 0).label("newest"),
            )
            row = connection.execute(query).one()
        return BucketProof(int(row.never), int(row.failing), row.oldest, row.newest)

    def sums(self, bucket: str, from_ms: int, until_ms: int) -> DrillSums:
        """See the port."""
        days = drill_days.c
        columns = (days.drills, days.failed, days.fetched_bytes, days.asked, days.refused)
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            query = select(*(func.coalesce(func.sum(column), 0) for column in columns))
            query = query.where(days.bucket == number, days.day.between(from_ms // DAY_MS, until_ms // DAY_MS))
            return DrillSums(*(int(value) for value in connection.execute(query).one()))

    def fetched_on(self, now_ms: int) -> int:
        """See the port."""
        query = select(func.coalesce(func.sum(drill_days.c.fetched_bytes), 0))
        with self._database.read() as connection:
            return int(connection.execute(query.where(drill_days.c.day == now_ms // DAY_MS)).scalar_one())

    def add_certificate(self, bucket: str, sequence: int, certificate: bytes) -> None:
        """See the port."""
        with self._database.write() as connection:
            number = bucket_row(connection, bucket).number
            query = select(func.coalesce(func.max(certificates.c.sequence), 0))
            last: int = connection.execute(query.where(certificates.c.bucket == number)).scalar_one()
            if sequence != last + 1:
                raise ConflictError(f"the next certificate of {bucket!r} is number {last + 1}, not {sequence}")
            insert_rows(
                connection, certificates, [{"bucket": number, "sequence": sequence, "certificate": certificate}]
            )

    def certificates(self, bucket: str, limit: int | None = None) -> Sequence[bytes]:
        """See the port."""
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            query = select(certificates.c.certificate).where(certificates.c.bucket == number)
            newest = connection.scalars(query.order_by(certificates.c.sequence.desc()).limit(limit)).all()
        return list(reversed(newest))


def forget_drills(connection: Connection, bucket: int) -> None:
    """Delete what drills left of a bucket; what is known of its segments goes with those."""
    connection.execute(delete(drill_days).where(drill_days.c.bucket == bucket))
    connection.execute(delete(certificates).where(certificates.c.bucket == bucket))


def _target(row: Row[Any]) -> DrillTarget:
    return DrillTarget(
        segment_id=SegmentId(row.segment_id),
        k=row.k,
        plain_bytes=row.plain_bytes,
        since_ms=row.since_ms,
        tried_ms=row.tried_ms,
        proved_ms=row.proved_ms,
        spot_ms=row.spot_ms,
        failures=row.failures,
        rows=row.rows,
        why=row.why,
    )


def _proved_objects(bucket: int) -> Select[Any]:
    """Name, oldest proof and failures of each object of a bucket that has segments."""
    return (
        select(
            objects.c.name,
            func.min(func.coalesce(proofs.c.proved_ms, 0)).label("proved_ms"),
            func.max(func.coalesce(proofs.c.failures, 0)).label("failures"),
        )
        .join(object_segments, object_segments.c.object == objects.c.number)
        .outerjoin(proofs, proofs.c.segment == object_segments.c.segment)
        .where(objects.c.bucket == bucket, CURRENT)
        .group_by(objects.c.number, objects.c.name)
    )


def _count(connection: Connection, bucket: int, outcome: DrillOutcome) -> None:
    days, day = drill_days.c, outcome.at_ms // DAY_MS
    more = {
        "drills": 1,
        "failed": int(not outcome.passed),
        "fetched_bytes": outcome.fetched_bytes,
        "asked": outcome.asked,
        "refused": outcome.refused,
    }
    here = (days.bucket == bucket) & (days.day == day)
    added = {name: days[name] + value for name, value in more.items()}
    if not connection.execute(update(drill_days).where(here).values(added)).rowcount:
        insert_rows(connection, drill_days, [{"bucket": bucket, "day": day} | more])
