"""Signed words of a farmer that a third party can check: "I hold it" and "I erased it".

A receipt names the contract and the shard and is signed by the contract's farmer under a tag of its own, so that it can
stand for nothing else (`docs/formats/receipt.md`).
"""

from __future__ import annotations

from stook.codec import Record, encode
from stook.contracts.contract import Contract, Terms
from stook.errors import MisbehaviourError, ReasonCode
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.ids import (
    ContractId,
    ContractIdField,
    PublicKey,
    PublicKeyField,
    ShardRoot,
    ShardRootField,
    Signature,
    SignatureField,
    U63Field,
)


class StorageReceipt(Record):
    """The farmer verified every unit of the shard and synced it to its disk before signing this.

    `size_bytes` is what was counted on arrival, so nobody is paid for more than was brought.
    """

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
    """The farmer erased the shard, or the reservation for it, and may no longer charge for it.

    `freed_bytes` is what no longer stands against the farmer's capacity: the shard's size, stored or only reserved.
    Every copy of a receipt says the same, however often a cancellation is asked for.
    """

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


def sign_storage_receipt(terms: Terms, key: NodeKey, stored_at_ms: int) -> SignedStorageReceipt:
    """The farmer's receipt; only after the shard is verified, synced and published.

    Raises `ValueError` when `key` is not the farmer's.
    """
    _own(terms, key)
    receipt = StorageReceipt(
        contract_id=terms.contract_id,
        shard_root=terms.shard_root,
        size_bytes=terms.shard_size_bytes,
        stored_at_ms=stored_at_ms,
        farmer_key=key.public_key,
    )
    return SignedStorageReceipt(receipt=receipt, signature=key.sign(receipt.digest))


def verify_storage_receipt(signed: SignedStorageReceipt, contract: Contract) -> None:
    """Whether the contract's farmer says that it holds exactly the contract's shard.

    Raises `MisbehaviourError`: UNBOUND_REPLY for a receipt about something else, BAD_SIGNATURE.
    """
    receipt = signed.receipt
    _bound(contract.terms, receipt.contract_id, receipt.shard_root, receipt.farmer_key)
    if receipt.size_bytes != contract.terms.shard_size_bytes:
        raise MisbehaviourError(ReasonCode.UNBOUND_REPLY, f"a receipt for {receipt.size_bytes} bytes")
    _signed(receipt.farmer_key, receipt.digest, signed.signature)


def sign_erase_receipt(terms: Terms, key: NodeKey, freed_bytes: int, erased_at_ms: int) -> SignedEraseReceipt:
    """The farmer's receipt; only after the shard or the reservation is gone.

    Raises `ValueError` when `key` is not the farmer's.
    """
    _own(terms, key)
    receipt = EraseReceipt(
        contract_id=terms.contract_id,
        shard_root=terms.shard_root,
        freed_bytes=freed_bytes,
        erased_at_ms=erased_at_ms,
        farmer_key=key.public_key,
    )
    return SignedEraseReceipt(receipt=receipt, signature=key.sign(receipt.digest))


def verify_erase_receipt(signed: SignedEraseReceipt, contract: Contract) -> None:
    """Whether the contract's farmer says that it erased this contract's shard or reservation.

    Raises `MisbehaviourError`: UNBOUND_REPLY for a receipt about something else, BAD_SIGNATURE.
    """
    receipt = signed.receipt
    _bound(contract.terms, receipt.contract_id, receipt.shard_root, receipt.farmer_key)
    _signed(receipt.farmer_key, receipt.digest, signed.signature)


def _own(terms: Terms, key: NodeKey) -> None:
    if key.public_key != terms.farmer_key:
        raise ValueError("only the contract's farmer signs its receipts")


def _bound(terms: Terms, contract_id: ContractId, shard_root: ShardRoot, farmer_key: PublicKey) -> None:
    if (contract_id, shard_root, farmer_key) != (terms.contract_id, terms.shard_root, terms.farmer_key):
        raise MisbehaviourError(
            ReasonCode.UNBOUND_REPLY, "a receipt for another contract", peer=node_id_of(terms.farmer_key).hex()
        )


def _signed(farmer_key: PublicKey, digest: bytes, signature: Signature) -> None:
    if not verify(farmer_key, digest, signature):
        raise MisbehaviourError(
            ReasonCode.BAD_SIGNATURE, "the farmer did not sign this receipt", peer=node_id_of(farmer_key).hex()
        )
