"""Make index and shard files agree at every start, whatever the stop was like.

The shard file is the truth about bytes and carries its newest contract; the contract store is the index, and the truth
about reservations and spent grants, which no file can tell. A start looks up every contract's file; files that no
contract knows, and files that could be mended, are `stook.storage.fsck`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stook.codec import decode, encode
from stook.contracts.contract import MAX_CONTRACT_BYTES, Contract
from stook.contracts.lifecycle import OVER, RESERVING, ContractState
from stook.contracts.negotiation import verify_contract
from stook.contracts.renewal import supersedes
from stook.errors import CorruptionError, EnvironmentFault, MalformedError, MisbehaviourError
from stook.ids import ContractId, NetworkId, PublicKey, ShardRoot
from stook.storage.ports import ContractStore, HeldContract, ShardStore, StoredShard


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a start found and put right."""

    updated: int
    """Contracts that the file knew better than the index: its shard was published, or it was renewed, just before."""
    lost: int
    """Contracts whose shard file is gone, or damaged beyond reading."""
    erasures_finished: int
    partial_bytes_swept: int
    lost_ids: frozenset[ContractId]
    """Every contract that stands lost now."""


@dataclass(slots=True)
class _Findings:
    update: list[HeldContract] = field(default_factory=list)
    gone: list[HeldContract] = field(default_factory=list)
    over: list[HeldContract] = field(default_factory=list)
    lost_ids: set[ContractId] = field(default_factory=set)
    expected: set[ShardRoot] = field(default_factory=set)
    files: int = 0


def recover(
    shards: ShardStore, contracts: ContractStore, *, farmer_key: PublicKey, network: NetworkId
) -> RecoveryReport:
    """Reconcile after a stop of any kind, before the first request is served. Blocks.

    Raises `EnvironmentFault`, changing nothing, when contracts say that shards are stored and not one file is there:
    that is a disk which is not mounted, and a loss once written down is not taken back.
    """
    found = _Findings()
    for held in contracts.all():
        _look(found, shards, held, farmer_key, network)
    if found.gone and not found.files:
        raise EnvironmentFault(
            f"{len(found.gone)} shards should be stored and none is there: is the disk mounted? "
            "If they are really gone, run `stook farm fsck`"
        )
    for held in (*found.update, *found.gone):
        contracts.put(held)
    over = [held.contract_id for held in found.over]
    for held in found.over:
        root = held.contract.terms.shard_root
        if contracts.by_root(root) is None:  # else the bytes are, or will be, another contract's
            shards.erase(root)
    contracts.audits.close(over)
    contracts.exits.close(over)
    contracts.remove(over)
    swept = shards.sweep_partials(frozenset(found.expected))
    found.lost_ids.update(held.contract_id for held in found.gone)
    return RecoveryReport(len(found.update), len(found.gone), len(found.over), swept, frozenset(found.lost_ids))


def _look(found: _Findings, shards: ShardStore, held: HeldContract, farmer_key: PublicKey, network: NetworkId) -> None:
    root = held.contract.terms.shard_root
    if held.state in OVER:
        found.over.append(held)
        return
    if held.state is ContractState.LOST:
        found.lost_ids.add(held.contract_id)
        return
    try:
        stored = shards.find(root)
    except CorruptionError:
        stored = None
        found.files += 1
    if held.state in RESERVING:
        found.expected.add(root)
    elif stored is None:
        found.gone.append(HeldContract(held.contract, ContractState.LOST))
    if stored is not None:
        found.files += 1
        if (newer := _newer(stored, held, farmer_key, network)) is not None:
            found.update.append(newer)


def _newer(stored: StoredShard, held: HeldContract, farmer_key: PublicKey, network: NetworkId) -> HeldContract | None:
    """What the file knows and the index does not: that the shard came, or a later revision of the terms."""
    if held.state is ContractState.ACTIVE and stored.contract == encode(held.contract):
        return None
    try:
        contract = decode(Contract, stored.contract, max_bytes=MAX_CONTRACT_BYTES)
        verify_contract(contract, network)
        known_better = supersedes(contract, held.contract) or (
            held.state in RESERVING and contract.terms == held.contract.terms
        )
    except (MalformedError, MisbehaviourError):
        return None
    if not known_better or contract.terms.farmer_key != farmer_key:
        return None
    return HeldContract(contract, ContractState.ACTIVE)
