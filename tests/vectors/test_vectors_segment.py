"""Golden vectors of sealed segments and of what the client keeps about them. Never delete a file in `data/`."""

import hashlib
import json
from pathlib import Path

import pytest

from stook.codec import decode, encode
from stook.shards.arena import Scratch, ShardArena
from stook.shards.cipher import (
    RecordContext,
    convergent_key,
    decrypt_name,
    encrypt_name,
    name_key,
    open_record,
    seal_record,
)
from stook.shards.erasure import code_row, load_codec
from stook.shards.geometry import SegmentShape
from stook.shards.mask import segment_mask_key, shard_mask_key
from stook.shards.memo import Memo, open_memo, seal_memo
from stook.shards.pipeline import seal, unseal
from stook.shards.pointer import ObjectRecord, SegmentRecord, content_hash

DATA = Path(__file__).parent / "data"
SEGMENTS = json.loads((DATA / "segment-v1.json").read_text())
RECORDS = json.loads((DATA / "record-v1.json").read_text())
KEY = bytes.fromhex(SEGMENTS["key"])
MASK_ROOT = bytes.fromhex(SEGMENTS["mask_root"])
SEGMENT_ID = bytes.fromhex(SEGMENTS["segment_id"])
MASK_KEY = bytes.fromhex(SEGMENTS["segment_mask_key"])


def plaintext(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def test_mask_keys():
    assert segment_mask_key(MASK_ROOT, SEGMENT_ID) == MASK_KEY
    for vector in SEGMENTS["shard_mask_keys"]:
        assert shard_mask_key(MASK_KEY, vector["index"], vector["copy"]).hex() == vector["key"]


def test_code_rows():
    for vector in SEGMENTS["code_rows"]:
        assert code_row(vector["k"], vector["index"]).hex() == vector["row"]


@pytest.mark.parametrize("vector", SEGMENTS["segments"], ids=lambda v: f"{v['k']}-{v['total']}")
def test_sealing_gives_the_same_shards_for_ever(vector):
    shape = SegmentShape(vector["k"], vector["total"], vector["shard_bytes"])
    segment = seal(
        memoryview(plaintext(vector["plain_bytes"])),
        key=KEY,
        mask_key=MASK_KEY,
        shape=shape,
        arena=ShardArena.of(shape),
        codec=load_codec(),
    )
    assert segment.plain_hash.hex() == vector["plain_hash"]
    for expected in vector["shards"]:
        shard = segment.shards[expected["index"]]
        assert shard.root.hex() == expected["root"]
        assert hashlib.sha256(shard.data).hexdigest() == expected["sha256"]


def test_shards_written_by_version_1_still_open():
    vector = next(v for v in SEGMENTS["segments"] if (v["k"], v["total"]) == (2, 3))
    roots = [bytes.fromhex(shard["root"]) for shard in vector["shards"]]
    into = memoryview(bytearray(vector["plain_bytes"]))
    unseal(
        {index: memoryview((DATA / f"segment-v1-shard{index}.bin").read_bytes()) for index in (1, 2)},
        key=KEY,
        mask_key=MASK_KEY,
        shape=SegmentShape(2, 3, 16384),
        into=into,
        codec=load_codec(),
        scratch=Scratch(),
        roots=roots,
    )
    assert into == plaintext(len(into))


def test_metadata_record():
    vector = RECORDS["record"]
    fields = vector["context"]
    context = RecordContext(
        format=fields["format"],
        network=fields["network"],
        bucket=bytes.fromhex(fields["bucket"]),
        name=bytes.fromhex(fields["name"]),
        version=fields["version"],
    )
    root, plain = bytes.fromhex(vector["record_root"]), bytes.fromhex(vector["plain"])
    assert encode(context).hex() == vector["associated_data"]
    assert seal_record(root, context, plain, salt=bytes.fromhex(vector["salt"])).hex() == vector["sealed"]
    assert open_record(root, context, bytes.fromhex(vector["sealed"])) == plain


def test_names():
    vector = RECORDS["names"]
    key = name_key(bytes.fromhex(vector["content_root"]), bytes.fromhex(vector["bucket"]))
    assert key.hex() == vector["key"]
    for name in vector["names"]:
        assert encrypt_name(key, name["name"]).hex() == name["sealed"]
        assert decrypt_name(key, bytes.fromhex(name["sealed"])) == name["name"]


def test_convergent_key():
    vector = RECORDS["convergent"]
    assert convergent_key(bytes.fromhex(vector["secret"]), bytes.fromhex(vector["plain_hash"])).hex() == vector["key"]


def test_memo():
    vector = RECORDS["memo"]
    memo = Memo(**vector["fields"] | {"segment_id": bytes.fromhex(vector["fields"]["segment_id"])})
    assert encode(memo).hex() == vector["encoded"]
    assert seal_memo(bytes.fromhex(vector["mask_root"]), memo).hex() == vector["sealed"]
    assert open_memo(bytes.fromhex(vector["mask_root"]), bytes.fromhex(vector["sealed"])) == memo


def test_segment_and_object_records():
    record = decode(SegmentRecord, bytes.fromhex(RECORDS["segment_record"]))
    assert (record.segment_id, record.key, record.k, record.plain_bytes) == (SEGMENT_ID, KEY, 2, 32_000)
    assert record.shape == SegmentShape(2, 3, 16384)
    entry = decode(ObjectRecord, bytes.fromhex(RECORDS["object_record"]))
    assert (entry.size, entry.mode, entry.metadata[1]) == (32_007, 0o644, ("x", "ä"))
    assert content_hash(entry.extents) == entry.content_hash == bytes.fromhex(RECORDS["content_hash"])
    assert entry.modified_ns == 1_700_000_000_123_456_789
