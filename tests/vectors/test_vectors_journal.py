"""Golden bytes of the saved catalog and of recovery records, kept for ever."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import recovery_samples as samples
from stook.codec import decode, encode
from stook.contracts.recovery import MAX_RECORD_BYTES, SignedRecoveryRecord
from stook.errors import CorruptionError
from stook.identity.contact import Address, AddressKind
from stook.ids import NetworkId, NodeId, SegmentId, ShardRoot
from stook.renter.journal_seal import HeadShard, JournalKeys, KnownFarmer, PartName, RecoveryContent, fit
from stook.shards.pointer import Extent, ObjectRecord, content_hash, decode_object
from stook.storage.journal_records import BlockReader, PartHead, SaveHead, first_frame, open_frame

VECTORS = json.loads((Path(__file__).parent / "data/journal-v1.json").read_text())
ROOT = bytes.fromhex(VECTORS["recovery_root"])
KEYS = JournalKeys(ROOT)
SEGMENT_ID = SegmentId(bytes.fromhex(VECTORS["segment_id"]))
PART = bytes.fromhex(VECTORS["part"])


def hkdf(purpose: str, context: bytes = b"") -> bytes:
    """RFC 5869, one block, written out."""
    extracted = hmac.digest(bytes(32), ROOT, hashlib.sha256)
    return hmac.digest(extracted, b"stook/1/" + purpose.encode() + b"\0" + context + b"\1", hashlib.sha256)


def test_today_makes_the_same_bytes() -> None:
    assert samples.vectors() == VECTORS


def test_names_and_keys_by_hand() -> None:
    block = VECTORS["sequence"].to_bytes(8, "big") + b"\0\0" + bytes.fromhex(VECTORS["nonce"])
    cipher = Cipher(algorithms.AES(hkdf("journal-name")), modes.ECB()).encryptor()
    assert cipher.update(block) + cipher.finalize() == SEGMENT_ID
    assert KEYS.name_of(SEGMENT_ID) == PartName(VECTORS["sequence"], 0)
    assert hkdf("journal-part", SEGMENT_ID).hex() == VECTORS["content_key"]
    check = blake3(PART[:4] + PART[36:], key=hkdf("journal-check", SEGMENT_ID)).digest()
    assert PART[4:36] == check
    assert int.from_bytes(PART[:4], "big") == len(PART)


def test_the_part_opens_and_says_what_it_said() -> None:
    body, size = KEYS.open_part(SEGMENT_ID, memoryview(PART + bytes(500)))
    assert size == len(PART)
    first = first_frame(body)
    assert first is not None
    assert open_frame(PartHead, first[0]) == PartHead(1, NetworkId("local"), VECTORS["sequence"], 0, True)
    second = first_frame(first[1])
    assert second is not None
    assert open_frame(SaveHead, second[0]) == samples.HEAD
    for cut in (1, 5, len(second[1])):  # however it comes
        reader, blocks = BlockReader(), []
        for at in range(0, len(second[1]), cut):
            blocks += list(reader.feed(second[1][at : at + cut]))
        reader.finish()
        assert tuple(blocks) == samples.BLOCKS


@pytest.mark.parametrize("at", [0, 3, 4, 20, 40, 100, -1])
def test_a_changed_part_does_not_open(at: int) -> None:
    changed = bytearray(PART)
    changed[at] ^= 1
    with pytest.raises(CorruptionError):
        KEYS.open_part(SEGMENT_ID, memoryview(changed))
    with pytest.raises(CorruptionError):
        KEYS.open_part(SegmentId(bytes(16)), memoryview(PART))


def test_the_record_opens() -> None:
    record = decode(SignedRecoveryRecord, bytes.fromhex(VECTORS["record"]))
    assert record.body.key.hex() == VECTORS["record_key"]
    content = KEYS.open(record, NetworkId("local"))
    assert content == samples.CONTENT
    assert encode(content).hex() == VECTORS["record_content"]
    assert KEYS.open(record, NetworkId("other")) is None
    assert JournalKeys(bytes(32)).open(record, NetworkId("local")) is None


def test_a_record_of_the_widest_head_fits() -> None:
    where = (Address(AddressKind.DIRECT, "a" * 250 + ".org", 7071),) * 2
    shards = tuple(HeadShard(n, ShardRoot(bytes([n]) * 32), NodeId(bytes([n]) * 20), where) for n in range(255))
    farmers = tuple(KnownFarmer(NodeId(bytes([n]) * 20), where) for n in range(255))
    fields = {name: getattr(samples.CONTENT, name) for name in RecoveryContent.__struct_fields__}
    fitted = fit(RecoveryContent(**fields | {"shards": shards, "farmers": farmers}))
    assert not fitted.farmers
    assert fitted.shards == shards[: len(fitted.shards)]
    assert len(encode(KEYS.seal(fitted, NetworkId("local"), 5, salt=bytes(32)))) <= MAX_RECORD_BYTES
    usual = (Address(AddressKind.DIRECT, "203.0.113.255", 65535),)
    shards = tuple(HeadShard(n, ShardRoot(bytes([n]) * 32), NodeId(bytes([n]) * 20), usual) for n in range(40))
    whole = RecoveryContent(**fields | {"shards": shards, "farmers": farmers[:40]})
    assert fit(whole).shards == shards, "forty farmers, the most that a default policy uses, fit"


def test_tiny_objects() -> None:
    record = decode_object(bytes.fromhex(VECTORS["inline_record"]))
    assert record == samples.INLINE
    assert record.content_hash.hex() == VECTORS["inline_content_hash"]
    extent = Extent(SegmentId(bytes(16)), 0, 4, blake3(b"tiny", key=blake3(b"stook/1/plaintext").digest()).digest())
    assert content_hash((extent,)) == record.content_hash
    empty = ObjectRecord(1, 0, content_hash(()), (), 0, 0, ())
    assert decode_object(encode(empty)) == empty
