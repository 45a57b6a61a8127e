"""Targets: what auditors, farmers, owners and holders of files can bring before the judges of audits and of drills."""

from __future__ import annotations

import audit_samples as audits
import certificate_samples as certificates
import contract_samples as contracts
from fuzz_base import Tape, check_text, target, vary
from stook.audits.challenge import (
    MAX_PAGES,
    Challenge,
    SignedChallenge,
    check_access,
    check_challenge,
    is_drawn,
    is_repeat,
    pages_of,
)
from stook.audits.evidence import Comparison, ReceiptFile, read_receipt_file, verify_receipt_file
from stook.audits.holding import Holding
from stook.audits.proof import Came, SignedAnswer, sign_answer, verify, verify_ask
from stook.audits.receipt import BatchReceipt, SignedBatchReceipt, settle, verify_lines, verify_receipt
from stook.codec import decode, encode
from stook.contracts.loss import NotedLoss, note_loss, verify_loss
from stook.contracts.verdict import Verdict
from stook.errors import StookError
from stook.renter.certificate import (
    CertificateFile,
    SignedCertificate,
    read_certificate_file,
    verify_certificate,
    verify_chain,
)

SIZES = (100, 2 * 16384 + 1, 4 * 16384)
KEPT = audits.keeper(SIZES)
SIGNED = audits.drawn(KEPT.holding, 5)
CHALLENGE = SIGNED.challenge
ANSWER = audits.answered(CHALLENGE, KEPT)[0].answer
HELD = KEPT.holding.shards


def _tapes() -> list[bytes]:
    return [b"", bytes(30), bytes(range(60)), bytes(range(255, 130, -1)), bytes((at * 29) % 256 for at in range(120))]


@target(
    "audits.challenge",
    seeds=_tapes,
    covers=("stook.audits.challenge.check_challenge", "stook.audits.challenge.check_access"),
    weight=6,
)
def challenges(data: bytes) -> None:
    """A challenge with any fields changed, truly signed, before the farmer's checks; grants likewise."""
    tape = Tape(data)
    challenge = decode(Challenge, encode(vary(CHALLENGE, tape)))
    pages = pages_of(challenge)
    assert [at for page in pages for at in page] == list(range(len(challenge.asks)))
    assert len(pages) <= MAX_PAGES
    is_drawn(challenge, KEPT.holding)
    is_repeat(challenge, CHALLENGE)
    signer = tape.pick((contracts.RENTER, contracts.CLIENT))
    page = tape.number(2)
    signed = SignedChallenge(challenge, signer.sign(challenge.digest))
    contract = contracts.contract()
    ask = challenge.asks[0]
    given = [vary(contracts.grant(), tape)] * tape.number(2)
    held = {ask.contract_id: contract} if tape.number(1) else {}
    try:
        check_challenge(
            signed,
            page,
            network=contracts.NETWORK,
            farmer_key=contracts.FARMER.public_key,
            caller_key=signer.public_key,
            now_ms=contracts.NOW_MS,
        )
    except StookError as error:
        check_text(error)
        if page >= len(pages):
            return
    check_access(challenge, page, held, given, now_ms=contracts.NOW_MS)


@target(
    "audits.answer",
    seeds=_tapes,
    covers=(
        "stook.audits.proof.verify",
        "stook.audits.proof.verify_ask",
        "stook.audits.receipt.verify_receipt",
        "stook.audits.receipt.verify_lines",
        "stook.contracts.loss.verify_loss",
    ),
    weight=10,
    max_bytes=1024,
    memory=None,
)
def answers(data: bytes) -> None:
    """An answer with any part changed, signed by the farmer as it stands; a loss likewise."""
    tape = Tape(data)
    items = vary(ANSWER, tape).items if tape.number(7) else ANSWER.items
    answer = sign_answer(CHALLENGE, 0, items, contracts.FARMER, audits.NOW_MS + 1)
    if tape.number(3) == 3:
        answer = vary(answer, tape)
    answer = decode(SignedAnswer, encode(answer))
    noted: NotedLoss = vary(note_loss(audits.loss_of(HELD[0]), contracts.RENTER, audits.NOW_MS - 1), tape)
    losses = {HELD[0].contract_id: decode(NotedLoss, encode(noted))} if tape.number(1) else {}
    came = {0: Came(answer, audits.NOW_MS + 2)}
    findings = verify(CHALLENGE, came, losses)
    assert [finding.contract_id for finding in findings] == [ask.contract_id for ask in CHALLENGE.asks]
    for at, finding in enumerate(findings):
        assert finding.reason.isprintable()
        assert len(finding.reason) < 200
        if finding.verdict is Verdict.PASSED:
            assert answer.items[at].units == ANSWER.items[at].units
        if at < len(answer.items):
            verify_ask(CHALLENGE.asks[at], answer.items[at], contracts.FARMER.public_key)
    settled = settle(CHALLENGE, came, losses, contracts.RENTER, audits.NOW_MS + 9, findings=findings)
    verify_receipt(settled.signed)
    verify_lines(settled.signed.receipt, settled.lines)
    receipt = decode(BatchReceipt, encode(vary(settled.signed.receipt, tape)))
    for loss in losses.values():
        try:
            verify_loss(loss.loss, contracts.draft())
        except StookError as error:
            check_text(error)
    verify_receipt(SignedBatchReceipt(receipt, contracts.RENTER.sign(receipt.digest)))
    verify_lines(receipt, settled.lines)


def _files() -> list[ReceiptFile]:
    settled = settle(CHALLENGE, {0: Came(ANSWER, audits.NOW_MS)}, {}, contracts.RENTER, audits.NOW_MS + 9)
    whole = ReceiptFile(1, settled.signed, settled.lines, SIGNED, (ANSWER,), (), KEPT.holding.encoded(), ())
    few = audits.drawn(audits.keeper((100, 50)).holding, 2)
    answer = audits.answered(few.challenge, audits.keeper((100, 50)))[0].answer
    round_ = settle(few.challenge, {0: Came(answer, audits.NOW_MS)}, {}, contracts.RENTER, audits.NOW_MS + 9)
    small = ReceiptFile(1, round_.signed, round_.lines, few, (answer,), (), b"", ())
    return [small, whole]


FILES = _files()


@target(
    "audits.receipt_file",
    seeds=lambda: [encode(FILES[0]), b"x" + bytes(40), b"x" + bytes(range(90))],
    covers=(
        "stook.audits.evidence.read_receipt_file",
        "stook.audits.evidence.verify_receipt_file",
    ),
    weight=8,
    memory=None,
)
def receipt_files(data: bytes) -> None:
    """As it came; or, after an ``x``, a good one with parts changed and signatures made right again."""
    if data[:1] == b"x":
        tape = Tape(data[1:])
        file: ReceiptFile = vary(tape.pick(FILES), tape)
        if file.receipt is not None and tape.number(1):
            receipt = file.receipt.receipt
            signed = SignedBatchReceipt(receipt, contracts.RENTER.sign(receipt.digest))
            file = ReceiptFile(*(signed if name == "receipt" else getattr(file, name) for name in _NAMES))
        data = encode(file)
    report = verify_receipt_file(read_receipt_file(data))
    for entry in report.rejudged:
        assert entry.reason.isprintable()
        assert entry.comparison is not Comparison.AGREES or entry.stated is entry.found


_NAMES = ReceiptFile.__struct_fields__


@target(
    "audits.holding",
    seeds=lambda: [KEPT.holding.encoded(), b"", bytes(72)],
    covers=("stook.audits.holding.Holding.parse",),
)
def holdings(data: bytes) -> None:
    """Read, and drawn from, whatever sizes it claims."""
    holding = Holding.parse(data)
    assert holding.encoded() == data
    drawn = holding.draw(audits.NONCE, 60)
    assert 1 <= sum(len(units) for _, units in drawn) <= 60


CHAIN = certificates.chain()


@target(
    "renter.certificate_file",
    seeds=lambda: [encode(CertificateFile(1, tuple(CHAIN))), b"x" + bytes(40), b"x" + bytes(range(90))],
    covers=(
        "stook.renter.certificate.read_certificate_file",
        "stook.renter.certificate.verify_certificate",
        "stook.renter.certificate.verify_chain",
    ),
    weight=4,
    memory=None,
)
def certificate_files(data: bytes) -> None:
    """As it came; or, after an ``x``, one with numbers changed and signed again by its owner."""
    if data[:1] == b"x":
        tape = Tape(data[1:])
        certificate = vary(tape.pick(CHAIN).certificate, tape)
        signed = SignedCertificate(certificate, certificates.OWNER.sign(certificate.digest))
        data = encode(CertificateFile(1, (signed, *CHAIN[: tape.number(2)])))
    file = read_certificate_file(data)
    verify_chain(file.certificates)
    for signed in file.certificates:
        verify_certificate(signed)
        found = signed.certificate
        assert found.segment_bytes * found.unreadable_ppm >= 0
        assert found.proved_bytes + found.failing_bytes <= found.segment_bytes
