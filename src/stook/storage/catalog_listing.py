"""Walking a bucket's names in order, with common prefixes folded into one item each."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, select

from stook.storage.catalog_tables import CURRENT, objects
from stook.storage.names import after_prefix, common_prefix
from stook.storage.renter_ports import ObjectSummary


def walk(
    connection: Connection, bucket: int, prefix: bytes, delimiter: bytes, after: bytes, limit: int
) -> Iterator[ObjectSummary | str]:
    """Objects and common prefixes in order. What a common prefix stands for is jumped over, not read."""
    table = objects.c
    columns = (table.name, table.version, table.size_bytes, table.modified_ms, table.content_hash)
    start = max(prefix, after + b"\0")  # the smallest name above `after`
    passed = common_prefix(after, prefix, delimiter) if after.startswith(prefix) else None
    while True:
        if passed is not None:
            start = max(start, after_prefix(passed))
        query = select(*columns).where(table.bucket == bucket, table.name >= start, CURRENT)
        if prefix:
            query = query.where(table.name < after_prefix(prefix))
        rows = connection.execute(query.order_by(table.name).limit(limit + 1)).all()
        for row in rows:
            if passed is not None and row.name.startswith(passed):
                continue
            passed = common_prefix(row.name, prefix, delimiter)
            if passed is not None:
                yield passed.decode()
            else:
                yield ObjectSummary(row.name.decode(), row.version, row.size_bytes, row.modified_ms, row.content_hash)
        if len(rows) <= limit:
            return
        start = rows[-1].name + b"\0"
