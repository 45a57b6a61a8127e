"""The batch receipt: what remains of one challenge, signed by both sides and checkable by a stranger.

The farmer has signed the heads of its answers, the auditor signs the verdicts; a Merkle root over the lines lets one
line be shown alone (`docs/formats/audit.md`, "Batch receipt").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from stook.audits.challenge import (
    MAX_ASKS,
    MAX_PAGES,
    Challenge,
    pages_of,
)
from stook.audits.proof import Came, Finding, SignedAnswer, SignedHead, loss_counts, verify
from stook.codec import Record, encode
from stook.contracts.loss import NotedLoss
from stook.contracts.verdict import Verdict
from stook.errors import MisbehaviourError, ReasonCode
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey
from stook.identity.keys import verify as verify_signature
from stook.ids import (
    Bytes32Field,
    ContractId,
    ContractIdField,
    NetworkIdField,
    PublicKeyField,
    ShardRootField,
    SignatureField,
    U32Field,
    U63Field,
)
from stook.merkle import merkle_path, path_top, tree_top

RECEIPT_VERSION = 1
MAX_LINES = 2 * MAX_ASKS
MAX_LINE_PATH = 10

Count = Annotated[int, Meta(ge=0, le=MAX_LINES)]


class ReceiptLine(Record):
    """The verdict on one shard."""

    contract_id: ContractIdField
    shard_root: ShardRootField
    verdict: Verdict
    leaves: Annotated[int, Meta(ge=0, le=MAX_ASKS)]
    """Units that were asked for; 0 for a loss that was declared without being asked about."""


class BatchReceipt(Record):
    """The signed text of a batch receipt. Field order is the format."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    renter_key: PublicKeyField
    auditor_key: PublicKeyField
    farmer_key: PublicKeyField
    challenge: Bytes32Field
    """Digest of the challenge."""
    nonce: Bytes32Field
    holding: Bytes32Field
    sent_at_ms: U63Field
    judged_at_ms: U63Field
    answers: Annotated[tuple[SignedHead, ...], Meta(max_length=MAX_PAGES)]
    """The farmer's signatures over challenge and answer, ascending by page."""
    counts: tuple[Count, Count, Count, Count, Count]
    """Lines for each verdict, in the order of its numbers."""
    proved_bytes: U63Field
    """Bytes of units in shards that passed."""
    lines_root: Bytes32Field

    def __post_init__(self) -> None:
        if not 1 <= sum(self.counts) <= MAX_LINES:
            raise ValueError(f"a receipt has 1 to {MAX_LINES} lines")
        if self.judged_at_ms < self.sent_at_ms:
            raise ValueError("judged before it was asked")
        if any(a.head.page >= b.head.page for a, b in pairwise(self.answers)):
            raise ValueError("pages out of order")

    @property
    def digest(self) -> bytes:
        """What the auditor signs."""
        return tagged_hash(Tag.AUDIT_RECEIPT, encode(self))

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return sum(self.counts)

    def count(self, verdict: Verdict) -> int:
        """How many of them say `verdict`."""
        return self.counts[verdict - 1]


class SignedBatchReceipt(Record):
    """A batch receipt with the auditor's signature."""

    receipt: BatchReceipt
    signature: SignatureField


class LineProof(Record):
    """One line of a receipt, to be shown without the others."""

    index: U32Field
    line: ReceiptLine
    path: Annotated[tuple[Bytes32Field, ...], Meta(max_length=MAX_LINE_PATH)]


# --- making ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settled:
    """A receipt with all its lines, and the losses among them that were not asked about."""

    signed: SignedBatchReceipt
    lines: tuple[ReceiptLine, ...]


def settle(
    challenge: Challenge,
    answers: Mapping[int, Came],
    losses: Mapping[ContractId, NotedLoss],
    key: NodeKey,
    judged_at_ms: int,
    *,
    findings: Sequence[Finding] | None = None,
) -> Settled:
    """The receipt of one challenge, signed by its auditor.

    `answers` and `losses` are those given to `verify`; `findings` is what it said, if it was asked already. Of the
    losses those that count and were not asked about get a line of their own, as many as a receipt has room for, lowest
    contract first. Raises `ValueError` when `key` is not the auditor's, and for a time before the challenge.
    """
    if key.public_key != challenge.auditor_key:
        raise ValueError("the auditor of a challenge signs its receipt")
    if findings is None:
        findings = verify(challenge, answers, losses)
    lines = lines_of(challenge, findings, losses.values())
    tally = Counter(line.verdict for line in lines)
    proved = zip(challenge.asks, findings, strict=True)
    receipt = BatchReceipt(
        version=RECEIPT_VERSION,
        network=challenge.network,
        renter_key=challenge.renter_key,
        auditor_key=challenge.auditor_key,
        farmer_key=challenge.farmer_key,
        challenge=challenge.digest,
        nonce=challenge.nonce,
        holding=challenge.holding,
        sent_at_ms=challenge.sent_at_ms,
        judged_at_ms=judged_at_ms,
        answers=tuple(
            answers[page].answer.signed_head
            for page in range(len(pages_of(challenge)))
            if page in answers and bears_signature(challenge, page, answers[page].answer)
        ),
        counts=tuple(tally[verdict] for verdict in Verdict),  # type: ignore[arg-type]
        proved_bytes=sum(ask.moved_bytes for ask, finding in proved if ask.units and finding.verdict is Verdict.PASSED),
        lines_root=lines_root(lines),
    )
    return Settled(SignedBatchReceipt(receipt, key.sign(receipt.digest)), lines)


def lines_of(challenge: Challenge, findings: Sequence[Finding], losses: Iterable[NotedLoss]) -> tuple[ReceiptLine, ...]:
    """Every line of a challenge's receipt, in order."""
    asked = {finding.contract_id for finding in findings}
    told = sorted(
        (
            loss
            for loss in (noted.loss.loss for noted in losses if _counts(challenge, noted))
            if loss.contract_id not in asked
        ),
        key=lambda loss: loss.contract_id,
    )
    return (
        *(ReceiptLine(found.contract_id, found.shard_root, found.verdict, found.leaves) for found in findings),
        *(ReceiptLine(loss.contract_id, loss.shard_root, Verdict.LOST, 0) for loss in told[:MAX_ASKS]),
    )


def lines_root(lines: Sequence[ReceiptLine]) -> bytes:
    """The root over the lines. Raises `ValueError` when there is none."""
    return _root(len(lines), tree_top(_leaves(lines)))


def show_line(lines: Sequence[ReceiptLine], index: int) -> LineProof:
    """One line with its way to the root. Raises `IndexError` when there is no such line."""
    return LineProof(index, lines[index], tuple(merkle_path(_leaves(lines), index)))


def is_line_of(receipt: BatchReceipt, proof: LineProof) -> bool:
    """Whether the line stands in the receipt, at this place. Never raises."""
    leaf = tagged_hash(Tag.AUDIT_LINE, encode(proof.line))
    top = path_top(leaf, proof.index, receipt.lines, proof.path)
    return top is not None and _root(receipt.lines, top) == receipt.lines_root


def _leaves(lines: Sequence[ReceiptLine]) -> list[bytes]:
    return [tagged_hash(Tag.AUDIT_LINE, encode(line)) for line in lines]


def _root(count: int, top: bytes) -> bytes:
    return tagged_hash(Tag.AUDIT_LINES, count.to_bytes(4, "big") + top)


def bears_signature(challenge: Challenge, page: int, answer: SignedAnswer) -> bool:
    """Whether the farmer signed the head as its answer to this page: only those stand in the receipt."""
    head = answer.head
    return (
        head.challenge == challenge.digest
        and head.page == page
        and verify_signature(challenge.farmer_key, head.digest, answer.signature)
    )


def _counts(challenge: Challenge, noted: NotedLoss) -> bool:
    loss = noted.loss.loss
    return loss_counts(challenge, loss.contract_id, loss.shard_root, noted)


# --- judging by itself -----------------------------------------------------------------------------------------------


def verify_receipt(signed: SignedBatchReceipt) -> None:
    """Whether a batch receipt holds by itself: known version, both sides' signatures, one challenge in all heads.

    Raises `MisbehaviourError`: WRONG_VERSION, BAD_SIGNATURE (the auditor's, or the farmer's under a head),
    UNBOUND_REPLY (a head about another challenge, or verdicts on an answer without any head).
    """
    receipt = signed.receipt
    if receipt.version != RECEIPT_VERSION:
        raise fault(ReasonCode.WRONG_VERSION, f"receipt version {receipt.version}, not {RECEIPT_VERSION}")
    if not verify_signature(receipt.auditor_key, receipt.digest, signed.signature):
        raise fault(ReasonCode.BAD_SIGNATURE, "its auditor did not sign this receipt")
    for answer in receipt.answers:
        if answer.head.challenge != receipt.challenge:
            raise fault(ReasonCode.UNBOUND_REPLY, f"page {answer.head.page} answers another challenge")
        if not verify_signature(receipt.farmer_key, answer.head.digest, answer.signature):
            raise fault(ReasonCode.BAD_SIGNATURE, f"the farmer did not sign page {answer.head.page}")
    answered = (Verdict.PASSED, Verdict.FAILED, Verdict.MALFORMED)
    if not receipt.answers and any(receipt.count(verdict) for verdict in answered):
        raise fault(ReasonCode.UNBOUND_REPLY, "verdicts on an answer that the farmer did not sign")


def verify_lines(receipt: BatchReceipt, lines: Sequence[ReceiptLine]) -> None:
    """Whether `lines` are all of the receipt's. Raises `MisbehaviourError` (HASH_MISMATCH)."""
    tally = Counter(line.verdict for line in lines)
    if tuple(tally[verdict] for verdict in Verdict) != receipt.counts or lines_root(lines) != receipt.lines_root:
        raise fault(ReasonCode.HASH_MISMATCH, "other lines than the receipt's")


def fault(code: ReasonCode, message: str) -> MisbehaviourError:
    """What is raised for a receipt that no honest party makes."""
    return MisbehaviourError(code, message)
