"""The S3 half of the catalog: what is decided inside its transactions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stook.errors import ConflictError, NotFoundError, StookError, UserError
from stook.ids import SegmentId
from stook.shards.pointer import Extent
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import Bucket, SegmentEntry, Upload
from stook.storage.s3_ports import (
    AccessKey,
    BucketStateError,
    ConditionFailedError,
    Conditions,
    Gone,
    Lock,
    LockedError,
    MissingError,
    Multipart,
    MultipartPlan,
    ObjectDraft,
    Part,
    PartFacts,
    Retention,
    Right,
    StoredObject,
    Version,
    Versioning,
    Wanted,
    make_facts,
)

BUCKET = Bucket("b", b"b" * 16, b"s" * 32, 5)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    opened = SqlCatalog.open(tmp_path / "catalog.db")
    opened.s3.make_bucket(BUCKET, lockable=False)
    yield opened
    opened.close()


def sid(number: int) -> SegmentId:
    return SegmentId(number.to_bytes(16, "big"))


def segment(number: int) -> SegmentEntry:
    return SegmentEntry(sid(number), b"sealed", 10, bytes(32), 2, 4, 16384)


def upload(catalog: SqlCatalog, number: int, name: str = "k") -> bytes:
    """An upload that owns segment `number`."""
    upload_id = number.to_bytes(16, "little")
    catalog.begin_upload(Upload(upload_id, "b", name, b"passing:" + upload_id, 1, 1))
    catalog.add_upload_segment(upload_id, 0, segment(number), 1)
    return upload_id


def draft(name: str = "k", number: int | None = None, *, etag: str = "e", **more: Any) -> ObjectDraft:
    fields: dict[str, Any] = {
        "bucket": BUCKET,
        "name": name,
        "size_bytes": 10,
        "modified_ms": 7,
        "content_hash": bytes(32),
        "segment_ids": () if number is None else (sid(number),),
        "seal": lambda version: b"version %d" % version,
        "etag": etag,
        "facts": make_facts(headers=(("content-type", "t"),)),
    }
    return ObjectDraft(**(fields | more))


def put(catalog: SqlCatalog, *drafts: ObjectDraft) -> list[Version]:
    results = catalog.s3.commit(drafts)
    for each in results:
        if isinstance(each, StookError):
            raise each
    return [each for each in results if isinstance(each, Version)]


def current(catalog: SqlCatalog, name: str = "k", version_id: str = "") -> StoredObject:
    found = catalog.s3.find("b", name, version_id)
    assert isinstance(found, StoredObject)
    return found


def history(catalog: SqlCatalog, name: str = "k") -> list[tuple[str, str, bool]]:
    page = catalog.s3.list_versions("b", prefix=name, delimiter="", after="", after_version=0, limit=100)
    return [("marker" if each.marker else each.etag, each.version_id[-1:], each.latest) for each in page.items]


def test_an_object_is_sealed_for_the_version_it_gets(catalog: SqlCatalog) -> None:
    upload_id = upload(catalog, 1)
    (made,) = put(catalog, draft(number=1, upload_id=upload_id))
    found = current(catalog)
    assert found.entry.sealed_record == b"version %d" % made.version
    assert (found.entry.segment_ids, found.version.version_id, found.version.latest) == ((sid(1),), "null", True)
    assert found.facts.headers == (("content-type", "t"),)
    assert catalog.stale_uploads(2**60, 9) == []
    put(catalog, draft(etag="f"))
    assert catalog.garbage(9) == [sid(1)]
    assert current(catalog).version.version > made.version
    assert catalog.s3.find("b", "none") is None
    with pytest.raises(NotFoundError):
        catalog.s3.find("nowhere", "k")


def test_conditions_are_judged_one_by_one_in_one_transaction(catalog: SqlCatalog) -> None:
    new = Conditions(if_none_match="*")
    first, second, third, fourth = catalog.s3.commit(
        [
            draft(etag="1", conditions=new),
            draft(etag="2", conditions=new),
            draft(etag="3", conditions=Conditions(if_match="1")),
            draft("other", conditions=Conditions(if_match="x")),
        ]
    )
    assert isinstance(first, Version)
    assert isinstance(second, ConditionFailedError)
    assert isinstance(third, Version)
    assert isinstance(fourth, MissingError)
    assert current(catalog).version.etag == "3"


def test_what_cannot_be_written_down_is_no_other_drafts_trouble(catalog: SqlCatalog) -> None:
    bad = draft("tags", tags=(("a", "\udcff"),)), draft("facts", facts=make_facts(headers=(("a", "\ud800"),)))
    first, *failed, last = catalog.s3.commit([draft("one"), *bad, draft("etag", etag="\udcff"), draft("two")])
    assert isinstance(first, Version)
    assert isinstance(last, Version)
    assert all(isinstance(each, UserError) for each in failed)
    assert catalog.s3.find("b", "tags") is None


def test_of_racing_writers_one_wins(catalog: SqlCatalog, tmp_path: Path) -> None:
    others = [SqlCatalog.open(tmp_path / "catalog.db") for _ in range(4)]
    results: list[object] = []

    def race(mine: SqlCatalog, number: int) -> None:
        results.extend(mine.s3.commit([draft(etag=str(number), conditions=Conditions(if_none_match="*"))]))

    threads = [threading.Thread(target=race, args=(each, number)) for number, each in enumerate(others * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(each, Version) for each in results) == 1
    assert sum(isinstance(each, ConditionFailedError) for each in results) == 7
    for each in others:
        each.close()


def test_a_bucket_made_anew_takes_no_drafts_of_the_old_one(catalog: SqlCatalog) -> None:
    catalog.delete_bucket("b")
    catalog.create_bucket(Bucket("b", b"c" * 16, b"s" * 32, 6))
    (result,) = catalog.s3.commit([draft()])
    assert isinstance(result, ConflictError)


def test_a_draft_that_fails_leaves_its_segments_to_be_collected(catalog: SqlCatalog) -> None:
    put(catalog, draft())
    upload_id = upload(catalog, 1)
    (result,) = catalog.s3.commit([draft(number=1, upload_id=upload_id, conditions=Conditions(if_none_match="*"))])
    assert isinstance(result, ConditionFailedError)
    assert catalog.garbage(9) == [sid(1)]


# -- versions


def test_versions_markers_and_what_comes_back(catalog: SqlCatalog) -> None:
    put(catalog, draft(etag="plain"))
    catalog.s3.set_versioning("b", Versioning.ENABLED)
    one, two = put(catalog, draft(etag="one"))[0], put(catalog, draft(etag="two"))[0]
    assert [each[0] for each in history(catalog)] == ["two", "one", "plain"]
    assert current(catalog, version_id=one.version_id).version.etag == "one"
    assert current(catalog, version_id="null").version.etag == "plain"

    (marked,) = catalog.s3.delete("b", [Wanted("k")], now_ms=9, bypass=False)
    assert isinstance(marked, Gone)
    assert marked.marker
    found = catalog.s3.find("b", "k")
    assert isinstance(found, Version)
    assert found.marker
    assert catalog.s3.list_names("b", prefix="", delimiter="", after="", limit=9).items == ()
    assert catalog.totals("b").objects == 0
    assert [each[2] for each in history(catalog)] == [True, False, False, False]

    catalog.s3.delete("b", [Wanted("k", marked.version_id)], now_ms=9, bypass=False)
    assert current(catalog).version.etag == "two"
    catalog.s3.delete("b", [Wanted("k", two.version_id)], now_ms=9, bypass=False)
    assert current(catalog).version.etag == "one"
    assert put(catalog, draft(etag="three"))[0].version > two.version
    with pytest.raises(ConflictError):
        catalog.delete_bucket("b")


def test_suspended_versions_replace_the_one_called_null(catalog: SqlCatalog) -> None:
    upload_id = upload(catalog, 1)
    put(catalog, draft(number=1, etag="first null", upload_id=upload_id))
    catalog.s3.set_versioning("b", Versioning.ENABLED)
    put(catalog, draft(etag="kept"))
    catalog.s3.set_versioning("b", Versioning.SUSPENDED)
    put(catalog, draft(etag="second null"))
    assert [each[0] for each in history(catalog)] == ["second null", "kept"]
    assert catalog.garbage(9) == [sid(1)]
    catalog.s3.delete("b", [Wanted("k")], now_ms=9, bypass=False)
    assert [(each[0], each[2]) for each in history(catalog)] == [("marker", True), ("kept", False)]


def test_what_comes_without_s3_keeps_versions_too(catalog: SqlCatalog) -> None:
    catalog.s3.set_versioning("b", Versioning.ENABLED)
    put(catalog, draft(etag="one"))
    assert catalog.delete_many("b", ["k", "none"], at_ms=33) == {"k"}
    assert [each[0] for each in history(catalog)] == ["marker", "one"]
    assert catalog.get("b", "k") is None
    assert catalog.next_versions("b", ["k"])["k"] > current(catalog, version_id=history_id(catalog, 1)).version.version


def history_id(catalog: SqlCatalog, place: int) -> str:
    page = catalog.s3.list_versions("b", prefix="k", delimiter="", after="", after_version=0, limit=100)
    return page.items[place].version_id


# -- locks


def test_locks_keep_versions(catalog: SqlCatalog) -> None:
    locked = Bucket("l", b"l" * 16, b"s" * 32, 5)
    catalog.s3.make_bucket(locked, lockable=True)
    with pytest.raises(BucketStateError):
        catalog.s3.set_versioning("l", Versioning.SUSPENDED)
    (refused,) = catalog.s3.commit([draft(lock=Lock(legal_hold=True))])
    assert isinstance(refused, BucketStateError)
    (made,) = put(catalog, draft(bucket=locked, lock=Lock(Retention.GOVERNANCE, 100)))

    def gone(now_ms: int, *, bypass: bool) -> object:
        return catalog.s3.delete("l", [Wanted("k", made.version_id)], now_ms=now_ms, bypass=bypass)[0]

    assert isinstance(gone(50, bypass=False), LockedError)
    with pytest.raises(LockedError):
        catalog.s3.set_lock("l", "k", "", now_ms=50, retention=(Retention.NONE, 0))
    catalog.s3.set_lock("l", "k", "", now_ms=50, retention=(Retention.COMPLIANCE, 200))
    assert isinstance(gone(150, bypass=True), LockedError)
    for weaker in ((Retention.COMPLIANCE, 199), (Retention.GOVERNANCE, 300), (Retention.NONE, 0)):
        with pytest.raises(LockedError):
            catalog.s3.set_lock("l", "k", "", now_ms=50, bypass=True, retention=weaker)
    catalog.s3.set_lock("l", "k", "", now_ms=50, legal_hold=True)
    assert isinstance(gone(500, bypass=True), LockedError)
    catalog.s3.set_lock("l", "k", "", now_ms=50, legal_hold=False)
    assert isinstance(gone(500, bypass=False), Gone)
    catalog.delete_bucket("l")


# -- listing


def test_listing_folds_and_pages_in_byte_order(catalog: SqlCatalog) -> None:
    names = ["a", "a-", "a/", "a//b", "a/x", "a/y/z", "a0", "/a", ".", "..", "\x01", "z\U0001d11e", "z\uffff"]
    put(catalog, *(draft(name) for name in names))
    whole = catalog.s3.list_names("b", prefix="", delimiter="", after="", limit=1000)
    assert [each.name for each in whole.items] == sorted(names, key=str.encode)
    for delimiter in ("", "/", "y/"):
        for limit in (1, 2, 3, 100):
            seen: list[str] = []
            after = ""
            while True:
                page = catalog.s3.list_names("b", prefix="a", delimiter=delimiter, after=after, limit=limit)
                seen += sorted([*(each.name for each in page.items), *page.prefixes], key=str.encode)
                if not page.truncated:
                    break
                after = page.last_name
            plain = [name for name in sorted(names, key=str.encode) if name.startswith("a")]
            folded = [fold(name, "a", delimiter) for name in plain]
            assert seen == list(dict.fromkeys(folded)), (delimiter, limit)
    assert catalog.s3.list_names("b", prefix="", delimiter="", after="", limit=0).truncated is False
    assert catalog.s3.list_names("b", prefix="x" * 2000, delimiter="", after="", limit=5).items == ()


def fold(name: str, prefix: str, delimiter: str) -> str:
    at = name.find(delimiter, len(prefix)) if delimiter else -1
    return name if at < 0 else name[: at + len(delimiter)]


def test_versions_are_paged_within_a_name(catalog: SqlCatalog) -> None:
    catalog.s3.set_versioning("b", Versioning.ENABLED)
    for number in range(5):
        put(catalog, draft("k", etag=f"k{number}"), draft("l/x", etag=f"l{number}"))
    seen: list[tuple[str, str, bool]] = []
    after, after_version = "", 0
    while True:
        page = catalog.s3.list_versions("b", prefix="", delimiter="", after=after, after_version=after_version, limit=3)
        seen += [(each.name, each.etag, each.latest) for each in page.items]
        if not page.truncated:
            break
        after, after_version = page.last_name, page.last_version
    wanted = [(name, f"{name[0]}{number}", number == 4) for name in ("k", "l/x") for number in range(4, -1, -1)]
    assert seen == wanted
    folded = catalog.s3.list_versions("b", prefix="", delimiter="/", after="", after_version=0, limit=100)
    assert (len(folded.items), folded.prefixes) == (5, ("l/",))


# -- uploads in parts


def begin(catalog: SqlCatalog, number: int, name: str = "k") -> bytes:
    multipart_id = b"m" * 15 + bytes([number])
    plan = MultipartPlan(make_facts(), (), "", "", 0, 0, False, "me")
    catalog.s3.begin_multipart(Multipart(multipart_id, "b", name, 3, plan))
    return multipart_id


def part(catalog: SqlCatalog, multipart_id: bytes, number: int, made_of: int) -> Part:
    one = Part(number, 10, 4, "e" * 32, PartFacts((Extent(sid(made_of), 0, 10, bytes(32)),), None))
    catalog.s3.put_part(multipart_id, one, upload(catalog, made_of))
    return one


def test_parts_are_replaced_completed_and_given_up(catalog: SqlCatalog) -> None:
    first = begin(catalog, 1)
    part(catalog, first, 1, 11)
    kept = part(catalog, first, 1, 12)
    part(catalog, first, 7, 13)
    assert catalog.garbage(9) == [sid(11)]
    assert [each.number for each in catalog.s3.parts(first)] == [1, 7]
    assert [each.number for each in catalog.s3.parts(first, after=1)] == [7]
    assert catalog.s3.find("b", "k") is None
    put(catalog, draft(number=12, multipart_id=first))
    assert catalog.s3.parts(first) == []
    assert set(catalog.garbage(9)) == {sid(11), sid(13)}
    assert current(catalog).entry.segment_ids == (kept.facts.extents[0].segment_id,)
    (again,) = catalog.s3.commit([draft(number=12, multipart_id=first)])
    assert isinstance(again, MissingError)
    with pytest.raises(MissingError):
        part(catalog, first, 1, 14)

    second = begin(catalog, 2)
    part(catalog, second, 1, 15)
    with pytest.raises(MissingError):
        catalog.s3.abort_multipart("b", "other", second)
    catalog.s3.abort_multipart("b", "k", second)
    assert sid(15) in catalog.garbage(9)


def test_a_condition_that_fails_leaves_the_upload_usable(catalog: SqlCatalog) -> None:
    put(catalog, draft())
    first = begin(catalog, 1)
    part(catalog, first, 1, 11)
    (refused,) = catalog.s3.commit([draft(number=11, multipart_id=first, conditions=Conditions(if_none_match="*"))])
    assert isinstance(refused, ConditionFailedError)
    assert [each.number for each in catalog.s3.parts(first)] == [1]
    put(catalog, draft(number=11, multipart_id=first))


def test_uploads_in_parts_are_listed_and_go_with_their_bucket(catalog: SqlCatalog) -> None:
    ids = [begin(catalog, number, name) for number, name in enumerate(("b", "a", "a", "c/x"))]
    part(catalog, ids[0], 1, 11)
    store = catalog.s3

    def listed(prefix: str = "", after: str = "", after_id: bytes = b"", limit: int = 9) -> list[tuple[str, int]]:
        page = store.multiparts("b", prefix=prefix, after=after, after_id=after_id, limit=limit)
        return [(each.name, each.multipart_id[-1]) for each in page]

    assert listed() == [("a", 1), ("a", 2), ("b", 0), ("c/x", 3)]
    assert listed(after="a") == [("b", 0), ("c/x", 3)]
    assert listed(after="a", after_id=ids[1]) == [("a", 2), ("b", 0), ("c/x", 3)]
    assert listed(prefix="c/") == [("c/x", 3)]
    assert listed(limit=1) == [("a", 1)]
    catalog.delete_bucket("b")
    assert catalog.garbage(9) == [sid(11)]


# -- the rest


def test_settings_and_tags(catalog: SqlCatalog) -> None:
    assert catalog.s3.setting("b", "cors") is None
    catalog.s3.set_setting("b", "cors", b"one")
    catalog.s3.set_setting("b", "cors", b"two")
    assert catalog.s3.setting("b", "cors") == b"two"
    catalog.s3.set_setting("b", "cors", None)
    assert catalog.s3.setting("b", "cors") is None
    put(catalog, draft())
    catalog.s3.set_tags("b", "k", "", (("a", "1"),))
    assert current(catalog).tags == (("a", "1"),)
    with pytest.raises(MissingError):
        catalog.s3.set_tags("b", "none", "", ())


def test_access_keys(catalog: SqlCatalog) -> None:
    key = AccessKey("K", b"sealed", (Right("b", True, False),), "note", 5)
    catalog.s3.add_key(key)
    with pytest.raises(ConflictError):
        catalog.s3.add_key(key)
    assert catalog.s3.key("K") == key
    assert key.may("b", write=False)
    assert not key.may("b", write=True)
    assert not key.may("c", write=False)
    again = AccessKey("K", b"other", (Right("*", True, True),), "again", 6)
    assert catalog.s3.put_key(again)
    kept = AccessKey("K", b"other", key.rights, "again", 6)
    assert catalog.s3.key("K") == kept
    assert catalog.s3.revoke_key("K", 9)
    assert not catalog.s3.put_key(again), "a key is never in force again"
    assert catalog.s3.put_key(AccessKey("L", b"sealed", (), "", 5))
    assert not catalog.s3.revoke_key("K", 10)
    revoked, _ = catalog.s3.keys()
    assert revoked.revoked_ms == 9
    assert not revoked.may("b", write=False)
