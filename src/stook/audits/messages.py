"""The payloads of the audit methods, with their bounds (`docs/protocol/audits.md`)."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.audits.challenge import MAX_PAGE_WEIGHT, MAX_PAGES, SignedChallenge
from stook.audits.proof import SignedAnswer
from stook.audits.receipt import MAX_LINES, ReceiptLine, SignedBatchReceipt
from stook.codec import Record
from stook.contracts.grant import SignedGrant
from stook.contracts.loss import SignedLoss, SignedLossNote
from stook.contracts.messages import MAX_BATCH
from stook.ids import U63Field


class AuditMethod(enum.StrEnum):
    """Names of the audit methods as they stand in the envelope."""

    AUDIT = "AUDIT"
    AUDIT_RECEIPT = "AUDIT_RECEIPT"
    HEARTBEAT = "HEARTBEAT"
    DECLARE_LOSS = "DECLARE_LOSS"


class Audit(Record):
    """AUDIT request: one page of the answer to this challenge."""

    challenge: SignedChallenge
    page: Annotated[int, Meta(ge=0, lt=MAX_PAGES)]
    grants: Annotated[tuple[SignedGrant, ...], Meta(max_length=MAX_PAGE_WEIGHT)]
    """None from the renter; from anybody else one for each ask of the page, in order."""


class AuditReply(Record):
    """AUDIT reply: the page, signed so that it is evidence without its envelope."""

    answer: SignedAnswer


class AuditReceipt(Record):
    """AUDIT_RECEIPT request: what the auditor made of the answers. Answered by an empty `Done`."""

    receipt: SignedBatchReceipt
    lines: Annotated[tuple[ReceiptLine, ...], Meta(min_length=1, max_length=MAX_LINES)]


class Heartbeat(Record):
    """HEARTBEAT request: are you there, and what did you lose of mine?"""

    after: Annotated[bytes, Meta(max_length=32)]
    """Losses of contracts with ids above this; empty: from the start."""
    notes: Annotated[tuple[SignedLossNote, ...], Meta(max_length=MAX_BATCH)]
    """Notes of losses that were told before; a farmer that has the note tells them no more."""


class HeartbeatReply(Record):
    """HEARTBEAT reply: about the caller's own contracts."""

    now_ms: U63Field
    stored_count: U63Field
    stored_bytes: U63Field
    losses: Annotated[tuple[SignedLoss, ...], Meta(max_length=MAX_BATCH)]
    """Those that the caller has not noted yet, ascending by contract id."""
    more: bool
    leaving_by_ms: U63Field = 0
    """When the farmer means to be gone, so that its shards want moving (`docs/protocol/move.md`); 0 while it stays."""


class DeclareLoss(Record):
    """DECLARE_LOSS request, from a farmer that can reach its renter."""

    losses: Annotated[tuple[SignedLoss, ...], Meta(min_length=1, max_length=MAX_BATCH)]


class LossesNoted(Record):
    """DECLARE_LOSS reply: one note for each loss, in the order told; None for one that is not the caller's to tell."""

    notes: Annotated[tuple[SignedLossNote | None, ...], Meta(max_length=MAX_BATCH)]
