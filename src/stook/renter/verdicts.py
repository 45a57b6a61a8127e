"""What one round comes to: its outcome, the farmer's new standing, and what is written down. Pure.

The auditor asks and reports; everything that follows from the answers is decided here (`docs/protocol/auditor.md`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from stook.audits.challenge import Challenge, SignedChallenge
from stook.audits.containment import CLEAR, Event, Silence, apply
from stook.audits.evidence import FILE_VERSION, ReceiptFile
from stook.audits.proof import Came, Finding
from stook.audits.receipt import Settled
from stook.audits.score import Audited, DeclaredLoss, Entry, Muted
from stook.contracts.loss import NotedLoss
from stook.contracts.receipt import SignedStorageReceipt
from stook.contracts.verdict import Verdict
from stook.ids import ContractId
from stook.storage.agent_audit_ports import Dossier, FarmerChange, KeptReceipt, Proof
from stook.storage.audit_records import write_question

LIES = frozenset({Verdict.FAILED, Verdict.MALFORMED})
_WORST_FIRST = (Verdict.FAILED, Verdict.MALFORMED, Verdict.SILENT, Verdict.LOST, Verdict.PASSED)


def outcome_of(findings: Collection[Finding]) -> Verdict:
    """The worst verdict of a round; a loss among shards that passed is no matter, all lost is LOST."""
    found = {finding.verdict for finding in findings}
    if found == {Verdict.PASSED, Verdict.LOST}:
        return Verdict.PASSED
    return next(verdict for verdict in _WORST_FIRST if verdict in found)


@dataclass(frozen=True, slots=True)
class Judged:
    """One challenge and what came of it."""

    signed: SignedChallenge
    first: bool
    drawn_over: tuple[ContractId, ...]
    """The contracts that it was drawn over; empty for a question asked again."""
    asked: SignedChallenge
    """The challenge that first asked: itself, unless it repeats another."""
    findings: tuple[Finding, ...]
    silence: Event
    """What it means if a page is missing: MUTE, VANISH or SILENCE."""

    @property
    def challenge(self) -> Challenge:
        """What was asked."""
        return self.signed.challenge


def kept_receipt(
    dossier: Dossier,
    judged: Judged,
    settled: Settled,
    answers: Mapping[int, Came],
    losses: Sequence[NotedLoss],
    holding: bytes,
    stored: Sequence[SignedStorageReceipt],
    now_ms: int,
) -> KeptReceipt:
    """The receipt as it is kept: with everything that proves a lie, if there was one; else what both sides signed."""
    outcome = outcome_of(judged.findings)
    lied = outcome in LIES
    file = ReceiptFile(
        version=FILE_VERSION,
        receipt=settled.signed,
        lines=settled.lines,
        challenge=judged.signed,
        answers=tuple(answers[page].answer for page in sorted(answers)) if lied else (),
        losses=tuple(losses),
        holding=holding if lied else b"",
        stored=tuple(stored) if lied else (),
    )
    return KeptReceipt(dossier.farmer, judged.challenge.digest, now_ms, outcome, file)


def after_round(
    dossier: Dossier, judged: Judged, holding: int, excused: Collection[tuple[int, int]], now_ms: int
) -> FarmerChange:
    """What a judged round changes, its receipt aside. `holding` is how many shards the farmer holds."""
    tally = Counter(finding.verdict for finding in judged.findings)
    asked = len(judged.findings)
    # A loss has been counted when it was noted.
    entries = tuple(
        Entry(now_ms, Audited(verdict, tally[verdict], asked, holding))
        for verdict in _WORST_FIRST
        if tally[verdict] and verdict is not Verdict.LOST
    )
    outcome = outcome_of(judged.findings)
    if outcome in LIES:
        return after_event(dossier, Event.LIE, holding, now_ms, entries=entries, closed=True)
    if outcome is Verdict.SILENT:
        question = write_question(judged.asked, first=judged.first)
        return after_event(
            dossier,
            judged.silence,
            holding,
            now_ms,
            entries=entries,
            closed=True,
            asked_ms=judged.challenge.sent_at_ms,
            question=question,
            excused=excused,
        )
    change = after_event(dossier, Event.PROVE, holding, now_ms, entries=entries, closed=True)
    return replace(change, proved=_proof(judged))


def _proof(judged: Judged) -> Proof:
    """What a pass proves: new shards that were drawn over, or everything that had passed before."""
    sent = judged.challenge.sent_at_ms
    if not judged.first:
        return Proof(sent)
    passed = tuple(finding.contract_id for finding in judged.findings if finding.verdict is Verdict.PASSED)
    return Proof(sent, judged.drawn_over or passed)


def after_event(
    dossier: Dossier,
    event: Event,
    holding: int,
    now_ms: int,
    *,
    entries: tuple[Entry, ...] = (),
    closed: bool = False,
    asked_ms: int = 0,
    question: bytes = b"",
    excused: Collection[tuple[int, int]] = (),
) -> FarmerChange:
    """What one containment event changes: who is gone or condemned has lost its holding, who is back has it again."""
    before = dossier.silence
    after = apply(before, event, now_ms, asked_ms=asked_ms, question=question, excused=excused)
    entered = after.state is not before.state
    if entered and after.state is Silence.CONDEMNED and event is not Event.LIE:
        entries += (Entry(now_ms, Muted()),)
    if entered and after.state is Silence.GONE and holding:
        entries += (Entry(now_ms, DeclaredLoss(holding, holding)),)
    return FarmerChange(
        dossier.farmer,
        entries=entries,
        silence=after if after != before else None,
        closed=closed,
        all_lost=entered and after.state in (Silence.GONE, Silence.CONDEMNED),
        returned=entered and after == CLEAR,
    )


def changed_with(change: FarmerChange, **more: object) -> FarmerChange:
    """The change and what is given besides; None leaves it as it is."""
    return replace(change, **{name: value for name, value in more.items() if value is not None})  # type: ignore[arg-type]
