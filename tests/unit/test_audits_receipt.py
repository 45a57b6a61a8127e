from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from audit_samples import ANSWER_WITHIN_MS, MemoryKeeper, answered, contract_id, drawn, keeper, loss_of, signed_again
from contract_samples import FARMER, NOW_MS, OTHER, RENTER
from stook.audits.challenge import Challenge, repeat_challenge
from stook.audits.evidence import (
    MAX_FILE_BYTES,
    Comparison,
    FileReport,
    ReceiptFile,
    read_receipt_file,
    verify_receipt_file,
)
from stook.audits.holding import HeldShard, Holding
from stook.audits.proof import AnswerKind, Came, Item, verify
from stook.audits.receipt import (
    MAX_LINE_PATH,
    MAX_LINES,
    BatchReceipt,
    LineProof,
    ReceiptLine,
    Settled,
    SignedBatchReceipt,
    is_line_of,
    lines_root,
    settle,
    show_line,
    verify_lines,
    verify_receipt,
)
from stook.codec import decode, encode
from stook.contracts.loss import NotedLoss, note_loss
from stook.contracts.receipt import SignedStorageReceipt, StorageReceipt
from stook.contracts.verdict import Verdict
from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.ids import ContractId, ShardRoot
from stook.merkle import UNIT_BYTES

P, F, L, S, M = Verdict
KEPT = keeper()
SIGNED = drawn(KEPT.holding)
CHALLENGE = SIGNED.challenge
ANSWERS = answered(CHALLENGE, KEPT)
SETTLED = settle(CHALLENGE, ANSWERS, {}, RENTER, NOW_MS + 3)
RECEIPT = SETTLED.signed.receipt


def signed(receipt: BatchReceipt) -> SignedBatchReceipt:
    return SignedBatchReceipt(receipt, RENTER.sign(receipt.digest))


def fault(check: Callable[[], object]) -> ReasonCode | None:
    try:
        check()
    except MisbehaviourError as error:
        return error.code
    return None


def whole_file(**changes: object) -> ReceiptFile:
    plain = ReceiptFile(
        version=1,
        receipt=SETTLED.signed,
        lines=SETTLED.lines,
        challenge=SIGNED,
        answers=tuple(came.answer for came in ANSWERS.values()),
        losses=(),
        holding=KEPT.holding.encoded(),
        stored=(),
    )
    return structs.replace(plain, **changes)


def comparisons(report: FileReport) -> list[Comparison]:
    return [entry.comparison for entry in report.rejudged]


# --- the receipt -----------------------------------------------------------------------------------------------------


def test_a_round_that_passed_is_signed_by_both() -> None:
    verify_receipt(SETTLED.signed)
    verify_lines(RECEIPT, SETTLED.lines)
    assert RECEIPT.counts == (len(CHALLENGE.asks), 0, 0, 0, 0)
    assert RECEIPT.proved_bytes == sum(ask.moved_bytes for ask in CHALLENGE.asks)
    assert [head.head for head in RECEIPT.answers] == [came.answer.head for came in ANSWERS.values()]
    assert [line.leaves for line in SETTLED.lines] == [len(ask.units) for ask in CHALLENGE.asks]
    assert decode(SignedBatchReceipt, encode(SETTLED.signed)) == SETTLED.signed
    with pytest.raises(ValueError, match="auditor"):
        settle(CHALLENGE, ANSWERS, {}, OTHER, NOW_MS + 3)
    with pytest.raises(ValueError):
        settle(CHALLENGE, ANSWERS, {}, RENTER, NOW_MS - 1)


def test_each_line_can_be_shown_alone_and_no_other_passes() -> None:
    for index in range(len(SETTLED.lines)):
        shown = show_line(SETTLED.lines, index)
        assert is_line_of(RECEIPT, shown)
        assert decode(LineProof, encode(shown)) == shown
        assert not is_line_of(RECEIPT, structs.replace(shown, line=structs.replace(shown.line, verdict=F)))
        assert not is_line_of(RECEIPT, structs.replace(shown, line=structs.replace(shown.line, leaves=9)))
        assert not is_line_of(RECEIPT, structs.replace(shown, index=index + 1))
        assert not is_line_of(RECEIPT, structs.replace(shown, path=(*shown.path, bytes(32))))
    with pytest.raises(IndexError):
        show_line(SETTLED.lines, len(SETTLED.lines))


def test_what_a_receipt_says_is_bound_to_signatures() -> None:
    assert fault(lambda: verify_receipt(signed(structs.replace(RECEIPT, version=2)))) is ReasonCode.WRONG_VERSION
    forged = SignedBatchReceipt(RECEIPT, OTHER.sign(RECEIPT.digest))
    assert fault(lambda: verify_receipt(forged)) is ReasonCode.BAD_SIGNATURE
    head = RECEIPT.answers[0]
    renter_made = structs.replace(head, signature=RENTER.sign(head.head.digest))
    wrong = signed(structs.replace(RECEIPT, answers=(renter_made,)))
    assert fault(lambda: verify_receipt(wrong)) is ReasonCode.BAD_SIGNATURE
    elsewhere = signed(structs.replace(RECEIPT, challenge=bytes(32)))
    assert fault(lambda: verify_receipt(elsewhere)) is ReasonCode.UNBOUND_REPLY
    alone = signed(structs.replace(RECEIPT, answers=()))
    assert fault(lambda: verify_receipt(alone)) is ReasonCode.UNBOUND_REPLY
    silent = signed(structs.replace(RECEIPT, answers=(), counts=(0, 0, 1, RECEIPT.lines - 1, 0)))
    assert fault(lambda: verify_receipt(silent)) is None


def test_other_lines_are_not_the_receipts() -> None:
    lines = SETTLED.lines
    for wrong in (lines[:-1], lines[::-1], (*lines, lines[0]), (structs.replace(lines[0], verdict=F), *lines[1:])):
        assert fault(lambda wrong=wrong: verify_lines(RECEIPT, wrong)) is ReasonCode.HASH_MISMATCH  # type: ignore[misc]


def test_a_receipt_that_contradicts_itself_cannot_be_made() -> None:
    for changes in (
        {"counts": (0, 0, 0, 0, 0)},
        {"counts": (MAX_LINES, 1, 0, 0, 0)},
        {"judged_at_ms": NOW_MS - 1},
        {"answers": RECEIPT.answers * 2},
    ):
        with pytest.raises(ValueError):
            structs.replace(RECEIPT, **changes)


def test_silence_is_the_auditors_word_and_has_no_head() -> None:
    settled = settle(CHALLENGE, {}, {}, RENTER, NOW_MS + ANSWER_WITHIN_MS)
    verify_receipt(settled.signed)
    assert settled.signed.receipt.answers == ()
    assert {line.verdict for line in settled.lines} == {S}
    (came,) = ANSWERS.values()
    unsigned = {0: Came(structs.replace(came.answer, signature=OTHER.sign(came.answer.head.digest)), NOW_MS)}
    assert settle(CHALLENGE, unsigned, {}, RENTER, NOW_MS + 3).signed.receipt.answers == ()
    misplaced = {
        0: signed_again(CHALLENGE, structs.replace(came.answer, head=structs.replace(came.answer.head, page=1)))
    }
    assert settle(CHALLENGE, misplaced, {}, RENTER, NOW_MS + 3).signed.receipt.answers == ()


def test_losses_told_before_get_lines_without_being_asked_about() -> None:
    small = drawn(KEPT.holding, 1).challenge
    others = [shard for shard in KEPT.holding.shards if shard.contract_id != small.asks[0].contract_id]
    losses = {shard.contract_id: note_loss(loss_of(shard), RENTER, NOW_MS - 1) for shard in others[:2]}
    losses[others[2].contract_id] = note_loss(loss_of(others[2]), RENTER, NOW_MS)
    settled = settle(small, answered(small, KEPT), losses, RENTER, NOW_MS + 3)
    told = sorted(shard.contract_id for shard in others[:2])
    assert [(line.contract_id, line.verdict, line.leaves) for line in settled.lines[1:]] == [(c, L, 0) for c in told]
    assert settled.signed.receipt.counts == (1, 0, 2, 0, 0)


def test_the_largest_receipt_and_file_keep_their_bounds() -> None:
    kept = MemoryKeeper()
    for number in range(30):
        kept.add(number, 256 * UNIT_BYTES)
    challenge = drawn(kept.holding, 512)
    answers = answered(challenge.challenge, kept)
    losses: dict[ContractId, NotedLoss] = {}
    for number in range(512):
        shard = HeldShard(ContractId(number.to_bytes(32, "big")), ShardRoot(bytes(32)), 5)
        losses[shard.contract_id] = note_loss(loss_of(shard), RENTER, NOW_MS - 1)
    settled = settle(challenge.challenge, answers, losses, RENTER, NOW_MS + 3)
    assert settled.signed.receipt.lines == 30 + 512
    every = settled.lines * 2
    assert len(show_line(every[:MAX_LINES], 5).path) == MAX_LINE_PATH
    file = ReceiptFile(
        1,
        settled.signed,
        settled.lines,
        challenge,
        tuple(came.answer for came in answers.values()),
        tuple(losses.values()),
        bytes(12 << 20),
        (),
    )
    # The longest paths, and as many lines, losses and storage receipts as there can be.
    worst = len(encode(file)) + 512 * 24 * 34 + 2 * MAX_LINES * 600
    assert worst < MAX_FILE_BYTES


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_stranger_judges_again_and_agrees() -> None:
    data = encode(whole_file())
    report = verify_receipt_file(read_receipt_file(data))
    assert report.sound
    assert report.drawn is True
    assert set(comparisons(report)) == {Comparison.AGREES}
    with pytest.raises(MalformedError):
        read_receipt_file(data[:-1])
    with pytest.raises(MalformedError):
        read_receipt_file(data + bytes(MAX_FILE_BYTES))


def test_a_receipt_alone_is_checked_and_not_compared() -> None:
    bare = whole_file(challenge=None, answers=(), holding=b"")
    report = verify_receipt_file(bare)
    assert report.sound
    assert set(comparisons(report)) == {Comparison.UNCOMPARED}
    assert verify_receipt_file(structs.replace(bare, lines=())).rejudged == ()


def test_a_farmer_shows_its_proofs_when_the_renter_will_not_sign() -> None:
    report = verify_receipt_file(whole_file(receipt=None, lines=()))
    assert [entry.found for entry in report.rejudged] == [P] * len(CHALLENGE.asks)
    assert set(comparisons(report)) == {Comparison.UNCOMPARED}
    assert report.receipt is None


def relabelled(verdict: Verdict, at: int = 0) -> Settled:
    """A receipt of a renter that writes another verdict down."""
    line = structs.replace(SETTLED.lines[at], verdict=verdict)
    lines = (*SETTLED.lines[:at], line, *SETTLED.lines[at + 1 :])
    counts = tuple(sum(other.verdict is verdict for other in lines) for verdict in Verdict)
    passed = zip(CHALLENGE.asks, lines, strict=True)
    proved = sum(ask.moved_bytes for ask, line in passed if line.verdict is P)
    receipt = structs.replace(RECEIPT, counts=counts, lines_root=lines_root(lines), proved_bytes=proved)
    return Settled(signed(receipt), lines)


@pytest.mark.parametrize(
    ("stated", "expected", "sound"),
    [
        (F, Comparison.CONTRADICTED, False),
        (M, Comparison.CONTRADICTED, False),
        (S, Comparison.LATE, True),
        (L, Comparison.CONCEDED, True),
    ],
)
def test_a_verdict_that_the_evidence_does_not_bear_is_seen(stated: Verdict, expected: Comparison, sound: bool) -> None:
    false = relabelled(stated)
    report = verify_receipt_file(whole_file(receipt=false.signed, lines=false.lines))
    assert comparisons(report)[0] is expected
    assert set(comparisons(report)[1:]) == {Comparison.AGREES}
    assert report.sound is sound


def test_pages_that_are_not_shown_cannot_be_judged() -> None:
    report = verify_receipt_file(whole_file(answers=()))
    assert set(comparisons(report)) == {Comparison.MISSING}
    assert report.sound


def test_units_beside_the_draw_are_seen() -> None:
    ask = CHALLENGE.asks[0]
    unit = next(unit for unit in range(64) if unit not in ask.units) if ask.size_bytes > 2 * UNIT_BYTES else 0
    chosen = structs.replace(CHALLENGE, asks=(structs.replace(ask, units=(unit,)),))
    file = ReceiptFile(
        1,
        None,
        (),
        structs.replace(SIGNED, challenge=chosen, signature=RENTER.sign(chosen.digest)),
        (),
        (),
        KEPT.holding.encoded(),
        (),
    )
    report = verify_receipt_file(file)
    assert report.drawn is False
    assert not report.sound
    again = repeat_challenge(
        CHALLENGE, {ask.contract_id}, RENTER, nonce=bytes(32), now_ms=NOW_MS + 1, answer_within_ms=1
    )
    assert verify_receipt_file(structs.replace(file, challenge=again)).drawn is None


def test_evidence_of_something_else_is_no_evidence() -> None:
    other = drawn(KEPT.holding, nonce=bytes(32))
    assert fault(lambda: verify_receipt_file(whole_file(challenge=other))) is ReasonCode.UNBOUND_REPLY
    unsigned = structs.replace(SIGNED, signature=OTHER.sign(CHALLENGE.digest))
    assert fault(lambda: verify_receipt_file(whole_file(challenge=unsigned))) is ReasonCode.BAD_SIGNATURE
    newer = structs.replace(CHALLENGE, version=2)
    newer_signed = structs.replace(SIGNED, challenge=newer, signature=RENTER.sign(newer.digest))
    assert fault(lambda: verify_receipt_file(whole_file(challenge=newer_signed))) is ReasonCode.WRONG_VERSION
    assert fault(lambda: verify_receipt_file(whole_file(version=2))) is ReasonCode.WRONG_VERSION
    (came,) = ANSWERS.values()
    second = structs.replace(came.answer, head=structs.replace(came.answer.head, answered_at_ms=NOW_MS + 9))
    second = structs.replace(second, signature=FARMER.sign(second.head.digest))
    assert fault(lambda: verify_receipt_file(whole_file(answers=(second,)))) is ReasonCode.UNBOUND_REPLY
    assert fault(lambda: verify_receipt_file(whole_file(lines=SETTLED.lines[::-1]))) is ReasonCode.HASH_MISMATCH
    more = signed(structs.replace(RECEIPT, proved_bytes=RECEIPT.proved_bytes + 1))
    assert fault(lambda: verify_receipt_file(whole_file(receipt=more))) is ReasonCode.HASH_MISMATCH
    fewer = SETTLED.lines[:-1]
    left_out = structs.replace(
        RECEIPT,
        counts=(len(fewer), 0, 0, 0, 0),
        lines_root=lines_root(fewer),
        proved_bytes=RECEIPT.proved_bytes - CHALLENGE.asks[-1].moved_bytes,
    )
    report = verify_receipt_file(whole_file(receipt=signed(left_out), lines=fewer))
    assert report.rejudged[-1].comparison is Comparison.CONTRADICTED
    with pytest.raises(MalformedError):
        verify_receipt_file(whole_file(holding=b"x"))
    for changes in (
        {"receipt": None},
        {"receipt": None, "lines": (), "challenge": None, "answers": (), "holding": b""},
        {"challenge": None},
        {"answers": (second, second)},
    ):
        with pytest.raises(ValueError):
            whole_file(**changes)


def test_an_answer_that_the_receipt_leaves_out_is_shown_beside_it() -> None:
    """The renter says that nothing came; the farmer shows what it sent."""
    settled = settle(CHALLENGE, {}, {}, RENTER, NOW_MS + 3)
    report = verify_receipt_file(whole_file(receipt=settled.signed, lines=settled.lines))
    assert set(comparisons(report)) == {Comparison.LATE}


def unknown_round(challenge: Challenge) -> tuple[Settled, dict[int, Came]]:
    (came,) = ANSWERS.values()
    items = (Item(AnswerKind.UNKNOWN, (), None, None), *came.answer.items[1:])
    answers = {0: signed_again(challenge, came.answer, items=items)}
    return settle(challenge, answers, {}, RENTER, NOW_MS + 3), answers


def test_not_knowing_a_shard_counts_only_beside_its_storage_receipt() -> None:
    settled, answers = unknown_round(CHALLENGE)
    assert settled.lines[0].verdict is F
    file = whole_file(
        receipt=settled.signed, lines=settled.lines, answers=tuple(came.answer for came in answers.values())
    )
    assert comparisons(verify_receipt_file(file))[0] is Comparison.UNPROVED
    ask = CHALLENGE.asks[0]
    stored = StorageReceipt(ask.contract_id, ask.shard_root, ask.size_bytes, NOW_MS - 9, FARMER.public_key)
    proof = SignedStorageReceipt(stored, FARMER.sign(stored.digest))
    assert comparisons(verify_receipt_file(structs.replace(file, stored=(proof,))))[0] is Comparison.AGREES
    forged = SignedStorageReceipt(stored, OTHER.sign(stored.digest))
    assert comparisons(verify_receipt_file(structs.replace(file, stored=(forged,))))[0] is Comparison.UNPROVED


def test_lines_of_losses_are_compared_with_the_notes() -> None:
    small = drawn(KEPT.holding, 1)
    other = next(s for s in KEPT.holding.shards if s.contract_id != small.challenge.asks[0].contract_id)
    noted = note_loss(loss_of(other), RENTER, NOW_MS - 1)
    answers = answered(small.challenge, KEPT)
    settled = settle(small.challenge, answers, {other.contract_id: noted}, RENTER, NOW_MS + 3)
    file = whole_file(
        receipt=settled.signed,
        lines=settled.lines,
        challenge=small,
        answers=tuple(came.answer for came in answers.values()),
        losses=(noted,),
    )
    assert comparisons(verify_receipt_file(file)) == [Comparison.AGREES] * 2
    assert comparisons(verify_receipt_file(structs.replace(file, losses=()))) == [Comparison.AGREES, Comparison.MISSING]
    invented = ReceiptLine(other.contract_id, other.shard_root, F, 1)
    lines = (settled.lines[0], invented)
    receipt = structs.replace(settled.signed.receipt, counts=(1, 1, 0, 0, 0), lines_root=lines_root(lines))
    report = verify_receipt_file(structs.replace(file, receipt=signed(receipt), lines=lines))
    assert comparisons(report) == [Comparison.AGREES, Comparison.CONTRADICTED]


def test_a_farmer_that_was_asked_about_a_noted_loss_is_lost_in_the_file_too() -> None:
    ask = CHALLENGE.asks[1]
    noted = {ask.contract_id: note_loss(loss_of(ask), RENTER, NOW_MS - 1)}
    findings = verify(CHALLENGE, ANSWERS, noted)
    settled = settle(CHALLENGE, ANSWERS, noted, RENTER, NOW_MS + 3, findings=findings)
    assert settled.lines[1].verdict is L
    file = whole_file(receipt=settled.signed, lines=settled.lines, losses=tuple(noted.values()))
    assert verify_receipt_file(file).rejudged[1].comparison is Comparison.AGREES
    hidden = verify_receipt_file(structs.replace(file, losses=()))
    assert hidden.rejudged[1].comparison is Comparison.CONCEDED


def test_a_false_failure_falls_by_the_note_that_the_farmer_kept() -> None:
    """The renter noted a loss, asked all the same, and wrote FAILED: its own note convicts it."""
    ask = CHALLENGE.asks[1]
    kept = keeper()
    kept.losses[ask.contract_id] = loss_of(ask)
    answers = answered(CHALLENGE, kept)
    settled = settle(CHALLENGE, answers, {}, RENTER, NOW_MS + 3)
    assert settled.lines[1].verdict is F
    note = note_loss(kept.losses[ask.contract_id], RENTER, NOW_MS - 1)
    file = whole_file(
        receipt=settled.signed,
        lines=settled.lines,
        answers=tuple(came.answer for came in answers.values()),
        losses=(note,),
    )
    report = verify_receipt_file(file)
    assert report.rejudged[1].comparison is Comparison.CONTRADICTED
    assert contract_id(0) in {entry.contract_id for entry in report.rejudged}
    assert Holding.parse(file.holding).digest == CHALLENGE.holding
