"""Uploads in parts, in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, delete, or_, select

from stook.codec import decode, encode
from stook.storage.catalog_rows import bucket_row, bury, delete_uploads, live_segments
from stook.storage.catalog_tables import multipart, multipart_parts, multipart_segments, uploads
from stook.storage.catalog_versions import forget_multipart
from stook.storage.database import Database, insert_rows
from stook.storage.names import after_prefix, name_bytes
from stook.storage.s3_ports import (
    MAX_FACT_BYTES,
    MAX_PARTS,
    MissingError,
    Multipart,
    MultipartPlan,
    Part,
    PartFacts,
    segments_of,
)

_GONE = "there is no such upload in parts, or it is over"


def multipart_number(connection: Connection, multipart_id: bytes) -> int:
    """Raises `MissingError`."""
    number: int | None = connection.scalar(select(multipart.c.number).where(multipart.c.multipart_id == multipart_id))
    if number is None:
        raise MissingError(_GONE)
    return number


class SqlMultipart:
    """That part of `s3_ports.S3Store`."""

    _database: Database

    def begin_multipart(self, upload: Multipart) -> None:
        """See the port."""
        with self._database.write() as connection:
            row = {
                "multipart_id": upload.multipart_id,
                "bucket": bucket_row(connection, upload.bucket).number,
                "name": name_bytes(upload.name),
                "started_ms": upload.started_ms,
                "plan": encode(upload.plan),
            }
            insert_rows(connection, multipart, [row])

    def multipart(self, bucket: str, name: str, multipart_id: bytes) -> Multipart:
        """See the port."""
        with self._database.read() as connection:
            number = bucket_row(connection, bucket).number
            table = multipart.c
            query = select(multipart).where(table.multipart_id == multipart_id, table.bucket == number)
            row = connection.execute(query).one_or_none()
        if row is None or row.name != name.encode(errors="surrogatepass"):
            raise MissingError(_GONE)
        return _read(row, bucket)

    def multiparts(self, bucket: str, *, prefix: str, after: str, after_id: bytes, limit: int) -> list[Multipart]:
        """See the port."""
        table = multipart.c
        key, start = prefix.encode(errors="surrogatepass"), after.encode(errors="surrogatepass")
        with self._database.read() as connection:
            query = select(multipart).where(table.bucket == bucket_row(connection, bucket).number)
            if start:
                same = and_(table.name == start, table.multipart_id > after_id) if after_id else None
                query = query.where(table.name > start if same is None else or_(table.name > start, same))
            if key:
                query = query.where(table.name >= key, table.name < after_prefix(key))
            rows = connection.execute(query.order_by(table.name, table.multipart_id).limit(limit)).all()
        return [_read(row, bucket) for row in rows]

    def put_part(self, multipart_id: bytes, part: Part, upload_id: bytes) -> None:
        """See the port."""
        with self._database.write() as connection:
            number = multipart_number(connection, multipart_id)
            same = (multipart_segments.c.multipart == number) & (multipart_segments.c.part == part.number)
            loose = set(connection.scalars(select(multipart_segments.c.segment).where(same)))
            connection.execute(delete(multipart_segments).where(same))
            earlier = (multipart_parts.c.multipart == number) & (multipart_parts.c.part == part.number)
            connection.execute(delete(multipart_parts).where(earlier))
            segment_ids = segments_of(part.facts.extents)
            numbers = live_segments(connection, segment_ids)
            row = {
                "multipart": number,
                "part": part.number,
                "size_bytes": part.size_bytes,
                "modified_ms": part.modified_ms,
                "etag": part.etag,
                "facts": encode(part.facts),
            }
            insert_rows(connection, multipart_parts, [row])
            refers = [
                {"multipart": number, "part": part.number, "ordinal": ordinal, "segment": numbers[segment_id]}
                for ordinal, segment_id in enumerate(segment_ids)
            ]
            insert_rows(connection, multipart_segments, refers)
            over = connection.scalars(select(uploads.c.number).where(uploads.c.upload_id == upload_id)).all()
            bury(connection, loose | delete_uploads(connection, over))

    def parts(self, multipart_id: bytes, *, after: int = 0, limit: int = MAX_PARTS) -> list[Part]:
        """See the port."""
        table = multipart_parts.c
        query = (
            select(multipart_parts)
            .join(multipart, multipart.c.number == table.multipart)
            .where(multipart.c.multipart_id == multipart_id, table.part > after)
            .order_by(table.part)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [
                Part(
                    number=row.part,
                    size_bytes=row.size_bytes,
                    modified_ms=row.modified_ms,
                    etag=row.etag,
                    facts=decode(PartFacts, row.facts, max_bytes=MAX_FACT_BYTES),
                )
                for row in connection.execute(query)
            ]

    def abort_multipart(self, bucket: str, name: str, multipart_id: bytes) -> None:
        """See the port."""
        table = multipart.c
        with self._database.write() as connection:
            of = bucket_row(connection, bucket)
            query = select(table.number).where(
                table.multipart_id == multipart_id,
                table.bucket == of.number,
                table.name == name.encode(errors="surrogatepass"),
            )
            numbers = connection.scalars(query).all()
            if not numbers:
                raise MissingError(_GONE)
            bury(connection, forget_multipart(connection, numbers))


def _read(row: Row[Any], bucket: str) -> Multipart:
    return Multipart(
        multipart_id=row.multipart_id,
        bucket=bucket,
        name=row.name.decode(),
        started_ms=row.started_ms,
        plan=decode(MultipartPlan, row.plan, max_bytes=MAX_FACT_BYTES),
    )
