"""What every catalog promises (`stook.storage.renter_ports.Catalog`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stook.errors import ConflictError, NotFoundError, UserError
from stook.ids import SegmentId
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_memory import MemoryCatalog
from stook.storage.renter_ports import (
    Bucket,
    BucketTotals,
    Catalog,
    ObjectEntry,
    SegmentEntry,
    Upload,
    VersionConflictError,
)

ADAPTERS: dict[str, Callable[[Path], Catalog]] = {
    "sqlite": lambda folder: SqlCatalog.open(folder / "catalog.db"),
    "memory": lambda folder: MemoryCatalog(),
}


@pytest.fixture(params=ADAPTERS)
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    opened = ADAPTERS[request.param](tmp_path)
    opened.create_bucket(bucket("photos"))
    yield opened
    opened.close()


def bucket(name: str) -> Bucket:
    return Bucket(name, name.encode().ljust(16, b"-")[:16], bytes(32), created_ms=7)


def sid(number: int) -> SegmentId:
    return SegmentId(number.to_bytes(16, "big"))


def segment(number: int) -> SegmentEntry:
    return SegmentEntry(sid(number), b"sealed %d" % number, 100 + number, bytes([number % 256]) * 32, 4, 12, 65536)


def entry(name: str, version: int = 1, *refers: int, where: str = "photos", size: int = 10) -> ObjectEntry:
    record = f"{name} {version}".encode("utf-8", "replace")
    return ObjectEntry(
        where, name, version, size, 1000 + version, b"c" * 32, record, tuple(sid(each) for each in refers)
    )


def upload(number: int, name: str = "film", *, fingerprint: bytes = b"f", at: int = 10) -> Upload:
    return Upload(bytes([number]) * 16, "photos", name, fingerprint, at, at)


def names(catalog: Catalog, **options: object) -> list[str]:
    return [each.name for each in catalog.list_objects("photos", **options).objects]  # type: ignore[arg-type]


# -- buckets


def test_a_bucket_is_kept_as_it_was_given(catalog: Catalog) -> None:
    assert catalog.bucket("photos") == bucket("photos")
    catalog.create_bucket(bucket("a"))
    catalog.create_bucket(bucket("Älbum"))
    assert [each.name for each in catalog.buckets()] == ["a", "photos", "Älbum"]


def test_a_bucket_is_made_once(catalog: Catalog) -> None:
    with pytest.raises(ConflictError):
        catalog.create_bucket(bucket("photos"))


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "\0", "\udc80", "x" * 64])
def test_a_bucket_name_can_be_typed(catalog: Catalog, name: str) -> None:
    with pytest.raises(UserError):
        catalog.create_bucket(Bucket(name, b"i" * 16, bytes(32), 0))


def test_only_an_empty_bucket_is_deleted(catalog: Catalog) -> None:
    catalog.commit([entry("x")])
    with pytest.raises(ConflictError):
        catalog.delete_bucket("photos")
    catalog.delete("photos", "x")
    catalog.delete_bucket("photos")
    assert catalog.buckets() == []


def test_uploads_go_with_their_bucket(catalog: Catalog) -> None:
    catalog.begin_upload(upload(1))
    catalog.add_upload_segment(upload(1).upload_id, 0, segment(1), 11)
    catalog.delete_bucket("photos")
    assert catalog.garbage(10) == [sid(1)]
    assert catalog.stale_uploads(10**15, 10) == []


@pytest.mark.parametrize("name", ["nowhere", "\udc80", "?"])
def test_a_missing_bucket_is_said_to_be_missing(catalog: Catalog, name: str) -> None:
    for ask in (
        lambda: catalog.bucket(name),
        lambda: catalog.totals(name),
        lambda: catalog.get(name, "x"),
        lambda: catalog.list_objects(name),
        lambda: catalog.delete(name, "x"),
        lambda: catalog.next_versions(name, ["x"]),
        lambda: catalog.delete_bucket(name),
        lambda: catalog.commit([entry("x", where=name)]),
        lambda: catalog.begin_upload(Upload(b"u" * 16, name, "x", b"", 1, 1)),
    ):
        with pytest.raises(NotFoundError):
            ask()


# -- objects


def test_what_was_committed_is_got(catalog: Catalog) -> None:
    two = entry("two", 1, 1, 2)
    catalog.commit([entry("none"), two], [segment(1), segment(2)])
    assert catalog.get("photos", "two") == two
    assert catalog.get_many("photos", ["two", "none", "three"]) == {"two": two, "none": entry("none")}
    assert catalog.get("photos", "three") is None
    assert catalog.segments([sid(1), sid(9)]) == {sid(1): segment(1)}
    assert catalog.known_segments([sid(1), sid(9)]) == {sid(1)}
    assert catalog.totals("photos") == BucketTotals(2, 20)


def test_segments_keep_their_order(catalog: Catalog) -> None:
    catalog.commit([entry("x", 1, 3, 1, 2)], [segment(1), segment(2), segment(3)])
    got = catalog.get("photos", "x")
    assert got is not None
    assert got.segment_ids == (sid(3), sid(1), sid(2))


def test_nothing_of_a_failed_commit_is_kept(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError):
        catalog.commit([entry("x", 1, 1), entry("y", 1, 9)], [segment(1)])
    assert names(catalog) == []
    assert catalog.known_segments([sid(1)]) == frozenset()


def test_overwriting_leaves_garbage_until_it_is_released(catalog: Catalog) -> None:
    catalog.commit([entry("x", 1, 1, 2)], [segment(1), segment(2)])
    catalog.commit([entry("x", 2, 2, 3)], [segment(3)])
    assert catalog.garbage(10) == [sid(1)]
    catalog.confirm_released([sid(1), sid(2)])
    assert catalog.garbage(10) == []
    assert catalog.known_segments([sid(1), sid(2), sid(3)]) == {sid(2), sid(3)}


def test_segments_in_use_are_those_of_objects_in_order_of_id(catalog: Catalog) -> None:
    catalog.commit([entry("a", 1, 7, 3), entry("b", 1, 3, 5)], [segment(3), segment(5), segment(7)])
    catalog.begin_upload(upload(1))
    catalog.add_upload_segment(upload(1).upload_id, 0, segment(4), at_ms=10)
    assert catalog.segment_ids(b"", 10) == [sid(3), sid(5), sid(7)]
    assert catalog.segment_ids(sid(3), 1) == [sid(5)]
    catalog.delete("photos", "a")
    assert catalog.segment_ids(b"", 10) == [sid(3), sid(5)]


def test_a_shared_segment_lives_as_long_as_one_object(catalog: Catalog) -> None:
    catalog.commit([entry("a", 1, 1), entry("b", 1, 1), entry("c", 1, 1)], [segment(1)])
    assert catalog.delete_many("photos", ["a", "b", "z"]) == {"a", "b"}
    assert catalog.garbage(10) == []
    assert catalog.delete("photos", "c")
    assert catalog.garbage(10) == [sid(1)]


def test_garbage_is_never_used_again(catalog: Catalog) -> None:
    catalog.commit([entry("a", 1, 1)], [segment(1)])
    catalog.delete("photos", "a")
    with pytest.raises(ConflictError):
        catalog.commit([entry("b", 2, 1)])
    assert catalog.garbage(10) == [sid(1)]


def test_a_new_segment_nobody_refers_to_is_garbage(catalog: Catalog) -> None:
    catalog.commit([entry("a", 1, 1)], [segment(1), segment(2)])
    assert catalog.garbage(10) == [sid(2)]


def test_a_segment_id_is_taken_once(catalog: Catalog) -> None:
    catalog.commit([entry("a", 1, 1)], [segment(1)])
    with pytest.raises(ConflictError):
        catalog.commit([entry("b", 1, 1)], [segment(1)])
    with pytest.raises(ConflictError):
        catalog.commit([entry("b", 1, 2)], [segment(2), segment(2)])
    assert names(catalog) == ["a"]


def test_garbage_comes_oldest_first(catalog: Catalog) -> None:
    catalog.commit([entry("a", 1, 5), entry("b", 1, 3), entry("c", 1, 4)], [segment(5), segment(3), segment(4)])
    catalog.delete_many("photos", ["c", "b", "a"])
    assert catalog.garbage(2) == [sid(5), sid(3)]


def test_delete_says_whether_it_existed(catalog: Catalog) -> None:
    catalog.commit([entry("a")])
    assert catalog.delete("photos", "a") is True
    assert catalog.delete("photos", "a") is False


# -- versions and conditions


def test_versions_never_come_twice(catalog: Catalog) -> None:
    assert catalog.next_versions("photos", ["a", "b"]) == {"a": 1, "b": 1}
    catalog.commit([entry("a", 1)])
    catalog.commit([entry("a", 2)])
    assert catalog.next_versions("photos", ["a", "b"]) == {"a": 3, "b": 1}
    catalog.delete("photos", "a")
    assert catalog.next_versions("photos", ["a"]) == {"a": 3}


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_commit_on_old_knowledge_is_refused(catalog: Catalog, version: int) -> None:
    catalog.commit([entry("a", 2)])
    with pytest.raises(VersionConflictError) as caught:
        catalog.commit([entry("b"), entry("a", version)])
    assert caught.value.names == (("photos", "a"),)
    assert names(catalog) == ["a"]


def test_a_name_comes_once_in_a_commit(catalog: Catalog) -> None:
    with pytest.raises(VersionConflictError):
        catalog.commit([entry("a", 1), entry("a", 2)])


def test_conditions_are_decided_inside(catalog: Catalog) -> None:
    catalog.commit([entry("a", 1)], expected={("photos", "a"): 0})
    with pytest.raises(VersionConflictError):
        catalog.commit([entry("a", 2)], expected={("photos", "a"): 0})
    with pytest.raises(VersionConflictError):
        catalog.commit([entry("a", 3)], expected={("photos", "a"): 2})
    catalog.commit([entry("a", 3)], expected={("photos", "a"): 1, ("photos", "b"): 0})
    with pytest.raises(VersionConflictError):
        catalog.commit([], expected={("photos", "b"): 1})


def test_a_deletion_may_have_a_condition(catalog: Catalog) -> None:
    catalog.commit([entry("a", 1)])
    with pytest.raises(VersionConflictError):
        catalog.delete("photos", "a", expected=2)
    with pytest.raises(VersionConflictError):
        catalog.delete("photos", "b", expected=1)
    assert catalog.delete("photos", "a", expected=1)


# -- names


ODD = [
    "\0",
    "a\0b",
    "line\nbreak",
    " ",
    "../..",
    "🌾",
    "é",
    "e\u0301",
    "\uffff",
    "\U0010ffff",
    "ä" * 512,
    "x" * 1024,
    "%_\\'\"",
]


def test_odd_names_come_back_in_byte_order(catalog: Catalog) -> None:
    catalog.commit([entry(name) for name in ODD])
    assert names(catalog) == sorted(ODD, key=str.encode)
    for name in ODD:
        assert catalog.get("photos", name) == entry(name)
        assert names(catalog, prefix=name)[0] == name
        assert name not in names(catalog, after=name)
    assert catalog.delete_many("photos", ODD) == set(ODD)


@pytest.mark.parametrize("name", ["", "x" * 1025, "ä" * 513, "\udc80", "ok\ud800"])
def test_names_that_cannot_be_are_refused(catalog: Catalog, name: str) -> None:
    for ask in (
        lambda: catalog.next_versions("photos", [name]),
        lambda: catalog.commit([entry(name)]),
        lambda: catalog.get("photos", name),
        lambda: catalog.delete("photos", name),
        lambda: catalog.begin_upload(upload(1, name)),
    ):
        with pytest.raises(UserError):
            ask()


# -- listings


TREE = ["a", "b/1", "b/2", "b/c/3", "b0", "c//d", "d/", "z"]


def test_prefixes_are_folded(catalog: Catalog) -> None:
    catalog.commit([entry(name) for name in TREE])
    top = catalog.list_objects("photos", delimiter="/")
    assert [each.name for each in top.objects] == ["a", "b0", "z"]
    assert top.prefixes == ("b/", "c/", "d/")
    assert top.next_after is None
    below = catalog.list_objects("photos", prefix="b/", delimiter="/")
    assert [each.name for each in below.objects] == ["b/1", "b/2"]
    assert below.prefixes == ("b/c/",)
    assert names(catalog, prefix="b") == ["b/1", "b/2", "b/c/3", "b0"]
    assert catalog.list_objects("photos", prefix="c/", delimiter="/").prefixes == ("c//",)
    assert catalog.list_objects("photos", delimiter="/", after="b/1").prefixes == ("c/", "d/")


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("delimiter", ["", "/", "//", "b"])
def test_pages_join_without_gaps(catalog: Catalog, limit: int, delimiter: str) -> None:
    catalog.commit([entry(name) for name in TREE])
    whole = catalog.list_objects("photos", delimiter=delimiter)
    objects, prefixes, after = [], [], ""
    while True:
        page = catalog.list_objects("photos", delimiter=delimiter, after=after, limit=limit)
        assert len(page.objects) + len(page.prefixes) <= limit
        objects += page.objects
        prefixes += page.prefixes
        if page.next_after is None:
            break
        after = page.next_after
    assert (tuple(objects), tuple(prefixes)) == (whole.objects, whole.prefixes)


def test_a_page_has_a_size(catalog: Catalog) -> None:
    for limit in (0, -1, 10_001):
        with pytest.raises(ValueError, match="page"):
            catalog.list_objects("photos", limit=limit)


# -- uploads


def test_an_upload_is_resumed_and_finished(catalog: Catalog) -> None:
    begun = catalog.begin_upload(upload(1))
    catalog.add_upload_segment(begun.upload_id, 1, segment(2), 11)
    catalog.add_upload_segment(begun.upload_id, 0, segment(1), 12)
    again = catalog.begin_upload(upload(2, at=20))
    assert again == Upload(begun.upload_id, "photos", "film", b"f", started_ms=10, touched_ms=20)
    assert list(catalog.upload_segments(begun.upload_id).items()) == [(0, segment(1)), (1, segment(2))]
    catalog.commit([entry("film", 1, 1, 2, 3)], [segment(3)], upload_id=begun.upload_id)
    assert catalog.garbage(10) == []
    assert catalog.upload_segments(begun.upload_id) == {}
    assert catalog.abandon_upload(begun.upload_id) is False


def test_a_changed_file_is_another_upload(catalog: Catalog) -> None:
    first = catalog.begin_upload(upload(1))
    second = catalog.begin_upload(upload(2, fingerprint=b"changed"))
    assert first.upload_id != second.upload_id
    assert catalog.stale_uploads(11, 10) == [first, second]


def test_what_a_finished_upload_leaves_over_is_garbage(catalog: Catalog) -> None:
    begun = catalog.begin_upload(upload(1))
    catalog.add_upload_segment(begun.upload_id, 0, segment(1), 11)
    catalog.add_upload_segment(begun.upload_id, 0, segment(2), 12)
    assert catalog.garbage(10) == [sid(1)]
    catalog.add_upload_segment(begun.upload_id, 1, segment(3), 13)
    catalog.commit([entry("film", 1, 2)], upload_id=begun.upload_id)
    assert catalog.garbage(10) == [sid(1), sid(3)]


def test_an_abandoned_upload_leaves_garbage(catalog: Catalog) -> None:
    begun = catalog.begin_upload(upload(1))
    catalog.add_upload_segment(begun.upload_id, 0, segment(1), 11)
    assert catalog.abandon_upload(begun.upload_id) is True
    assert catalog.garbage(10) == [sid(1)]
    with pytest.raises(ConflictError):
        catalog.commit([entry("film", 1, 1)])


def test_a_segment_of_an_upload_may_be_shared_by_another_object(catalog: Catalog) -> None:
    begun = catalog.begin_upload(upload(1))
    catalog.add_upload_segment(begun.upload_id, 0, segment(1), 11)
    catalog.commit([entry("other", 1, 1)])
    catalog.abandon_upload(begun.upload_id)
    assert catalog.garbage(10) == []


def test_unknown_uploads_and_known_segments_are_refused(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError):
        catalog.add_upload_segment(b"?" * 16, 0, segment(1), 1)
    with pytest.raises(NotFoundError):
        catalog.commit([entry("x", 1, 1)], [segment(1)], upload_id=b"?" * 16)
    begun = catalog.begin_upload(upload(1))
    catalog.add_upload_segment(begun.upload_id, 0, segment(1), 11)
    with pytest.raises(ConflictError):
        catalog.add_upload_segment(begun.upload_id, 1, segment(1), 12)
    assert catalog.upload_segments(begun.upload_id) == {0: segment(1)}


def test_stale_uploads_come_longest_untouched_first(catalog: Catalog) -> None:
    for number, at in ((1, 30), (2, 10), (3, 20)):
        catalog.begin_upload(upload(number, f"film {number}", at=at))
    catalog.add_upload_segment(upload(2).upload_id, 0, segment(1), 40)
    assert [each.name for each in catalog.stale_uploads(40, 10)] == ["film 3", "film 1"]
    assert len(catalog.stale_uploads(100, 1)) == 1


def test_a_batch_larger_than_any_in_list(catalog: Catalog) -> None:
    many = [entry(f"{number:05}", 1, number, number + 1) for number in range(1200)]
    catalog.commit(many, [segment(number) for number in range(1201)])
    again = [entry(f"{number:05}", 2, number, number + 1) for number in range(1200)]
    catalog.commit(again)
    assert catalog.garbage(5) == []
    wanted = [each.name for each in many]
    assert set(catalog.next_versions("photos", wanted).values()) == {3}
    assert catalog.get_many("photos", wanted) == {each.name: each for each in again}
    assert catalog.delete_many("photos", wanted) == set(wanted)
    dead = catalog.garbage(5000)
    assert len(dead) == 1201
    catalog.confirm_released(dead)
    assert catalog.known_segments(dead) == frozenset()
