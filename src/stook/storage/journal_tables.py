"""The journal's own tables in `catalog.db`, and the triggers that note every change of all others.

Triggers, because a change is then noted in the transaction that makes it, whoever makes it and in whichever table: a
table that joins the catalog later is journaled without a line of code (`docs/decisions/0330`). What they write is the
key of the row alone; the row is read when it is saved.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import BigInteger, Boolean, Column, Connection, Index, LargeBinary, SmallInteger, String, Table, inspect
from sqlalchemy.types import NullType

from stook.errors import BugError
from stook.storage.catalog_tables import Number, catalog_metadata

MAX_KEY_COLUMNS = 3

journal_state = Table(
    "journal_state",
    catalog_metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    Column("writer", LargeBinary(16), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("saved", BigInteger, nullable=False),
    Column("saved_ms", BigInteger, nullable=False),
    Column("frozen", BigInteger, nullable=False),
    Column("whole", Boolean(create_constraint=False), nullable=False),
    Column("alarm", String(500), nullable=False),
    Column("record", LargeBinary, nullable=False),
)

journal_changes = Table(
    "journal_changes",
    catalog_metadata,
    Column("source", String(64), primary_key=True),
    Column("key1", NullType, primary_key=True),
    Column("key2", NullType, primary_key=True),
    Column("key3", NullType, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Index("journal_changes_by_generation", "generation"),
    sqlite_with_rowid=False,
)

journal_saves = Table(
    "journal_saves",
    catalog_metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("state", SmallInteger, nullable=False),
    Column("parts", LargeBinary, nullable=False),
    Column("ref", LargeBinary, nullable=False),
)

journal_points = Table(
    "journal_points",
    catalog_metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("saved_ms", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
)

OWN_TABLES = frozenset({"journal_state", "journal_changes", "journal_saves", "journal_points", "alembic_version"})
"""What is not journaled: the journal itself."""


def journaled_tables(connection: Connection) -> Mapping[str, tuple[str, ...]]:
    """Every table of the file that is journaled, with the columns of its primary key."""
    tables = inspect(connection)
    found = {}
    for name in tables.get_table_names():
        if name not in OWN_TABLES and not name.startswith("sqlite_"):
            key = tuple(tables.get_pk_constraint(name)["constrained_columns"])
            if not 1 <= len(key) <= MAX_KEY_COLUMNS:
                raise BugError(f"the catalog's table {name} cannot be journaled: its key has {len(key)} columns")
            found[name] = key
    return found


def _note(table: str, key: tuple[str, ...], row: str, when: str = "") -> str:
    columns = [f'{row}."{name}"' for name in key] + ["''"] * (MAX_KEY_COLUMNS - len(key))
    # An upsert, because whatever conflict clause set the trigger off would override one of INSERT OR ...
    return (
        "INSERT INTO journal_changes (source, key1, key2, key3, generation) "
        f"SELECT '{table}', {', '.join(columns)}, generation FROM journal_state WHERE {when or 'true'} "
        "ON CONFLICT (source, key1, key2, key3) DO UPDATE SET generation = excluded.generation;"
    )


def trigger_statements(table: str, key: tuple[str, ...]) -> Mapping[str, str]:
    """The triggers of one table, by name."""
    moved = " OR ".join(f'OLD."{name}" IS NOT NEW."{name}"' for name in key)
    bodies = {
        "insert": _note(table, key, "NEW"),
        "update": _note(table, key, "NEW") + " " + _note(table, key, "OLD", moved),
        "delete": _note(table, key, "OLD"),
    }
    return {
        f"journal_{table}_{event}": (
            f'CREATE TRIGGER "journal_{table}_{event}" AFTER {event.upper()} ON "{table}" BEGIN {body} END'
        )
        for event, body in bodies.items()
    }


def wanted_triggers(connection: Connection) -> Mapping[str, str]:
    """The triggers that the file should have, by name."""
    return {
        name: statement
        for table, key in journaled_tables(connection).items()
        for name, statement in trigger_statements(table, key).items()
    }
