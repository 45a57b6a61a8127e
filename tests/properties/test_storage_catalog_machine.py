"""The catalog against a model that recomputes everything from the objects and uploads there are."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from stook.errors import ConflictError, NotFoundError
from stook.ids import SegmentId
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import Bucket, ObjectEntry, SegmentEntry, Upload, VersionConflictError

NAMES = st.sampled_from(["a", "a/", "a/b", "a/c", "a0", "b/\0", "b/é", "🌾"])
SID = st.integers(0, 14).map(lambda number: SegmentId(bytes([number]) * 16))


def segment(segment_id: SegmentId) -> SegmentEntry:
    return SegmentEntry(segment_id, segment_id * 2, 1, bytes(32), 1, 2, 16384)


class CatalogMachine(RuleBasedStateMachine):
    uploads = Bundle("uploads")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "catalog.db"
        self.catalog = SqlCatalog.open(self.path)
        self.catalog.create_bucket(Bucket("x", bytes(16), bytes(32), 0))
        self.objects: dict[str, ObjectEntry] = {}
        self.highest: dict[str, int] = {}
        self.segments: list[SegmentId] = []
        self.parts: dict[bytes, dict[int, SegmentId]] = {}
        self.clock = 0

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.catalog.close()
            self.folder.cleanup()

    def dead(self) -> list[SegmentId]:
        used = {each for entry in self.objects.values() for each in entry.segment_ids}
        used |= {each for parts in self.parts.values() for each in parts.values()}
        return [each for each in self.segments if each not in used]

    @rule(
        puts=st.lists(st.tuples(NAMES, st.lists(SID, max_size=3, unique=True)), max_size=3),
        fresh=st.lists(SID, max_size=3),
        stale=st.booleans(),
        upload=st.none() | uploads,
    )
    def commit(
        self, puts: list[tuple[str, list[SegmentId]]], fresh: list[SegmentId], stale: bool, upload: bytes | None
    ) -> None:
        versions = self.catalog.next_versions("x", [name for name, _ in puts])
        for name, version in versions.items():
            assert version > self.highest.get(name, 0)
        entries = [
            ObjectEntry("x", name, versions[name] - stale, 5, 6, bytes(32), b"r", tuple(refers))
            for name, refers in puts
        ]
        names = [name for name, _ in puts]
        wanted = {each for entry in entries for each in entry.segment_ids}
        errors: tuple[type[Exception], ...] = ()
        if (stale and entries) or len(set(names)) < len(names):
            errors = (VersionConflictError,)
        elif len(set(fresh)) < len(fresh) or set(fresh) & set(self.segments):
            errors = (ConflictError,)
        elif upload is not None and upload not in self.parts:
            errors = (NotFoundError,)
        elif wanted - set(self.segments) - set(fresh) or wanted & set(self.dead()):
            errors = (NotFoundError, ConflictError)
        with pytest.raises(errors) if errors else nullcontext():
            self.catalog.commit(entries, [segment(each) for each in fresh], upload_id=upload)
        if errors:
            return
        self.segments += fresh
        self.objects |= {each.name: each for each in entries}
        self.highest |= {each.name: each.version for each in entries}
        if upload is not None:
            del self.parts[upload]

    @rule(names=st.lists(NAMES, max_size=3))
    def delete(self, names: list[str]) -> None:
        assert self.catalog.delete_many("x", names) == {name for name in names if self.objects.pop(name, None)}

    @rule(target=uploads, name=NAMES, fingerprint=st.sampled_from([b"1", b"2"]))
    def begin(self, name: str, fingerprint: bytes) -> object:
        self.clock += 1
        wish = Upload(self.clock.to_bytes(16, "big"), "x", name, fingerprint, self.clock, self.clock)
        begun = self.catalog.begin_upload(wish)
        if begun.upload_id == wish.upload_id:
            self.parts[begun.upload_id] = {}
        else:
            assert begun == replace(wish, upload_id=begun.upload_id, started_ms=begun.started_ms)
            assert begun.upload_id in self.parts
        return begun.upload_id if begun.upload_id in self.parts else multiple()

    @rule(upload=uploads, ordinal=st.integers(0, 2), which=SID)
    def add_part(self, upload: bytes, ordinal: int, which: SegmentId) -> None:
        self.clock += 1
        try:
            self.catalog.add_upload_segment(upload, ordinal, segment(which), self.clock)
        except NotFoundError:
            assert upload not in self.parts
        except ConflictError:
            assert which in self.segments
        else:
            self.parts[upload][ordinal] = which
            self.segments.append(which)

    @rule(upload=uploads)
    def abandon(self, upload: bytes) -> None:
        assert self.catalog.abandon_upload(upload) == (self.parts.pop(upload, None) is not None)

    @rule(which=st.lists(SID, max_size=8))
    def confirm(self, which: list[SegmentId]) -> None:
        gone = set(self.dead()) & set(which)
        self.catalog.confirm_released(which)
        self.segments = [each for each in self.segments if each not in gone]

    @rule()
    def reopen(self) -> None:
        self.catalog.close()
        self.catalog = SqlCatalog.open(self.path)

    @rule(
        prefix=st.sampled_from(["", "a", "a/", "b/"]),
        delimiter=st.sampled_from(["", "/"]),
        after=st.sampled_from(["", "a", "a/b", "b"]),
        limit=st.integers(1, 4),
    )
    def listing(self, prefix: str, delimiter: str, after: str, limit: int) -> None:
        expected: list[str] = []
        for name in sorted(self.objects, key=str.encode):
            if not name.startswith(prefix) or name.encode() <= after.encode():
                continue
            head, mark, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            shown = prefix + head + mark if mark else name
            if shown not in expected and not (mark and after.startswith(shown)):
                expected.append(shown)
        page = self.catalog.list_objects("x", prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        got = sorted([each.name for each in page.objects] + list(page.prefixes), key=str.encode)
        assert got == expected[:limit]
        assert page.next_after == (expected[limit - 1] if len(expected) > limit else None)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "catalog"):
            return
        assert self.catalog.get_many("x", list(self.objects)) == self.objects
        assert self.catalog.totals("x").objects == len(self.objects)
        assert self.catalog.garbage(100) == self.dead()
        everything = [SegmentId(bytes([number]) * 16) for number in range(15)]
        assert self.catalog.known_segments(everything) == set(self.segments)


CatalogMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCatalogMachine = CatalogMachine.TestCase
