"""A farmer's contracts, what was spent of each grant, and the books of audits and of leaving, in one SQLite file.

What a call wrote survives a power cut when it returns (WAL, ``synchronous=FULL``). Totals are sums that SQL makes over
the rows, from indexes that hold just what is summed; no number is counted beside the contracts. The contracts can be
rebuilt from the shard files (`stook.storage.fsck`); the rest cannot, so `rebuild` leaves it alone.

Methods may be called from any thread. Reads have a connection of their own and never wait for a sync.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from stook.codec import decode, encode
from stook.contracts.contract import MAX_CONTRACT_BYTES, Contract
from stook.contracts.lifecycle import RESERVING, ContractState
from stook.errors import BugError, ConfigError, ConflictError, CorruptionError, EnvironmentFault, MalformedError
from stook.ids import ContractId, PublicKey, ShardRoot
from stook.storage.audit_book import AUDIT_SCHEMA, SqliteAuditBook
from stook.storage.durable import faults, sync_directory
from stook.storage.exit_book import EXIT_SCHEMA, SqliteExitBook
from stook.storage.holding import IN_FORCE, STORED, due_ms
from stook.storage.ports import Charge, HeldContract, Totals

SCHEMA_VERSION = 2
APPLICATION_ID = 0x53544B31
"""``STK1``: how `file(1)`, and we, tell this database from others."""
PAGE_ROWS = 500
BUSY_SECONDS = 10.0


def _states(states: frozenset[ContractState]) -> str:
    return "(" + ", ".join(f"'{state.value}'" for state in sorted(states)) + ")"


# A partial index serves a query only if both name their condition in the same words.
_RESERVED = f"state IN {_states(RESERVING)}"
_STORED = f"state IN {_states(STORED)}"
_IN_FORCE = f"state IN {_states(IN_FORCE)}"

_SCHEMA = (
    """CREATE TABLE contracts (
        contract_id BLOB PRIMARY KEY NOT NULL,
        shard_root BLOB NOT NULL,
        renter_key BLOB NOT NULL,
        state TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        due_ms INTEGER,
        body BLOB NOT NULL
    )""",
    f"CREATE UNIQUE INDEX contracts_in_force ON contracts (shard_root) WHERE {_IN_FORCE}",
    "CREATE INDEX contracts_sizes ON contracts (state, size_bytes)",
    f"CREATE INDEX contracts_reserved ON contracts (renter_key, state, size_bytes) WHERE {_RESERVED}",
    "CREATE INDEX contracts_owned ON contracts (renter_key, contract_id)",
    "CREATE INDEX contracts_due ON contracts (due_ms) WHERE due_ms IS NOT NULL",
    """CREATE TABLE spending (
        serial BLOB PRIMARY KEY NOT NULL,
        spent_bytes INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX spending_expiry ON spending (expires_ms)",
)
_STORED_BY = f"CREATE INDEX contracts_stored ON contracts (renter_key, state, size_bytes) WHERE {_STORED}"
_STEPS = (_SCHEMA, (_STORED_BY, *AUDIT_SCHEMA, *EXIT_SCHEMA))
"""What leads from one version to the next; a step that was published is never changed."""
_INSERT = (
    "INSERT INTO contracts (contract_id, shard_root, renter_key, state, size_bytes, due_ms, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_UPSERT = (
    _INSERT + " ON CONFLICT (contract_id) DO UPDATE SET shard_root = excluded.shard_root,"
    " renter_key = excluded.renter_key, state = excluded.state, size_bytes = excluded.size_bytes,"
    " due_ms = excluded.due_ms, body = excluded.body"
)
_FORGET = "DELETE FROM contracts WHERE contract_id = ?"
_COLUMNS = "SELECT body, state FROM contracts"
# Written so that no sum can pass the range of 64-bit integers.
_SPEND = (
    "INSERT INTO spending (serial, spent_bytes, expires_ms) VALUES (:serial, :size, :expires)"
    " ON CONFLICT (serial) DO UPDATE SET spent_bytes = spent_bytes + excluded.spent_bytes,"
    " expires_ms = max(expires_ms, excluded.expires_ms) WHERE spent_bytes <= :budget - :size"
)


class SqliteContractStore:
    """The `ContractStore` on SQLite. Close it, or use it as a context manager.

    Raises `ConfigError` when the file is something else or was written by a newer Stook, `CorruptionError` when it is
    damaged (then `set_aside` and `stook.storage.fsck` bring the contracts back), `EnvironmentFault` when it cannot be
    opened. `is_new` tells that the file was empty or absent: where shards exist, the index was lost and wants a
    rebuild.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with faults(f"opening {path}"):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_directory(path.absolute().parent)
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        with _sql_faults(path):
            self._writer = self._connect()
            try:
                self.is_new = self._migrate()
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise
        self.audits = SqliteAuditBook(path, self._transaction, self._rows)
        """The book of audits, in the same file."""
        self.exits = SqliteExitBook(path, self._transaction, self._rows)
        """The way out, in the same file."""

    def __enter__(self) -> SqliteContractStore:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let the file go. Idempotent."""
        with self._read_lock:
            self._reader.close()
        with self._write_lock:
            self._writer.close()

    def verify(self) -> None:
        """Read the whole file and check its structure. Raises `CorruptionError`."""
        answer = self._rows("PRAGMA integrity_check(1)")[0][0]
        if answer != "ok":
            raise CorruptionError(f"{self.path}: {answer}")

    # -- contracts

    def reserve(self, contracts: Sequence[Contract], *, replacing: Sequence[ContractId] = ()) -> None:
        """Keep farmer-signed contracts in state OFFERED and forget those they replace, in one transaction and one sync.

        Raises `ConflictError` on a known id, or when a contract is in force over one of the roots.
        """
        rows = [_row(HeldContract(contract, ContractState.OFFERED)) for contract in contracts]
        with self._transaction() as connection:
            connection.executemany(_FORGET, [(item,) for item in replacing])
            connection.executemany(_INSERT, rows)

    def get(self, contract_id: ContractId) -> HeldContract | None:
        """The contract, or None."""
        return self._one(f"{_COLUMNS} WHERE contract_id = ?", contract_id)

    def by_root(self, root: ShardRoot) -> HeldContract | None:
        """The contract in force over `root` (reserving room or storing it), or None."""
        return self._one(f"{_COLUMNS} WHERE shard_root = ? AND {_IN_FORCE}", root)

    def put(self, held: HeldContract, *, durable: bool = True) -> None:
        """Replace or add one contract and its state; without `durable` it is written but not synced.

        Raises `ConflictError` when another contract is in force over its root.
        """
        with self._transaction(durable=durable) as connection:
            connection.execute(_UPSERT, _row(held))

    def remove(self, contract_ids: Sequence[ContractId]) -> None:
        """Forget contracts; unknown ids are ignored."""
        with self._transaction() as connection:
            connection.executemany(_FORGET, [(item,) for item in contract_ids])

    def owned_by(self, renter_key: PublicKey, after: bytes, limit: int) -> list[HeldContract]:
        """Contracts of one renter with ids above `after`, in order of id."""
        return self._held(
            f"{_COLUMNS} WHERE renter_key = ? AND contract_id > ? ORDER BY contract_id LIMIT ?",
            renter_key,
            after,
            limit,
        )

    def renters(self) -> list[PublicKey]:
        """Everybody with a contract here, in order."""
        found = self._rows("SELECT DISTINCT renter_key FROM contracts ORDER BY renter_key")
        return [PublicKey(key) for (key,) in found]

    def totals(self) -> Totals:
        """Sums over all contracts held (sizes are shard sizes)."""
        row = self._rows(
            "SELECT * FROM"
            f" (SELECT coalesce(sum(size_bytes), 0), count(*) FROM contracts WHERE {_RESERVED}),"
            f" (SELECT coalesce(sum(size_bytes), 0), count(*) FROM contracts WHERE {_STORED})"
        )[0]
        return Totals(reserved_bytes=row[0], stored_bytes=row[2], reserved_count=row[1], stored_count=row[3])

    def totals_of(self, renter_key: PublicKey) -> Totals:
        """The same sums over the contracts of one renter."""
        row = self._rows(
            "SELECT * FROM (SELECT coalesce(sum(size_bytes), 0), count(*) FROM contracts"
            f" WHERE renter_key = :renter AND {_RESERVED}),"
            " (SELECT coalesce(sum(size_bytes), 0), count(*) FROM contracts"
            f" WHERE renter_key = :renter AND {_STORED})",
            {"renter": renter_key},
        )[0]
        reserved_bytes, reserved_count, stored_bytes, stored_count = row
        return Totals(reserved_bytes, stored_bytes, reserved_count, stored_count)

    def reserved_by(self, renter_key: PublicKey) -> int:
        """Bytes this renter reserved and has not brought yet."""
        sql = f"SELECT coalesce(sum(size_bytes), 0) FROM contracts WHERE renter_key = ? AND {_RESERVED}"
        return int(self._rows(sql, renter_key)[0][0])

    def due(self, now_ms: int, limit: int) -> list[HeldContract]:
        """Reservations past their consign-by and contracts past their end, soonest first; those already over before."""
        return self._held(f"{_COLUMNS} WHERE due_ms <= ? ORDER BY due_ms, contract_id LIMIT ?", now_ms, limit)

    def all(self) -> Iterator[HeldContract]:
        """Every contract held, in order of id; read in pages, so calls in between are seen or not."""
        after = b""
        while True:
            page = self._held(f"{_COLUMNS} WHERE contract_id > ? ORDER BY contract_id LIMIT ?", after, PAGE_ROWS)
            yield from page
            if len(page) < PAGE_ROWS:
                return
            after = page[-1].contract_id

    def rebuild(self, held: Sequence[HeldContract]) -> None:
        """Replace every contract by `held`, all or none; spending stays. Raises `ConflictError` as `put` does."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM contracts")
            connection.executemany(_INSERT, [_row(item) for item in held])

    # -- spending

    def spend(self, serial: bytes, size_bytes: int, budget_bytes: int, expires_ms: int) -> bool:
        """Record `size_bytes` spent under a grant serial, durably; False, recording nothing, when over the budget."""
        if size_bytes < 0:
            raise BugError("spending is never negative; see refund")
        if size_bytes > budget_bytes:
            return False
        values = {"serial": serial, "size": size_bytes, "budget": budget_bytes, "expires": expires_ms}
        with self._transaction() as connection:
            return connection.execute(_SPEND, values).rowcount == 1

    def spend_all(self, charges: Sequence[Charge]) -> bool:
        """`spend` for each in order, in one transaction and one sync; False, recording nothing, when one is over."""
        if any(charge.size_bytes < 0 for charge in charges):
            raise BugError("spending is never negative; see refund")
        try:
            with self._transaction() as connection:
                for charge in charges:
                    values = {
                        "serial": charge.serial,
                        "size": charge.size_bytes,
                        "budget": charge.budget_bytes,
                        "expires": charge.expires_ms,
                    }
                    over = charge.size_bytes > charge.budget_bytes
                    if over or connection.execute(_SPEND, values).rowcount != 1:
                        raise _OverBudgetError
        except _OverBudgetError:
            return False
        return True

    def refund(self, serial: bytes, size_bytes: int) -> None:
        """Give back bytes that were recorded and not sent; never below nothing spent."""
        if size_bytes < 0:
            raise BugError("a refund is never negative; see spend")
        with self._transaction() as connection:
            connection.execute(
                "UPDATE spending SET spent_bytes = max(0, spent_bytes - ?) WHERE serial = ?", (size_bytes, serial)
            )

    def forget_spending(self, expired_before_ms: int) -> int:
        """Drop records of grants that expired before; how many."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM spending WHERE expires_ms < ?", (expired_before_ms,)).rowcount

    # -- inside

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            # macOS: fsync there stops at the drive's cache.
            connection.execute("PRAGMA fullfsync = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self) -> bool:
        connection = self._writer
        # Before anything is written: switching the journal changes the file, and it may be somebody else's.
        version = self._schema_version()
        connection.execute("PRAGMA journal_mode = WAL")
        if version < SCHEMA_VERSION:
            with _begun(connection):
                for step in _STEPS[self._schema_version() :]:  # another process may have been faster
                    for statement in step:
                        connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return not version

    def _schema_version(self) -> int:
        version, application, tables = (
            int(self._writer.execute(question).fetchone()[0])
            for question in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
        )
        if application != APPLICATION_ID and (application or version or tables):
            raise ConfigError(f"{self.path} is a database of something else; name another file")
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} was written by a newer Stook (schema {version}, this one knows {SCHEMA_VERSION}):"
                " use that one, or newer"
            )
        return version

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        with self._write_lock, _sql_faults(self.path), self._synced(durable), _begun(self._writer):
            yield self._writer

    @contextmanager
    def _synced(self, durable: bool) -> Iterator[None]:
        """In a write-ahead log NORMAL means: synced with the next transaction that is, or with the next checkpoint."""
        if durable:
            yield
            return
        self._writer.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._writer.execute("PRAGMA synchronous = FULL")

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        named = values[0] if values and isinstance(values[0], dict) else values
        with self._read_lock, _sql_faults(self.path):
            return self._reader.execute(sql, named).fetchall()

    def _held(self, sql: str, *values: Any) -> list[HeldContract]:
        return [_held_contract(self.path, *row) for row in self._rows(sql, *values)]

    def _one(self, sql: str, *values: Any) -> HeldContract | None:
        found = self._held(sql, *values)
        return found[0] if found else None


class _OverBudgetError(Exception):
    """Rolls a batch of charges back."""


def set_aside(path: Path) -> Path:
    """Move a damaged contract index, with its side files, out of the way, and keep it; its new name.

    Nobody may have it open. Raises `EnvironmentFault`.
    """
    count = 1
    while (target := path.with_name(f"{path.name}.damaged-{count}")).exists():
        count += 1
    with faults(f"setting aside {path}"):
        # The log goes first: on its own it means nothing, but an old log beside a new database would.
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{target}{suffix}")
        sync_directory(path.absolute().parent)
    return target


def _row(held: HeldContract) -> tuple[bytes, bytes, bytes, str, int, int | None, bytes]:
    terms = held.contract.terms
    body = encode(held.contract)
    return (
        terms.contract_id,
        terms.shard_root,
        terms.renter_key,
        held.state.value,
        terms.shard_size_bytes,
        due_ms(held),
        body,
    )


def _held_contract(path: Path, body: bytes, state: str) -> HeldContract:
    try:
        return HeldContract(decode(Contract, body, max_bytes=MAX_CONTRACT_BYTES), ContractState(state))
    except (MalformedError, ValueError) as error:
        raise CorruptionError(f"{path} holds a contract that is none: {error}") from error


@contextmanager
def _begun(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def _sql_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ConflictError(f"a contract with this id or over this shard is held already ({error})") from error
    except sqlite3.ProgrammingError as error:
        raise BugError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        plain = getattr(error, "sqlite_errorcode", 0) & 0xFF  # an extended code carries the plain one in its low byte
        if plain in _DAMAGED:
            raise CorruptionError(
                f"{path} is damaged ({error}): stop the farmer and rebuild it from the shards"
            ) from error
        raise EnvironmentFault(f"{path}: {error}") from error
