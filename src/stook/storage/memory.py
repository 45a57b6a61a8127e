"""The farmer's stores in memory: for the simulator and for tests. They keep every promise but surviving the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from stook.contracts.contract import Contract
from stook.contracts.lifecycle import RESERVING, ContractState
from stook.errors import BugError, ConflictError, MisbehaviourError, NotFoundError, ReasonCode
from stook.ids import ContractId, PublicKey, ShardRoot
from stook.merkle import UNIT_BYTES
from stook.storage.holding import IN_FORCE, STORED, due_ms
from stook.storage.memory_audit_book import MemoryAuditBook
from stook.storage.memory_exit_book import MemoryExitBook
from stook.storage.ports import Charge, HeldContract, StoredShard, Totals
from stook.storage.shard_file import Layout, pack_record, require_leaves, whole_units
from stook.storage.shard_writer import good_units


@dataclass(slots=True)
class _Shard:
    layout: Layout
    leaves: bytes
    data: bytearray = field(default_factory=bytearray)
    contract: bytes = b""

    @property
    def held_bytes(self) -> int:
        return len(self.data) + len(self.leaves)


class MemoryShardStore:
    """The `ShardStore` in memory; shards are gone with the process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._published: dict[ShardRoot, _Shard] = {}
        self._partial: dict[ShardRoot, _Shard] = {}
        self._writers: dict[ShardRoot, MemoryShardWriter] = {}

    def open_writer(self, root: ShardRoot, size_bytes: int, leaves: bytes) -> MemoryShardWriter:
        """Begin or resume receiving a shard; raises as the port says."""
        require_leaves(root, size_bytes, leaves)
        with self._lock:
            if root in self._published or root in self._writers:
                raise ConflictError(f"shard {root.hex()} is stored or being received already")
            shard = self._partial.setdefault(root, _Shard(Layout.of(size_bytes), leaves))
            writer = self._writers[root] = MemoryShardWriter(self, root, shard)
            return writer

    def resumable_units(self, root: ShardRoot, size_bytes: int) -> int:
        """Units that a partial shard of this size holds already."""
        with self._lock:
            shard = self._partial.get(root)
            return -(-len(shard.data) // UNIT_BYTES) if shard and shard.layout.size_bytes == size_bytes else 0

    def find(self, root: ShardRoot) -> StoredShard | None:
        """The published shard, or None."""
        with self._lock:
            shard = self._published.get(root)
            return None if shard is None else _stored(root, shard)

    def read_leaves(self, root: ShardRoot) -> bytes:
        """The leaf list. Raises `NotFoundError`."""
        with self._lock:
            return self._get(root).leaves

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        """Fill `into` with bytes from `first_unit` on; the number of bytes read. Raises `NotFoundError`."""
        if first_unit < 0:
            raise BugError(f"there is no unit {first_unit}")
        into = into.cast("B")
        with self._lock:
            piece = memoryview(self._get(root).data)[first_unit * UNIT_BYTES :][: len(into)]
            into[: len(piece)] = piece
            return len(piece)

    def append_contract(self, root: ShardRoot, contract: bytes) -> None:
        """Make `contract` the shard's newest. Raises `NotFoundError`."""
        pack_record(root, contract)
        with self._lock:
            self._get(root).contract = contract

    def erase(self, root: ShardRoot) -> int:
        """Remove the shard, published or partial; the bytes freed (0: there was none). Ends an open writer."""
        with self._lock:
            self._writers.pop(root, None)
            gone = [self._partial.pop(root, None), self._published.pop(root, None)]
            return sum(shard.held_bytes for shard in gone if shard)

    def bad_units(self, root: ShardRoot) -> list[int]:
        """Check every unit against its leaf; the indices that fail. Raises `NotFoundError`."""
        with self._lock:
            shard = self._get(root)
            data = memoryview(shard.data)
            return [
                unit
                for unit in range(shard.layout.units)
                if not good_units(data[unit * UNIT_BYTES :][:UNIT_BYTES], shard.leaves, unit)
            ]

    def scan(self) -> Iterator[StoredShard]:
        """Every published shard, in order of root."""
        with self._lock:
            found = [_stored(root, shard) for root, shard in sorted(self._published.items())]
        yield from found

    def sweep_partials(self, keep: frozenset[ShardRoot]) -> int:
        """Erase partial shards whose root is not in `keep`; the bytes freed. Open writers are spared."""
        with self._lock:
            swept = [root for root in self._partial if root not in keep and root not in self._writers]
            return sum(self._partial.pop(root).held_bytes for root in swept)

    def _get(self, root: ShardRoot) -> _Shard:
        try:
            return self._published[root]
        except KeyError:
            raise NotFoundError(f"no shard {root.hex()} is stored here") from None


def _stored(root: ShardRoot, shard: _Shard) -> StoredShard:
    return StoredShard(root, shard.layout.size_bytes, shard.held_bytes, shard.contract)


class MemoryShardWriter:
    """The `ShardWriter` of `MemoryShardStore`."""

    def __init__(self, store: MemoryShardStore, root: ShardRoot, shard: _Shard) -> None:
        self._store, self._root, self._shard = store, root, shard

    @property
    def next_unit(self) -> int:
        """The first unit not yet verified and held."""
        return -(-len(self._shard.data) // UNIT_BYTES)

    def write(self, data: memoryview) -> None:
        """Verify and keep whole units from `next_unit` on; raises as the port says."""
        data = data.cast("B")
        with self._store._lock:
            self._check_open()
            first = self.next_unit
            whole_units(first, self._shard.layout.size_bytes, len(data))
            good = good_units(data, self._shard.leaves, first)
            self._shard.data += data[: good * UNIT_BYTES]
            if good * UNIT_BYTES < len(data):
                raise MisbehaviourError(
                    ReasonCode.HASH_MISMATCH, f"unit {first + good} of shard {self._root.hex()} is not its leaf"
                )

    def publish(self, contract: bytes) -> StoredShard:
        """Make the shard visible together with `contract`; ends the writer. Raises `BugError` if units are missing."""
        with self._store._lock:
            self._check_open()
            if self.next_unit < self._shard.layout.units:
                raise BugError(f"shard {self._root.hex()}: {self.next_unit} of {self._shard.layout.units} units")
            pack_record(self._root, contract)
            self._shard.contract = contract
            del self._store._writers[self._root], self._store._partial[self._root]
            self._store._published[self._root] = self._shard
            return _stored(self._root, self._shard)

    def close(self, *, keep: bool) -> None:
        """Stop writing; with `keep` the verified units stay for a resume, else they are erased. Idempotent."""
        with self._store._lock:
            if self._store._writers.get(self._root) is self:
                del self._store._writers[self._root]
                if not (keep and self.next_unit):
                    del self._store._partial[self._root]

    def _check_open(self) -> None:
        if self._store._writers.get(self._root) is not self:
            raise ConflictError(f"shard {self._root.hex()} was closed or erased while it was being received")


@dataclass(frozen=True, slots=True)
class _Spent:
    size_bytes: int
    expires_ms: int


class MemoryContractStore:
    """The `ContractStore` in memory."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: dict[ContractId, HeldContract] = {}
        self._in_force: dict[ShardRoot, ContractId] = {}
        self._spent: dict[bytes, _Spent] = {}
        self.audits = MemoryAuditBook()
        """The book of audits."""
        self.exits = MemoryExitBook()
        """The way out."""

    def reserve(self, contracts: Sequence[Contract], *, replacing: Sequence[ContractId] = ()) -> None:
        """Keep contracts in state OFFERED and forget those they replace, all or none. Raises `ConflictError`."""
        new = {item.contract_id: HeldContract(item, ContractState.OFFERED) for item in contracts}
        roots = {item.terms.shard_root: key for key, item in zip(new, contracts, strict=False)}
        with self._lock:
            taken = {root for root, key in self._in_force.items() if key not in replacing}
            if len(roots) < len(contracts) or new.keys() & self._held.keys() or roots.keys() & taken:
                raise ConflictError("a contract with this id or over this shard is held already")
            for contract_id in replacing:
                self._drop(contract_id)
            self._held |= new
            self._in_force |= roots

    def get(self, contract_id: ContractId) -> HeldContract | None:
        """The contract, or None."""
        with self._lock:
            return self._held.get(contract_id)

    def by_root(self, root: ShardRoot) -> HeldContract | None:
        """The contract in force over `root`, or None."""
        with self._lock:
            found = self._in_force.get(root)
            return None if found is None else self._held[found]

    def put(self, held: HeldContract, *, durable: bool = True) -> None:
        """Replace or add one contract and its state. Raises `ConflictError` when another is in force over its root."""
        contract_id, root = held.contract_id, held.contract.terms.shard_root
        with self._lock:
            if held.state in IN_FORCE and self._in_force.get(root, contract_id) != contract_id:
                raise ConflictError(f"a contract over the shard {root.hex()} is held already")
            self._drop(contract_id)
            self._held[contract_id] = held
            if held.state in IN_FORCE:
                self._in_force[root] = contract_id

    def remove(self, contract_ids: Sequence[ContractId]) -> None:
        """Forget contracts; unknown ids are ignored."""
        with self._lock:
            for contract_id in contract_ids:
                self._drop(contract_id)

    def renters(self) -> list[PublicKey]:
        """Everybody with a contract here, in order."""
        with self._lock:
            return sorted({held.contract.terms.renter_key for held in self._held.values()})

    def owned_by(self, renter_key: PublicKey, after: bytes, limit: int) -> list[HeldContract]:
        """Contracts of one renter with ids above `after`, in order of id."""
        with self._lock:
            found = [
                (key, held)
                for key, held in self._held.items()
                if held.contract.terms.renter_key == renter_key and key > after
            ]
        return [held for _, held in sorted(found, key=lambda item: item[0])[:limit]]

    def totals(self) -> Totals:
        """Sums over all contracts held (sizes are shard sizes)."""
        reserved, stored = self._sizes(RESERVING), self._sizes(STORED)
        return Totals(sum(reserved), sum(stored), len(reserved), len(stored))

    def totals_of(self, renter_key: PublicKey) -> Totals:
        """The same sums over the contracts of one renter."""
        reserved, stored = self._sizes(RESERVING, renter_key), self._sizes(STORED, renter_key)
        return Totals(sum(reserved), sum(stored), len(reserved), len(stored))

    def reserved_by(self, renter_key: PublicKey) -> int:
        """Bytes this renter reserved and has not brought yet."""
        return sum(self._sizes(RESERVING, renter_key))

    def due(self, now_ms: int, limit: int) -> list[HeldContract]:
        """Reservations past their consign-by and contracts past their end, soonest first; those already over before."""
        with self._lock:
            found = [
                (at, key, held) for key, held in self._held.items() if (at := due_ms(held)) is not None and at <= now_ms
            ]
        return [held for _, _, held in sorted(found, key=lambda item: item[:2])[:limit]]

    def spend(self, serial: bytes, size_bytes: int, budget_bytes: int, expires_ms: int) -> bool:
        """Record `size_bytes` spent under a grant serial; False, recording nothing, when over the budget."""
        if size_bytes < 0:
            raise BugError("spending is never negative; see refund")
        with self._lock:
            before = self._spent.get(serial, _Spent(0, expires_ms))
            if before.size_bytes + size_bytes > budget_bytes:
                return False
            self._spent[serial] = _Spent(before.size_bytes + size_bytes, max(before.expires_ms, expires_ms))
            return True

    def spend_all(self, charges: Sequence[Charge]) -> bool:
        """`spend` for each in order, all or none; False, recording nothing, when one would not fit."""
        with self._lock:
            before = dict(self._spent)
            for charge in charges:
                if not self.spend(charge.serial, charge.size_bytes, charge.budget_bytes, charge.expires_ms):
                    self._spent = before
                    return False
            return True

    def refund(self, serial: bytes, size_bytes: int) -> None:
        """Give back bytes that were recorded and not sent; never below nothing spent."""
        if size_bytes < 0:
            raise BugError("a refund is never negative; see spend")
        with self._lock:
            before = self._spent.get(serial)
            if before is not None:
                self._spent[serial] = replace(before, size_bytes=max(0, before.size_bytes - size_bytes))

    def forget_spending(self, expired_before_ms: int) -> int:
        """Drop records of grants that expired before; how many."""
        with self._lock:
            gone = [serial for serial, spent in self._spent.items() if spent.expires_ms < expired_before_ms]
            for serial in gone:
                del self._spent[serial]
            return len(gone)

    def all(self) -> Iterator[HeldContract]:
        """Every contract held, in order of id."""
        with self._lock:
            found = [held for _, held in sorted(self._held.items())]
        yield from found

    def rebuild(self, held: Sequence[HeldContract]) -> None:
        """Replace every contract by `held`, all or none; spending stays. Raises `ConflictError`."""
        new = {item.contract_id: item for item in held}
        if len(new) < len(held):
            raise ConflictError("two contracts have one id")
        with self._lock:
            self._replace(new)

    def _replace(self, new: dict[ContractId, HeldContract]) -> None:
        in_force: dict[ShardRoot, ContractId] = {}
        for contract_id, item in new.items():
            if (
                item.state in IN_FORCE
                and in_force.setdefault(item.contract.terms.shard_root, contract_id) != contract_id
            ):
                raise ConflictError(f"two contracts are in force over {item.contract.terms.shard_root.hex()}")
        self._held, self._in_force = new, in_force

    def _drop(self, contract_id: ContractId) -> None:
        held = self._held.pop(contract_id, None)
        if held is not None and self._in_force.get(held.contract.terms.shard_root) == contract_id:
            del self._in_force[held.contract.terms.shard_root]

    def _sizes(self, states: frozenset[ContractState], renter_key: PublicKey | None = None) -> list[int]:
        with self._lock:
            return [
                held.contract.terms.shard_size_bytes
                for held in self._held.values()
                if held.state in states and renter_key in (None, held.contract.terms.renter_key)
            ]
