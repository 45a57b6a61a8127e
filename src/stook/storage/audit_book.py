"""The book of audits in the farmer's SQLite file, beside its contracts. Opened by `contract_store`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stook.audits.challenge import SignedChallenge
from stook.audits.proof import SignedHead
from stook.audits.receipt import ReceiptLine, SignedBatchReceipt
from stook.codec import decode, encode
from stook.contracts.loss import NotedLoss, SignedLoss, SignedLossNote
from stook.errors import CorruptionError, MalformedError
from stook.ids import ContractId, PublicKey
from stook.storage.audit_ports import KeptRound, LossCounts, RoundSummary, UnitsAsked

T = TypeVar("T")

AUDIT_SCHEMA = (
    """CREATE TABLE audit_rounds (
        digest BLOB PRIMARY KEY NOT NULL,
        renter_key BLOB NOT NULL,
        auditor_key BLOB NOT NULL,
        asked_ms INTEGER NOT NULL,
        leaves INTEGER NOT NULL,
        billed_units INTEGER NOT NULL,
        challenge BLOB NOT NULL,
        receipt BLOB,
        lines BLOB
    )""",
    "CREATE INDEX audit_rounds_of_renter ON audit_rounds (renter_key, asked_ms)",
    "CREATE INDEX audit_rounds_by_time ON audit_rounds (asked_ms)",
    """CREATE TABLE audit_pages (
        digest BLOB NOT NULL REFERENCES audit_rounds (digest),
        page INTEGER NOT NULL,
        head BLOB NOT NULL,
        PRIMARY KEY (digest, page)
    ) WITHOUT ROWID""",
    """CREATE TABLE audit_units (
        contract_id BLOB PRIMARY KEY NOT NULL,
        audit_window INTEGER NOT NULL,
        used INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE losses (
        contract_id BLOB PRIMARY KEY NOT NULL,
        digest BLOB NOT NULL,
        renter_key BLOB NOT NULL,
        declared_ms INTEGER NOT NULL,
        loss BLOB NOT NULL,
        note BLOB,
        closed INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX losses_unnoted ON losses (renter_key, contract_id) WHERE note IS NULL",
    "CREATE UNIQUE INDEX losses_named ON losses (digest)",
    "CREATE INDEX losses_closed ON losses (declared_ms) WHERE closed = 1",
)
# A count of another interval is of no use: only the newest is kept, and an older one (a clock set back) begins anew.
_COUNT = (
    "INSERT INTO audit_units (contract_id, audit_window, used) VALUES (:id, :window, :units)"
    " ON CONFLICT (contract_id) DO UPDATE SET"
    " used = CASE WHEN audit_window = excluded.audit_window THEN used ELSE 0 END + excluded.used,"
    " audit_window = excluded.audit_window"
)
_USED = "SELECT used FROM audit_units WHERE contract_id = ? AND audit_window = ?"
_SUMMARY = (
    "SELECT digest, renter_key, auditor_key, asked_ms, leaves, billed_units, receipt,"
    " (SELECT count(*) FROM audit_pages WHERE audit_pages.digest = audit_rounds.digest)"
    " FROM audit_rounds ORDER BY asked_ms DESC, rowid DESC LIMIT ?"
)
_BATCH = 500


class Transaction(Protocol):
    """How a change is begun; see `SqliteContractStore`."""

    def __call__(self, *, durable: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        """A connection that nobody else writes beside."""
        ...


class SqliteAuditBook:
    """The `AuditBook` on SQLite. It lives as long as the store that made it."""

    def __init__(self, path: Path, transaction: Transaction, rows: Callable[..., list[Any]]) -> None:
        self._path = path
        self._transaction = transaction
        self._rows = rows

    # -- rounds

    def has_page(self, digest: bytes, page: int) -> bool:
        """Whether this page of this challenge was signed and counted already."""
        return bool(self._rows("SELECT 1 FROM audit_pages WHERE digest = ? AND page = ?", digest, page))

    def add_page(
        self,
        signed: SignedChallenge,
        head: SignedHead,
        asked: Sequence[UnitsAsked],
        *,
        now_ms: int,
        keep_rounds: int,
    ) -> int:
        """Note a signed page and count its units, once for each challenge; the units beyond the free ones."""
        challenge, digest = signed.challenge, head.head.challenge
        named = (digest, challenge.renter_key, challenge.auditor_key, now_ms, challenge.leaves, 0, encode(signed))
        with self._transaction(durable=False) as connection:
            is_new = connection.execute(
                "INSERT INTO audit_rounds (digest, renter_key, auditor_key, asked_ms, leaves, billed_units, challenge)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                named,
            ).rowcount
            page = (digest, head.head.page, encode(head))
            if not connection.execute("INSERT INTO audit_pages VALUES (?, ?, ?) ON CONFLICT DO NOTHING", page).rowcount:
                return 0
            billed = sum(_count(connection, one) for one in asked)
            if billed:
                connection.execute(
                    "UPDATE audit_rounds SET billed_units = billed_units + ? WHERE digest = ?", (billed, digest)
                )
            if is_new:
                of_renter = "SELECT digest FROM audit_rounds WHERE renter_key = ? ORDER BY asked_ms DESC, rowid DESC"
                _forget(connection, f"{of_renter} LIMIT -1 OFFSET ?", challenge.renter_key, keep_rounds)
            return billed

    def add_receipt(self, signed: SignedBatchReceipt, lines: Sequence[ReceiptLine]) -> bool:
        """Keep the receipt of a round, durably; False when the challenge is not known. The first one stays."""
        digest = signed.receipt.challenge
        with self._transaction() as connection:
            connection.execute(
                "UPDATE audit_rounds SET receipt = ?, lines = ? WHERE digest = ? AND receipt IS NULL",
                (encode(signed), encode(tuple(lines)), digest),
            )
            return connection.execute("SELECT 1 FROM audit_rounds WHERE digest = ?", (digest,)).fetchone() is not None

    def round(self, digest: bytes) -> KeptRound | None:
        """The evidence of one challenge, or None."""
        found = self._rows("SELECT challenge, receipt, lines FROM audit_rounds WHERE digest = ?", digest)
        if not found:
            return None
        challenge, receipt, lines = found[0]
        heads = self._rows("SELECT head FROM audit_pages WHERE digest = ? ORDER BY page", digest)
        return KeptRound(
            self._read(SignedChallenge, challenge),
            tuple(self._read(SignedHead, head) for (head,) in heads),
            None if receipt is None else self._read(SignedBatchReceipt, receipt),
            () if lines is None else self._read(tuple[ReceiptLine, ...], lines),
        )

    def rounds(self, limit: int) -> list[RoundSummary]:
        """The newest rounds, newest first."""
        return [self._summary(*row) for row in self._rows(_SUMMARY, limit)]

    def units_used(self, contract_id: ContractId, window: int) -> int:
        """Units of this contract's shard that were counted in the interval `window`."""
        found = self._rows(_USED, contract_id, window)
        return int(found[0][0]) if found else 0

    # -- losses

    def declare(self, losses: Mapping[PublicKey, Sequence[SignedLoss]]) -> None:
        """Keep declarations by renter, durably and all or none. The first one of a contract stays."""
        rows = [
            (one.loss.contract_id, one.loss.digest, renter_key, one.loss.declared_at_ms, encode(one))
            for renter_key, told in losses.items()
            for one in told
        ]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO losses (contract_id, digest, renter_key, declared_ms, loss) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                rows,
            )

    def loss(self, contract_id: ContractId) -> SignedLoss | None:
        """The declaration about this contract, or None."""
        found = self._rows("SELECT loss FROM losses WHERE contract_id = ?", contract_id)
        return self._read(SignedLoss, found[0][0]) if found else None

    def unnoted(self, renter_key: PublicKey, after: bytes, limit: int) -> list[SignedLoss]:
        """Declarations that this renter has not noted, of contracts with ids above `after`, in order of id."""
        found = self._rows(
            "SELECT loss FROM losses WHERE note IS NULL AND renter_key = ? AND contract_id > ?"
            " ORDER BY contract_id LIMIT ?",
            renter_key,
            after,
            limit,
        )
        return [self._read(SignedLoss, loss) for (loss,) in found]

    def unnoted_named(self, renter_key: PublicKey, digests: Sequence[bytes]) -> list[SignedLoss]:
        """Those of them with one of these digests; no more than were named."""
        found = []
        for digest in dict.fromkeys(digests):
            found += self._rows(
                "SELECT loss FROM losses WHERE digest = ? AND renter_key = ? AND note IS NULL", digest, renter_key
            )
        return [self._read(SignedLoss, loss) for (loss,) in found]

    def renters_to_tell(self) -> list[PublicKey]:
        """Renters that have a declaration to note."""
        found = self._rows("SELECT DISTINCT renter_key FROM losses WHERE note IS NULL")
        return [PublicKey(key) for (key,) in found]

    def note(self, noted: Sequence[NotedLoss]) -> int:
        """Keep notes of declarations on the book, durably; how many were new. The first one stays."""
        new = 0
        with self._transaction() as connection:
            for one in noted:
                new += connection.execute(
                    "UPDATE losses SET note = ? WHERE digest = ? AND note IS NULL",
                    (encode(one.note), one.loss.loss.digest),
                ).rowcount
        return new

    def noted(self, contract_ids: Sequence[ContractId]) -> list[NotedLoss]:
        """The noted losses of these contracts, in order of id."""
        found = []
        for contract_id in sorted(set(contract_ids)):
            found += self._rows("SELECT loss, note FROM losses WHERE contract_id = ? AND note IS NOT NULL", contract_id)
        return [NotedLoss(self._read(SignedLoss, loss), self._read(SignedLossNote, note)) for loss, note in found]

    def loss_counts(self) -> LossCounts:
        """How many losses are on the book."""
        declared, noted = self._rows("SELECT count(*), count(note) FROM losses")[0]
        return LossCounts(declared, noted)

    # -- forgetting

    def close(self, contract_ids: Sequence[ContractId]) -> None:
        """These contracts are over: unnoted losses and counts go at once, noted losses stay until `prune`."""
        rows = [(contract_id,) for contract_id in contract_ids]
        with self._transaction(durable=False) as connection:
            connection.executemany("DELETE FROM losses WHERE contract_id = ? AND note IS NULL", rows)
            connection.executemany("UPDATE losses SET closed = 1 WHERE contract_id = ?", rows)
            connection.executemany("DELETE FROM audit_units WHERE contract_id = ?", rows)

    def prune(self, before_ms: int, keep_rounds: int) -> int:
        """Forget old rounds and all but the newest, and old closed losses; how many rounds were forgotten."""
        gone = 0
        with self._transaction(durable=False) as connection:
            gone += _forget(connection, "SELECT digest FROM audit_rounds WHERE asked_ms < ?", before_ms)
            newest = "SELECT digest FROM audit_rounds ORDER BY asked_ms DESC, rowid DESC LIMIT -1 OFFSET ?"
            gone += _forget(connection, newest, keep_rounds)
            connection.execute("DELETE FROM losses WHERE closed = 1 AND declared_ms < ?", (before_ms,))
        return gone

    # -- inside

    def _summary(
        self,
        digest: bytes,
        renter_key: bytes,
        auditor_key: bytes,
        asked_ms: int,
        leaves: int,
        billed_units: int,
        receipt: bytes | None,
        pages: int,
    ) -> RoundSummary:
        said = None if receipt is None else self._read(SignedBatchReceipt, receipt).receipt
        return RoundSummary(
            digest=digest,
            renter_key=PublicKey(renter_key),
            auditor_key=PublicKey(auditor_key),
            asked_ms=asked_ms,
            leaves=leaves,
            pages=pages,
            billed_units=billed_units,
            counts=None if said is None else said.counts,
            proved_bytes=0 if said is None else said.proved_bytes,
        )

    def _read(self, kind: type[T], body: bytes) -> T:
        try:
            return decode(kind, body)
        except MalformedError as error:
            raise CorruptionError(f"{self._path} holds an audit record that is none: {error}") from error


def _count(connection: sqlite3.Connection, asked: UnitsAsked) -> int:
    found = connection.execute(_USED, (asked.contract_id, asked.window)).fetchone()
    used = int(found[0]) if found else 0
    connection.execute(_COUNT, {"id": asked.contract_id, "window": asked.window, "units": asked.units})
    return asked.units - min(asked.units, max(0, asked.free_units - used))


def _forget(connection: sqlite3.Connection, chosen: str, *values: Any) -> int:
    """Drop the rounds whose digests `chosen` gives, with their pages."""
    digests = connection.execute(chosen, values).fetchall()
    for batch in _batches(digests):
        connection.executemany("DELETE FROM audit_pages WHERE digest = ?", batch)
        connection.executemany("DELETE FROM audit_rounds WHERE digest = ?", batch)
    return len(digests)


def _batches(rows: list[Any]) -> Iterator[list[Any]]:
    for at in range(0, len(rows), _BATCH):
        yield rows[at : at + _BATCH]
