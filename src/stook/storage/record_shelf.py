"""Recovery records that renters left with a farmer, in a small SQLite file of their own, or in memory.

A file of their own, because an index of contracts that is rebuilt from the shard files must not lose them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Protocol

from stook.codec import decode, encode
from stook.contracts.recovery import SignedRecoveryRecord
from stook.errors import ConfigError, ConflictError, CorruptionError, EnvironmentFault, MalformedError
from stook.ids import PublicKey
from stook.storage.durable import faults, sync_directory

SCHEMA_VERSION = 1
APPLICATION_ID = 0x53544B52
"""``STKR``."""
BUSY_SECONDS = 10.0
_SCHEMA = """CREATE TABLE records (
    key BLOB PRIMARY KEY NOT NULL, renter BLOB NOT NULL, left_ms INTEGER NOT NULL, record BLOB NOT NULL
) WITHOUT ROWID"""


class RecordShelf(Protocol):
    """Records by key. Calls block; what a call wrote is durable when it returns."""

    def keep(self, record: SignedRecoveryRecord, renter: PublicKey, now_ms: int, most: int) -> SignedRecoveryRecord:
        """Keep a verified record unless one with the same or a higher sequence is kept; the one that is kept then.

        Leaving the same one again makes it young again, for the renter who left it.

        Raises `ConflictError` when it would be more than `most` of one renter.
        """
        ...

    def find(self, key: PublicKey) -> SignedRecoveryRecord | None:
        """The record of a key."""
        ...

    def left_before(self, before_ms: int) -> list[tuple[PublicKey, PublicKey]]:
        """Key and renter of every record that was left, or left again, before."""
        ...

    def forget(self, keys: list[PublicKey]) -> None:
        """Let go of records."""
        ...


class MemoryRecordShelf:
    """The shelf of a farmer that lives in memory."""

    def __init__(self) -> None:
        self._records: dict[PublicKey, tuple[SignedRecoveryRecord, PublicKey, int]] = {}

    def keep(self, record: SignedRecoveryRecord, renter: PublicKey, now_ms: int, most: int) -> SignedRecoveryRecord:
        """See the port."""
        kept = self._records.get(record.body.key)
        if kept is None and sum(owner == renter for _, owner, _ in self._records.values()) >= most:
            raise ConflictError(f"at most {most} recovery records are kept for one renter")
        if kept is None or kept[0].body.sequence < record.body.sequence or kept[:2] == (record, renter):
            kept = self._records[record.body.key] = record, renter, now_ms
        return kept[0]

    def find(self, key: PublicKey) -> SignedRecoveryRecord | None:
        """See the port."""
        kept = self._records.get(key)
        return None if kept is None else kept[0]

    def left_before(self, before_ms: int) -> list[tuple[PublicKey, PublicKey]]:
        """See the port."""
        return sorted((key, renter) for key, (_, renter, left_ms) in self._records.items() if left_ms < before_ms)

    def forget(self, keys: list[PublicKey]) -> None:
        """See the port."""
        for key in keys:
            self._records.pop(key, None)


class SqliteRecordShelf:
    """The shelf on disk. Close it, or use it as a context manager.

    Raises `ConfigError` when the file is something else or of a newer Stook, `CorruptionError`, `EnvironmentFault`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with faults(f"opening {path}"):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_directory(path.absolute().parent)
        try:
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _open(self) -> None:
        database = self._database
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("BEGIN IMMEDIATE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (application,) = database.execute("PRAGMA application_id").fetchone()
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == 0 and application == 0 and tables == 0:
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA application_id={APPLICATION_ID}")
            database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        elif application != APPLICATION_ID:
            raise ConfigError(f"{self._path} is a database of another program")
        elif version != SCHEMA_VERSION:
            raise ConfigError(f"{self._path} was written by a newer version of stook: upgrade stook")
        database.execute("COMMIT")

    def __enter__(self) -> SqliteRecordShelf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._database.close()

    def keep(self, record: SignedRecoveryRecord, renter: PublicKey, now_ms: int, most: int) -> SignedRecoveryRecord:
        """See the port."""
        key = record.body.key
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    kept = self._find(key)
                    query = "SELECT count(*) FROM records WHERE renter = ?"
                    if kept is None and self._database.execute(query, (renter,)).fetchone()[0] >= most:
                        raise ConflictError(f"at most {most} recovery records are kept for one renter")
                    if kept is None or kept.body.sequence < record.body.sequence:
                        kept = record
                        self._database.execute(
                            "INSERT OR REPLACE INTO records (key, renter, left_ms, record) VALUES (?, ?, ?, ?)",
                            (key, renter, now_ms, encode(kept)),
                        )
                    elif kept == record:
                        here = "UPDATE records SET left_ms = ? WHERE key = ? AND renter = ?"
                        self._database.execute(here, (now_ms, key, renter))
                    self._database.execute("COMMIT")
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._fault(error) from error
        return kept

    def find(self, key: PublicKey) -> SignedRecoveryRecord | None:
        """See the port."""
        with self._lock:
            try:
                return self._find(key)
            except sqlite3.Error as error:
                raise self._fault(error) from error

    def left_before(self, before_ms: int) -> list[tuple[PublicKey, PublicKey]]:
        """See the port."""
        query = "SELECT key, renter FROM records WHERE left_ms < ? ORDER BY key"
        with self._lock:
            try:
                return [
                    (PublicKey(key), PublicKey(renter)) for key, renter in self._database.execute(query, (before_ms,))
                ]
            except sqlite3.Error as error:
                raise self._fault(error) from error

    def forget(self, keys: list[PublicKey]) -> None:
        """See the port."""
        with self._lock:
            try:
                self._database.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in keys])
            except sqlite3.Error as error:
                raise self._fault(error) from error

    def _find(self, key: PublicKey) -> SignedRecoveryRecord | None:
        row = self._database.execute("SELECT record FROM records WHERE key = ?", (key,)).fetchone()
        try:
            return None if row is None else decode(SignedRecoveryRecord, row[0])
        except MalformedError as error:
            raise CorruptionError(f"{self._path} is damaged: {error}") from error

    def _fault(self, error: sqlite3.Error) -> EnvironmentFault:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return CorruptionError(f"{self._path} is damaged: {error}")
        return EnvironmentFault(f"{self._path}: {error}")
