"""Shards and contracts for tests of the farmer's stores. Signatures are placeholders: stores do not judge them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import shake_128

from msgspec import structs

from contract_samples import draft
from stook.codec import encode
from stook.contracts.contract import Contract
from stook.contracts.lifecycle import ContractState
from stook.ids import ContractId, PublicKey, ShardRoot
from stook.merkle import UNIT_BYTES, leaves_of, shard_root
from stook.storage.ports import HeldContract, ShardStore, StoredShard

SIZES = (1, UNIT_BYTES - 1, UNIT_BYTES, UNIT_BYTES + 1, 3 * UNIT_BYTES, 40 * UNIT_BYTES + 5)


@dataclass(frozen=True)
class Sample:
    """A whole shard."""

    data: memoryview
    leaves: bytes
    root: ShardRoot

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def units(self) -> int:
        return len(self.leaves) // 32


@cache
def sample(size: int = 3 * UNIT_BYTES, seed: int = 0) -> Sample:
    """The shard that belongs to `size` and `seed`."""
    data = memoryview(shake_128(b"%d %d" % (size, seed)).digest(size))
    leaves = leaves_of(data)
    return Sample(data, b"".join(leaves), shard_root(size, leaves))


def renter(number: int) -> PublicKey:
    """The key of a renter."""
    return PublicKey(bytes((2, number)) + bytes(31))


def signed(shard: Sample | None = None, *, memo: bytes = b"memo", owner: int = 0, **changes: object) -> Contract:
    """A contract over `shard`."""
    shard = sample() if shard is None else shard
    terms = draft(
        shard_root=shard.root,
        shard_size_bytes=shard.size,
        memo=memo,
        renter_key=renter(owner),
        **changes,
    )
    return Contract(terms, bytes((1,)) * 64, bytes((2,)) * 64)


def renewed(contract: Contract, revision: int, **changes: object) -> Contract:
    """A later revision of the same contract."""
    terms = structs.replace(contract.terms, revision=revision, origin=contract.contract_id, **changes)
    return structs.replace(contract, terms=terms)


def held(contract: Contract, state: ContractState = ContractState.ACTIVE) -> HeldContract:
    """The contract in a state."""
    return HeldContract(contract, state)


def ids(found: list[HeldContract]) -> list[ContractId]:
    """The ids of contracts."""
    return [item.contract_id for item in found]


def store_shard(store: ShardStore, shard: Sample | None = None, contract: bytes | None = None) -> StoredShard:
    """Receive and publish a whole shard."""
    shard = sample() if shard is None else shard
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    writer.write(shard.data[writer.next_unit * UNIT_BYTES :])
    return writer.publish(encode(signed(shard)) if contract is None else contract)


def read_all(store: ShardStore, shard: Sample) -> bytes:
    """The bytes that a store returns for a shard."""
    into = bytearray(shard.size + 10)
    count = store.read_units(shard.root, 0, memoryview(into))
    return bytes(into[:count])
