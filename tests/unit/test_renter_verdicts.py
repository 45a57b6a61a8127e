"""What a judged round changes: pure, whatever the auditor asked."""

from __future__ import annotations

import pytest

import audit_samples as audits
from contract_samples import RENTER
from stook.audits.containment import CLEAR, RULES, Containment, Event, Silence
from stook.audits.proof import Came, Finding, verify
from stook.audits.receipt import settle
from stook.audits.score import Audited, DeclaredLoss, Muted
from stook.contracts.verdict import Verdict
from stook.ids import ContractId, NodeId, ShardRoot
from stook.renter.verdicts import Judged, after_event, after_round, kept_receipt, outcome_of
from stook.storage.agent_audit_ports import Dossier, Proof
from stook.storage.audit_records import read_question

ME = NodeId(b"f" * 20)
KEPT = audits.keeper((100, 2 * 16384, 16384))
DRAWN = audits.drawn(KEPT.holding, 3)
ANSWERS = audits.answered(DRAWN.challenge, KEPT)
SENT = DRAWN.challenge.sent_at_ms
NOW = SENT + 5_000


def judged(answers: dict[int, Came], *, first: bool = False, silence: Event = Event.MUTE, over: bool = True) -> Judged:
    ids = tuple(shard.contract_id for shard in KEPT.holding.shards) if over else ()
    return Judged(DRAWN, first, ids, DRAWN, verify(DRAWN.challenge, answers, {}), silence)


def found(*verdicts: Verdict) -> list[Finding]:
    return [Finding(ContractId(bytes(32)), ShardRoot(bytes(32)), verdict, 1, "") for verdict in verdicts]


def test_the_worst_verdict_is_the_rounds() -> None:
    passed, failed, lost, silent, malformed = Verdict
    assert outcome_of(found(passed, passed)) is passed
    assert outcome_of(found(passed, lost)) is passed
    assert outcome_of(found(lost, lost)) is lost
    assert outcome_of(found(lost, silent, passed)) is silent
    assert outcome_of(found(silent, malformed)) is malformed
    assert outcome_of(found(silent, malformed, failed)) is failed


def test_a_pass_proves_what_was_drawn_over_or_what_had_passed_before() -> None:
    first = after_round(Dossier(ME), judged(dict(ANSWERS), first=True), 9, (), NOW)
    assert first.proved == Proof(SENT, tuple(shard.contract_id for shard in KEPT.holding.shards))
    assert after_round(Dossier(ME), judged(dict(ANSWERS)), 9, (), NOW).proved == Proof(SENT)
    again = after_round(Dossier(ME), judged(dict(ANSWERS), first=True, over=False), 9, (), NOW)
    assert again.proved == Proof(SENT, tuple(ask.contract_id for ask in DRAWN.challenge.asks))
    assert [entry.event for entry in first.entries] == [
        Audited(Verdict.PASSED, len(DRAWN.challenge.asks), len(DRAWN.challenge.asks), 9)
    ]
    assert first.closed
    assert not first.all_lost


def test_silence_leaves_the_question_and_proves_nothing() -> None:
    change = after_round(Dossier(ME), judged({}), 9, (), NOW)
    assert change.silence is not None
    assert change.silence.state is Silence.CONTAINED
    assert read_question(change.silence.question).signed == DRAWN
    assert change.silence.first_asked_ms == SENT
    assert change.proved is None
    gone = after_round(Dossier(ME), judged({}, silence=Event.VANISH), 9, (), NOW)
    assert gone.silence is not None
    assert gone.silence.state is Silence.OFFLINE


def test_our_own_outage_makes_no_silence() -> None:
    change = after_round(Dossier(ME), judged({}), 9, [(SENT - 1, NOW)], NOW)
    assert change.silence is None
    assert change.closed


def test_a_lie_takes_the_whole_holding() -> None:
    spoiled = judged(dict(ANSWERS))
    findings = (*spoiled.findings[:-1], *found(Verdict.FAILED))
    lie = Judged(DRAWN, False, spoiled.drawn_over, DRAWN, findings, Event.MUTE)
    change = after_round(Dossier(ME), lie, 9, (), NOW)
    assert change.silence is not None
    assert change.silence.state is Silence.CONDEMNED
    assert change.all_lost
    assert Audited(Verdict.FAILED, 1, len(findings), 9) in [entry.event for entry in change.entries]


def test_who_is_gone_lost_its_holding_and_has_it_again_when_it_is_back() -> None:
    silence = Containment(Silence.OFFLINE, last_asked_ms=NOW - 1000, attempts=9, silent_ms=RULES.gone_ms - 500)
    gone = after_event(Dossier(ME, silence=silence), Event.VANISH, 7, NOW, asked_ms=NOW)
    assert gone.silence is not None
    assert gone.silence.state is Silence.GONE
    assert [entry.event for entry in gone.entries] == [DeclaredLoss(7, 7)]
    assert gone.all_lost
    back = after_event(Dossier(ME, silence=gone.silence), Event.HEAR, 0, NOW + 1)
    assert back.silence == CLEAR
    assert back.returned


def test_a_conviction_says_why() -> None:
    silence = Containment(
        Silence.CONTAINED,
        b"question",
        last_asked_ms=NOW - 1000,
        attempts=20,
        mutes=RULES.mute_times,
        last_was_mute=True,
        mute_ms=RULES.mute_ms,
    )
    change = after_event(Dossier(ME, silence=silence), Event.MUTE, 7, NOW, asked_ms=NOW, question=b"question")
    assert change.silence is not None
    assert change.silence.state is Silence.CONDEMNED
    assert [entry.event for entry in change.entries] == [Muted()]
    assert change.all_lost


@pytest.mark.parametrize("lied", [False, True])
def test_only_a_lie_keeps_its_units(lied: bool) -> None:
    round_ = judged(dict(ANSWERS))
    if lied:
        findings = (*round_.findings[:-1], *found(Verdict.FAILED))
        round_ = Judged(DRAWN, False, round_.drawn_over, DRAWN, findings, Event.MUTE)
    settled = settle(DRAWN.challenge, ANSWERS, {}, RENTER, NOW)
    kept = kept_receipt(Dossier(ME), round_, settled, ANSWERS, (), KEPT.holding.encoded(), (), NOW)
    assert (kept.outcome, bool(kept.file.answers), bool(kept.file.holding)) == (
        Verdict.FAILED if lied else Verdict.PASSED,
        lied,
        lied,
    )
    assert kept.file.challenge == DRAWN
    assert kept.challenge == DRAWN.challenge.digest
