"""A bucket of a hundred thousand names, walked page by page."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from stook.ids import SegmentId
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import Bucket, ObjectEntry, SegmentEntry

pytestmark = pytest.mark.system

COUNT = 100_000
STEP = 5_000


def name_of(number: int) -> str:
    return f"{number // 1000:03}/{number:06}"


def commit(catalog: SqlCatalog, numbers: range, version: int = 1) -> None:
    sid = SegmentId(version.to_bytes(8, "big") + numbers.start.to_bytes(8, "big"))
    entries = [ObjectEntry("x", name_of(each), version, 1, 2, bytes(32), b"r", (sid,)) for each in numbers]
    catalog.commit(entries, [SegmentEntry(sid, b"s", 1, bytes(32), 4, 12, 65536)])


def test_a_large_bucket_is_listed_without_gaps(tmp_path: Path) -> None:
    catalog = SqlCatalog.open(tmp_path / "catalog.db")
    catalog.create_bucket(Bucket("x", bytes(16), bytes(32), 0))
    for start in range(0, COUNT, STEP):
        commit(catalog, range(start, start + STEP))
    assert catalog.totals("x").objects == COUNT
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = catalog.list_objects("x", after=after, limit=997)
        seen += [each.name for each in page.objects]
        after = page.next_after
        if after == seen[997 - 1]:
            # Names that come and go behind the page change nothing ahead of it.
            catalog.delete_many("x", [name_of(0), name_of(1)])
    assert seen == [name_of(number) for number in range(COUNT)]
    folders = catalog.list_objects("x", delimiter="/", limit=60)
    more = catalog.list_objects("x", delimiter="/", limit=60, after=folders.next_after or "")
    assert [*folders.prefixes, *more.prefixes] == [f"{number:03}/" for number in range(100)]
    assert more.next_after is None
    catalog.close()


def test_threads_share_one_catalog(tmp_path: Path) -> None:
    catalog = SqlCatalog.open(tmp_path / "catalog.db")
    catalog.create_bucket(Bucket("x", bytes(16), bytes(32), 0))
    faults: list[BaseException] = []

    def work(lane: int) -> None:
        try:
            for version in range(1, 11):
                commit(catalog, range(lane * 50, lane * 50 + 50), version * 8 + lane)
                catalog.list_objects("x", limit=10)
        except BaseException as error:
            faults.append(error)

    lanes = [threading.Thread(target=work, args=(lane,)) for lane in range(8)]
    for each in lanes:
        each.start()
    for each in lanes:
        each.join()
    assert faults == []
    assert catalog.totals("x").objects == 400
    assert len(catalog.garbage(1000)) == 72
    catalog.close()
