"""A catalog file made anew out of saves, and compared with another.

It is made beside its place, without syncing, and counts only when `CatalogLoader.publish` returned: then it is
checked, on disk, and has its name. Memory is one block of rows.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from stook.errors import ConfigError, CorruptionError, EnvironmentFault
from stook.storage.catalog_tables import CATALOG_SCHEMA
from stook.storage.database import Database, Schema
from stook.storage.durable import sync_directory
from stook.storage.journal_records import Block
from stook.storage.journal_tables import journaled_tables


class CatalogLoader:
    """Fills a new file. Use it as a context manager: what is not finished is removed."""

    def __init__(self, path: Path, schema: str) -> None:
        """Raises `ConfigError` for a schema that this program does not know, `EnvironmentFault` as `Database` does."""
        name, _, number = schema.rpartition("_")
        if name != CATALOG_SCHEMA.name or not number.isdecimal():
            raise ConfigError(f"the saved catalog is of a kind that is not known here: {schema[:64]!r}")
        if int(number) > int(CATALOG_SCHEMA.head.rpartition("_")[2]):
            raise ConfigError(f"the catalog was saved by a newer version of stook ({schema}): upgrade stook")
        self._path = path
        self._half = path.with_name(path.name + ".loading")
        remove_database(self._half)
        self._database = Database(self._half, Schema(name, schema))
        self._columns: dict[str, set[str]] = {}
        self._keys: dict[str, tuple[str, ...]] = {}
        self.rows = 0
        """Rows and deletions applied so far."""
        with self._database.read() as connection:
            self._keys.update(journaled_tables(connection))
            for table in self._keys:
                info = connection.exec_driver_sql(f'PRAGMA table_info("{table}")')
                self._columns[table] = {row[1] for row in info}
        # Rows come in the order of the journal, not of what refers to what; all of it is checked at the end.
        self._connection = self._database.loading()
        self._connection.execute("BEGIN")
        for table in self._keys:  # a migration may have left rows
            self._connection.execute(f'DELETE FROM "{table}"')

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def apply(self, block: Block) -> None:
        """Take in one block. Raises `CorruptionError` when it does not fit the schema."""
        known, key = self._columns.get(block.table), self._keys.get(block.table)
        if known is None or key is None or not set(block.columns) <= known:
            raise CorruptionError(f"a saved catalog has rows of an unknown table or column: {block.table[:64]}")
        if block.gone:
            if block.columns != key:
                raise CorruptionError(f"a saved catalog deletes rows of {block.table} by something that is no key")
            where = " AND ".join(f'"{name}" = ?' for name in key)
            statement = f'DELETE FROM "{block.table}" WHERE {where}'
        else:
            names = ", ".join(f'"{name}"' for name in block.columns)
            marks = ", ".join("?" * len(block.columns))
            statement = f'INSERT OR REPLACE INTO "{block.table}" ({names}) VALUES ({marks})'
        self._connection.executemany(statement, block.rows)
        self.rows += len(block.rows)

    def check(self) -> Path:
        """No more comes: check that what refers to something finds it; where the file is until `publish`.

        Raises `CorruptionError` when the saves do not make a whole catalog.
        """
        self._connection.execute("COMMIT")
        broken = self._connection.execute("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise CorruptionError(f"the saved catalog has {len(broken)} rows that refer to rows that are not there")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        self._database.close()
        return self._half

    def publish(self) -> None:
        """Bring the checked file to disk and give it its name; nobody may have it open."""
        try:
            descriptor = os.open(self._half, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            remove_sides(self._half)
            self._half.replace(self._path)
            sync_directory(self._path.absolute().parent)
        except OSError as error:
            raise EnvironmentFault(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Let go; what was not finished is removed. Idempotent."""
        self._connection.close()
        self._database.close()
        remove_database(self._half)


def remove_database(path: Path) -> None:
    """Remove a database and the files beside it."""
    path.unlink(missing_ok=True)
    remove_sides(path)


def remove_sides(path: Path) -> None:
    """Remove what SQLite kept beside a database that is closed."""
    for side in ("-wal", "-shm"):
        path.with_name(path.name + side).unlink(missing_ok=True)


def differences(mine: Path, other: Path, limit: int = 20) -> list[str]:
    """Rows of the catalog `mine` that `other` lacks or has otherwise, and the reverse, in words; at most `limit`.

    What changed in `mine` since it was saved last is left out.
    """
    database = Database(mine, CATALOG_SCHEMA)
    try:
        with database.read() as reading:
            tables = journaled_tables(reading)
        with closing(database.loading()) as connection:
            connection.execute("ATTACH DATABASE ? AS other", (str(other),))
            connection.execute("BEGIN")
            (saved,) = connection.execute("SELECT saved FROM journal_state").fetchone()
            found: list[str] = []
            for table, key in tables.items():
                found += _compare(connection, table, key, saved, limit - len(found))
                if len(found) >= limit:
                    break
            connection.execute("ROLLBACK")
        return found
    finally:
        database.close()


def _compare(connection: sqlite3.Connection, table: str, key: tuple[str, ...], saved: int, limit: int) -> Iterator[str]:
    columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    match = " AND ".join(f'c.key{at} IS d."{name}"' for at, name in enumerate(key, 1))
    unchanged = f"NOT EXISTS (SELECT 1 FROM journal_changes c WHERE c.source = ? AND c.generation > ? AND {match})"
    for one, two, words in (("main", "other", "is not saved as it is"), ("other", "main", "is saved and not here")):
        query = (
            f'SELECT * FROM (SELECT * FROM {one}."{table}" EXCEPT SELECT * FROM {two}."{table}") d '
            f"WHERE {unchanged} LIMIT ?"
        )
        for row in connection.execute(query, (table, saved, limit)):
            named = dict(zip(columns, row, strict=True))
            yield f"{table} {', '.join(f'{name}={named[name]!r}' for name in key)} {words}"
