"""Signed words of a farmer that a third party can check: "I hold it" and "I erased it"."""

from __future__ import annotations

from stook.codec import Record, encode
from stook.hashing import Tag, tagged_hash
from stook.ids import ContractIdField, PublicKeyField, ShardRootField, SignatureField, U63Field


class StorageReceipt(Record):
    """The farmer verified every unit of the shard and synced it to its disk before signing this."""

    contract_id: ContractIdField
    shard_root: ShardRootField
    size_bytes: U63Field
    stored_at_ms: U63Field
    farmer_key: PublicKeyField

    @property
    def digest(self) -> bytes:
        """What the farmer signs."""
        return tagged_hash(Tag.RECEIPT, encode(self))


class SignedStorageReceipt(Record):
    """A storage receipt with the farmer's signature."""

    receipt: StorageReceipt
    signature: SignatureField


class EraseReceipt(Record):
    """The farmer erased the shard, or the reservation for it, and may no longer charge for it."""

    contract_id: ContractIdField
    shard_root: ShardRootField
    freed_bytes: U63Field
    erased_at_ms: U63Field
    farmer_key: PublicKeyField

    @property
    def digest(self) -> bytes:
        """What the farmer signs."""
        return tagged_hash(Tag.ERASURE_RECEIPT, encode(self))


class SignedEraseReceipt(Record):
    """An erase receipt with the farmer's signature."""

    receipt: EraseReceipt
    signature: SignatureField
