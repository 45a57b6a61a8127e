"""`SqliteContractStore` as a file: reopening, damage, other people's databases, the queries' plans."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from contract_samples import NOW_MS
from stook.contracts.lifecycle import ContractState
from stook.errors import BugError, ConfigError, CorruptionError, EnvironmentFault
from stook.storage.contract_store import SCHEMA_VERSION, SqliteContractStore, set_aside
from storage_samples import held, ids, renter, sample, signed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "contracts.db"


def test_everything_is_there_after_reopening(path):
    with SqliteContractStore(path) as store:
        assert store.is_new
        store.reserve([signed(sample(seed=number)) for number in range(3)])
        store.put(held(signed()))
        assert store.spend(bytes(16), 7, 10, NOW_MS)
        before, totals = list(store.all()), store.totals()
    with SqliteContractStore(path) as store:
        assert not store.is_new
        assert list(store.all()) == before
        assert store.totals() == totals
        assert not store.spend(bytes(16), 4, 10, NOW_MS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_closed_store_may_be_closed_again_and_not_be_used(path):
    store = SqliteContractStore(path)
    store.close()
    store.close()
    with pytest.raises(BugError):
        store.totals()


def test_a_newer_schema_is_refused(path):
    SqliteContractStore(path).close()
    edit(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(ConfigError, match="newer Stook"):
        SqliteContractStore(path)


VERSION_1 = Path(__file__).parents[1] / "vectors/data/contracts-database-v1.sql"


def test_a_file_of_version_1_is_brought_up_to_date(path):
    """Written by the program as it was before audits; what it held is there, the book of audits is empty."""
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1.read_text())
    connection.close()
    with SqliteContractStore(path) as store:
        assert not store.is_new
        assert [item.state for item in store.all()].count(ContractState.ACTIVE) == 1
        assert store.totals_of(renter(0)).stored_count == 1
        assert not store.spend(bytes(16), 4, 10, NOW_MS)
        assert store.audits.rounds(5) == []
    with SqliteContractStore(path) as store:
        assert store.totals().reserved_count == 2
    connection = sqlite3.connect(path)
    migrated = sorted(row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL"))
    connection.close()
    with SqliteContractStore(path.with_name("new.db")):
        pass
    connection = sqlite3.connect(path.with_name("new.db"))
    assert migrated == sorted(row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL"))
    connection.close()


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE mine (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 12345"]
)
def test_somebody_elses_database_is_left_alone(path, statement):
    edit(path, statement)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="something else"):
        SqliteContractStore(path)
    assert path.read_bytes() == before


def edit(path, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_file_that_is_no_database_is_damaged_and_can_be_set_aside(path):
    path.write_bytes(b"this is no database " * 500)
    with pytest.raises(CorruptionError, match="rebuild"):
        SqliteContractStore(path)
    first = set_aside(path)
    assert first.read_bytes().startswith(b"this is no")
    with SqliteContractStore(path) as store:
        assert store.is_new
        store.put(held(signed()))
    second = set_aside(path)
    assert not path.exists()
    assert sorted(item.name for item in path.parent.iterdir()) == [first.name, second.name]
    set_aside(path)


def test_damage_inside_is_a_corruption_error(path):
    with SqliteContractStore(path) as store:
        store.rebuild([held(signed(memo=b"%d" % number), ContractState.LOST) for number in range(500)])
        store.verify()
    with path.open("r+b") as file:
        size = path.stat().st_size
        for at in range(8192, size - 4096, 4096):
            file.seek(at)
            file.write(b"\xff" * 64)
    with SqliteContractStore(path) as store:
        with pytest.raises(CorruptionError):
            store.verify()
        with pytest.raises(CorruptionError):
            list(store.all())


def test_a_row_that_is_no_contract_is_a_corruption_error(path):
    with SqliteContractStore(path) as store:
        store.put(held(signed()))
        edit(path, "UPDATE contracts SET body = x'00'")
        with pytest.raises(CorruptionError, match="none"):
            store.get(signed().contract_id)
        edit(path, "UPDATE contracts SET state = 'dreaming'")
        with pytest.raises(CorruptionError):
            list(store.all())


def test_a_place_that_cannot_be_used_is_a_fault(tmp_path):
    with pytest.raises(EnvironmentFault):
        SqliteContractStore(tmp_path / "absent" / "contracts.db")
    with pytest.raises(EnvironmentFault):
        SqliteContractStore(tmp_path)


def test_a_full_disk_is_a_fault_and_changes_nothing(path):
    with SqliteContractStore(path) as store:
        store.reserve([signed()])
        store._writer.execute("PRAGMA max_page_count = 20")
        many = [held(signed(memo=b"%d" % number), ContractState.LOST) for number in range(200)]
        with pytest.raises(EnvironmentFault, match="full"):
            store.rebuild(many)
        assert ids(store.all()) == [signed().contract_id]
        store._writer.execute("PRAGMA max_page_count = 100000")
        store.rebuild(many)
        assert len(list(store.all())) == 200


@pytest.mark.parametrize(
    ("call", "index"),
    [
        (lambda store: store.totals(), "USING COVERING INDEX contracts_sizes"),
        (lambda store: store.reserved_by(renter(0)), "USING COVERING INDEX contracts_reserved"),
        (lambda store: store.by_root(sample().root), "USING INDEX contracts_in_force"),
        (lambda store: store.owned_by(renter(0), b"", 5), "USING INDEX contracts_owned"),
        (lambda store: store.due(5, 5), "USING INDEX contracts_due"),
        (lambda store: store.totals_of(renter(0)), "USING COVERING INDEX contracts_stored"),
        (lambda store: store.audits.has_page(bytes(32), 0), "USING PRIMARY KEY"),
        (lambda store: store.audits.units_used(bytes(32), 0), "USING PRIMARY KEY"),
        (lambda store: store.audits.unnoted(renter(0), b"", 5), "USING INDEX losses_unnoted"),
        (lambda store: store.audits.unnoted_named(renter(0), [bytes(32)]), "USING INDEX losses_named"),
        (lambda store: store.audits.renters_to_tell(), "USING INDEX losses_unnoted"),
        (lambda store: store.audits.rounds(5), "USING INDEX audit_rounds_by_time"),
    ],
)
def test_queries_are_answered_from_the_index_made_for_them(path, call, index):
    """At 100,000 contracts a query without its index takes a hundred times as long."""
    with SqliteContractStore(path) as store:
        seen = []
        store._reader.set_trace_callback(seen.append)
        call(store)
        store._reader.set_trace_callback(None)
        plan = [row[3] for row in store._reader.execute("EXPLAIN QUERY PLAN " + seen[0])]
    assert any(index in line for line in plan), plan


def test_reads_do_not_wait_for_a_writer(path):
    with SqliteContractStore(path) as store:
        store.reserve([signed()])
        with store._transaction() as writer:
            writer.execute("DELETE FROM contracts")
            assert store.totals().reserved_count == 1
        assert store.totals().reserved_count == 0


def test_no_side_file_is_left_open(path):
    with SqliteContractStore(path) as store:
        store.reserve([signed()])
    assert os.listdir(path.parent) == [path.name]
