"""Targets: what strangers bring to the overlay's record store, and what they name to its table and lookups."""

from __future__ import annotations

from msgspec import structs

from fuzz_base import target
from overlay_samples import NETWORK, NOW_MS, contact_of, key_of
from stook.codec import decode, encode
from stook.errors import StookError
from stook.ids import NodeId
from stook.overlay.lookup import Lookup
from stook.overlay.memory import CONTACTS, BlobMemory
from stook.overlay.messages import MAX_RECORDS_FOUND, ValueReply
from stook.overlay.record_store import RecordStore, StoreLimits
from stook.overlay.records import BridgeEntry, RecordKind, SignedRecord, check_record, newest, sign_record
from stook.overlay.routing_table import Node, RoutingTable
from stook.storage.blobs import MemoryBlobs

OWNER = key_of(3)


def _record_seeds() -> list[bytes]:
    contact = contact_of(OWNER)
    bodies = {
        RecordKind.CONTACT: encode(contact),
        RecordKind.POINTER: b"sealed",
        RecordKind.BRIDGE: encode(BridgeEntry(contact, "b", "u")),
    }
    return [
        encode(sign_record(OWNER, network=NETWORK, kind=kind, body=body, sequence=1, issued_ms=NOW_MS))
        for kind, body in bodies.items()
    ]


@target(
    "overlay.records",
    seeds=_record_seeds,
    covers=(
        "stook.overlay.records.check_record",
        "stook.overlay.records.check_form",
        "stook.overlay.records.check_signatures",
        "stook.overlay.record_store.RecordStore.put",
    ),
    weight=4,
)
def record(data: bytes) -> None:
    """Brought as it came, then signed again by somebody of this network, whose own id it is about."""
    signed = decode(SignedRecord, data)
    own = structs.replace(signed.record, network=NETWORK, publisher_key=OWNER.public_key, subject=OWNER.node_id)
    fresh = structs.replace(own, version=1, issued_ms=NOW_MS, expires_ms=NOW_MS + 1)
    store = RecordStore(NodeId(bytes(20)), NETWORK, StoreLimits(max_records=2, max_bytes=40_000))
    blobs = MemoryBlobs()
    memory = BlobMemory(blobs)
    for text in (signed, SignedRecord(own, OWNER.sign(own.digest)), SignedRecord(fresh, OWNER.sign(fresh.digest))):
        kept = store.put(text, nearer=0, now_ms=NOW_MS)
        assert kept.detail.isprintable() or kept.code
        try:
            check_record(text, network=NETWORK, now_ms=NOW_MS)
        except StookError:
            assert kept.code
            continue
        assert newest([text, text]) == (text,)
        memory.save_record(text)
        assert text in memory.records()
        if not kept.code:
            assert text in store.get(text.key, now_ms=NOW_MS)


def _reply_seeds() -> list[bytes]:
    contacts = tuple(contact_of(key_of(number), f"45.0.{number}.1") for number in range(4, 8))
    records = tuple(decode(SignedRecord, seed) for seed in _record_seeds())
    return [encode(ValueReply(records, contacts)), encode(ValueReply((), contacts[:1]))]


@target("overlay.answers", seeds=_reply_seeds, covers=("stook.overlay.routing_table.network_of",), weight=4)
def answer(data: bytes) -> None:
    """What a node answers, put into a table and a lookup; whatever it names, both stay within their bounds."""
    reply = decode(ValueReply, data)
    assert len(newest(reply.records)) <= MAX_RECORDS_FOUND
    nodes = [Node.of(contact) for contact in reply.contacts]
    table = RoutingTable(OWNER.node_id)
    for node in nodes:
        if table.wants(node):
            table.seen(node, node.network, now_ms=NOW_MS)
    assert table.get(OWNER.node_id) is None
    lookup = Lookup(bytes(20), OWNER.node_id, nodes[:2])
    while asked := lookup.next_nodes():
        for node in asked:
            lookup.answered(node, nodes)
    assert lookup.done
    assert len(lookup.result()) <= min(len(nodes), lookup.rules.k)


@target("overlay.contacts_file", seeds=_reply_seeds, covers=())
def contacts_file(data: bytes) -> None:
    """A contacts file that may have changed on the disk."""
    blobs = MemoryBlobs()
    blobs.write(CONTACTS, data)
    assert len(BlobMemory(blobs).contacts()) <= 256
