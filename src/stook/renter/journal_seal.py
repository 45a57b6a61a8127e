"""Names, keys and seals of what the catalog is saved as, all from the phrase (`docs/formats/journal.md`). Pure.

A part's segment id is its number, encrypted: to everyone else it is as random as any, and whoever has the phrase knows
the parts of a saved catalog among all contracts, and so needs no record to find the newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.contracts.recovery import MAX_SEALED_BYTES, SignedRecoveryRecord, sign_record, verify_record
from stook.errors import CorruptionError, MalformedError, MisbehaviourError
from stook.identity.contact import Address
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId, NodeIdField, SegmentId, ShardRootField, U32Field, U63Field
from stook.shards.cipher import RECORD_FORMAT, RecordContext, open_record, seal_record
from stook.shards.derive import Purpose, derive_key
from stook.shards.geometry import Policy
from stook.storage.journal_records import MAX_PARTS, PartRef, is_sequence

_SIZE_BYTES = 4
SEAL_BYTES = _SIZE_BYTES + 32
"""Each part begins with its size and a check that only the owner can make."""
NONCE_BYTES = 6
WIDTH = 4
"""A saved catalog has at least so many shards for each that is needed."""
_BUCKET = b"recovery"


@dataclass(frozen=True, slots=True)
class PartName:
    """What a part's id says."""

    sequence: int
    number: int
    """0 is the head."""


class JournalKeys:
    """Everything that follows from the recovery root."""

    def __init__(self, recovery_root: bytes) -> None:
        self._root = recovery_root
        name = derive_key(recovery_root, Purpose.JOURNAL_NAME)
        # One block, and no two the same: this is a permutation of ids, not a mode of encryption.
        self._names = Cipher(AES(name), ECB())
        self.record_key = _signing_key(recovery_root)
        """Signs recovery records."""

    def segment_id(self, name: PartName, nonce: bytes) -> SegmentId:
        """The id of a part. The same one never comes twice: `nonce` is `NONCE_BYTES` random bytes."""
        block = name.sequence.to_bytes(8, "big") + name.number.to_bytes(2, "big") + nonce
        encryptor = self._names.encryptor()
        return SegmentId(encryptor.update(block) + encryptor.finalize())

    def name_of(self, segment_id: bytes) -> PartName | None:
        """What the id of a part says; None for what cannot be one. One in 2^28 other ids looks like one."""
        decryptor = self._names.decryptor()
        block = decryptor.update(segment_id) + decryptor.finalize()
        sequence, number = int.from_bytes(block[:8], "big"), int.from_bytes(block[8:10], "big")
        return PartName(sequence, number) if is_sequence(sequence) and number < MAX_PARTS else None

    def content_key(self, segment_id: SegmentId) -> bytes:
        """What the part's segment is encrypted with."""
        return derive_key(self._root, Purpose.JOURNAL_PART, segment_id)

    def _check(self, segment_id: SegmentId, size: bytes, body: memoryview) -> bytes:
        hasher = blake3(size, key=derive_key(self._root, Purpose.JOURNAL_CHECK, segment_id))
        return hasher.update(body).digest()

    def close_part(self, segment_id: SegmentId, body: memoryview, into: memoryview) -> None:
        """Write the part, which is `SEAL_BYTES` longer than its body."""
        size = (SEAL_BYTES + len(body)).to_bytes(_SIZE_BYTES, "big")
        into[:SEAL_BYTES] = size + self._check(segment_id, size, body)
        into[SEAL_BYTES : SEAL_BYTES + len(body)] = body

    def open_part(self, segment_id: SegmentId, plain: memoryview) -> tuple[memoryview, int]:
        """The body of a part, which may have padding behind it, and the size of the part.

        Raises `CorruptionError` when it is not what was saved under this id.
        """
        size = int.from_bytes(plain[:_SIZE_BYTES], "big")
        if not SEAL_BYTES < size <= len(plain):
            raise CorruptionError("a part of the saved catalog has an impossible size")
        body = plain[SEAL_BYTES:size]
        check = self._check(segment_id, bytes(plain[:_SIZE_BYTES]), body)
        if not compare_digest(check, bytes(plain[_SIZE_BYTES:SEAL_BYTES])):
            raise CorruptionError("a part of the saved catalog is not what was saved")
        return body, size

    # -- the record

    def seal(self, content: RecoveryContent, network: NetworkId, sequence: int, *, salt: bytes) -> SignedRecoveryRecord:
        """A signed record. Raises `ValueError` when it does not fit (see `fit`)."""
        plain = encode(content)
        sealed = seal_record(self._root, _context(network, sequence), plain, salt=salt)
        if len(sealed) > MAX_SEALED_BYTES:
            raise ValueError(f"a recovery record of {len(sealed)} bytes")
        return sign_record(self.record_key, network, sequence, sealed)

    def open(self, record: SignedRecoveryRecord, network: NetworkId) -> RecoveryContent | None:
        """What a record says; None when it is not ours, or false."""
        try:
            verify_record(record, network)
            if record.body.key != self.record_key.public_key:
                return None
            context = _context(network, record.body.sequence)
            return decode(RecoveryContent, open_record(self._root, context, record.body.sealed))
        except (MisbehaviourError, CorruptionError, MalformedError):
            return None


def _context(network: NetworkId, sequence: int) -> RecordContext:
    return RecordContext(RECORD_FORMAT, network, _BUCKET, b"", sequence)


def _signing_key(recovery_root: bytes) -> NodeKey:
    for attempt in range(256):
        try:
            return NodeKey.from_secret(derive_key(recovery_root, Purpose.RECOVERY_SIGN, bytes([attempt])))
        except ValueError:  # one in 2^127 is no key
            continue
    raise ValueError("no key follows from this root")


class HeadShard(Record):
    """One shard of the head: its place in the code, what it hashes to, who held it and where that was reached."""

    index: U32Field
    root: ShardRootField
    farmer: NodeIdField
    addresses: Annotated[tuple[Address, ...], Meta(max_length=2)]


class KnownFarmer(Record):
    """Another farmer that holds something of ours."""

    farmer: NodeIdField
    addresses: Annotated[tuple[Address, ...], Meta(max_length=2)]


class RecoveryContent(Record):
    """What a recovery record says to its owner."""

    version: Annotated[int, Meta(ge=1, le=255)]
    writer: Annotated[bytes, Meta(min_length=16, max_length=16)]
    issued_ms: U63Field
    previous: Annotated[bytes, Meta(max_length=32)]
    """Digest of the record before it; empty for the first."""
    save: U63Field
    """The sequence of the save whose head this is; below the record's own when a new writer only took over."""
    head: PartRef
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """What the head is encrypted with."""
    shards: Annotated[tuple[HeadShard, ...], Meta(max_length=255)]
    node_indices: Annotated[tuple[tuple[U32Field, U32Field], ...], Meta(min_length=1, max_length=64)]
    """Group and index of every node key that has contracts."""
    farmers: Annotated[tuple[KnownFarmer, ...], Meta(max_length=255)]
    """Others to ask for contracts, as many as there is room for."""

    def hints(self) -> list[tuple[NodeId, tuple[Address, ...]]]:
        """Every farmer that it names, and where it was."""
        return [(each.farmer, each.addresses) for each in self.shards] + [
            (each.farmer, each.addresses) for each in self.farmers
        ]

    def without_last(self) -> RecoveryContent:
        """The same with fewer hints: farmers go first, shards beyond them last."""
        if self.farmers:
            return msgspec.structs.replace(self, farmers=self.farmers[: len(self.farmers) * 7 // 8])
        return msgspec.structs.replace(self, shards=self.shards[: len(self.shards) * 7 // 8])


CONTENT_VERSION = 1


def fit(content: RecoveryContent) -> RecoveryContent:
    """The same with as many hints as a record has room for."""
    while len(encode(content)) > MAX_SEALED_BYTES - 64 and (content.shards or content.farmers):
        content = content.without_last()
    return content


def journal_policy(policy: Policy) -> Policy:
    """How the catalog is spread where data is spread by `policy`: over as many farmers, any quarter of them enough."""
    k = max(1, min(policy.k, policy.n // WIDTH))
    return policy if k == policy.k else Policy.of(k, policy.n)
