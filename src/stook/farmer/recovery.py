"""Make index and shard files agree: at every start, and from nothing when the index is gone.

The shard file is the truth about bytes and carries its newest contract; the contract store is the index, and the truth
about reservations and spent grants, which no file can tell. Everything here blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from stook.codec import encode
from stook.contracts.lifecycle import OVER, RESERVING, ContractState
from stook.contracts.renewal import supersedes
from stook.farmer.scrub import is_damaged, own_contract
from stook.ids import ContractId, PublicKey, ShardRoot
from stook.storage.ports import ContractStore, HeldContract, ShardStore, StoredShard


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a start found and put right."""

    updated: int
    """Contracts that the file knew better than the index: its shard was published, or it was renewed, just before."""
    lost: int
    """Contracts whose shard file is gone."""
    erasures_finished: int
    partial_bytes_swept: int
    lost_ids: frozenset[ContractId]
    """Every contract that stands lost now."""


def recover(shards: ShardStore, contracts: ContractStore, farmer_key: PublicKey) -> RecoveryReport:
    """Reconcile after a stop of any kind, before the first request is served."""
    fill: list[HeldContract] = []
    gone: list[HeldContract] = []
    over: list[HeldContract] = []
    lost_ids: set[ContractId] = set()
    expected: set[ShardRoot] = set()
    for held in contracts.all():
        root = held.contract.terms.shard_root
        if held.state in OVER:
            over.append(held)
        elif held.state is ContractState.LOST:
            lost_ids.add(held.contract_id)
        elif held.state in RESERVING:
            expected.add(root)
            if (full := _as_published(shards, held, farmer_key)) is not None:
                fill.append(full)
        elif (stored := shards.find(root)) is None:
            gone.append(HeldContract(held.contract, ContractState.LOST))
        elif (renewed := _renewed(stored, held, farmer_key)) is not None:
            fill.append(renewed)
    for held in (*fill, *gone):
        contracts.put(held)
    for held in over:
        shards.erase(held.contract.terms.shard_root)
    contracts.remove([held.contract_id for held in over])
    swept = shards.sweep_partials(frozenset(expected))
    lost_ids.update(held.contract_id for held in gone)
    return RecoveryReport(len(fill), len(gone), len(over), swept, frozenset(lost_ids))


def _as_published(shards: ShardStore, held: HeldContract, farmer_key: PublicKey) -> HeldContract | None:
    stored = shards.find(held.contract.terms.shard_root)
    if stored is None:
        return None
    contract = own_contract(stored.contract, farmer_key)
    if contract is None or contract.contract_id != held.contract_id:
        return None
    return HeldContract(contract, ContractState.ACTIVE)


def _renewed(stored: StoredShard, held: HeldContract, farmer_key: PublicKey) -> HeldContract | None:
    """The later revision that the file carries: a renewal is written there first."""
    if stored.contract == encode(held.contract):
        return None
    contract = own_contract(stored.contract, farmer_key)
    if contract is None or not supersedes(contract, held.contract):
        return None
    return HeldContract(contract, ContractState.ACTIVE)


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What `stook farm fsck` found, and with `rebuild` put right."""

    shards: int
    bytes: int
    damaged: tuple[ShardRoot, ...]
    """Units that are not their leaves, or a leaf list that does not lead to the root."""
    unknown: tuple[ShardRoot, ...]
    """Shard files whose contract is not in the index."""
    foreign: tuple[ShardRoot, ...]
    """Shard files without a contract of this farmer; never touched."""
    missing: tuple[ShardRoot, ...]
    """Contracts that the index calls stored, without a file."""
    rebuilt: bool

    @property
    def healthy(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.damaged or self.unknown or self.foreign or self.missing)


def fsck(shards: ShardStore, contracts: ContractStore, farmer_key: PublicKey, *, rebuild: bool) -> FsckReport:
    """Check every shard against its leaves and against the index; with `rebuild` make the index anew.

    A rebuilt index has the contracts that the files carry, damaged ones as LOST, and, as far as the old index can still
    be read, reservations and losses. The spending of grants starts from nothing, and renters whose reservation is gone
    claim once more. Run it while the farmer is stopped.
    """
    damaged, unknown, foreign = [], [], []
    anew: dict[ContractId, HeldContract] = {}
    count = total = 0
    for stored in shards.scan():
        count, total = count + 1, total + stored.size_bytes
        bad = is_damaged(shards, stored)
        if bad:
            damaged.append(stored.root)
        contract = own_contract(stored.contract, farmer_key)
        if contract is None or contract.terms.shard_root != stored.root:
            foreign.append(stored.root)
            continue
        known = contracts.get(contract.contract_id)
        if known is None:
            unknown.append(stored.root)
        state = ContractState.LOST if bad else ContractState.ACTIVE
        if known is not None and (known.state in OVER or known.state is ContractState.LOST):
            state = known.state  # what was declared stays declared, what was given up stays given up
        anew[contract.contract_id] = HeldContract(contract, state)
    missing = []
    for held in contracts.all():
        if held.contract_id in anew or held.state in OVER:
            continue
        if held.state is ContractState.ACTIVE:
            missing.append(held.contract.terms.shard_root)
            held = HeldContract(held.contract, ContractState.LOST)
        anew[held.contract_id] = held
    if rebuild:
        contracts.rebuild(list(anew.values()))
    return FsckReport(count, total, tuple(damaged), tuple(unknown), tuple(foreign), tuple(missing), rebuild)
