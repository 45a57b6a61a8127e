"""Keys, masks, records, names and memos."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec.structs import replace

from stook.codec import decode, encode
from stook.errors import CorruptionError, MalformedError
from stook.ids import NetworkId, SegmentId, ShardRoot
from stook.merkle import UNIT_BYTES
from stook.shards.cipher import (
    RecordContext,
    convergent_key,
    decrypt_name,
    encrypt_name,
    name_key,
    open_record,
    seal_record,
    segment_cipher,
)
from stook.shards.derive import Purpose, derive_key
from stook.shards.mask import segment_mask_key, shard_mask, shard_mask_key
from stook.shards.memo import Memo, open_memo, seal_memo
from stook.shards.padding import padded_copy
from stook.shards.pointer import Extent, ObjectRecord, SegmentRecord, content_hash

ROOT = bytes(range(32))
SEGMENT = SegmentId(bytes(16))
CONTEXT = RecordContext(format=1, network=NetworkId("test"), bucket=b"b" * 20, name=b"n" * 24, version=3)
MEMO = Memo(version=1, segment_id=SEGMENT, index=254, copy=65535, k=255, total=255, shard_bytes=4 << 20)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64])
@pytest.mark.parametrize("purpose", Purpose)
def test_derivation_is_hkdf(purpose, size):
    info = b"stook/1/" + purpose.value.encode() + b"\x00" + b"context"
    for salt in (b"", b"s" * 32):
        expected = HKDF(hashes.SHA256(), length=size, salt=salt or None, info=info).derive(ROOT)
        assert derive_key(ROOT, purpose, b"context", salt=salt, size=size) == expected


def test_derivation_refuses_short_roots_and_long_keys():
    with pytest.raises(ValueError):
        derive_key(b"short", Purpose.MEMO)
    for size in (0, 65):
        with pytest.raises(ValueError):
            derive_key(ROOT, Purpose.MEMO, size=size)


def test_masking_twice_undoes_it_and_no_two_masks_are_alike():
    key = segment_mask_key(ROOT, SEGMENT)
    plain = bytes(range(256)) * 256
    seen = set()
    for index, copy in [(0, 0), (1, 0), (0, 1), (254, 0), (0, 256), (254, 65535)]:
        data = bytearray(plain)
        shard_mask(key, index, copy)(data, data)
        seen.add(bytes(data))
        shard_mask(key, index, copy)(data, data)
        assert data == plain
    assert len(seen) == 6
    other = segment_mask_key(ROOT, SegmentId(b"\x01" * 16))
    assert shard_mask_key(other, 0) != shard_mask_key(key, 0)


def test_a_mask_can_start_at_any_unit():
    key = segment_mask_key(ROOT, SEGMENT)
    whole = bytearray(4 * UNIT_BYTES)
    shard_mask(key, 5)(whole, whole)
    for first in range(4):
        part = bytearray((4 - first) * UNIT_BYTES)
        shard_mask(key, 5, first_unit=first)(part, part)
        assert part == whole[first * UNIT_BYTES :]


def test_masks_refuse_what_has_none():
    key = segment_mask_key(ROOT, SEGMENT)
    for index, copy in [(255, 0), (-1, 0), (0, -1), (0, 1 << 16)]:
        with pytest.raises(ValueError):
            shard_mask(key, index, copy)
    with pytest.raises(ValueError):
        segment_mask_key(ROOT, SegmentId(b"short"))
    with pytest.raises(ValueError):
        segment_cipher(b"short")


def test_padding_is_zeros():
    for size in (0, 1, 100, 50_000):
        into = memoryview(bytearray(b"\xff" * 40_000))
        padded_copy(memoryview(b"x" * size), 10, into)
        assert into == (b"x" * max(size - 10, 0))[:40_000].ljust(40_000, b"\0")


def test_a_record_opens_only_where_it_belongs():
    sealed = seal_record(ROOT, CONTEXT, b"secret", salt=b"s" * 32)
    assert open_record(ROOT, CONTEXT, sealed) == b"secret"
    assert b"secret" not in sealed
    elsewhere = [
        replace(CONTEXT, version=2),
        replace(CONTEXT, name=b"m" * 24),
        replace(CONTEXT, bucket=b"c" * 20),
        replace(CONTEXT, network=NetworkId("prod")),
        replace(CONTEXT, format=2),
    ]
    for context in elsewhere:
        with pytest.raises(CorruptionError):
            open_record(ROOT, context, sealed)
    with pytest.raises(CorruptionError):
        open_record(bytes(32), CONTEXT, sealed)


def test_no_changed_or_cut_record_opens():
    sealed = seal_record(ROOT, CONTEXT, b"secret", salt=b"s" * 32)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        for wrong in (bytes(changed), sealed[:at]):
            with pytest.raises(CorruptionError):
                open_record(ROOT, CONTEXT, wrong)


def test_each_salt_gives_another_record():
    assert seal_record(ROOT, CONTEXT, b"x", salt=b"s" * 32) != seal_record(ROOT, CONTEXT, b"x", salt=b"t" * 32)
    with pytest.raises(ValueError):
        seal_record(ROOT, CONTEXT, b"x", salt=b"short")


def test_names_are_deterministic_within_a_bucket_only():
    key, other = name_key(ROOT, b"one"), name_key(ROOT, b"two")
    for name in ("a", "photos/2024/ä.jpg", "x" * 1024):
        sealed = encrypt_name(key, name)
        assert sealed == encrypt_name(key, name) != encrypt_name(other, name)
        assert decrypt_name(key, sealed) == name
        for wrong in (sealed[:-1], sealed + b"x", b"", bytes(17)):
            with pytest.raises(CorruptionError):
                decrypt_name(key, wrong)
        with pytest.raises(CorruptionError):
            decrypt_name(other, sealed)
    for name in ("", "x" * 1025, "ä" * 513):
        with pytest.raises(ValueError):
            encrypt_name(key, name)


def test_convergence_depends_on_the_secret():
    assert convergent_key(ROOT, bytes(32)) == convergent_key(ROOT, bytes(32)) != convergent_key(b"o" * 32, bytes(32))
    with pytest.raises(ValueError):
        convergent_key(ROOT, b"short")


def test_memos_fit_a_contract_and_belong_to_one_owner():
    sealed = seal_memo(ROOT, MEMO)
    assert len(sealed) <= 128
    assert open_memo(ROOT, sealed) == MEMO
    for root, wrong in [(bytes(32), sealed), (ROOT, sealed[:-1]), (ROOT, b""), (ROOT, bytes(129)), (ROOT, bytes(40))]:
        with pytest.raises(CorruptionError):
            open_memo(root, wrong)


def segment_record(**changes):
    fields = {
        "version": 1,
        "segment_id": SEGMENT,
        "key": b"k" * 32,
        "k": 2,
        "total": 3,
        "shard_bytes": 16384,
        "plain_bytes": 5,
        "plain_hash": bytes(32),
        "roots": (ShardRoot(bytes(32)),) * 3,
    }
    return SegmentRecord(**(fields | changes))


def test_records_that_contradict_themselves_do_not_decode():
    record = segment_record()
    assert decode(SegmentRecord, encode(record)) == record
    assert "6b6b" not in repr(record)
    assert "kkk" not in repr(record)
    good = encode(list(encode_fields(record)))
    assert decode(SegmentRecord, good) == record
    for position, value in [(3, 4), (5, 16385), (6, 32769), (6, 0), (8, [bytes(32)] * 2), (2, b"short")]:
        fields = list(encode_fields(record))
        fields[position] = value
        with pytest.raises(MalformedError):
            decode(SegmentRecord, encode(fields))


def encode_fields(record):
    return (getattr(record, name) for name in record.__struct_fields__)


def test_object_records_add_up():
    extents = (Extent(SEGMENT, 0, 5, b"h" * 32), Extent(SEGMENT, 9, 7, b"i" * 32))
    fields = {"version": 1, "content_hash": content_hash(extents), "modified_ns": -1, "mode": 0o644}
    record = ObjectRecord(size=12, extents=extents, metadata=(("a", "1"), ("b", "2")), **fields)
    assert decode(ObjectRecord, encode(record)) == record
    with pytest.raises(ValueError):
        ObjectRecord(size=13, extents=extents, metadata=(), **fields)
    for metadata in ((("b", ""), ("a", "")), (("a", ""), ("a", ""))):
        with pytest.raises(ValueError):
            ObjectRecord(size=12, extents=extents, metadata=metadata, **fields)
    assert content_hash(extents) != content_hash(extents[::-1])
