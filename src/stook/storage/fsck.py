"""Compare a farmer's shard files with its contract index, and bring them together again.

The files are the truth: a sound file carries its contract, so the index can always be made from the files, never the
other way round. `check` only reads; `mend` changes. The farmer is stopped meanwhile: the shard store's lock sees to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stook.codec import decode, encode
from stook.contracts.contract import MAX_CONTRACT_BYTES, Contract
from stook.contracts.lifecycle import OVER, RESERVING, ContractState, Event, apply
from stook.errors import EnvironmentFault, MalformedError
from stook.ids import ContractId, ShardRoot
from stook.storage.ports import ContractStore, HeldContract, StoredShard
from stook.storage.shard_store import Damage, DamageKind, FileShardStore


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found.

    `damaged` files cannot be served. `orphaned` shards are there although the index says that their contract is over.
    `missing` contracts are ACTIVE in the index and have no sound file. `unindexed` contracts stand in a sound file and
    not in the index. `behind` ones stand in the index with an older state or revision than in their file, `ahead` ones
    with a newer revision. `should_hold` is what the index would hold if it agreed with the files: missing contracts
    LOST, everything in a sound file ACTIVE, reservations as they are. What is LOST stays so: its file waits for the end
    of the contract, with the units that may still be good.
    """

    shard_count: int
    size_bytes: int
    disk_bytes: int
    damaged: tuple[Damage, ...]
    orphaned: tuple[ShardRoot, ...]
    missing: tuple[ContractId, ...]
    unindexed: tuple[ContractId, ...]
    behind: tuple[ContractId, ...]
    ahead: tuple[ContractId, ...]
    should_hold: tuple[HeldContract, ...]

    @property
    def clean(self) -> bool:
        """Whether there is nothing to mend."""
        return not (self.damaged or self.orphaned or self.missing or self.unindexed or self.behind or self.ahead)


@dataclass(frozen=True, slots=True)
class Mended:
    """What `mend` did. `lost` contracts are to be declared to their renters before they ask."""

    restored: tuple[ShardRoot, ...]
    quarantined: tuple[Damage, ...]
    erased: tuple[ShardRoot, ...]
    lost: tuple[HeldContract, ...]
    adopted: tuple[ContractId, ...]


def check(shards: FileShardStore, contracts: ContractStore, *, deep: bool = False) -> Report:
    """Read every shard file's head and contract, with `deep` every byte, and compare with the index.

    Raises `CorruptionError` when the index is damaged (set it aside and check against an empty one), `EnvironmentFault`
    when the store cannot be read.
    """
    walk = _Walk({held.contract_id: held for held in contracts.all()})
    for found in shards.survey():
        if isinstance(found, Damage):
            walk.damaged.append(found)
            continue
        path = shards.path_of(found.root)
        contract = _contract_of(found)
        if contract is None:
            walk.damaged.append(Damage(path, DamageKind.WRONG_CONTRACT, found.root))
        elif deep and not walk.is_lost(contract) and shards.bad_units(found.root):
            walk.damaged.append(Damage(path, DamageKind.DATA, found.root))
        else:
            walk.take(found, contract)
    return walk.report()


def mend(shards: FileShardStore, contracts: ContractStore, report: Report, *, even_if_empty: bool = False) -> Mended:
    """Restore what can be restored, set aside what cannot, erase orphans, and make the index agree with the files.

    Restored are a damaged header or leaf list over sound data, and a contract record that the index still has. Every
    step may be cut off and the whole run again. Raises `EnvironmentFault` when not one shard file is there although the
    index holds active contracts, which looks like a disk that is not mounted; `even_if_empty` goes on all the same.
    """
    if report.missing and not report.shard_count and not report.damaged and not even_if_empty:
        raise EnvironmentFault(
            f"{shards.directory} holds no shard, {len(report.missing)} should be there: is its disk mounted?"
        )
    restored: list[ShardRoot] = []
    quarantined: list[Damage] = []
    for damage in report.damaged:
        if damage.root is not None and _restore(shards, contracts, damage.root, damage.kind):
            restored.append(damage.root)
        else:
            shards.quarantine(damage)
            quarantined.append(damage)
    for root in report.orphaned:
        shards.erase(root)
    known = {held.contract_id: held for held in contracts.all()}
    for contract_id in report.ahead:
        held = known[contract_id]
        shards.append_contract(held.contract.terms.shard_root, encode(held.contract))
    now = check(shards, contracts)
    contracts.rebuild(now.should_hold)
    missing = frozenset(now.missing)
    return Mended(
        tuple(restored),
        tuple(quarantined),
        report.orphaned,
        tuple(held for held in now.should_hold if held.contract_id in missing),
        now.unindexed,
    )


def rebuild(shards: FileShardStore, contracts: ContractStore) -> Mended:
    """`check` and `mend` in one: what to do with a new, empty index beside existing shards."""
    return mend(shards, contracts, check(shards, contracts))


def _contract_of(shard: StoredShard) -> Contract | None:
    try:
        contract = decode(Contract, shard.contract, max_bytes=MAX_CONTRACT_BYTES)
    except MalformedError:
        return None
    terms = contract.terms
    return contract if (terms.shard_root, terms.shard_size_bytes) == (shard.root, shard.size_bytes) else None


def _restore(shards: FileShardStore, contracts: ContractStore, root: ShardRoot, kind: DamageKind) -> bool:
    """Try to make a damaged file sound. The index is believed only about a size, which the root then proves."""
    held = contracts.by_root(root)
    match kind:
        case DamageKind.HEADER | DamageKind.LEAVES:
            hint = held.contract.terms.shard_size_bytes if held else None
            if not shards.restore_head(root, hint):
                return False
            found = shards.find(root)
            if found is not None and _contract_of(found) is not None:
                return True
        case DamageKind.NO_CONTRACT | DamageKind.WRONG_CONTRACT:
            # Whatever spoiled the contract may have spoiled the data too, and only one damage is reported of a file.
            if shards.bad_units(root):
                return False
        case _:
            return False
    if held is None or held.state is not ContractState.ACTIVE:
        return False
    shards.append_contract(root, encode(held.contract))
    return True


@dataclass(slots=True)
class _Walk:
    """The comparison under way."""

    index: dict[ContractId, HeldContract]
    damaged: list[Damage] = field(default_factory=list)
    orphaned: list[ShardRoot] = field(default_factory=list)
    unindexed: list[ContractId] = field(default_factory=list)
    behind: list[ContractId] = field(default_factory=list)
    ahead: list[ContractId] = field(default_factory=list)
    sound: dict[ContractId, HeldContract] = field(default_factory=dict)
    roots: set[ShardRoot] = field(default_factory=set)
    lost_count: int = 0
    size_bytes: int = 0
    disk_bytes: int = 0

    def is_lost(self, contract: Contract) -> bool:
        """Whether the index says so."""
        known = self.index.get(contract.contract_id)
        return known is not None and known.state is ContractState.LOST

    def take(self, shard: StoredShard, contract: Contract) -> None:
        """Place one sound shard."""
        self.size_bytes += shard.size_bytes
        self.disk_bytes += shard.disk_bytes
        contract_id = contract.contract_id
        known = self.index.get(contract_id)
        if known is not None and known.state in OVER:
            self.orphaned.append(shard.root)
            return
        if self.is_lost(contract):
            self.lost_count += 1
            return
        self.roots.add(shard.root)
        if known is None:
            self.unindexed.append(contract_id)
        elif known.contract.terms.revision > contract.terms.revision:
            self.ahead.append(contract_id)
            contract = known.contract
        elif known != HeldContract(contract, ContractState.ACTIVE):
            self.behind.append(contract_id)
        self.sound[contract_id] = HeldContract(contract, ContractState.ACTIVE)

    def report(self) -> Report:
        """The outcome."""
        missing: list[ContractId] = []
        rest: list[HeldContract] = []
        for contract_id, held in self.index.items():
            if contract_id in self.sound:
                continue
            if held.state is ContractState.ACTIVE:
                missing.append(contract_id)
                held = HeldContract(held.contract, apply(held.state, Event.LOSE))
            elif held.state in RESERVING and held.contract.terms.shard_root in self.roots:
                # The shard came under another contract, so this reservation can never be filled.
                held = HeldContract(held.contract, apply(held.state, Event.CANCEL))
            rest.append(held)
        return Report(
            shard_count=len(self.sound) + len(self.orphaned) + self.lost_count,
            size_bytes=self.size_bytes,
            disk_bytes=self.disk_bytes,
            damaged=tuple(self.damaged),
            orphaned=tuple(self.orphaned),
            missing=tuple(missing),
            unindexed=tuple(self.unindexed),
            behind=tuple(self.behind),
            ahead=tuple(self.ahead),
            should_hold=(*self.sound.values(), *rest),
        )
