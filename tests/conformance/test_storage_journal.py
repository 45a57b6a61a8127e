"""The journal of a catalog: what it notes, what a save says, and that a chain of saves is the catalog again."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from stook.errors import ConfigError, ConflictError, CorruptionError
from stook.ids import SegmentId
from stook.storage.catalog import SqlCatalog
from stook.storage.catalog_tables import CATALOG_SCHEMA
from stook.storage.database import Database, Schema
from stook.storage.journal_load import CatalogLoader, differences
from stook.storage.journal_ports import Draft
from stook.storage.journal_records import HOUR_MS, LAST_POINTS, Block, BlockReader, PartRef, SaveRef, epoch_of
from stook.storage.renter_ports import Bucket, ObjectEntry, SegmentEntry, Upload

WEEK_MS = 7 * 24 * HOUR_MS


class Machine:
    """A catalog, and what it saved: bytes by sequence, where farmers would have them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.catalog = SqlCatalog.open(path)
        self.kept: dict[int, bytes] = {}
        self.now_ms = 1_700_000_000_000
        self.number = 0

    def segment(self) -> SegmentEntry:
        self.number += 1
        return SegmentEntry(SegmentId(self.number.to_bytes(16, "big")), os.urandom(40), 10, b"h" * 32, 2, 5, 16384)

    def put(self, *names: str, bucket: str = "b") -> None:
        segment = self.segment()
        versions = self.catalog.next_versions(bucket, names)
        entries = [
            ObjectEntry(bucket, name, versions[name], 10, 5, b"c" * 32, os.urandom(30), (segment.segment_id,))
            for name in names
        ]
        self.catalog.commit(entries, [segment])

    def read(self, draft: Draft) -> tuple[bytes, int]:
        with self.catalog.journal.read(draft) as reading:
            data = b"".join(reading.frames())
            return data, reading.rows

    def save(self) -> tuple[Draft, SaveRef]:
        journal = self.catalog.journal
        draft = journal.begin()
        data, rows = self.read(draft)
        part = PartRef(self.segment().segment_id, 2, 5, 16384, 100)
        journal.add_part(draft.sequence, part)
        save = SaveRef(draft.sequence, self.now_ms, draft.generation, draft.base, rows, (part,))
        journal.finish(draft, save, b"record", self.now_ms, WEEK_MS)
        self.kept[draft.sequence] = data
        self.now_ms += 60_000
        return draft, save

    def load(self, path: Path, schema: str = CATALOG_SCHEMA.head) -> Path:
        chain = self.catalog.journal.points()[-1].chain
        loader = CatalogLoader(path, schema)
        try:
            for sequence in chain:
                reader = BlockReader()
                for block in reader.feed(memoryview(self.kept[sequence])):
                    loader.apply(block)
                reader.finish()
            loader.check()
            loader.publish()
        finally:
            loader.close()
        return path


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "catalog.db")
    made.catalog.create_bucket(Bucket("b", b"i" * 16, b"s" * 32, 5))
    yield made
    made.catalog.close()


def test_nothing_is_recoverable_before_the_first_save(machine: Machine) -> None:
    machine.put("x", "y")
    unsaved = machine.catalog.journal.unsaved(1)
    assert (unsaved.objects, unsaved.size_bytes, unsaved.names) == (2, 20, (("b", "x"),))
    draft, save = machine.save()
    assert draft.base
    assert epoch_of(save.sequence) == 1
    assert machine.catalog.journal.unsaved(9).rows == 0
    assert machine.catalog.journal.state().saved_ms


def test_a_chain_of_saves_is_the_catalog_again_whatever_happened(machine: Machine, tmp_path: Path) -> None:
    dice = random.Random(7)
    catalog = machine.catalog
    catalog.create_bucket(Bucket("other", b"j" * 16, b"t" * 32, 6))
    for number in range(60):
        names = [f"o{dice.randrange(300)}" for _ in range(dice.randrange(1, 60))]
        machine.put(*dict.fromkeys(names), bucket=dice.choice(["b", "other"]))
        if dice.random() < 0.5:
            catalog.delete_many("b", [f"o{dice.randrange(300)}" for _ in range(20)])
        if dice.random() < 0.3:
            upload = Upload(os.urandom(16), "b", f"film{number}", b"f", 1, 1)
            catalog.begin_upload(upload)
            catalog.add_upload_segment(upload.upload_id, 0, machine.segment(), 2)
            if dice.random() < 0.5:
                catalog.abandon_upload(upload.upload_id)
        if dice.random() < 0.3:
            catalog.confirm_released(catalog.garbage(5))
        if dice.random() < 0.3:
            catalog.drills.enlist(number)
        if dice.random() < 0.6:
            machine.save()
            if dice.random() < 0.3:
                again = machine.load(tmp_path / f"again-{number}.db")
                assert differences(machine.path, again) == []
    machine.save()
    again = machine.load(tmp_path / "last.db")
    assert differences(machine.path, again) == []
    opened = SqlCatalog.open(again)
    assert opened.totals("b") == catalog.totals("b")
    assert opened.garbage(10_000) == catalog.garbage(10_000)
    assert opened.next_versions("b", ["o1", "new"]) == catalog.next_versions("b", ["o1", "new"])
    opened.close()


def test_differences_are_told(machine: Machine, tmp_path: Path) -> None:
    machine.put("x")
    machine.save()
    again = machine.load(tmp_path / "again.db")
    raw = sqlite3.connect(again)
    raw.execute("UPDATE objects SET size_bytes = 11")
    raw.execute("INSERT INTO buckets VALUES (9, x'39', x'39', x'39', 1, 0, 0, 0)")
    raw.commit()
    raw.close()
    found = differences(machine.path, again)
    assert len(found) == 3
    machine.put("y")  # what came after the save is none
    assert differences(machine.path, again) == found


def test_what_is_committed_while_a_save_is_read_is_in_the_next_one(machine: Machine, tmp_path: Path) -> None:
    machine.put(*(f"o{n}" for n in range(200)))
    machine.save()
    journal = machine.catalog.journal
    machine.put("first")
    draft = journal.begin()
    machine.put("second")
    data, rows = machine.read(draft)
    machine.put("third")
    part = PartRef(machine.segment().segment_id, 2, 5, 16384, 100)
    journal.add_part(draft.sequence, part)
    save = SaveRef(draft.sequence, machine.now_ms, draft.generation, draft.base, rows, (part,))
    journal.finish(draft, save, b"record", machine.now_ms, WEEK_MS)
    machine.kept[draft.sequence] = data
    assert {name for _, name in journal.unsaved(9).names} == {"second", "third"}
    machine.save()
    assert differences(machine.path, machine.load(tmp_path / "again.db")) == []


def test_an_interrupted_save_is_given_up_by_the_next_that_counts(machine: Machine) -> None:
    journal = machine.catalog.journal
    machine.put("x")
    draft = journal.begin()
    lost = PartRef(machine.segment().segment_id, 2, 5, 16384, 100)
    journal.add_part(draft.sequence, lost)
    machine.catalog.close()
    machine.catalog = SqlCatalog.open(machine.path)
    journal = machine.catalog.journal
    assert journal.to_release() == []
    assert lost.segment_id in journal.segments()
    _, save = machine.save()
    assert save.sequence > draft.sequence
    assert journal.to_release() == [(draft.sequence, (lost.segment_id,))]
    journal.confirm_released([draft.sequence, save.sequence])
    assert journal.segments() == {save.head.segment_id}


def test_a_table_that_lost_its_triggers_is_saved_whole(machine: Machine, tmp_path: Path) -> None:
    machine.put(*(f"o{n}" for n in range(200)))
    machine.save()
    machine.catalog.close()
    raw = sqlite3.connect(machine.path)
    raw.execute("DROP TRIGGER journal_objects_update")
    raw.execute("UPDATE objects SET size_bytes = 11 WHERE number = 3")
    raw.commit()
    raw.close()
    machine.catalog = SqlCatalog.open(machine.path)
    draft, _ = machine.save()
    assert draft.base
    assert differences(machine.path, machine.load(tmp_path / "again.db")) == []


def test_every_table_is_watched(machine: Machine) -> None:
    raw = sqlite3.connect(machine.path)
    tables = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    watched = {row[0] for row in raw.execute("SELECT tbl_name FROM sqlite_master WHERE type = 'trigger'")}
    raw.close()
    assert {each for each in tables - watched if not each.startswith("sqlite_")} == {
        "alembic_version",
        "journal_state",
        "journal_changes",
        "journal_saves",
        "journal_points",
    }


def test_an_alarm_stops_saving_until_somebody_takes_over(machine: Machine) -> None:
    journal = machine.catalog.journal
    machine.save()
    journal.sound("first")
    journal.sound("second")
    with pytest.raises(ConflictError, match="first"):
        journal.begin()
    with pytest.raises(ConflictError):
        journal.take_over(1)
    journal.take_over(5)
    draft, save = machine.save()
    assert draft.base
    assert epoch_of(save.sequence) == 5


def test_moments_are_kept_and_thinned(machine: Machine) -> None:
    machine.put(*(f"o{n}" for n in range(200)))
    for number in range(30):
        machine.now_ms += 10 * 60_000
        machine.put(f"new-{number}")
        machine.save()
    points = machine.catalog.journal.points()
    assert 5 + LAST_POINTS - 2 <= len(points) <= 7 + LAST_POINTS
    assert [each.saved_ms for each in points] == sorted(each.saved_ms for each in points)
    kept = {each.sequence for each in machine.catalog.journal.saves()}
    assert kept == {sequence for point in points for sequence in point.chain}
    given_up = {sequence for sequence, _ in machine.catalog.journal.to_release()}
    assert given_up
    assert not given_up & kept


def test_a_save_of_the_first_schema_is_read_and_brought_to_todays(tmp_path: Path) -> None:
    loader = CatalogLoader(tmp_path / "old.db", "catalog_0001")
    row = (1, b"photos", b"i" * 16, b"s" * 32, 7, 0)
    columns = ("number", "name", "bucket_id", "salt", "created_ms", "version_floor")
    loader.apply(Block("buckets", columns, False, (row,)))
    loader.check()
    loader.publish()
    loader.close()
    catalog = SqlCatalog.open(tmp_path / "old.db")
    assert [each.name for each in catalog.buckets()] == ["photos"]
    catalog.close()


def test_what_a_loader_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="newer"):
        CatalogLoader(tmp_path / "x.db", "catalog_9999")
    with pytest.raises(ConfigError):
        CatalogLoader(tmp_path / "x.db", "agent_0001")
    refused = [
        Block("songs", ("title",), False, (("x",),)),
        Block("journal_state", ("alarm",), False, (("x",),)),
        Block("objects", ("title",), False, (("x",),)),
        Block("objects", ("name",), True, ((b"x",),)),
    ]
    for block in refused:
        with CatalogLoader(tmp_path / "x.db", CATALOG_SCHEMA.head) as loader, pytest.raises(CorruptionError):
            loader.apply(block)
    with CatalogLoader(tmp_path / "x.db", CATALOG_SCHEMA.head) as loader:
        loader.apply(Block("object_segments", ("object", "ordinal", "segment"), False, ((1, 0, 1),)))
        with pytest.raises(CorruptionError, match="not there"):
            loader.check()
    assert list(tmp_path.iterdir()) == [], "nothing is left of what was not finished"


def test_an_adopted_catalog_goes_on(machine: Machine, tmp_path: Path) -> None:
    machine.put(*(f"o{n}" for n in range(300)))
    machine.save()
    machine.put("late")
    machine.save()
    saves, points = machine.catalog.journal.saves(), machine.catalog.journal.points()
    path = machine.load(tmp_path / "again.db")
    other = Machine(path)
    other.kept, other.number = dict(machine.kept), machine.number + 1000
    other.catalog.journal.adopt(2, saves, points, b"record", CATALOG_SCHEMA.head)
    assert other.catalog.journal.unsaved(9).rows == 0
    other.put("mine")
    draft, save = other.save()
    assert draft.chain == points[-1].chain, "what was noted elsewhere is taken in as a whole or not at all"
    assert epoch_of(save.sequence) == 2
    assert differences(path, other.load(tmp_path / "third.db")) == []
    for number in range(20):
        other.put(*(f"n{number}-{at}" for at in range(40)))
        other.save()
        assert differences(path, other.load(tmp_path / f"further-{number}.db")) == []
    other.catalog.close()


def test_an_adopted_catalog_of_an_older_schema_begins_with_a_whole_save(machine: Machine) -> None:
    machine.put("x")
    machine.save()
    saves, points = machine.catalog.journal.saves(), machine.catalog.journal.points()
    machine.catalog.journal.adopt(2, saves, points, b"record", "catalog_0002")
    draft, _ = machine.save()
    assert draft.base


def test_a_catalog_from_before_the_journal_is_saved_whole(tmp_path: Path) -> None:
    Database(tmp_path / "old.db", Schema("catalog", "catalog_0002")).close()
    machine = Machine(tmp_path / "old.db")
    machine.catalog.create_bucket(Bucket("b", b"i" * 16, b"s" * 32, 5))
    machine.put("x")
    draft, _ = machine.save()
    assert draft.base
    assert differences(machine.path, machine.load(tmp_path / "again.db")) == []
    machine.catalog.close()


def test_garbage_waits_until_the_saved_catalog_does_not_name_it(machine: Machine) -> None:
    catalog = machine.catalog
    machine.put("x")
    machine.put("x")
    assert len(catalog.garbage(9)) == 1, "nothing is saved that could name it"
    machine.put("y")
    draft = catalog.journal.begin()
    machine.put("y")
    part = PartRef(machine.segment().segment_id, 2, 5, 16384, 100)
    save = SaveRef(draft.sequence, 1, draft.generation, draft.base, 9, (part,))
    catalog.journal.finish(draft, save, b"record", machine.now_ms, WEEK_MS)
    assert len(catalog.garbage(9)) == 1, "what came after the save began may be named by it"
    assert catalog.journal.unsaved(9).waiting == 1
    machine.save()
    dead = catalog.garbage(9)
    assert len(dead) == 2
    assert catalog.journal.unsaved(9).waiting == 0
    catalog.journal.sound("somebody else")
    assert catalog.garbage(9) == []
    catalog.journal.take_over(9)
    assert catalog.garbage(9) == [], "the catalog taken over from is the saved one until the new base is"
    assert catalog.journal.unsaved(9).waiting == 2
    machine.save()
    assert catalog.garbage(9) == dead
    catalog.confirm_released(dead)
    assert catalog.journal.unsaved(9).waiting == 0
