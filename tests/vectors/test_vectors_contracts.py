"""Golden vectors of contract, grant, receipts and announcement. Never delete a file in `data/`."""

import json
from pathlib import Path

import pytest
from msgspec import structs

from stook.codec import Record, decode, encode
from stook.contracts.announcement import SignedAnnouncement, verify_announcement
from stook.contracts.contract import Contract
from stook.contracts.grant import Operation, SignedGrant, check_grant, spendings
from stook.contracts.negotiation import countersign, sign_offer, verify_contract
from stook.contracts.pricing import contract_cost, retrieval_cost
from stook.contracts.receipt import (
    SignedEraseReceipt,
    SignedStorageReceipt,
    verify_erase_receipt,
    verify_storage_receipt,
)
from stook.identity.keys import NodeKey
from stook.ids import NetworkId

DATA = Path(__file__).parent / "data"


def load(name):
    return json.loads((DATA / name).read_text())


CONTRACTS = load("contract-v1.json")
GRANTS = load("grant-v1.json")
RECEIPTS = load("receipt-v1.json")
ANNOUNCEMENTS = load("announcement-v1.json")


def spelled(value):
    """The value as a vector spells it: records as objects, bytes in hex, enums as numbers."""
    if isinstance(value, Record):
        return {name: spelled(part) for name, part in structs.asdict(value).items()}
    if isinstance(value, tuple):
        return [spelled(part) for part in value]
    return value.hex() if isinstance(value, bytes) else value


def opened(kind, vector):
    """The decoded value, after checking that the vector's fields and bytes say the same."""
    data = bytes.fromhex(vector["encoded"])
    value = decode(kind, data)
    assert spelled(value) == vector["fields"]
    assert encode(value) == data
    return value


@pytest.mark.parametrize("vector", CONTRACTS["contracts"], ids=lambda v: v["name"])
def test_contracts(vector):
    contract = opened(Contract, vector)
    verify_contract(contract, NetworkId(contract.terms.network))
    assert contract.terms.digest.hex() == vector["digest"]
    assert contract.contract_id.hex() == vector["contract_id"]
    renter, farmer = (NodeKey.from_secret(bytes.fromhex(CONTRACTS[who])) for who in ("renter_secret", "farmer_secret"))
    assert countersign(contract.terms, sign_offer(contract.terms, farmer), renter) == contract
    assert str(contract_cost(contract.terms)) == vector["storage_cost"]
    assert str(retrieval_cost(contract.terms, contract.terms.shard_size_bytes)) == vector["retrieval_cost"]


@pytest.mark.parametrize("vector", GRANTS["grants"], ids=lambda v: v["name"])
def test_grants(vector):
    grant = opened(SignedGrant, vector)
    assert grant.grant.digest.hex() == vector["digest"]
    assert [[s.serial.hex(), s.budget_bytes, s.expires_ms] for s in spendings(grant)] == vector["spendings"]
    check_grant(
        grant,
        network=NetworkId(grant.grant.network),
        farmer=grant.grant.farmer,
        contract=decode(Contract, bytes.fromhex(GRANTS["contract"])),
        caller_key=grant.grant.grantee_key,
        operation=Operation(vector["fields"]["grant"]["operation"]),
        begin=grant.grant.begin_byte,
        end=grant.grant.end_byte,
        now_ms=grant.grant.expires_ms - 1,
    )


def test_receipts():
    contract = decode(Contract, bytes.fromhex(RECEIPTS["contract"]))
    stored = opened(SignedStorageReceipt, RECEIPTS["storage"])
    verify_storage_receipt(stored, contract)
    assert stored.receipt.digest.hex() == RECEIPTS["storage"]["digest"]
    erased = opened(SignedEraseReceipt, RECEIPTS["erase"])
    verify_erase_receipt(erased, contract)
    assert erased.receipt.digest.hex() == RECEIPTS["erase"]["digest"]


@pytest.mark.parametrize("vector", ANNOUNCEMENTS["announcements"], ids=lambda v: v["name"])
def test_announcements(vector):
    signed = opened(SignedAnnouncement, vector)
    verify_announcement(
        signed,
        network=NetworkId(signed.announcement.contact.contact.network),
        now_ms=signed.announcement.issued_ms,
    )
    assert signed.announcement.digest.hex() == vector["digest"]
