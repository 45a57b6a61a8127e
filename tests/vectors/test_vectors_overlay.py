"""Golden vectors of overlay records and messages. Never delete a file in `data/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stook.codec import decode, encode
from stook.identity.keys import NodeKey
from stook.ids import NetworkId
from stook.overlay import messages
from stook.overlay.records import RecordKind, SignedRecord, check_record, key_of, sign_record

DATA = Path(__file__).parent / "data"
RECORDS = json.loads((DATA / "overlay-record-v1.json").read_text())["records"]
MESSAGES = json.loads((DATA / "overlay-messages-v1.json").read_text())["messages"]


@pytest.mark.parametrize("vector", RECORDS, ids=lambda v: f"{v['kind']}-{v['sequence']}")
def test_records(vector: dict[str, Any]) -> None:
    kind = RecordKind(vector["kind"])
    signed = sign_record(
        NodeKey.from_secret(bytes.fromhex(vector["secret"])),
        network=NetworkId(vector["network"]),
        kind=kind,
        subject=bytes.fromhex(vector["subject"]),
        body=bytes.fromhex(vector["body"]),
        sequence=vector["sequence"],
        issued_ms=vector["issued_ms"],
        life_ms=vector["expires_ms"] - vector["issued_ms"],
        puzzle_nonce=vector["puzzle_nonce"],
    )
    assert encode(signed).hex() == vector["encoded"]
    read = decode(SignedRecord, bytes.fromhex(vector["encoded"]))
    assert read == signed
    assert read.record.digest.hex() == vector["digest"]
    assert key_of(kind, bytes.fromhex(vector["subject"])).hex() == read.key.hex() == vector["key"]
    check_record(read, network=NetworkId(vector["network"]), now_ms=vector["issued_ms"])


def test_there_is_a_record_of_every_kind_but_the_one_with_vectors_of_its_own() -> None:
    assert {vector["kind"] for vector in RECORDS} == set(RecordKind) - {RecordKind.ANNOUNCEMENT}


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda v: v["message"])
def test_messages(vector: dict[str, str]) -> None:
    kind = getattr(messages, vector["message"])
    value = decode(kind, bytes.fromhex(vector["encoded"]))
    assert encode(value).hex() == vector["encoded"]
