"""The way out in the farmer's SQLite file, beside its contracts. Opened by `contract_store`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stook.codec import decode, encode
from stook.contracts.move import MoveOrder
from stook.contracts.receipt import SignedStorageReceipt
from stook.errors import CorruptionError, MalformedError
from stook.ids import ContractId
from stook.storage.audit_book import Transaction
from stook.storage.exit_ports import KeptMove, MoveCounts, MoveState

EXIT_SCHEMA = (
    "CREATE TABLE farm (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE moves (
        contract_id BLOB PRIMARY KEY NOT NULL,
        state INTEGER NOT NULL,
        next_ms INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        code INTEGER NOT NULL,
        detail TEXT NOT NULL,
        order_body BLOB NOT NULL,
        receipt BLOB
    )""",
    "CREATE INDEX moves_due ON moves (state, next_ms)",
)
_LEAVING = "leaving_by_ms"
_COLUMNS = "SELECT order_body, state, next_ms, tries, code, detail, receipt FROM moves"


class SqliteExitBook:
    """The `ExitBook` on SQLite. It lives as long as the store that made it."""

    def __init__(self, path: Path, transaction: Transaction, rows: Callable[..., list[Any]]) -> None:
        self._path = path
        self._transaction = transaction
        self._rows = rows

    def leaving_by_ms(self) -> int:
        """When the farmer means to be gone; 0 while it stays."""
        found = self._rows("SELECT value FROM farm WHERE name = ?", _LEAVING)
        return int(found[0][0]) if found else 0

    def set_leaving(self, by_ms: int) -> None:
        """Leave by then, or stay (0)."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO farm VALUES (?, ?)", (_LEAVING, by_ms))

    def put_moves(self, moves: Sequence[KeptMove]) -> None:
        """Keep orders, all or none, each in the place of an earlier one about the same contract."""
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO moves VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(_row, moves))

    def move(self, contract_id: ContractId) -> KeptMove | None:
        """The order about this contract, or None."""
        found = self._rows(f"{_COLUMNS} WHERE contract_id = ?", contract_id)
        return self._kept(*found[0]) if found else None

    def due_moves(self, now_ms: int, limit: int) -> list[KeptMove]:
        """Waiting orders whose time has come, soonest first."""
        waiting = f"{_COLUMNS} WHERE state = ? AND next_ms <= ? ORDER BY next_ms, contract_id LIMIT ?"
        return [self._kept(*row) for row in self._rows(waiting, MoveState.WAITING, now_ms, limit)]

    def move_counts(self) -> MoveCounts:
        """How many orders stand where."""
        found = dict(self._rows("SELECT state, count(*) FROM moves GROUP BY state"))
        return MoveCounts(*(found.get(state.value, 0) for state in MoveState))

    def close(self, contract_ids: Sequence[ContractId]) -> None:
        """These contracts are over: forget their orders."""
        with self._transaction(durable=False) as connection:
            connection.executemany("DELETE FROM moves WHERE contract_id = ?", [(one,) for one in contract_ids])

    def _kept(
        self, order: bytes, state: int, next_ms: int, tries: int, code: int, detail: str, receipt: bytes | None
    ) -> KeptMove:
        try:
            return KeptMove(
                order=decode(MoveOrder, order),
                state=MoveState(state),
                next_ms=next_ms,
                tries=tries,
                code=code,
                detail=detail,
                receipt=None if receipt is None else decode(SignedStorageReceipt, receipt),
            )
        except (MalformedError, ValueError) as error:
            raise CorruptionError(f"{self._path} holds an order that is none: {error}") from error


def _row(move: KeptMove) -> tuple[object, ...]:
    receipt = None if move.receipt is None else encode(move.receipt)
    order = move.order
    return order.contract_id, move.state, move.next_ms, move.tries, move.code, move.detail, encode(order), receipt
