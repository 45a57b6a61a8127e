"""Fixed values for the vectors of the saved catalog: ``python tests/support/recovery_samples.py`` prints them anew."""

from __future__ import annotations

import json
from typing import Any

from stook.codec import encode
from stook.identity.contact import Address, AddressKind
from stook.ids import NetworkId, NodeId, SegmentId, ShardRoot
from stook.renter.journal_seal import (
    CONTENT_VERSION,
    SEAL_BYTES,
    HeadShard,
    JournalKeys,
    KnownFarmer,
    PartName,
    RecoveryContent,
)
from stook.shards.pointer import INLINE_VERSION, InlineRecord
from stook.storage.journal_records import (
    JOURNAL_VERSION,
    Block,
    PartHead,
    PartRef,
    Point,
    SaveHead,
    SaveRef,
    frame,
    sequence_of,
)

ROOT = bytes(range(32))
NETWORK = NetworkId("local")
SEQUENCE = sequence_of(2, 7)
KEYS = JournalKeys(ROOT)
NONCE = b"nonce!"


def part_ref(number: int, size: int = 700) -> PartRef:
    return PartRef(SegmentId(bytes([number]) * 16), 2, 7, 16384, size)


BLOCKS = (
    Block("objects", ("number",), True, ((3,),)),
    Block("buckets", ("number", "name", "created_ms"), False, ((1, b"photos", 5), (2, b"\xf0\x9f\x8c\xbe", 2**40))),
)
BEFORE = SaveRef(sequence_of(2, 6), 1_700_000_000_000, 4, True, 200, (part_ref(1), part_ref(2)))
HEAD = SaveHead(
    schema="catalog_0010",
    writer=b"w" * 16,
    saved_ms=1_700_000_060_000,
    generation=5,
    base=False,
    rows=3,
    parts=(),
    chain=(BEFORE.sequence,),
    saves=(BEFORE,),
    points=(Point(1_700_000_000_000, (BEFORE.sequence,)),),
    settings="[rent]\n",
)


def part() -> tuple[SegmentId, bytes]:
    """The one part of a save, sealed but for the segment around it."""
    segment_id = KEYS.segment_id(PartName(SEQUENCE, 0), NONCE)
    head = frame(PartHead(JOURNAL_VERSION, NETWORK, SEQUENCE, 0, True)) + frame(HEAD)
    body = head + b"".join(map(frame, BLOCKS))
    into = bytearray(SEAL_BYTES + len(body))
    KEYS.close_part(segment_id, memoryview(body), memoryview(into))
    return segment_id, bytes(into)


CONTENT = RecoveryContent(
    version=CONTENT_VERSION,
    writer=b"w" * 16,
    issued_ms=1_700_000_060_500,
    previous=b"p" * 32,
    save=SEQUENCE,
    head=part_ref(9),
    key=KEYS.content_key(part_ref(9).segment_id),
    shards=(
        HeadShard(0, ShardRoot(b"r" * 32), NodeId(b"f" * 20), (Address(AddressKind.DIRECT, "farm.example.org", 7071),)),
        HeadShard(3, ShardRoot(b"s" * 32), NodeId(b"g" * 20), ()),
    ),
    node_indices=((0, 0),),
    farmers=(KnownFarmer(NodeId(b"h" * 20), (Address(AddressKind.DIRECT, "2001:db8::1", 1),)),),
)
SALT = b"salt" * 8
INLINE = InlineRecord(INLINE_VERSION, b"tiny", 1_700_000_000_000_000_000, 0o644, (("colour", "green"),))


def vectors() -> dict[str, Any]:
    segment_id, sealed = part()
    record = KEYS.seal(CONTENT, NETWORK, SEQUENCE, salt=SALT)
    return {
        "recovery_root": ROOT.hex(),
        "network": NETWORK,
        "sequence": SEQUENCE,
        "nonce": NONCE.hex(),
        "segment_id": segment_id.hex(),
        "content_key": KEYS.content_key(segment_id).hex(),
        "part": sealed.hex(),
        "record_key": KEYS.record_key.public_key.hex(),
        "record_salt": SALT.hex(),
        "record_content": encode(CONTENT).hex(),
        "record": encode(record).hex(),
        "inline_record": encode(INLINE).hex(),
        "inline_content_hash": INLINE.content_hash.hex(),
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
