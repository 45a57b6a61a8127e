"""What a farmer that leaves has to remember, as promises: until when, and which shards it was told to bring where.

Every adapter passes the suite in `tests/conformance/`. As in `ports`, all calls block and are durable when they return.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stook.contracts.move import MoveOrder
from stook.contracts.receipt import SignedStorageReceipt
from stook.ids import ContractId


class MoveState(enum.IntEnum):
    """Where an order stands. Values are stored and never change."""

    WAITING = 1
    DONE = 2
    """The new farmer's receipt is here."""
    FAILED = 3
    """It cannot be done; the code says why."""


@dataclass(frozen=True, slots=True)
class KeptMove:
    """One order and what came of it."""

    order: MoveOrder
    state: MoveState = MoveState.WAITING
    next_ms: int = 0
    """When to try (again)."""
    tries: int = 0
    code: int = 0
    detail: str = ""
    receipt: SignedStorageReceipt | None = None


@dataclass(frozen=True, slots=True)
class MoveCounts:
    """How many orders stand where."""

    waiting: int
    done: int
    failed: int


class ExitBook(Protocol):
    """A farmer's way out."""

    def leaving_by_ms(self) -> int:
        """When the farmer means to be gone; 0 while it stays."""
        ...

    def set_leaving(self, by_ms: int) -> None:
        """Leave by then, or stay (0). Another process may say so, and the one that serves finds it here."""
        ...

    def put_moves(self, moves: Sequence[KeptMove]) -> None:
        """Keep orders, all or none, each in the place of an earlier one about the same contract."""
        ...

    def move(self, contract_id: ContractId) -> KeptMove | None:
        """The order about this contract, or None."""
        ...

    def due_moves(self, now_ms: int, limit: int) -> list[KeptMove]:
        """Waiting orders whose time has come, soonest first."""
        ...

    def move_counts(self) -> MoveCounts:
        """How many orders stand where."""
        ...

    def close(self, contract_ids: Sequence[ContractId]) -> None:
        """These contracts are over: forget their orders."""
        ...
