"""A round of audits as a file that anybody can check: what was kept of it, and the answers made again.

Works on the stores alone, beside a farmer that runs or without one. All calls block.
"""

from __future__ import annotations

from collections.abc import Iterable

from stook.audits.challenge import Challenge, pages_of
from stook.audits.evidence import FILE_VERSION, ReceiptFile
from stook.audits.proof import SignedAnswer, SignedHead, body_digest
from stook.contracts.lifecycle import OVER
from stook.contracts.loss import SignedLoss
from stook.errors import NotFoundError, UserError
from stook.farmer.audit_desk import StoreKeeper, prove_or_none
from stook.ids import ContractId
from stook.storage.audit_ports import RoundSummary
from stook.storage.ports import ContractStore, HeldContract, ShardStore


def find_round(rounds: Iterable[RoundSummary], name: str) -> RoundSummary:
    """The one round whose digest begins with these hex digits. Raises `NotFoundError`, `UserError` for several."""
    found = [one for one in rounds if one.digest.hex().startswith(name.lower())]
    if not found:
        raise NotFoundError(f"no round {name} is on the book; see `stook farm audits`")
    if len(found) > 1:
        raise UserError(f"{len(found)} rounds begin with {name}; give more digits")
    return found[0]


def receipt_file(contracts: ContractStore, shards: ShardStore, digest: bytes) -> ReceiptFile:
    """Everything there is to show of one round. Pages that do not come out as they were signed are left out.

    Raises `NotFoundError` when the round is not on the book.
    """
    kept = contracts.audits.round(digest)
    if kept is None:
        raise NotFoundError(f"no round {digest.hex()} is on the book")
    challenge = kept.challenge.challenge
    heads = {head.head.page: head for head in kept.heads}
    if kept.receipt is not None:  # an auditor may have taken a later answer to the same page
        heads |= {head.head.page: head for head in kept.receipt.receipt.answers}
    answers = [answer for _, head in sorted(heads.items()) if (answer := _again(contracts, shards, challenge, head))]
    named = {ask.contract_id for ask in challenge.asks} | {line.contract_id for line in kept.lines}
    return ReceiptFile(
        version=FILE_VERSION,
        receipt=kept.receipt,
        lines=kept.lines,
        challenge=kept.challenge,
        answers=tuple(answers),
        losses=tuple(contracts.audits.noted(sorted(named))),
        holding=b"",
        stored=(),
    )


def _again(
    contracts: ContractStore, shards: ShardStore, challenge: Challenge, signed: SignedHead
) -> SignedAnswer | None:
    """The answer to a page, if it can still be made as it was."""
    pages = pages_of(challenge)
    if signed.head.page >= len(pages):
        return None
    asks = [challenge.asks[at] for at in pages[signed.head.page]]
    admitted = {
        ask.contract_id: held.contract
        for ask in asks
        if (held := _held(contracts, ask.contract_id)) and held.contract.terms.renter_key == challenge.renter_key
    }

    def declared(held: HeldContract) -> SignedLoss:
        loss = contracts.audits.loss(held.contract_id)
        if loss is None:
            raise NotFoundError("not declared yet")
        return loss

    keeper = StoreKeeper(contracts, shards, admitted, declared)
    try:
        items = tuple(item for ask in asks if (item := prove_or_none(ask, keeper)))
    except NotFoundError:
        return None
    if len(items) != len(asks) or body_digest(items) != signed.head.body:
        return None
    return SignedAnswer(signed.head, signed.signature, items)


def _held(contracts: ContractStore, contract_id: ContractId) -> HeldContract | None:
    held = contracts.get(contract_id)
    return None if held is None or held.state in OVER else held
