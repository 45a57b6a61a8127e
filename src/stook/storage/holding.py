"""Which contracts take room at a farmer, which are in force, and when one needs attention. Shared by all adapters."""

from __future__ import annotations

from stook.contracts.lifecycle import OVER, RESERVING, ContractState
from stook.storage.ports import HeldContract

STORED = frozenset({ContractState.ACTIVE})
"""States in which the shard is on the farmer's disk."""
IN_FORCE = RESERVING | STORED
"""States in which a contract takes room; at most one such contract stands over a root."""
EXPIRING = STORED | {ContractState.LOST}
"""States that the end of the contract finishes."""


def due_ms(held: HeldContract) -> int | None:
    """From which moment on the reaper must look at the contract; None when nothing is held for it.

    A contract that is over falls due at once: it would be forgotten if its erasure had been finished.
    """
    if held.state in RESERVING:
        return held.contract.terms.consign_by_ms
    if held.state in EXPIRING:
        return held.contract.terms.end_ms
    return 0 if held.state in OVER else None
