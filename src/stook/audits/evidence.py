"""A receipt with its evidence, and a stranger's judgement of it: no network, no clock, no trust in either party.

What the file holds is checked, the verdicts are made again from challenge, answers and losses, and compared with what
the receipt says (`docs/formats/audit.md`, "Receipt file").
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from stook.audits.challenge import (
    CHALLENGE_VERSION,
    MAX_PAGES,
    Challenge,
    SignedChallenge,
    is_drawn,
    is_signed,
    pages_of,
)
from stook.audits.holding import Holding
from stook.audits.proof import AnswerKind, Came, SignedAnswer, loss_counts, verify
from stook.audits.receipt import (
    MAX_LINES,
    BatchReceipt,
    ReceiptLine,
    SignedBatchReceipt,
    fault,
    verify_lines,
    verify_receipt,
)
from stook.codec import Record, decode
from stook.contracts.contract import AuditStrategy
from stook.contracts.loss import NotedLoss
from stook.contracts.receipt import SignedStorageReceipt
from stook.contracts.verdict import Verdict
from stook.errors import ReasonCode
from stook.identity.keys import verify as verify_signature
from stook.ids import ContractId, ShardRoot

FILE_VERSION = 1
MAX_FILE_BYTES = 24 << 20
MAX_HOLDING_BYTES = 12 << 20


class ReceiptFile(Record):
    """A receipt with as much evidence as its holder shows."""

    version: Annotated[int, Meta(ge=1, le=255)]
    receipt: SignedBatchReceipt | None
    lines: Annotated[tuple[ReceiptLine, ...], Meta(max_length=MAX_LINES)]
    challenge: SignedChallenge | None
    answers: Annotated[tuple[SignedAnswer, ...], Meta(max_length=MAX_PAGES)]
    losses: Annotated[tuple[NotedLoss, ...], Meta(max_length=MAX_LINES)]
    holding: Annotated[bytes, Meta(max_length=MAX_HOLDING_BYTES)]
    stored: Annotated[tuple[SignedStorageReceipt, ...], Meta(max_length=MAX_LINES)]
    """The farmer's storage receipts of shards that it says it does not know."""

    def __post_init__(self) -> None:
        if self.receipt is None and (self.challenge is None or self.lines):
            raise ValueError("neither a receipt nor a challenge")
        if self.challenge is None and (self.answers or self.losses or self.holding or self.stored):
            raise ValueError("evidence without its challenge")
        if any(a.head.page >= b.head.page for a, b in pairwise(self.answers)):
            raise ValueError("pages out of order")


class Comparison(enum.Enum):
    """What evidence says of one line."""

    AGREES = "agrees"
    LATE = "late"
    """The line says SILENT and the file shows an answer: no file can prove when bytes arrived."""
    CONCEDED = "conceded"
    """The line says LOST on the auditor's word, in the farmer's favour."""
    MISSING = "missing"
    """A page that the line was judged by is not in the file."""
    CONTRADICTED = "contradicted"
    """The line is wrong."""
    UNPROVED = "unproved"
    """FAILED because the farmer knows no such shard, and no storage receipt of the farmer's shows that it should."""
    UNCOMPARED = "uncompared"
    """There are no lines, or no evidence, to compare with."""


@dataclass(frozen=True, slots=True)
class Rejudged:
    """One ask or line: what the receipt says of it, what the evidence says, and how the two fit."""

    contract_id: ContractId
    shard_root: ShardRoot
    stated: Verdict | None
    found: Verdict | None
    reason: str
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a receipt file shows. `drawn` is None without a holding, for repeats, and for salts."""

    receipt: BatchReceipt | None
    challenge: Challenge | None
    rejudged: tuple[Rejudged, ...]
    drawn: bool | None

    @property
    def sound(self) -> bool:
        """Whether nothing in the file contradicts the receipt, and nothing was asked beside the draw."""
        return self.drawn is not False and not any(
            entry.comparison is Comparison.CONTRADICTED for entry in self.rejudged
        )


def read_receipt_file(data: bytes) -> ReceiptFile:
    """A receipt file from its bytes. Raises `MalformedError`."""
    return decode(ReceiptFile, data, max_bytes=MAX_FILE_BYTES)


def verify_receipt_file(file: ReceiptFile) -> FileReport:
    """Check everything a file holds and judge its evidence again, without a network.

    Raises `MisbehaviourError` for what no honest party makes: the codes of `verify_receipt` and `verify_lines`;
    WRONG_VERSION; BAD_SIGNATURE (a challenge its auditor did not sign); UNBOUND_REPLY (a challenge or an answer that
    is not the receipt's). Raises `MalformedError` for a holding that is none. Verdicts that do not fit are reported,
    not raised.
    """
    if file.version != FILE_VERSION:
        raise fault(ReasonCode.WRONG_VERSION, f"receipt file version {file.version}, not {FILE_VERSION}")
    receipt = None if file.receipt is None else file.receipt.receipt
    if file.receipt is not None:
        verify_receipt(file.receipt)
        if file.lines:
            verify_lines(file.receipt.receipt, file.lines)
    if file.challenge is None:
        return FileReport(receipt, None, tuple(_stated(line) for line in file.lines), None)
    challenge = file.challenge.challenge
    _verify_bound(file, file.challenge, receipt)
    if receipt is not None and file.lines and receipt.proved_bytes != _passed_bytes(file.lines, challenge):
        raise fault(ReasonCode.HASH_MISMATCH, "other bytes than those of the units that passed")
    drawn = None
    if file.holding and not challenge.repeats and challenge.strategy is AuditStrategy.SAMPLED:
        drawn = is_drawn(challenge, Holding.parse(file.holding))
    return FileReport(receipt, challenge, _rejudge(file, challenge), drawn)


def _verify_bound(file: ReceiptFile, signed: SignedChallenge, receipt: BatchReceipt | None) -> None:
    challenge = signed.challenge
    if challenge.version != CHALLENGE_VERSION:
        raise fault(ReasonCode.WRONG_VERSION, f"challenge version {challenge.version}, not {CHALLENGE_VERSION}")
    if not is_signed(signed):
        raise fault(ReasonCode.BAD_SIGNATURE, "its auditor did not sign this challenge")
    if receipt is None:
        return
    names = ("network", "renter_key", "auditor_key", "farmer_key", "nonce", "holding", "sent_at_ms")
    if receipt.challenge != challenge.digest or any(getattr(receipt, n) != getattr(challenge, n) for n in names):
        raise fault(ReasonCode.UNBOUND_REPLY, "the receipt is about another challenge")
    heads = {signed.head.page: signed for signed in receipt.answers}
    for answer in file.answers:
        page = answer.head.page
        # A page without a head is one that the auditor says never came: that is for the verdicts to show.
        if page in heads and answer.signed_head != heads[page]:
            raise fault(ReasonCode.UNBOUND_REPLY, f"page {page} is not the one in the receipt")


def _passed_bytes(lines: tuple[ReceiptLine, ...], challenge: Challenge) -> int:
    """What a receipt with these lines has to say in `proved_bytes`."""
    passed = {line.contract_id for line in lines if line.verdict is Verdict.PASSED}
    return sum(ask.moved_bytes for ask in challenge.asks if ask.units and ask.contract_id in passed)


def _rejudge(file: ReceiptFile, challenge: Challenge) -> tuple[Rejudged, ...]:
    answers = {answer.head.page: Came(answer, answer.head.answered_at_ms) for answer in file.answers}
    losses = {noted.loss.loss.contract_id: noted for noted in file.losses}
    findings = verify(challenge, answers, losses)
    unknown = _unknown_without_receipt(file, challenge, answers)
    judged = []
    for at, finding in enumerate(findings):
        line = file.lines[at] if at < len(file.lines) else None
        named = None if line is None else (line.contract_id, line.shard_root, line.leaves)
        if file.lines and named != (finding.contract_id, finding.shard_root, finding.leaves):
            comparison = Comparison.CONTRADICTED
        else:
            comparison = _compare(None if line is None else line.verdict, finding.verdict)
        unproved = finding.verdict is Verdict.FAILED and finding.contract_id in unknown
        if unproved and comparison in (Comparison.AGREES, Comparison.UNCOMPARED):
            comparison = Comparison.UNPROVED
        stated = None if line is None else line.verdict
        judged.append(
            Rejudged(finding.contract_id, finding.shard_root, stated, finding.verdict, finding.reason, comparison)
        )
    for line in file.lines[len(findings) :]:
        told = losses.get(line.contract_id)
        judged.append(
            Rejudged(
                line.contract_id, line.shard_root, line.verdict, Verdict.LOST, "declared unasked", Comparison.AGREES
            )
            if told is not None and line.leaves == 0 and loss_counts(challenge, line.contract_id, line.shard_root, told)
            else _unasked(line)
        )
    return tuple(judged)


def _unasked(line: ReceiptLine) -> Rejudged:
    fits = line.verdict is Verdict.LOST and line.leaves == 0
    return Rejudged(
        line.contract_id,
        line.shard_root,
        line.verdict,
        None,
        "a loss that the file does not show" if fits else "was not asked about",
        Comparison.MISSING if fits else Comparison.CONTRADICTED,
    )


def _stated(line: ReceiptLine) -> Rejudged:
    return Rejudged(line.contract_id, line.shard_root, line.verdict, None, "no evidence", Comparison.UNCOMPARED)


def _compare(stated: Verdict | None, found: Verdict) -> Comparison:
    if stated is None:
        return Comparison.UNCOMPARED
    if stated is found:
        return Comparison.AGREES
    if stated is Verdict.SILENT:
        return Comparison.LATE
    if stated is Verdict.LOST:
        return Comparison.CONCEDED
    return Comparison.MISSING if found is Verdict.SILENT else Comparison.CONTRADICTED


def _unknown_without_receipt(file: ReceiptFile, challenge: Challenge, answers: Mapping[int, Came]) -> set[ContractId]:
    """Contracts that the farmer says it does not know, without a storage receipt of its own to show that it lies."""
    stored = {
        (signed.receipt.contract_id, signed.receipt.shard_root)
        for signed in file.stored
        if signed.receipt.farmer_key == challenge.farmer_key
        and verify_signature(challenge.farmer_key, signed.receipt.digest, signed.signature)
    }
    unknown = set()
    for page, positions in enumerate(pages_of(challenge)):
        items = answers[page].answer.items if page in answers else ()
        for at, item in zip(positions, items, strict=False):
            ask = challenge.asks[at]
            if item.kind is AnswerKind.UNKNOWN and (ask.contract_id, ask.shard_root) not in stored:
                unknown.add(ask.contract_id)
    return unknown
