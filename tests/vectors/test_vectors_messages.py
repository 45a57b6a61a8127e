"""Golden vectors of the envelope and the contact. Never delete a file in `data/`."""

import json
from pathlib import Path

import pytest

from stook.codec import decode, encode
from stook.identity.contact import Address, AddressKind, SignedContact, sign_contact
from stook.identity.envelope import Kind, ReplayWindow, open_envelope, seal
from stook.identity.keys import NodeKey

DATA = Path(__file__).parent / "data"
MESSAGES = json.loads((DATA / "envelope-v1.json").read_text())["messages"]
CONTACTS = json.loads((DATA / "contact-v1.json").read_text())["contacts"]
RAW = ("message_id", "session", "recipient", "payload", "reply_to")


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda v: f"{v['kind']}-{v['method']}")
def test_envelopes(vector):
    key = NodeKey.from_secret(bytes.fromhex(vector["sender_secret"]))
    raw = {name: bytes.fromhex(vector[name]) for name in RAW}
    sealed = seal(
        key=key,
        network=vector["network"],
        kind=Kind(vector["kind"]),
        method=vector["method"],
        sent_at_ms=vector["sent_at_ms"],
        **raw,
    )
    assert sealed.data.hex() == vector["encoded"]
    assert sealed.digest.hex() == vector["digest"]
    opened = open_envelope(
        bytes.fromhex(vector["encoded"]),
        network=vector["network"],
        me=raw["recipient"],
        session=raw["session"],
        claimed_sender=key.node_id,
        now_ms=vector["sent_at_ms"],
        replay=ReplayWindow(),
    )
    assert opened.digest.hex() == vector["digest"]
    assert opened.version == vector["version"]
    assert (opened.kind, opened.method, opened.network) == (vector["kind"], vector["method"], vector["network"])
    assert opened.sender_key.hex() == vector["sender_key"]
    assert {name: getattr(opened, name) for name in RAW} == raw


@pytest.mark.parametrize("vector", CONTACTS, ids=lambda v: str(len(v["addresses"])))
def test_contacts(vector):
    key = NodeKey.from_secret(bytes.fromhex(vector["secret"]))
    signed = sign_contact(
        key,
        network=vector["network"],
        addresses=[Address(AddressKind(kind), host, port) for kind, host, port in vector["addresses"]],
        sequence=vector["sequence"],
        issued_ms=vector["issued_ms"],
        puzzle_nonce=vector["puzzle_nonce"],
        hd_index=vector["hd_index"],
    )
    assert signed.contact.digest.hex() == vector["digest"]
    assert encode(signed).hex() == vector["encoded"]
    read = decode(SignedContact, bytes.fromhex(vector["encoded"]))
    assert read == signed
    assert read.verifies()
