"""Make index and shard files agree at every start, whatever the stop was like.

The shard file is the truth about bytes and carries its newest contract; the contract store is the index, and the truth
about reservations and spent grants, which no file can tell. A start looks up every contract's file; files that no
contract knows are found by the scrub, which walks over all files anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from stook.codec import encode
from stook.contracts.lifecycle import OVER, RESERVING, ContractState
from stook.contracts.renewal import supersedes
from stook.farmer.scrub import own_contract
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
    """Reconcile after a stop of any kind, before the first request is served. Blocks."""
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
