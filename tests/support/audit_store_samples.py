"""Challenges, losses and receipts for tests of the agent's store. Signatures of placements are placeholders."""

from __future__ import annotations

from dataclasses import replace

from contract_samples import FARMER, RENTER
from stook.audits.challenge import Parties, SignedChallenge, draw_challenge
from stook.audits.evidence import ReceiptFile
from stook.audits.holding import HeldShard, Holding
from stook.audits.receipt import settle
from stook.contracts.loss import LossDeclaration, NotedLoss, SignedLoss, note_loss
from stook.contracts.verdict import Verdict
from stook.ids import NetworkId, NodeId
from stook.storage.agent_audit_ports import KeptReceipt, OpenChallenge
from stook.storage.renter_ports import Placement

PARTIES = Parties(NetworkId("test"), RENTER.public_key, FARMER.public_key)


def challenge(placements: list[Placement], nonce: int = 1, now_ms: int = 500) -> SignedChallenge:
    """A challenge drawn over these placements, one unit for each."""
    holding = Holding(HeldShard(each.contract_id, each.root, 16384) for each in placements)
    return draw_challenge(
        holding,
        PARTIES,
        RENTER,
        nonce=bytes([nonce]) * 32,
        wanted=len(placements),
        now_ms=now_ms,
        answer_within_ms=100,
    )


def opened(farmer: NodeId, placements: list[Placement], nonce: int = 1, *, first: bool = False) -> OpenChallenge:
    """The same, open at a farmer."""
    return OpenChallenge(farmer, challenge(placements, nonce), first)


def kept(open_one: OpenChallenge, judged_ms: int, outcome: Verdict = Verdict.SILENT) -> KeptReceipt:
    """The receipt of a challenge that nobody answered, said to have come to `outcome`."""
    signed = open_one.signed
    settled = settle(signed.challenge, {}, {}, RENTER, max(judged_ms, signed.challenge.sent_at_ms))
    file = ReceiptFile(1, settled.signed, settled.lines, signed, (), (), b"", ())
    return KeptReceipt(open_one.farmer, signed.challenge.digest, judged_ms, outcome, file)


def loss(of: Placement, received_ms: int = 600) -> NotedLoss:
    """A declared loss with the renter's note."""
    said = LossDeclaration(of.contract_id, of.root, received_ms - 1, FARMER.public_key)
    return note_loss(SignedLoss(said, FARMER.sign(said.digest)), RENTER, received_ms)


def delivered(receipt: KeptReceipt) -> KeptReceipt:
    """The same, with the farmer."""
    return replace(receipt, sent=True)
