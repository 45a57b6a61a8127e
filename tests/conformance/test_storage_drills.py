"""What every catalog promises about restore drills (`stook.storage.drill_ports.Drills`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_storage_catalog import ADAPTERS, bucket, entry, segment, sid

from stook.errors import ConflictError, NotFoundError
from stook.storage.drill_ports import DAY_MS, BucketProof, DrillOutcome, DrillSums, DrillTarget, ObjectProof
from stook.storage.renter_ports import Catalog

ROWS = bytes([7]) + bytes(31)


@pytest.fixture(params=ADAPTERS)
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    opened = ADAPTERS[request.param](tmp_path)
    opened.create_bucket(bucket("photos"))
    opened.create_bucket(bucket("music"))
    opened.commit([entry("a", 1, 1, 2), entry("b", 1, 2), entry("none", 1)], [segment(1), segment(2)])
    opened.commit([entry("song", 1, 3, where="music")], [segment(3)])
    yield opened
    opened.close()


def outcome(number: int, at: int, *, passed: bool = True, spot: bool = False, why: str = "") -> DrillOutcome:
    return DrillOutcome(sid(number), at, passed, spot, ROWS, 1000, 3, 1, why)


def test_only_what_objects_use_is_enlisted_once(catalog: Catalog) -> None:
    assert catalog.drills.targets() == []
    assert catalog.drills.enlist(50) == 3
    assert catalog.drills.enlist(60) == 0
    assert catalog.drills.targets(["photos"]) == [
        DrillTarget(sid(1), 4, 101, since_ms=50),
        DrillTarget(sid(2), 4, 102, since_ms=50),
    ]
    assert [each.segment_id for each in catalog.drills.targets(["music"])] == [sid(3)]
    assert [each.segment_id for each in catalog.drills.targets(["music", "photos"])] == [sid(1), sid(2), sid(3)]
    assert [each.segment_id for each in catalog.drills.targets()] == [sid(1), sid(2), sid(3)]


def test_what_comes_later_says_since_when(catalog: Catalog) -> None:
    catalog.drills.enlist(50)
    catalog.commit([entry("c", 1, 4)], [segment(4)])
    assert len(catalog.drills.targets()) == 3
    assert catalog.drills.enlist(70) == 1
    assert [each.since_ms for each in catalog.drills.targets()] == [50, 50, 50, 70]


def test_a_drill_that_passed_is_a_proof(catalog: Catalog) -> None:
    catalog.drills.enlist(50)
    catalog.drills.record(outcome(1, 100, spot=True))
    catalog.drills.record(outcome(1, 200))
    (first, *_) = catalog.drills.targets()
    assert first == DrillTarget(sid(1), 4, 101, 50, tried_ms=200, proved_ms=200, spot_ms=100, rows=ROWS)


def test_a_drill_that_failed_leaves_the_last_proof_and_counts(catalog: Catalog) -> None:
    catalog.drills.enlist(50)
    catalog.drills.record(outcome(1, 100))
    for at in (200, 300):
        catalog.drills.record(outcome(1, at, passed=False, spot=True, why="y" * 600))
    (first, *_) = catalog.drills.targets()
    assert (first.tried_ms, first.proved_ms, first.spot_ms, first.failures) == (300, 100, 0, 2)
    assert first.why == "y" * 500
    catalog.drills.record(outcome(1, 400))
    (first, *_) = catalog.drills.targets()
    assert (first.failures, first.why, first.proved_ms) == (0, "", 400)


def test_an_object_is_as_proved_as_its_oldest_segment(catalog: Catalog) -> None:
    proofs = catalog.drills.object_proofs
    assert proofs("photos", ["a", "b", "none", "missing"]) == {"a": ObjectProof(0, False), "b": ObjectProof(0, False)}
    catalog.drills.enlist(50)
    catalog.drills.record(outcome(2, 100))
    assert proofs("photos", ["a", "b"]) == {"a": ObjectProof(0, False), "b": ObjectProof(100, False)}
    catalog.drills.record(outcome(1, 300))
    catalog.drills.record(outcome(2, 400, passed=False))
    assert proofs("photos", ["a", "b"]) == {"a": ObjectProof(100, True), "b": ObjectProof(100, True)}


def test_a_bucket_counts_its_objects(catalog: Catalog) -> None:
    assert catalog.drills.bucket_proof("photos") == BucketProof(2, 0, 0, 0)
    catalog.drills.enlist(50)
    catalog.drills.record(outcome(2, 100))
    assert catalog.drills.bucket_proof("photos") == BucketProof(1, 0, 100, 100)
    catalog.drills.record(outcome(1, 80))
    catalog.drills.record(outcome(1, 90, passed=False))
    assert catalog.drills.bucket_proof("photos") == BucketProof(0, 1, 80, 100)
    assert catalog.drills.bucket_proof("music") == BucketProof(1, 0, 0, 0)


def test_sums_are_kept_by_bucket_and_day(catalog: Catalog) -> None:
    catalog.drills.enlist(50)
    catalog.drills.record(outcome(1, DAY_MS - 1))
    catalog.drills.record(outcome(2, DAY_MS, passed=False))
    catalog.drills.record(outcome(3, DAY_MS))
    assert catalog.drills.sums("photos", 0, 5) == DrillSums(1, 0, 1000, 3, 1)
    assert catalog.drills.sums("photos", 0, DAY_MS) == DrillSums(2, 1, 2000, 6, 2)
    assert catalog.drills.sums("photos", 2 * DAY_MS, 3 * DAY_MS) == DrillSums()
    assert catalog.drills.fetched_on(DAY_MS + 7) == 2000
    assert catalog.drills.fetched_on(2 * DAY_MS) == 0


def test_an_object_is_found_by_its_segment(catalog: Catalog) -> None:
    assert [each.name for each in catalog.drills.objects_of(sid(2))] == ["a", "b"]
    assert catalog.drills.objects_of(sid(2))[0] == catalog.get("photos", "a")
    assert catalog.drills.objects_of(sid(9)) == []


def test_what_is_removed_is_forgotten_with_its_segment(catalog: Catalog) -> None:
    catalog.drills.enlist(50)
    catalog.drills.record(outcome(1, 100))
    catalog.delete("photos", "a")
    assert [each.segment_id for each in catalog.drills.targets(["photos"])] == [sid(2)]
    catalog.confirm_released([sid(1)])
    catalog.drills.record(outcome(1, 200))
    assert [each.segment_id for each in catalog.drills.targets()] == [sid(2), sid(3)]


def test_certificates_are_numbered_and_go_with_their_bucket(catalog: Catalog) -> None:
    drills = catalog.drills
    assert drills.certificates("music") == []
    drills.add_certificate("music", 1, b"one")
    for wrong in (0, 1, 3):
        with pytest.raises(ConflictError):
            drills.add_certificate("music", wrong, b"wrong")
    drills.add_certificate("music", 2, b"two")
    assert drills.certificates("music") == [b"one", b"two"]
    assert drills.certificates("music", 1) == [b"two"]
    assert drills.certificates("photos") == []
    drills.enlist(50)
    drills.record(outcome(3, 60))
    catalog.delete("music", "song")
    catalog.delete_bucket("music")
    catalog.create_bucket(bucket("music"))
    assert drills.certificates("music") == []
    assert drills.sums("music", 0, DAY_MS) == DrillSums()


def test_a_missing_bucket_is_said_to_be_missing(catalog: Catalog) -> None:
    drills = catalog.drills
    for ask in (
        lambda: drills.targets(["photos", "nowhere"]),
        lambda: drills.object_proofs("nowhere", ["x"]),
        lambda: drills.bucket_proof("nowhere"),
        lambda: drills.sums("nowhere", 0, 1),
        lambda: drills.add_certificate("nowhere", 1, b""),
        lambda: drills.certificates("nowhere"),
    ):
        with pytest.raises(NotFoundError):
            ask()
