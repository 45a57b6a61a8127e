"""A node's books in `books.db`: accounts, batches, spans, ledger lines. One schema for payers and payees.

What a call wrote survives a power cut when it returns, except what is said to outlive only a kill. Lines are never
changed: the table has triggers that refuse it (`docs/formats/ledger.md`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from stook.codec import decode, encode
from stook.errors import ConfigError, ConflictError, CorruptionError, EnvironmentFault, MalformedError
from stook.ids import ContractId, NodeId, PublicKey
from stook.money import narrow, wide
from stook.payments.account import Account, Change, KeptBatch
from stook.payments.batch import Agreement, SignedBatch
from stook.payments.cheque import SignedCheque
from stook.payments.ledger import ENTRIES, Book, Kind, Line, Side
from stook.payments.orders import MAX_PRICES, SignedOrder
from stook.payments.tariff import Span
from stook.storage.database import use_wal

APPLICATION_ID = 0x53544B42
"""``STKB``."""
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

_SCHEMA = (
    """CREATE TABLE accounts (
        partner BLOB PRIMARY KEY NOT NULL,
        version INTEGER NOT NULL,
        key BLOB NOT NULL,
        seq INTEGER NOT NULL,
        cut_ms INTEGER NOT NULL,
        owed BLOB NOT NULL,
        head BLOB NOT NULL,
        cheque BLOB,
        delivered BLOB NOT NULL,
        cashed BLOB NOT NULL,
        bartered BLOB NOT NULL,
        billed BLOB NOT NULL,
        disputed BLOB NOT NULL,
        since_ms INTEGER NOT NULL,
        silent_ms INTEGER NOT NULL,
        floor_seq INTEGER NOT NULL,
        floor_ms INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE orders (
        partner BLOB NOT NULL,
        price INTEGER NOT NULL,
        received INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (partner, price)
    ) WITHOUT ROWID""",
    """CREATE TABLE batches (
        partner BLOB NOT NULL,
        seq INTEGER NOT NULL,
        body BLOB NOT NULL,
        agreement BLOB,
        PRIMARY KEY (partner, seq)
    ) WITHOUT ROWID""",
    """CREATE TABLE spans (
        partner BLOB NOT NULL,
        contract_id BLOB NOT NULL,
        opened_seq INTEGER NOT NULL,
        closed_seq INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        price INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        begin_ms INTEGER NOT NULL,
        start_ms INTEGER NOT NULL,
        stop_ms INTEGER NOT NULL,
        PRIMARY KEY (partner, contract_id, opened_seq)
    ) WITHOUT ROWID""",
    "CREATE INDEX spans_open ON spans (partner) WHERE closed_seq = 0",
    """CREATE TABLE lines (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        partner BLOB NOT NULL,
        seq INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        side TEXT NOT NULL,
        kind TEXT NOT NULL,
        amount BLOB NOT NULL,
        reference BLOB NOT NULL,
        receipt BLOB NOT NULL,
        tariff INTEGER NOT NULL
    )""",
    "CREATE INDEX lines_by_partner ON lines (partner, number)",
    "CREATE INDEX lines_by_time ON lines (at_ms)",
    "CREATE TRIGGER lines_stay BEFORE UPDATE ON lines BEGIN SELECT raise(ABORT, 'lines are never changed'); END",
    "CREATE TRIGGER lines_stand BEFORE DELETE ON lines BEGIN SELECT raise(ABORT, 'lines are never changed'); END",
)
_STEPS = (_SCHEMA,)
"""What leads from one version to the next; a step that was published is never changed."""
_ACCOUNT = (
    "SELECT key, version, seq, cut_ms, owed, head, cheque, delivered, cashed, bartered, billed, disputed, since_ms,"
    " silent_ms, floor_seq, floor_ms"
    " FROM accounts"
)
_SPAN = (
    "SELECT contract_id, revision, price, size_bytes, begin_ms, start_ms, stop_ms, opened_seq, closed_seq FROM spans"
)
_LINE = "SELECT partner, seq, at_ms, side, kind, amount, reference, receipt, tariff, number FROM lines"


class Books(Protocol):
    """Accounts, batches, spans, lines. Every writing call is one transaction; calls block, from any thread."""

    def account(self, partner: NodeId) -> Account | None:
        """The account with this node, or None."""
        ...

    def accounts(self) -> list[Account]:
        """All, by partner."""
        ...

    def post(self, *changes: Change) -> None:
        """Write down steps, in order, all or none, durably.

        Raises `ConflictError` when an account is not as it was when its change was made: somebody else wrote. Read it
        again and decide again.
        """
        ...

    def add_orders(self, partner_key: PublicKey, orders: Iterable[SignedOrder], now_ms: int) -> None:
        """Keep what is higher than what is held. Outlives a kill, perhaps no power cut."""
        ...

    def add_received(
        self, partner_key: PublicKey, price: int, size_bytes: int, sign: Callable[[int], SignedOrder], now_ms: int
    ) -> SignedOrder:
        """Count bytes received and keep the order over all of them, which `sign` makes from the sum; that order.

        Two processes that count at once lose nothing. Outlives a kill, perhaps no power cut. Raises `ValueError` at
        one price more than a batch has room for.
        """
        ...

    def open_spans(self, partner: NodeId) -> Mapping[ContractId, Span]:
        """What is paid for now."""
        ...

    def spans_at(self, partner: NodeId, seq: int) -> list[Span]:
        """What batch `seq` pays for."""
        ...

    def paid_before(self, partner: NodeId, contract_ids: Iterable[ContractId]) -> frozenset[ContractId]:
        """Those of these contracts that ever had a span."""
        ...

    def closed_last(self, partner: NodeId, contract_ids: Iterable[ContractId]) -> Mapping[ContractId, int]:
        """Those of these contracts that had a span and have none open, and the batch that closed the last of them."""
        ...

    def batch(self, partner: NodeId, seq: int) -> KeptBatch | None:
        """One batch, or None."""
        ...

    def batches(self, partner: NodeId, after: int, limit: int) -> list[KeptBatch]:
        """Batches above `after`, in order."""
        ...

    def unanswered(self, partner: NodeId, up_to: int, limit: int) -> list[KeptBatch]:
        """Batches up to this one whose agreement never came, in order."""
        ...

    def lines(
        self, partner: NodeId | None = None, after: int = 0, limit: int = -1, from_ms: int = 0, to_ms: int = 2**63 - 1
    ) -> list[Line]:
        """Lines with numbers above `after` written in [from_ms, to_ms), in order."""
        ...

    def disputes(self, partner: NodeId, limit: int) -> list[Line]:
        """The first lines of what was disputed with this node, in order."""
        ...

    def line(self, number: int) -> Line | None:
        """One line, or None."""
        ...

    def balances(self, partner: NodeId | None = None, before_ms: int = 2**63 - 1) -> Mapping[Book, int]:
        """Debits less credits of every account, over all lines written before."""
        ...


class SqliteBooks:
    """`Books` in one file; ``:memory:`` for simulations."""

    def __init__(self, path: Path | str) -> None:
        """Open or make it. Raises `ConfigError` when it is something else's or newer, `EnvironmentFault`."""
        self.path = path
        self._lock = threading.RLock()
        with _faults(path):
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def _open(self) -> None:
        self._db.execute("BEGIN")  # one look at the file, for somebody may be making it
        version, application, tables = (
            int(self._db.execute(question).fetchone()[0])
            for question in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
        )
        self._db.execute("COMMIT")
        if application != APPLICATION_ID and (application or version or tables):
            raise ConfigError(f"{self.path} is a database of something else")
        if version > SCHEMA_VERSION:
            raise ConfigError(f"{self.path} was written by a newer Stook (schema {version}): use that one, or newer")
        use_wal(self._db)
        self._db.execute("PRAGMA synchronous = FULL")
        if version < SCHEMA_VERSION:
            with self._transaction() as db:
                for step in _STEPS[int(db.execute("PRAGMA user_version").fetchone()[0]) :]:
                    for statement in step:
                        db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Let the file go. Idempotent."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> SqliteBooks:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    # -- accounts

    def account(self, partner: NodeId) -> Account | None:
        """See the port."""
        found = self._rows(f"{_ACCOUNT} WHERE partner = ?", partner)
        return self._account(partner, *found[0]) if found else None

    def accounts(self) -> list[Account]:
        """See the port."""
        found = self._rows(_ACCOUNT.replace("SELECT ", "SELECT partner, ") + " ORDER BY partner")
        return [self._account(*row) for row in found]

    def _account(
        self,
        partner: bytes,
        key: bytes,
        version: int,
        seq: int,
        cut_ms: int,
        owed: bytes,
        head: bytes,
        cheque: bytes | None,
        delivered: bytes,
        cashed: bytes,
        bartered: bytes,
        billed: bytes,
        disputed: bytes,
        since_ms: int,
        silent_ms: int,
        floor_seq: int,
        floor_ms: int,
    ) -> Account:
        orders = self._rows("SELECT body FROM orders WHERE partner = ? ORDER BY price", partner)
        return Account(
            partner_key=PublicKey(key),
            seq=seq,
            cut_ms=cut_ms,
            owed=narrow(owed),
            head=head,
            cheque=None if cheque is None else self._read(SignedCheque, cheque),
            delivered=narrow(delivered),
            cashed=narrow(cashed),
            bartered=narrow(bartered),
            orders=tuple(self._read(SignedOrder, body) for (body,) in orders),
            billed=dict(self._read(tuple[tuple[int, int], ...], billed)),
            disputed=narrow(disputed),
            since_ms=since_ms,
            silent_ms=silent_ms,
            floor_seq=floor_seq,
            floor_ms=floor_ms,
            version=version,
        )

    def post(self, *changes: Change) -> None:
        """See the port."""
        with self._transaction() as db:
            for change in changes:
                self._post(db, change)

    def _post(self, db: sqlite3.Connection, change: Change) -> None:
        after = change.account
        partner = after.partner
        found = db.execute("SELECT version FROM accounts WHERE partner = ?", (partner,)).fetchone()
        if (found[0] if found else 0) != after.version:
            raise ConflictError(f"the account with {partner.hex()[:16]} was changed by somebody else meanwhile")
        db.execute(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                partner,
                after.version + 1,
                after.partner_key,
                after.seq,
                after.cut_ms,
                wide(after.owed),
                after.head,
                None if after.cheque is None else encode(after.cheque),
                wide(after.delivered),
                wide(after.cashed),
                wide(after.bartered),
                encode(tuple(sorted(after.billed.items()))),
                wide(after.disputed),
                after.since_ms,
                after.silent_ms,
                after.floor_seq,
                after.floor_ms,
            ),
        )
        _put_orders(db, partner, after.orders)
        for kept in change.batches:
            agreement = None if kept.agreement is None else encode(kept.agreement)
            db.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?)"
                " ON CONFLICT (partner, seq) DO UPDATE SET agreement = excluded.agreement WHERE body = excluded.body",
                (partner, kept.signed.batch.seq, encode(kept.signed), agreement),
            )
        db.executemany(
            "UPDATE spans SET closed_seq = ?, stop_ms = ? WHERE partner = ? AND contract_id = ? AND closed_seq = 0",
            [(span.closed_seq, span.stop_ms, partner, span.contract_id) for span in change.closed],
        )
        db.executemany(
            "INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [_span_row(partner, s) for s in change.opened]
        )
        db.executemany(
            "INSERT INTO lines (partner, seq, at_ms, side, kind, amount, reference, receipt, tariff)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    each.partner,
                    each.seq,
                    each.at_ms,
                    each.side.value,
                    each.kind.value,
                    wide(each.amount),
                    each.reference,
                    each.receipt,
                    each.tariff,
                )
                for each in change.lines
            ],
        )

    def add_orders(self, partner_key: PublicKey, orders: Iterable[SignedOrder], now_ms: int) -> None:
        """See the port."""
        with self._transaction(durable=False) as db:
            _put_orders(db, _ensure(db, partner_key, now_ms), orders)

    def add_received(
        self, partner_key: PublicKey, price: int, size_bytes: int, sign: Callable[[int], SignedOrder], now_ms: int
    ) -> SignedOrder:
        """See the port."""
        with self._transaction(durable=False) as db:
            partner = _ensure(db, partner_key, now_ms)
            query = "SELECT received FROM orders WHERE partner = ? AND price = ?"
            found = db.execute(query, (partner, price)).fetchone()
            held = db.execute("SELECT count(*) FROM orders WHERE partner = ?", (partner,)).fetchone()[0]
            if found is None and held >= MAX_PRICES:
                raise ValueError(f"downloads at more than {MAX_PRICES} prices")
            signed = sign((found[0] if found else 0) + size_bytes)
            _put_orders(db, partner, [signed])
        return signed

    # -- spans and batches

    def open_spans(self, partner: NodeId) -> Mapping[ContractId, Span]:
        """See the port."""
        found = self._rows(f"{_SPAN} WHERE partner = ? AND closed_seq = 0", partner)
        return {span.contract_id: span for span in map(_span, found)}

    def spans_at(self, partner: NodeId, seq: int) -> list[Span]:
        """See the port."""
        where = "WHERE partner = ? AND opened_seq <= ? AND (closed_seq = 0 OR closed_seq >= ?)"
        return [_span(row) for row in self._rows(f"{_SPAN} {where}", partner, seq, seq)]

    def paid_before(self, partner: NodeId, contract_ids: Iterable[ContractId]) -> frozenset[ContractId]:
        """See the port."""
        query = "SELECT 1 FROM spans WHERE partner = ? AND contract_id = ? LIMIT 1"
        return frozenset(name for name in contract_ids if self._rows(query, partner, name))

    def closed_last(self, partner: NodeId, contract_ids: Iterable[ContractId]) -> Mapping[ContractId, int]:
        """See the port."""
        query = "SELECT min(closed_seq), max(closed_seq) FROM spans WHERE partner = ? AND contract_id = ?"
        found = {name: self._rows(query, partner, name)[0] for name in contract_ids}
        return {name: last for name, (first, last) in found.items() if first}

    def batch(self, partner: NodeId, seq: int) -> KeptBatch | None:
        """See the port."""
        found = self.batches(partner, seq - 1, 1)
        return found[0] if found and found[0].signed.batch.seq == seq else None

    def batches(self, partner: NodeId, after: int, limit: int) -> list[KeptBatch]:
        """See the port."""
        return self._batches("seq > ?", partner, after, limit)

    def unanswered(self, partner: NodeId, up_to: int, limit: int) -> list[KeptBatch]:
        """See the port."""
        return self._batches("agreement IS NULL AND seq <= ?", partner, up_to, limit)

    def _batches(self, which: str, *values: Any) -> list[KeptBatch]:
        query = f"SELECT body, agreement FROM batches WHERE partner = ? AND {which} ORDER BY seq LIMIT ?"
        return [
            KeptBatch(self._read(SignedBatch, body), None if agreement is None else self._read(Agreement, agreement))
            for body, agreement in self._rows(query, *values)
        ]

    # -- lines

    def lines(
        self, partner: NodeId | None = None, after: int = 0, limit: int = -1, from_ms: int = 0, to_ms: int = 2**63 - 1
    ) -> list[Line]:
        """See the port."""
        who, values = ("partner = ? AND ", [partner]) if partner is not None else ("", [])
        where = f"WHERE {who}number > ? AND at_ms >= ? AND at_ms < ? ORDER BY number LIMIT ?"
        return [_line(row) for row in self._rows(f"{_LINE} {where}", *values, after, from_ms, to_ms, limit)]

    def disputes(self, partner: NodeId, limit: int) -> list[Line]:
        """See the port."""
        where = "WHERE partner = ? AND kind = ? ORDER BY number LIMIT ?"
        return [_line(row) for row in self._rows(f"{_LINE} {where}", partner, Kind.DISPUTED.value, limit)]

    def line(self, number: int) -> Line | None:
        """See the port."""
        found = self._rows(f"{_LINE} WHERE number = ?", number)
        return _line(found[0]) if found else None

    def balances(self, partner: NodeId | None = None, before_ms: int = 2**63 - 1) -> Mapping[Book, int]:
        """See the port. Added up here: SQL's integers end at 2^63, which is nine credits."""
        who, values = ("partner = ? AND ", [partner]) if partner is not None else ("", [])
        found: dict[Book, int] = {}
        rows = self._rows(f"SELECT side, kind, amount FROM lines WHERE {who}at_ms < ?", *values, before_ms)
        sums: dict[tuple[str, str], int] = {}
        for side, kind, amount in rows:
            sums[side, kind] = sums.get((side, kind), 0) + int.from_bytes(amount, "big")
        for (side, kind), total in sums.items():
            if (entry := ENTRIES.get((Side(side), Kind(kind)))) is not None:
                debit, credit = entry
                found[debit] = found.get(debit, 0) + total
                found[credit] = found.get(credit, 0) - total
        return found

    # -- inside

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        with self._lock, _faults(self.path):
            if not durable:
                self._db.execute("PRAGMA synchronous = NORMAL")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            finally:
                if not durable:
                    self._db.execute("PRAGMA synchronous = FULL")

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock, _faults(self.path):
            return self._db.execute(query, values).fetchall()

    def _read(self, kind: Any, body: bytes) -> Any:
        try:
            return decode(kind, body)
        except MalformedError as error:
            raise CorruptionError(f"{self.path} holds a record that is none: {error}") from error


def _ensure(db: sqlite3.Connection, partner_key: PublicKey, now_ms: int) -> NodeId:
    """The account exists, if only for its orders; its node id."""
    partner = Account(partner_key).partner
    db.execute(
        "INSERT OR IGNORE INTO accounts VALUES (?, 0, ?, 0, 0, ?, X'', NULL, ?, ?, ?, ?, ?, ?, 0, 0, 0)",
        (partner, partner_key, *[wide(0)] * 3, wide(0), encode(()), wide(0), now_ms),
    )
    return partner


def _put_orders(db: sqlite3.Connection, partner: bytes, orders: Iterable[SignedOrder]) -> None:
    db.executemany(
        "INSERT INTO orders VALUES (?, ?, ?, ?) ON CONFLICT (partner, price) DO UPDATE"
        " SET received = excluded.received, body = excluded.body WHERE excluded.received > received",
        [(partner, each.order.price_per_gib, each.order.received_bytes, encode(each)) for each in orders],
    )


def _span_row(partner: bytes, span: Span) -> Sequence[Any]:
    return (
        partner,
        span.contract_id,
        span.opened_seq,
        span.closed_seq,
        span.revision,
        span.price_per_gib_hour,
        span.size_bytes,
        span.begin_ms,
        span.start_ms,
        span.stop_ms,
    )


def _span(row: Sequence[Any]) -> Span:
    return Span(*row)


def _line(row: Sequence[Any]) -> Line:
    partner, seq, at_ms, side, kind, amount, reference, receipt, tariff, number = row
    return Line(NodeId(partner), seq, at_ms, Side(side), Kind(kind), narrow(amount), reference, receipt, tariff, number)


@contextmanager
def _faults(path: Path | str) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CorruptionError(f"{path} is damaged: {error}") from error
        if code in (sqlite3.SQLITE_CONSTRAINT,):
            raise ConflictError(f"{path}: {error}") from error
        raise EnvironmentFault(f"{path}: {error}") from error
