"""How fast the catalog takes in small objects: batches of 1,000 in one transaction each.

The yardstick is the same rows through the bare `sqlite3` module, same pragmas, one index less work to look things up.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from pathlib import Path

from bench.common import report
from stook.ids import SegmentId
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import Bucket, ObjectEntry, SegmentEntry


def names_of(count: int) -> list[str]:
    return [f"library/part{number // 100:04}/module_{number:06}.py" for number in range(count)]


def batch_of(names: list[str], version: int, sid: SegmentId) -> list[ObjectEntry]:
    return [ObjectEntry("x", name, version, 9000, 1, bytes(32), os.urandom(220), (sid,)) for name in names]


def through_catalog(folder: Path, names: list[str], size: int, version: int) -> float:
    catalog = SqlCatalog.open(folder / "catalog.db")
    if not catalog.buckets():
        catalog.create_bucket(Bucket("x", bytes(16), bytes(32), 0))
    spent = 0.0
    for at in range(0, len(names), size):
        sid = SegmentId(os.urandom(16))
        entries = batch_of(names[at : at + size], version, sid)
        begun = time.perf_counter()
        catalog.next_versions("x", [each.name for each in entries])
        catalog.commit(entries, [SegmentEntry(sid, os.urandom(900), 1, bytes(32), 4, 12, 1 << 20)])
        spent += time.perf_counter() - begun
    catalog.close()
    return spent


def through_sqlite(folder: Path, names: list[str], size: int) -> float:
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute(
        "CREATE TABLE objects (number INTEGER PRIMARY KEY, bucket INTEGER, name BLOB, version INTEGER, size INTEGER,"
        " modified INTEGER, hash BLOB, record BLOB, UNIQUE (bucket, name))"
    )
    bare.execute(
        "CREATE TABLE refers (object INTEGER, ordinal INTEGER, segment INTEGER, PRIMARY KEY (object, ordinal))"
    )
    bare.execute("CREATE INDEX by_segment ON refers (segment)")
    spent = 0.0
    for at in range(0, len(names), size):
        entries = batch_of(names[at : at + size], 1, SegmentId(bytes(16)))
        begun = time.perf_counter()
        bare.execute("BEGIN IMMEDIATE")
        rows = [
            (at + step, 1, each.name.encode(), 1, each.size_bytes, 1, each.content_hash, each.sealed_record)
            for step, each in enumerate(entries)
        ]
        bare.executemany("INSERT INTO objects VALUES (?,?,?,?,?,?,?,?)", rows)
        bare.executemany("INSERT INTO refers VALUES (?,?,?)", [(row[0], 0, at) for row in rows])
        bare.execute("COMMIT")
        spent += time.perf_counter() - begun
    bare.close()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1000)
    chosen = parser.parse_args()
    names = names_of(chosen.objects)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        fresh = through_catalog(where, names, chosen.batch, 1)
        again = through_catalog(where, names, chosen.batch, 2)
        bare = through_sqlite(where, names, chosen.batch)
        catalog = SqlCatalog.open(where / "catalog.db")
        begun = time.perf_counter()
        after: str | None = ""
        listed = 0
        while after is not None:
            page = catalog.list_objects("x", after=after)
            listed += len(page.objects)
            after = page.next_after
        listing = time.perf_counter() - begun
        begun = time.perf_counter()
        for at in range(0, len(names), chosen.batch):
            catalog.get_many("x", names[at : at + chosen.batch])
        reading = time.perf_counter() - begun
        begun = time.perf_counter()
        for name in names[:1000]:
            catalog.get("x", name)
        single = time.perf_counter() - begun
        catalog.close()
    report(
        "catalog",
        {
            "objects": chosen.objects,
            "batch": chosen.batch,
            "objects_per_s": round(len(names) / fresh),
            "rows_per_s": round(2 * len(names) / fresh),
            "overwrites_per_s": round(len(names) / again),
            "bare_sqlite_objects_per_s": round(len(names) / bare),
            "listed_per_s": round(listed / listing),
            "read_in_batches_per_s": round(len(names) / reading),
            "read_singly_per_s": round(1000 / single),
        },
    )


if __name__ == "__main__":
    main()
