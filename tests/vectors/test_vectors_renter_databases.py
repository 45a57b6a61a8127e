"""Databases written by the first schema, kept for ever: whatever comes, they open and say what they said."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData

import s3_catalog as s3
from stook.audits.allowance import Allowance
from stook.audits.containment import Silence
from stook.errors import ConfigError, CorruptionError, EnvironmentFault
from stook.ids import SegmentId
from stook.storage.agent_audit_ports import FlightRow
from stook.storage.agent_store import SqlAgentStore
from stook.storage.agent_tables import AGENT_SCHEMA, agent_metadata
from stook.storage.catalog import SqlCatalog
from stook.storage.catalog_tables import CATALOG_SCHEMA, catalog_metadata
from stook.storage.database import MIGRATIONS, Database, Schema
from stook.storage.drill_ports import DrillSums
from stook.storage.renter_ports import BucketTotals, OutcomeKind, PlacementState
from stook.storage.s3_ports import Lock, Retention, Standing, StoredObject

DATA = Path(__file__).parent / "data"


def kept(name: str, path: Path) -> Path:
    database = sqlite3.connect(path)
    database.executescript((DATA / f"{name}.sql").read_text())
    database.close()
    return path


def sid(number: int) -> SegmentId:
    return SegmentId(number.to_bytes(16, "big"))


def test_a_catalog_of_the_first_schema_is_read(tmp_path: Path) -> None:
    catalog = SqlCatalog.open(kept("catalog-v1", tmp_path / "catalog.db"))
    assert [(each.name, each.bucket_id, each.created_ms) for each in catalog.buckets()] == [
        ("photos", b"photos----------", 7)
    ]
    assert catalog.totals("photos") == BucketTotals(2, 20)
    assert [each.name for each in catalog.list_objects("photos").objects] == ["a\0🌾", "b"]
    entry = catalog.get("photos", "b")
    assert entry is not None
    assert (entry.version, entry.modified_ms, entry.sealed_record) == (1, 1001, b"b 1")
    assert entry.segment_ids == (sid(1), sid(2))
    assert catalog.segments([sid(2)])[sid(2)].sealed_record == b"sealed 2"
    assert catalog.garbage(9) == [sid(3)]
    assert catalog.next_versions("photos", ["gone"]) == {"gone": 2}
    assert [each.name for each in catalog.stale_uploads(100, 9)] == ["film"]
    assert list(catalog.upload_segments(b"\1" * 16)) == [0]
    catalog.close()


def test_a_catalog_of_the_first_schema_has_proved_nothing_yet(tmp_path: Path) -> None:
    catalog = SqlCatalog.open(kept("catalog-v1", tmp_path / "catalog.db"))
    assert catalog.drills.targets() == []
    assert catalog.drills.bucket_proof("photos").never == 2
    assert catalog.drills.enlist(5) == len(catalog.drills.targets())
    catalog.close()


def test_a_catalog_of_the_second_schema_is_read(tmp_path: Path) -> None:
    catalog = SqlCatalog.open(kept("catalog-v2", tmp_path / "catalog.db"))
    assert [each.name for each in catalog.list_objects("photos").objects] == ["a\0🌾", "b"]
    first, second = catalog.drills.targets()
    assert (first.segment_id, first.since_ms, first.proved_ms, first.spot_ms) == (sid(1), 2000, 3000, 3000)
    assert first.rows == bytes([5]) + bytes(31)
    assert (second.tried_ms, second.proved_ms, second.failures, second.why) == (86_400_000, 0, 1, "too few")
    assert catalog.drills.sums("photos", 0, 0) == DrillSums(1, 0, 65_536, 3, 1)
    assert catalog.drills.fetched_on(86_400_000) == 16_384
    assert catalog.drills.certificates("photos") == [b"first certificate"]
    catalog.close()


def test_an_agent_database_of_the_first_schema_is_read(tmp_path: Path) -> None:
    store = SqlAgentStore.open(kept("agent-database-v1", tmp_path / "agent.db"))
    facts = store.segment(sid(1))
    assert facts is not None
    assert (facts.policy.k, facts.policy.n, facts.total, facts.shard_bytes, facts.created_ms) == (2, 5, 6, 65536, 100)
    assert facts.roots[5] == bytes([1, 1, 5, 0]) * 8
    held = store.placements([sid(1), sid(2), sid(3)])
    assert [each.state for each in held[sid(1)]] == [PlacementState.STORED] * 2
    assert [each.state for each in held[sid(2)]] == [PlacementState.LOST]
    assert [each.state for each in held[sid(3)]] == [PlacementState.CANCELLING]
    assert held[sid(1)][0].receipt is not None
    assert store.counts().placements[PlacementState.ERASED] == 1
    assert len(store.announcements()) == 1
    assert store.farmer_stats(10)[0].kind == OutcomeKind.CONSIGN
    # What the second schema adds follows from contracts and receipts.
    assert {(each.stored_ms, each.proved_ms) for each in held[sid(1)]} == {(200, 0)}
    (totals,) = [each for each in store.totals() if each.farmer == held[sid(1)][0].farmer]
    assert (totals.new_shards, totals.terms[0].leaves_per_interval) == (totals.shards, 4 * totals.shards)
    assert store.dossiers() == []
    store.close()


def test_an_agent_database_of_the_second_schema_is_read(tmp_path: Path) -> None:
    store = SqlAgentStore.open(kept("agent-database-v2", tmp_path / "agent.db"))
    (dossier,) = store.dossiers()
    assert (dossier.next_due_ms, dossier.first_due_ms, dossier.beat_ms, dossier.heard_ms) == (9, 8, 720, 721)
    assert dossier.leaving_by_ms == 0
    assert (dossier.known_ms, dossier.silence.state, dossier.silence.question) == (650, Silence.CONTAINED, b"what")
    assert [entry.at_ms for entry in store.history(dossier.farmer)] == [710]
    assert dossier.base.losses.mass == 1
    (asked,) = store.open_challenges()
    assert (asked.first, asked.signed.challenge.leaves) == (True, 2)
    (receipt,) = store.unsent_receipts(dossier.farmer, 9)
    assert receipt.challenge == asked.signed.challenge.digest
    assert store.allowance("audit") == Allowance.full(1000, 5).spend(10_000, 5)
    assert store.outages() == [(10, 20)]
    assert store.flights([sid(1)])[sid(1)] == (FlightRow(sid(1), 4, 1, 5, b"agent"),)
    held = store.placements([sid(1)])[sid(1)]
    assert [(each.state, each.proved_ms) for each in held] == [
        (PlacementState.STORED, 0),
        (PlacementState.STORED, 700),
        (PlacementState.LOST, 0),
    ]
    assert list(store.noted_losses([each.contract_id for each in held])) == [held[2].contract_id]
    store.close()


def test_an_agent_database_of_the_third_schema_is_read(tmp_path: Path) -> None:
    store = SqlAgentStore.open(kept("agent-database-v3", tmp_path / "agent.db"))
    (dossier,) = store.dossiers()
    assert (dossier.known_ms, dossier.leaving_by_ms) == (650, 123_456)
    held = store.placements([sid(1)])[sid(1)]
    (asked,) = store.renewals(each.contract_id for each in held).items()
    assert asked[0] == held[0].contract_id == asked[1].terms.contract_id
    assert (asked[1].terms.revision, asked[1].terms.end_ms) == (1, held[0].contract.terms.end_ms + 1000)
    assert asked[1].renter_signature == b"r" * 64
    store.close()


def test_a_catalog_of_the_fourth_schema_is_read(tmp_path: Path) -> None:
    catalog = SqlCatalog.open(kept("catalog-v4", tmp_path / "catalog.db"))
    page = catalog.s3.list_versions("photos", prefix="", delimiter="", after="", after_version=0, limit=9)
    assert [(each.name, each.etag, each.standing, each.version_id, each.latest) for each in page.items] == [
        ("a\0🌾", "second", Standing.CURRENT, "0000000000000002", True),
        ("a\0🌾", "first", Standing.OLD, "null", False),
        ("gone", "", Standing.MARKER, "0000000000000002", True),
        ("gone", "third", Standing.OLD, "0000000000000001", False),
    ]
    found = catalog.s3.find("photos", "a\0🌾")
    assert isinstance(found, StoredObject)
    assert (found.facts, found.tags, found.entry.segment_ids) == (s3.FACTS, (("k", "v"),), (sid(2),))
    assert found.entry.sealed_record == "a\0🌾 2".encode()
    locked = catalog.s3.find("locked", "kept")
    assert isinstance(locked, StoredObject)
    assert locked.lock == Lock(Retention.COMPLIANCE, 5000, True)
    assert catalog.s3.multipart("photos", "film", s3.MULTIPART).plan == s3.PLAN
    assert catalog.s3.parts(s3.MULTIPART) == [s3.part()]
    assert catalog.s3.setting("photos", "cors") == b"<CORSConfiguration/>"
    assert catalog.s3.key("KEY") == replace(s3.KEY, revoked_ms=4500)
    assert catalog.garbage(9) == []
    catalog.close()


# -- the way to the present schema


STEP = """
import sqlalchemy as sa
from alembic import op

revision = "catalog_9999"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("buckets") as buckets:
        buckets.add_column(sa.Column("colour", sa.String(8), nullable=False, server_default="green"))
        buckets.alter_column("salt", type_=sa.LargeBinary(64))
    {extra}
"""


def next_schema(folder: Path, extra: str = "") -> Schema:
    folder.mkdir()
    (folder / "catalog_9999_colour.py").write_text(STEP.format(extra=extra, head=CATALOG_SCHEMA.head))
    return replace(CATALOG_SCHEMA, head="catalog_9999", steps=(folder,))


def test_a_step_rebuilds_a_table_and_loses_no_row(tmp_path: Path) -> None:
    path = kept("catalog-v1", tmp_path / "100% mine; catalog.db")
    database = Database(path, next_schema(tmp_path / "steps"))
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT colour FROM buckets").scalar_one() == "green"
        assert connection.exec_driver_sql("SELECT count(*) FROM objects").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    database.close()


def test_a_failing_step_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = kept("catalog-v1", tmp_path / "catalog.db")
    with pytest.raises(ZeroDivisionError):
        Database(path, next_schema(tmp_path / "steps", "1 / 0"))
    with pytest.raises(CorruptionError, match="refer"):
        Database(path, next_schema(tmp_path / "bad", 'op.execute("DELETE FROM buckets")'))
    catalog = SqlCatalog.open(path)
    assert catalog.totals("photos").objects == 2
    catalog.close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = kept("catalog-v1", tmp_path / "catalog.db")
    Database(path, next_schema(tmp_path / "steps")).close()
    with pytest.raises(ConfigError, match="upgrade stook"):
        SqlCatalog.open(path)


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    with pytest.raises(ConfigError, match="another program"):
        SqlCatalog.open(path)


def test_the_two_files_are_not_taken_for_one_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no agent database"):
        SqlAgentStore.open(kept("catalog-v1", tmp_path / "catalog.db"))


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(CorruptionError, match="damaged"):
        SqlCatalog.open(path)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot open"):
        SqlCatalog.open(tmp_path / "nowhere" / "catalog.db")


def test_a_locked_file_is_said_to_be_locked(tmp_path: Path) -> None:
    path = kept("catalog-v1", tmp_path / "catalog.db")
    database = Database(path, CATALOG_SCHEMA, busy_seconds=0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(EnvironmentFault, match="another process"), database.write():
        pass
    other.close()
    database.close()


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    catalog = SqlCatalog.open(tmp_path / "catalog.db")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    catalog.close()


@pytest.mark.parametrize(("schema", "metadata"), [(AGENT_SCHEMA, agent_metadata), (CATALOG_SCHEMA, catalog_metadata)])
def test_the_steps_lead_to_the_tables_the_code_uses(tmp_path: Path, schema: Schema, metadata: MetaData) -> None:
    script = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS / schema.name)])
    assert script.get_current_head() == schema.head
    database = Database(tmp_path / "new.db", schema)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()
