"""The catalog that `catalog-v4.sql` was dumped from: ``python tests/support/s3_catalog.py FILE`` makes it again."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from stook.ids import SegmentId
from stook.shards.pointer import Extent
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import Bucket, SegmentEntry, Upload
from stook.storage.s3_ports import (
    AccessKey,
    Lock,
    Multipart,
    MultipartPlan,
    ObjectDraft,
    Part,
    PartFacts,
    Retention,
    Right,
    Versioning,
    Wanted,
    make_facts,
)

PHOTOS = Bucket("photos", b"photos----------", b"s" * 32, 7)
LOCKED = Bucket("locked", b"locked----------", b"t" * 32, 8)
MULTIPART = b"m" * 16
PLAN = MultipartPlan(make_facts(part_bytes=(1, 2)), (("t", "1"),), "crc32", "COMPOSITE", 1, 9000, True, "KEY")
FACTS = make_facts(
    headers=(("content-type", "text/plain"),), metadata=(("who", "me"),), checksum=("crc32", "AAAAAA==", "FULL_OBJECT")
)
KEY = AccessKey("KEY", b"sealed secret", (Right("photos", True, False), Right("*", True, True)), "note", 4000)


def sid(number: int) -> SegmentId:
    return SegmentId(number.to_bytes(16, "big"))


def part() -> Part:
    facts = PartFacts((Extent(sid(4), 0, 10, bytes(32)),), ("crc32", "AAAAAA=="))
    return Part(4, 10, 3100, "e" * 32, facts)


def make(path: Path) -> None:
    catalog = SqlCatalog.open(path)
    catalog.s3.make_bucket(PHOTOS, lockable=False)
    catalog.s3.make_bucket(LOCKED, lockable=True)

    def upload(number: int) -> bytes:
        upload_id = bytes([number]) * 16
        catalog.begin_upload(Upload(upload_id, "photos", "n", b"passing:" + upload_id, 1, 1))
        segment = SegmentEntry(sid(number), b"sealed %d" % number, 10, bytes(32), 2, 4, 16384)
        catalog.add_upload_segment(upload_id, 0, segment, 2)
        return upload_id

    def put(bucket: Bucket, name: str, etag: str, number: int = 0, **more: Any) -> None:
        draft = ObjectDraft(
            bucket=bucket,
            name=name,
            size_bytes=10 if number else 0,
            modified_ms=1000,
            content_hash=bytes(32),
            segment_ids=(sid(number),) if number else (),
            seal=lambda version: f"{name} {version}".encode(),
            etag=etag,
            facts=FACTS,
            upload_id=upload(number) if number else None,
            **more,
        )
        catalog.s3.commit([draft])

    put(PHOTOS, "a\0🌾", "first", 1)
    catalog.s3.set_versioning("photos", Versioning.ENABLED)
    put(PHOTOS, "a\0🌾", "second", 2, tags=(("k", "v"),))
    put(PHOTOS, "gone", "third")
    catalog.s3.delete("photos", [Wanted("gone")], now_ms=2000, bypass=False)
    put(LOCKED, "kept", "fourth", lock=Lock(Retention.COMPLIANCE, 5000, True))
    catalog.s3.begin_multipart(Multipart(MULTIPART, "photos", "film", 3000, PLAN))
    catalog.s3.put_part(MULTIPART, part(), upload(4))
    catalog.s3.set_setting("photos", "cors", b"<CORSConfiguration/>")
    catalog.s3.add_key(KEY)
    catalog.s3.revoke_key("KEY", 4500)
    catalog.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "catalog.db")
        make(file)
        database = sqlite3.connect(file)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        Path(sys.argv[1]).write_text("\n".join(database.iterdump()) + "\n")
        database.close()
