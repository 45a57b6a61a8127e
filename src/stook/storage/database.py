"""One embedded database file: how it is opened, migrated, read and written. Everything SQLite-only is in this file.

What a committed transaction wrote survives a power cut (WAL, ``synchronous=FULL``); foreign keys are enforced; writers
of several processes wait for one another. The statements of the stores are plain SQLAlchemy Core, so that a PostgreSQL
adapter needs another `Database`, not other stores (`docs/decisions/0060-embedded-databases.md`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, Insert, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.pool import NullPool

from stook.errors import ConfigError, ConflictError, CorruptionError, EnvironmentFault, MalformedError

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30.0
"""How long a writer waits for another process before it gives up."""
MAX_PARAMETERS = 500
"""Values in one IN list; few enough for every database, enough to make a batch cheap."""
WAL_TRIES = 50
WAL_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Schema:
    """Which line of migrations a file follows, and the step this code is written for (``name_NNNN``)."""

    name: str
    head: str
    steps: tuple[Path, ...] = field(default=())
    """Folders of further steps, beside the packaged ones."""


class Database:
    """An open file. `read` and `write` give a connection inside one transaction."""

    def __init__(self, path: Path, schema: Schema, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Open `path`, made if absent (readable by its owner alone), and bring it to ``schema.head``.

        Raises `ConfigError` when the file belongs to something else or to a newer version of this program,
        `CorruptionError` when it is damaged, `EnvironmentFault` when it cannot be opened or is locked.
        """
        self.path = path.absolute()
        self._schema = schema
        self._busy_seconds = busy_seconds
        self._writing = threading.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
        except OSError as error:
            raise EnvironmentFault(f"cannot open {path}: {error.strerror}") from None
        self._engine = self._engine_with(foreign_keys=True)
        self._writer = self._engine.execution_options(writing=True)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database throughout."""
        with _faults(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection that nobody else writes beside; committed at the end, rolled back on an exception."""
        with self._writing, _faults(self.path), self._writer.begin() as connection:
            yield connection

    def loading(self) -> sqlite3.Connection:
        """A bare connection for filling a new file, or for looking across two: no foreign keys, no syncs, and no
        transaction but those it is told to begin. The caller closes it.
        """
        raw = sqlite3.connect(self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
        raw.execute("PRAGMA synchronous=OFF")
        raw.execute("PRAGMA foreign_keys=OFF")
        return raw

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self._engine.dispose()

    # -- opening

    def _engine_with(self, *, foreign_keys: bool) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            connect_args={"timeout": self._busy_seconds, "check_same_thread": False},
            hide_parameters=True,  # names and sealed records do not belong in tracebacks
            **({} if foreign_keys else {"poolclass": NullPool}),
        )

        @event.listens_for(engine, "connect")
        def connected(raw: sqlite3.Connection, _record: object) -> None:
            raw.isolation_level = None  # the module's own BEGIN comes too late for DDL and for BEGIN IMMEDIATE
            use_wal(raw)
            raw.execute("PRAGMA synchronous=FULL")
            raw.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")

        @event.listens_for(engine, "begin")
        def begun(connection: Connection) -> None:
            # A transaction that reads first and writes later could find its snapshot stale, which no waiting mends.
            writing = connection.get_execution_options().get("writing", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

        return engine

    def _migrate(self) -> None:
        with self.read() as connection:
            if self._is_current(connection):
                return
        # Rebuilding a table drops the old one; with foreign keys on, that would delete the rows that refer to it. The
        # pragma is ignored inside a transaction, hence a connection of its own, and a check before the commit.
        engine = self._engine_with(foreign_keys=False)
        try:
            with self._writing, _faults(self.path), engine.execution_options(writing=True).begin() as connection:
                if not self._is_current(connection):
                    _upgrade(connection, self._schema)
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
                    if broken:
                        raise CorruptionError(f"{self.path}: {len(broken)} rows refer to rows that are not there")
        finally:
            engine.dispose()

    def _is_current(self, connection: Connection) -> bool:
        """Whether the file is at the head; False when it can be migrated there. Importing Alembic waits till then."""
        tables = inspect(connection)
        if not tables.has_table("alembic_version"):
            if tables.get_table_names():
                raise ConfigError(f"{self.path} is a database of another program")
            return False
        version = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
        if version == self._schema.head:
            return True
        name, _, number = version.rpartition("_")
        if name != self._schema.name or not number.isdecimal():
            raise ConfigError(f"{self.path} is no {self._schema.name} database: it says {version!r}")
        if int(number) > int(self._schema.head.rpartition("_")[2]):
            raise ConfigError(
                f"{self.path} was written by a newer version of stook (schema {version}, this one knows "
                f"{self._schema.head}): upgrade stook"
            )
        return False


def use_wal(raw: sqlite3.Connection) -> None:
    """Switch to WAL. Two processes that meet while a new file switches are told "locked" at once, without waiting."""
    for attempt in range(1, WAL_TRIES + 1):
        try:
            raw.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == WAL_TRIES:
                raise
            time.sleep(WAL_PAUSE_SECONDS)


def _upgrade(connection: Connection, schema: Schema) -> None:
    from alembic import command
    from alembic.config import Config

    def option(value: object) -> str:
        return str(value).replace("%", "%%")

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", option(MIGRATIONS))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_path_separator", "newline")  # its name before Alembic 1.16
    steps = (MIGRATIONS / schema.name, *schema.steps)
    config.set_main_option("version_locations", "\n".join(option(folder) for folder in steps))
    command.upgrade(config, schema.head)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Say what is wrong with the machine or the file in our own words."""
    try:
        yield
    except DatabaseError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CorruptionError(f"{path} is damaged: {error.orig}") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise EnvironmentFault(f"{path} is held by another process: {error.orig}") from error
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise EnvironmentFault(f"{path}: {error.orig}") from error
        raise
    except (MalformedError, UnicodeDecodeError) as error:
        # Only what decodes is written: the file was changed, and no peer is to blame.
        raise CorruptionError(f"{path} is damaged: {error}") from error


# ------------------------------------------------------------------------------------ what the dialects say differently


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of an embedded database that may be in use, made by SQLite's own backup.

    Raises `ConflictError` when `target` exists, `EnvironmentFault` when either cannot be used.
    """
    if target.exists():
        raise ConflictError(f"{target} exists already")
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except (OSError, sqlite3.Error) as error:
        raise EnvironmentFault(f"cannot copy {source} to {target}: {error}") from error


def upsert(connection: Connection, table: Table, *, newer: str | None = None) -> Insert:
    """INSERT that replaces the row of the same primary key; with `newer`, only if that column grows."""
    keys = [column.name for column in table.primary_key]
    if connection.dialect.name == "postgresql":
        pg = postgresql.insert(table)
        values = {column.name: pg.excluded[column.name] for column in table.c if column.name not in keys}
        return pg.on_conflict_do_update(
            index_elements=keys, set_=values, where=None if newer is None else table.c[newer] < pg.excluded[newer]
        )
    lite = sqlite.insert(table)
    values = {column.name: lite.excluded[column.name] for column in table.c if column.name not in keys}
    return lite.on_conflict_do_update(
        index_elements=keys, set_=values, where=None if newer is None else table.c[newer] < lite.excluded[newer]
    )


def chunks(values: Iterable[T], size: int = MAX_PARAMETERS) -> Iterator[list[T]]:
    """`values` in lists of at most `size`, for IN lists."""
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk


def insert_rows(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """INSERT all rows in one call of the driver; nothing for none. Raises `ConflictError` on a key that exists."""
    if not rows:
        return
    try:
        connection.execute(table.insert(), rows)
    except IntegrityError as error:
        if _is_duplicate(error):
            raise ConflictError(f"one of these {table.name} exists already") from None
        raise


def _is_duplicate(error: IntegrityError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return error.orig.sqlite_errorcode in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)
    return getattr(error.orig, "sqlstate", None) == "23505"
