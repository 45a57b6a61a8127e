"""Laws of audits: nothing altered passes, nobody's answer stands for another's, and the slow twin agrees."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

import audit_twin
from audit_samples import NONCE, MemoryKeeper, answered, drawn, keeper, loss_of, signed_again
from contract_samples import FARMER, NOW_MS, OTHER, RENTER
from stook.audits.challenge import Ask, is_drawn
from stook.audits.evidence import Comparison, ReceiptFile, read_receipt_file, verify_receipt_file
from stook.audits.holding import HeldShard, Holding
from stook.audits.proof import AnswerKind, Came, Item, UnitProof, prove_ask, verify, verify_ask
from stook.audits.receipt import is_line_of, settle, show_line
from stook.audits.salted import leads_to_commitment, prepare, prove_salted
from stook.codec import encode
from stook.contracts.loss import note_loss
from stook.contracts.verdict import Verdict
from stook.ids import ContractId, ShardRoot
from stook.merkle import UNIT_BYTES

KEPT = keeper()
TALL = MemoryKeeper()
TALL_SHARD = TALL.add(7, 13 * UNIT_BYTES - 9)

entries = st.lists(
    st.tuples(
        st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(1, 60 * UNIT_BYTES)
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda entry: entry[0],
)


def holding_of(shards: list[tuple[bytes, bytes, int]]) -> Holding:
    return Holding(HeldShard(ContractId(c), ShardRoot(r), size) for c, r, size in shards)


# --- the draw --------------------------------------------------------------------------------------------------------


@given(entries, st.binary(min_size=32, max_size=32), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_the_draw_is_that_of_the_twin(shards: list[tuple[bytes, bytes, int]], nonce: bytes, wanted: int) -> None:
    holding = holding_of(shards)
    assert holding.encoded() == audit_twin.holding_string(shards)
    assert holding.digest == audit_twin.tagged("audit-holding", audit_twin.holding_string(shards))
    ours = [(shard.contract_id, list(units)) for shard, units in holding.draw(nonce, wanted)]
    assert ours == audit_twin.draw(shards, nonce, wanted)


@given(entries, st.binary(min_size=32, max_size=32), st.integers(1, 512))
@settings(max_examples=60, deadline=None)
def test_a_challenge_is_drawn_over_its_own_holding_alone(
    shards: list[tuple[bytes, bytes, int]], nonce: bytes, wanted: int
) -> None:
    holding = holding_of(shards)
    challenge = drawn(holding, wanted, nonce).challenge
    assert is_drawn(challenge, holding)
    assert Holding.parse(holding.encoded()).digest == holding.digest
    if len(shards) > 1:
        assert not is_drawn(challenge, holding_of(shards[1:]))


# --- the verifier ----------------------------------------------------------------------------------------------------


def judged(ask: Ask, proofs: tuple[UnitProof, ...]) -> Verdict:
    verdict, _ = verify_ask(ask, Item(AnswerKind.PROOF, proofs, None, None), FARMER.public_key)
    twin = audit_twin.units_verdict(
        ask.shard_root, ask.size_bytes, ask.units, [(proof.unit, proof.path) for proof in proofs]
    )
    assert verdict.name == (twin if proofs else "MALFORMED")
    return verdict


asks = st.sets(st.integers(0, TALL_SHARD.units - 1), min_size=1).map(
    lambda units: Ask(TALL_SHARD.contract_id, TALL_SHARD.shard_root, TALL_SHARD.size_bytes, tuple(sorted(units)), None)
)


@given(asks, st.data())
@settings(max_examples=150, deadline=None)
def test_no_altered_byte_path_index_or_order_passes(ask: Ask, data: st.DataObject) -> None:
    proofs = prove_ask(ask, TALL).units
    assert judged(ask, proofs) is Verdict.PASSED
    at = data.draw(st.integers(0, len(proofs) - 1))
    proof = proofs[at]
    match data.draw(st.sampled_from(("byte", "cut", "path", "step", "index", "order", "missing", "twice"))):
        case "byte":
            place = data.draw(st.integers(0, len(proof.unit) - 1))
            flipped = bytes([proof.unit[place] ^ data.draw(st.integers(1, 255))])
            changed = structs.replace(proof, unit=proof.unit[:place] + flipped + proof.unit[place + 1 :])
            wrong = (*proofs[:at], changed, *proofs[at + 1 :])
        case "cut":
            wrong = (*proofs[:at], structs.replace(proof, unit=proof.unit[:-1] or b"x" * 2), *proofs[at + 1 :])
        case "path":
            place = data.draw(st.integers(0, len(proof.path) - 1))
            path = (*proof.path[:place], data.draw(st.binary(min_size=32, max_size=32)), *proof.path[place + 1 :])
            if path == proof.path:
                return
            wrong = (*proofs[:at], structs.replace(proof, path=path), *proofs[at + 1 :])
        case "step":
            path = data.draw(st.sampled_from((proof.path[1:], proof.path[:-1], (*proof.path, proof.path[0]))))
            wrong = (*proofs[:at], structs.replace(proof, path=path), *proofs[at + 1 :])
        case "index":
            other = data.draw(st.integers(0, TALL_SHARD.units - 1))
            if other in ask.units:
                return
            units = tuple(sorted({*ask.units, other} - {ask.units[at]}))
            ask, wrong = structs.replace(ask, units=units), proofs
        case "order":
            wrong = proofs[::-1]
            if wrong == proofs:
                return
        case "missing":
            wrong = (*proofs[:at], *proofs[at + 1 :])
        case _:
            wrong = (*proofs[: at + 1], *proofs[at:])
    assert judged(ask, wrong) in (Verdict.FAILED, Verdict.MALFORMED)


@given(asks, st.integers(1, 13 * UNIT_BYTES))
@settings(max_examples=60, deadline=None)
def test_a_proof_is_worth_nothing_for_another_shard_or_size(ask: Ask, size: int) -> None:
    proofs = prove_ask(ask, TALL).units
    other = KEPT.holding.shards[0]
    assert judged(structs.replace(ask, shard_root=other.shard_root), proofs) is not Verdict.PASSED
    if size != ask.size_bytes and ask.units[-1] < -(-size // UNIT_BYTES):
        assert judged(structs.replace(ask, size_bytes=size), proofs) is not Verdict.PASSED


@given(st.permutations(range(5)), st.data())
@settings(max_examples=40, deadline=None)
def test_items_count_only_in_their_own_place(order: list[int], data: st.DataObject) -> None:
    kept = MemoryKeeper()
    for number in range(5):
        kept.add(number, 4 * UNIT_BYTES)
    challenge = drawn(kept.holding, 20).challenge
    answer = answered(challenge, kept)[0].answer
    turned = tuple(answer.items[at] for at in order)
    findings = verify(challenge, {0: signed_again(challenge, answer, items=turned)}, {})
    assert [found.verdict is Verdict.PASSED for found in findings] == [at == place for place, at in enumerate(order)]
    cut = data.draw(st.integers(0, 4))
    findings = verify(challenge, {0: signed_again(challenge, answer, items=turned[:cut])}, {})
    assert {found.verdict for found in findings} == {Verdict.MALFORMED}


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=20, deadline=None)
def test_an_answer_never_serves_under_another_nonce(nonce: bytes) -> None:
    if nonce == NONCE:
        return
    first, second = drawn(KEPT.holding).challenge, drawn(KEPT.holding, nonce=nonce).challenge
    replay = {page: Came(came.answer, NOW_MS) for page, came in answered(first, KEPT).items()}
    assert {found.verdict for found in verify(second, replay, {})} == {Verdict.SILENT}


@given(st.integers(NOW_MS - 5, NOW_MS + 5), st.sampled_from((RENTER, OTHER)), st.booleans())
@settings(max_examples=40, deadline=None)
def test_only_a_note_from_before_makes_a_loss_honest(received_ms: int, receiver: object, silent: bool) -> None:
    challenge = drawn(KEPT.holding).challenge
    ask = challenge.asks[0]
    noted = note_loss(loss_of(ask, 0), receiver, received_ms)  # type: ignore[arg-type]
    kept = keeper()
    kept.losses[ask.contract_id] = noted.loss
    answers = {} if silent else answered(challenge, kept)
    found = verify(challenge, answers, {ask.contract_id: noted})[0].verdict
    honest = receiver is RENTER and received_ms < NOW_MS
    assert found is (Verdict.LOST if honest else Verdict.SILENT if silent else Verdict.FAILED)


# --- salts -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.binary(min_size=1, max_size=200), st.data())
@settings(max_examples=60, deadline=None)
def test_each_salt_proves_its_own_index_over_its_own_bytes(count: int, shard: bytes, data: st.DataObject) -> None:
    secrets, leaves = prepare(bytes(32), count, len(shard), [shard])
    index = data.draw(st.integers(0, count - 1))
    ask, _ = replace(secrets, next_index=index).take(ContractId(bytes(32)), ShardRoot(bytes(32)), len(shard))
    salted = ask.salted
    assert salted is not None
    proof = prove_salted(salted, leaves, [shard])
    assert leads_to_commitment(salted, len(shard), proof)
    other = data.draw(st.integers(0, 31))
    if other != index and other < count:
        assert not leads_to_commitment(structs.replace(salted, index=other), len(shard), proof)
    changed = bytes([shard[0] ^ 1]) + shard[1:]
    assert not leads_to_commitment(salted, len(shard), prove_salted(salted, leaves, [changed]))
    assert not leads_to_commitment(salted, len(shard) + 1, proof)
    for path in (proof.path[1:], (*proof.path, bytes(32))):
        if path != proof.path:
            assert not leads_to_commitment(salted, len(shard), structs.replace(proof, path=path))


# --- receipts --------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4)), st.integers(1, 120))
@settings(max_examples=30, deadline=None)
def test_whatever_a_round_comes_to_a_stranger_comes_to_the_same(unknown: set[int], lost: set[int], wanted: int) -> None:
    kept = keeper()
    signed = drawn(kept.holding, wanted)
    challenge = signed.challenge
    losses = {}
    for at in sorted(lost):
        shard = kept.holding.shards[at]
        losses[shard.contract_id] = note_loss(loss_of(shard), RENTER, NOW_MS - 1)
    holding = kept.holding
    for at in unknown:
        del kept.held[holding.shards[at].contract_id]
    answers = answered(challenge, kept)
    settled = settle(challenge, answers, losses, RENTER, NOW_MS + 9)
    assert sum(settled.signed.receipt.counts) == len(settled.lines)
    for index in range(len(settled.lines)):
        assert is_line_of(settled.signed.receipt, show_line(settled.lines, index))
    file = ReceiptFile(
        1,
        settled.signed,
        settled.lines,
        signed,
        tuple(answers[page].answer for page in sorted(answers)),
        tuple(losses.values()),
        holding.encoded(),
        (),
    )
    report = verify_receipt_file(read_receipt_file(encode(file)))
    assert report.sound
    assert report.drawn
    assert {entry.comparison for entry in report.rejudged} <= {Comparison.AGREES, Comparison.UNPROVED}
