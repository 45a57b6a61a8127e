"""Makes the overlay's golden vectors: ``python tests/support/overlay_vectors.py`` writes files not there yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overlay_samples import NETWORK, NOW_MS, contact_of, key_of
from stook.codec import encode
from stook.overlay.messages import FindNode, FindValue, NodesReply, Store, StoreAnswer, StoreReply, ValueReply
from stook.overlay.records import BridgeEntry, RecordKind, SignedRecord, sign_record

DATA = Path(__file__).parents[1] / "vectors" / "data"


def bodies(secret: int) -> dict[RecordKind, tuple[bytes | None, bytes]]:
    """Subject (None: the publisher's own id) and body of one record of each kind."""
    contact = contact_of(key_of(secret))
    return {
        RecordKind.CONTACT: (None, encode(contact)),
        RecordKind.PROVIDER: (bytes(range(32)), encode(contact_of(key_of(secret + 1)))),
        RecordKind.POINTER: (None, b"sealed for its owner"),
        RecordKind.BRIDGE: (b"", encode(BridgeEntry(contact, "a bridge", "https://bridge.example"))),
    }


def record(secret: int, kind: RecordKind) -> SignedRecord:
    """The record of the vectors."""
    subject, body = bodies(secret)[kind]
    return sign_record(
        key_of(secret),
        network=NETWORK,
        kind=kind,
        subject=subject,
        body=body,
        sequence=7,
        issued_ms=NOW_MS,
        puzzle_nonce=5,
    )


def records() -> list[dict[str, Any]]:
    """One of each kind, and one withdrawn."""
    made = [record(3, kind) for kind in bodies(3)]
    made.append(
        sign_record(key_of(3), network=NETWORK, kind=RecordKind.POINTER, body=b"", sequence=8, issued_ms=NOW_MS)
    )
    return [
        {
            "secret": key_of(3).reveal_secret().hex(),
            "kind": one.record.kind,
            "subject": one.record.subject.hex(),
            "body": one.record.body.hex(),
            "puzzle_nonce": one.record.puzzle_nonce,
            "sequence": one.record.sequence,
            "issued_ms": one.record.issued_ms,
            "expires_ms": one.record.expires_ms,
            "network": one.record.network,
            "key": one.key.hex(),
            "digest": one.record.digest.hex(),
            "encoded": encode(one).hex(),
        }
        for one in made
    ]


def messages() -> list[dict[str, str]]:
    """One of each payload."""
    contact, pointer = contact_of(key_of(4)), record(3, RecordKind.POINTER)
    values = [
        FindNode(key_of(3).node_id, 40),
        NodesReply((contact,)),
        FindValue(key_of(3).node_id, 20),
        ValueReply((pointer,), (contact,)),
        Store((pointer,)),
        StoreReply((StoreAnswer(0, ""), StoreAnswer(118, "sequence 9 is kept"))),
    ]
    return [{"message": type(value).__name__, "encoded": encode(value).hex()} for value in values]


def main() -> None:
    """Write what is not there yet. Never changes a file: old vectors stay."""
    for name, made in (
        ("overlay-record-v1", {"records": records()}),
        ("overlay-messages-v1", {"messages": messages()}),
    ):
        path = DATA / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
