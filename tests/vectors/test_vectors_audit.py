"""Golden vectors of audits. Never delete a file in `data/`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import audit_twin
import audit_vectors
from contract_samples import RENTER
from stook.audits.challenge import SaltedAsk, SignedChallenge, is_drawn, is_repeat, is_signed, pages_of
from stook.audits.evidence import Comparison, read_receipt_file, verify_receipt_file
from stook.audits.holding import Holding
from stook.audits.proof import SignedHead
from stook.audits.receipt import LineProof, ReceiptLine, SignedBatchReceipt, is_line_of, lines_root, verify_receipt
from stook.audits.salted import SaltedProof, commitment_root, leads_to_commitment
from stook.codec import decode, encode
from stook.contracts.loss import NotedLoss, is_noted

DATA = Path(__file__).parent / "data"
FILES = {name: json.loads((DATA / name).read_text()) for name in audit_vectors.made()}
DRAWS, SALTED, ROUND = (FILES[f"audit-{name}-v1.json"] for name in ("draw", "salted", "round"))


@pytest.mark.parametrize("name", FILES)
def test_the_vectors_are_what_is_made_now(name: str) -> None:
    assert json.loads(json.dumps(audit_vectors.made()[name])) == FILES[name]


@pytest.mark.parametrize("vector", DRAWS["draws"], ids=lambda v: v["name"])
def test_draws(vector: dict) -> None:
    holding = Holding.parse(bytes.fromhex(vector["holding"]))
    assert holding.digest.hex() == vector["digest"]
    assert holding.units == vector["units"]
    if holding.units < 50_000:
        shards = [(shard.contract_id, shard.shard_root, shard.size_bytes) for shard in holding.shards]
        twin = audit_twin.draw(shards, bytes.fromhex(vector["nonce"]), vector["wanted"])
        assert [[contract.hex(), units] for contract, units in twin] == vector["drawn"]


@pytest.mark.parametrize("vector", SALTED["commitments"], ids=lambda v: str(v["count"]))
def test_salts(vector: dict) -> None:
    size = SALTED["size_bytes"]
    leaves = [bytes.fromhex(leaf) for leaf in vector["leaves"]]
    assert commitment_root(size, leaves).hex() == vector["root"]
    for index, answer in enumerate(vector["answers"]):
        ask = SaltedAsk(
            index, vector["count"], bytes.fromhex(answer["ask"]["root"]), bytes.fromhex(answer["ask"]["salt"])
        )
        path = tuple(bytes.fromhex(step) for step in answer["proof"]["path"])
        assert leads_to_commitment(ask, size, SaltedProof(bytes.fromhex(answer["proof"]["pre_leaf"]), path))


def opened(kind: type, vector: dict) -> object:
    """The decoded value, after checking that the vector's fields and bytes say the same."""
    data = bytes.fromhex(vector["encoded"])
    value = decode(kind, data)
    assert audit_vectors.spelled(value) == vector["fields"]
    assert encode(value) == data
    return value


def test_a_round_from_challenge_to_receipt() -> None:
    signed = opened(SignedChallenge, ROUND["challenge"])
    assert is_signed(signed)
    assert is_drawn(signed.challenge, Holding.parse(bytes.fromhex(ROUND["holding"])))
    assert signed.challenge.digest.hex() == ROUND["challenge"]["digest"]
    assert len(pages_of(signed.challenge)) == ROUND["pages"]
    again = opened(SignedChallenge, ROUND["repeat"])
    assert is_signed(again)
    assert is_repeat(again.challenge, signed.challenge)
    noted = opened(NotedLoss, ROUND["loss"])
    assert is_noted(noted, (RENTER.public_key,))
    heads = tuple(opened(SignedHead, head) for head in ROUND["heads"])
    receipt = opened(SignedBatchReceipt, ROUND["receipt"])
    verify_receipt(receipt)
    assert receipt.receipt.answers == heads
    lines = tuple(opened(ReceiptLine, line) for line in ROUND["lines"])
    assert lines_root(lines) == receipt.receipt.lines_root
    assert [[line.contract_id.hex(), int(line.verdict)] for line in lines] == ROUND["verdicts"]
    assert is_line_of(receipt.receipt, opened(LineProof, ROUND["line"]))


def test_the_file_is_judged_as_it_was() -> None:
    report = verify_receipt_file(read_receipt_file(bytes.fromhex(ROUND["file"])))
    assert report.sound
    assert report.drawn
    assert [[entry.contract_id.hex(), int(entry.found)] for entry in report.rejudged] == ROUND["verdicts"]
    assert {entry.comparison for entry in report.rejudged} == {Comparison.AGREES, Comparison.UNPROVED}
