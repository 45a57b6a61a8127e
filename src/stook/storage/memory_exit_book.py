"""The way out in memory: for the simulator and for tests."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from stook.ids import ContractId
from stook.storage.exit_ports import KeptMove, MoveCounts, MoveState


class MemoryExitBook:
    """The `ExitBook` in memory."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._leaving_by_ms = 0
        self._moves: dict[ContractId, KeptMove] = {}

    def leaving_by_ms(self) -> int:
        """When the farmer means to be gone; 0 while it stays."""
        return self._leaving_by_ms

    def set_leaving(self, by_ms: int) -> None:
        """Leave by then, or stay (0)."""
        self._leaving_by_ms = by_ms

    def put_moves(self, moves: Sequence[KeptMove]) -> None:
        """Keep orders, each in the place of an earlier one about the same contract."""
        with self._lock:
            self._moves |= {move.order.contract_id: move for move in moves}

    def move(self, contract_id: ContractId) -> KeptMove | None:
        """The order about this contract, or None."""
        with self._lock:
            return self._moves.get(contract_id)

    def due_moves(self, now_ms: int, limit: int) -> list[KeptMove]:
        """Waiting orders whose time has come, soonest first."""
        with self._lock:
            due = [one for one in self._moves.values() if one.state is MoveState.WAITING and one.next_ms <= now_ms]
        return sorted(due, key=lambda one: (one.next_ms, one.order.contract_id))[:limit]

    def move_counts(self) -> MoveCounts:
        """How many orders stand where."""
        with self._lock:
            tally = Counter(one.state for one in self._moves.values())
        return MoveCounts(*(tally[state] for state in MoveState))

    def close(self, contract_ids: Sequence[ContractId]) -> None:
        """These contracts are over: forget their orders."""
        with self._lock:
            for contract_id in contract_ids:
                self._moves.pop(contract_id, None)
