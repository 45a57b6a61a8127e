"""What the farmer keeps, as promises. Every adapter passes the suites in `tests/conformance/`.

All calls block and may sync to disk; callers on an event loop go through `stook.clock.Offload`. A call that returns has
done what it says durably; a process killed inside a call leaves either the state before or the state after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stook.contracts.contract import Contract
from stook.contracts.lifecycle import ContractState
from stook.ids import ContractId, PublicKey, ShardRoot
from stook.storage.audit_ports import AuditBook
from stook.storage.exit_ports import ExitBook


@dataclass(frozen=True, slots=True)
class StoredShard:
    """One published shard: its root, its size, what it takes on disk, and the newest contract it carries (encoded).

    `contract` is empty when none of its records is readable.
    """

    root: ShardRoot
    size_bytes: int
    disk_bytes: int
    contract: bytes


class ShardWriter(Protocol):
    """One shard on its way in. Verified units survive a crash; nothing is visible to readers before `publish`."""

    @property
    def next_unit(self) -> int:
        """The first unit not yet verified and held."""
        ...

    def write(self, data: memoryview) -> None:
        """Verify and keep whole units from `next_unit` on.

        Raises `MisbehaviourError` (HASH_MISMATCH) at the first unit that is not its leaf; earlier ones are kept.
        """
        ...

    def publish(self, contract: bytes) -> StoredShard:
        """Sync everything, then make the shard visible atomically together with `contract`.

        Raises `BugError` when units are missing.
        """
        ...

    def close(self, *, keep: bool) -> None:
        """Stop writing; with `keep` the verified units stay for a resume, else they are erased. Idempotent."""
        ...


class ShardStore(Protocol):
    """Shards by root."""

    def open_writer(self, root: ShardRoot, size_bytes: int, leaves: bytes) -> ShardWriter:
        """Begin or resume receiving a shard.

        Raises `MisbehaviourError` (HASH_MISMATCH) when the leaf list does not lead to `root`, `ConflictError` when the
        shard is published or another writer is open on it.
        """
        ...

    def resumable_units(self, root: ShardRoot, size_bytes: int) -> int:
        """Units that a partial shard of this size holds already, verified and safe to skip; 0 when there is none.

        The farmer tells the sender before the leaf list comes; `open_writer` then starts at the same unit.
        """
        ...

    def find(self, root: ShardRoot) -> StoredShard | None:
        """The published shard, or None. Raises `CorruptionError` when its header is damaged."""
        ...

    def read_leaves(self, root: ShardRoot) -> bytes:
        """The leaf list. Raises `NotFoundError`, or `CorruptionError` when it does not lead to `root`."""
        ...

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        """Fill `into` with bytes from `first_unit` on; the number of bytes read, fewer at the shard's end.

        Raises `NotFoundError`, `CorruptionError` when the header is damaged.
        """
        ...

    def append_contract(self, root: ShardRoot, contract: bytes) -> None:
        """Make `contract` the shard's newest, durably. Raises `NotFoundError`."""
        ...

    def erase(self, root: ShardRoot) -> int:
        """Remove the shard, published or partial; the bytes freed (0: there was none)."""
        ...

    def bad_units(self, root: ShardRoot) -> list[int]:
        """Check every unit against its leaf; the indices that fail. Raises `NotFoundError`, `CorruptionError`."""
        ...

    def scan(self) -> Iterator[StoredShard]:
        """Every published shard, read from the shard files themselves, whatever any index says."""
        ...

    def sweep_partials(self, keep: frozenset[ShardRoot]) -> int:
        """Erase partial shards whose root is not in `keep`; the bytes freed."""
        ...


@dataclass(frozen=True, slots=True)
class HeldContract:
    """A contract as the farmer holds it."""

    contract: Contract
    state: ContractState

    @property
    def contract_id(self) -> ContractId:
        """The contract's id."""
        return self.contract.contract_id


@dataclass(frozen=True, slots=True)
class Totals:
    """What is promised and what is stored, derived from the contracts held, never counted beside them."""

    reserved_bytes: int
    stored_bytes: int
    reserved_count: int
    stored_count: int


@dataclass(frozen=True, slots=True)
class Charge:
    """So many bytes under one grant serial, within its budget; see `ContractStore.spend`."""

    serial: bytes
    size_bytes: int
    budget_bytes: int
    expires_ms: int


class ContractStore(Protocol):
    """A farmer's contracts and what was spent of each grant; in the same place, the books of audits and of leaving."""

    @property
    def audits(self) -> AuditBook:
        """The book of audits."""
        ...

    @property
    def exits(self) -> ExitBook:
        """The way out."""
        ...

    def reserve(self, contracts: Sequence[Contract], *, replacing: Sequence[ContractId] = ()) -> None:
        """Keep farmer-signed contracts in state OFFERED and forget those they replace, all or none.

        Raises `ConflictError` on a known id or root.
        """
        ...

    def get(self, contract_id: ContractId) -> HeldContract | None:
        """The contract, or None."""
        ...

    def by_root(self, root: ShardRoot) -> HeldContract | None:
        """The contract in force over `root` (reserving room for it, or storing it), or None."""
        ...

    def put(self, held: HeldContract, *, durable: bool = True) -> None:
        """Replace or add one contract and its state.

        What is not `durable` outlives a kill but perhaps no power cut: enough for what a shard file proves as well.
        Raises `ConflictError` when another contract is in force over its root.
        """
        ...

    def remove(self, contract_ids: Sequence[ContractId]) -> None:
        """Forget contracts; unknown ids are ignored."""
        ...

    def owned_by(self, renter_key: PublicKey, after: bytes, limit: int) -> list[HeldContract]:
        """Contracts of one renter with ids above `after`, in order of id."""
        ...

    def renters(self) -> list[PublicKey]:
        """Everybody with a contract here, in order."""
        ...

    def totals(self) -> Totals:
        """Sums over all contracts held (sizes are shard sizes)."""
        ...

    def totals_of(self, renter_key: PublicKey) -> Totals:
        """The same sums over the contracts of one renter."""
        ...

    def reserved_by(self, renter_key: PublicKey) -> int:
        """Bytes this renter reserved and has not brought yet."""
        ...

    def due(self, now_ms: int, limit: int) -> list[HeldContract]:
        """Reservations at or past their consign-by and contracts at or past their end, soonest first.

        Contracts that are over (ENDED, CANCELLED) come before all: their erasure was not finished.
        """
        ...

    def spend(self, serial: bytes, size_bytes: int, budget_bytes: int, expires_ms: int) -> bool:
        """Record `size_bytes` spent under a grant serial; False, recording nothing, when the budget would be passed."""
        ...

    def refund(self, serial: bytes, size_bytes: int) -> None:
        """Give back bytes that were recorded and not sent."""
        ...

    def spend_all(self, charges: Sequence[Charge]) -> bool:
        """`spend` for each in order, all or none in one step; False, recording nothing, when one would not fit."""
        ...

    def forget_spending(self, expired_before_ms: int) -> int:
        """Drop records of grants that expired before; how many."""
        ...

    def all(self) -> Iterator[HeldContract]:
        """Every contract held."""
        ...

    def rebuild(self, held: Sequence[HeldContract]) -> None:
        """Replace every contract by `held` (from a scan of the shard files), all or none; spending is kept."""
        ...
