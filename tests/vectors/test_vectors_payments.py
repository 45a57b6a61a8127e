"""Golden vectors of tariff, cheque, order, batch, agreement. Never delete a file in `data/`."""

from __future__ import annotations

import json
from pathlib import Path

import payment_samples
from contract_samples import FARMER, NETWORK, RENTER
from stook.codec import decode, encode
from stook.payments.batch import Agreement, Batch, is_agreement
from stook.payments.cheque import SignedCheque, judge
from stook.payments.orders import SignedOrder, is_order

VECTORS = json.loads((Path(__file__).parent / "data" / "payments-v1.json").read_text())


def test_the_vectors_are_what_is_made_now() -> None:
    assert json.loads(json.dumps(payment_samples.made())) == VECTORS


def test_what_was_written_reads_back_and_holds() -> None:
    batch = decode(Batch, bytes.fromhex(VECTORS["batch"]["encoded"]))
    assert encode(batch).hex() == VECTORS["batch"]["encoded"]
    agreement = decode(Agreement, bytes.fromhex(VECTORS["agreement"]["encoded"]))
    assert agreement.agreed
    assert is_agreement(agreement, batch)
    disputed = decode(Agreement, bytes.fromhex(VECTORS["disputed"]))
    assert not disputed.agreed
    assert is_agreement(disputed, batch)
    order = decode(SignedOrder, bytes.fromhex(VECTORS["order"]["encoded"]))
    assert is_order(order, NETWORK, RENTER.public_key, FARMER.public_key)
    assert not is_order(order, NETWORK, FARMER.public_key, FARMER.public_key)
    cheque = decode(SignedCheque, bytes.fromhex(VECTORS["cheques"][0]["encoded"]))
    judgement = judge(cheque, payment_samples.DRAWER, None)
    assert judgement.fault is None
    assert judgement.worth == cheque.cheque.amount
