from __future__ import annotations

import msgspec
import pytest
from msgspec import structs
from test_contracts_messages import largest

from audit_samples import (
    ANSWER_WITHIN_MS,
    PARTIES,
    MemoryKeeper,
    answered,
    drawn,
    keeper,
    loss_of,
    shard_bytes,
    signed_again,
    verdicts,
)
from contract_samples import FARMER, NOW_MS, OTHER, RENTER, contract, draft
from stook.audits.challenge import MAX_PAGE_WEIGHT, Ask, pages_of, repeat_challenge, salted_challenge
from stook.audits.messages import Audit, AuditReceipt, AuditReply, DeclareLoss, Heartbeat, HeartbeatReply, LossesNoted
from stook.audits.proof import (
    MAX_ANSWER_BYTES,
    AnswerKind,
    Came,
    Item,
    SignedAnswer,
    UnitProof,
    prove,
    prove_ask,
    sign_answer,
    verify,
)
from stook.audits.salted import (
    PADDING,
    SaltedProof,
    commitment_root,
    depth_of,
    leads_to_commitment,
    pre_leaf_of,
    prepare,
    prove_salted,
    salted_leaf,
)
from stook.codec import decode, encode
from stook.contracts.loss import NotedLoss, declare_loss, note_loss, verify_loss
from stook.contracts.verdict import Verdict
from stook.errors import MisbehaviourError, ReasonCode, UserError
from stook.hashing import Tag, tagged_hash
from stook.identity.envelope import MAX_PAYLOAD_BYTES
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES, leaves_of, merkle_path, merkle_paths

P, F, L, S, M = Verdict


def judged(kept: MemoryKeeper, wanted: int = 40) -> tuple[list[Verdict], MemoryKeeper]:
    """What one whole round over everything held comes to."""
    challenge = drawn(kept.holding, wanted).challenge
    return [finding.verdict for finding in verify(challenge, answered(challenge, kept), {})], kept


# --- the farmer ------------------------------------------------------------------------------------------------------


def test_everything_held_passes_and_only_what_was_drawn_is_read() -> None:
    found, kept = judged(keeper())
    assert set(found) == {P}
    challenge = drawn(kept.holding, 40).challenge
    assert kept.read_bytes == sum(ask.moved_bytes for ask in challenge.asks)


def test_a_bad_shard_is_declared_lost_and_spoils_no_other() -> None:
    kept = keeper()
    challenge = drawn(kept.holding).challenge
    bad = challenge.asks[2]
    kept.shards[bad.shard_root][bad.units[0] * UNIT_BYTES] ^= 1
    findings = verify(challenge, answered(challenge, kept), {})
    assert verdicts(findings) == {ask.contract_id: F if ask is bad else P for ask in challenge.asks}
    assert bad.contract_id in kept.losses
    assert "only when it was asked" in findings[2].reason


def test_a_unit_that_reads_right_the_second_time_is_no_loss() -> None:
    kept = keeper()
    kept.damaged_reads = 1
    assert set(judged(kept)[0]) == {P}
    kept.damaged_reads = 2
    assert judged(kept)[0].count(F) == 1


@pytest.mark.parametrize("what", ["file", "leaves", "odd leaves", "short"])
def test_a_shard_that_cannot_be_read_is_lost(what: str) -> None:
    kept = keeper()
    ask = drawn(kept.holding).challenge.asks[1]
    match what:
        case "file":
            del kept.shards[ask.shard_root]
        case "leaves":
            del kept.leaves[ask.shard_root]
        case "odd leaves":
            kept.leaves[ask.shard_root] += b"x"
        case "short":
            del kept.shards[ask.shard_root][ask.units[-1] * UNIT_BYTES + 1 :]
    item = prove_ask(ask, kept)
    assert item == Item(AnswerKind.LOST, (), None, kept.losses[ask.contract_id])


def test_nothing_that_an_auditor_says_makes_a_loss() -> None:
    kept = keeper()
    ask = drawn(kept.holding).challenge.asks[1]
    for wrong in (
        structs.replace(ask, size_bytes=ask.size_bytes + UNIT_BYTES),
        structs.replace(ask, size_bytes=ask.size_bytes + UNIT_BYTES, units=(ask.units[-1] + 1,)),
    ):
        assert prove_ask(wrong, kept).kind is AnswerKind.UNKNOWN
    assert not kept.losses


def test_what_is_not_held_is_unknown_and_what_was_lost_stays_lost() -> None:
    kept = keeper()
    challenge = drawn(kept.holding).challenge
    unknown, lost = challenge.asks[0], challenge.asks[-1]
    del kept.held[unknown.contract_id]
    kept.losses[lost.contract_id] = loss_of(lost, NOW_MS - 5)
    items = [item for page in range(len(pages_of(challenge))) for item in prove(challenge, page, kept)]
    assert [item.kind for item in items].count(AnswerKind.PROOF) == len(challenge.asks) - 2
    assert items[0].kind is AnswerKind.UNKNOWN
    assert items[-1].loss == kept.losses[lost.contract_id]


def test_only_the_farmer_that_was_asked_signs() -> None:
    challenge = drawn(keeper().holding).challenge
    with pytest.raises(ValueError, match="asked"):
        sign_answer(challenge, 0, (), OTHER, NOW_MS)


def test_a_full_page_fits_its_bound_and_a_message() -> None:
    kept = MemoryKeeper()
    for number in range(48):
        kept.add(number, 256 * UNIT_BYTES)
    challenge = drawn(kept.holding, MAX_PAGE_WEIGHT).challenge
    full = answered(challenge, kept)[0].answer
    assert len(pages_of(challenge)) == 1
    size = len(encode(AuditReply(full)))
    longest = structs.replace(full.items[0].units[0], path=(bytes(32),) * 32)
    # With the longest paths that a unit number of four bytes can need.
    worst = size + MAX_PAGE_WEIGHT * (len(encode(longest)) - len(encode(full.items[0].units[0])))
    # And a declaration beside every shard, which no honest page has.
    worst += MAX_PAGE_WEIGHT * len(encode(loss_of(challenge.asks[0])))
    assert worst <= MAX_ANSWER_BYTES < MAX_PAYLOAD_BYTES
    assert decode(SignedAnswer, encode(full), max_bytes=MAX_ANSWER_BYTES) == full


@pytest.mark.parametrize("kind", [Audit, AuditReceipt, Heartbeat, HeartbeatReply, DeclareLoss, LossesNoted])
def test_every_other_message_filled_to_its_bounds_fits_a_payload(kind: type[msgspec.Struct]) -> None:
    """Challenges and receipts have laws between their fields, so their parts are filled one by one."""
    assert bound(kind) <= MAX_PAYLOAD_BYTES


def bound(kind: type[msgspec.Struct]) -> int:
    from stook.audits.challenge import MAX_ASKS, Challenge
    from stook.audits.receipt import MAX_LINES, BatchReceipt, ReceiptLine
    from stook.contracts.grant import SignedGrant

    def size(described: object) -> int:
        return len(encode(largest(described)))

    info = msgspec.inspect.type_info
    if kind is Audit:
        # Every ask with 48 units, and with a salt besides: more than any challenge can have.
        ask = 32 + 2 + 32 + 2 + 9 + 3 + 48 * 5 + 2 + 5 + 3 + 34 + 34
        grants = MAX_PAGE_WEIGHT * size(info(SignedGrant))
        head = sum(40 for _ in Challenge.__struct_fields__)
        return MAX_ASKS * ask + head + 66 + grants
    if kind is AuditReceipt:
        head = sum(40 for _ in BatchReceipt.__struct_fields__) + 21 * 200
        return head + 66 + MAX_LINES * size(info(ReceiptLine))
    return size(info(kind))


# --- what is no answer -----------------------------------------------------------------------------------------------


def test_what_the_farmer_did_not_say_to_this_challenge_is_silence() -> None:
    kept = keeper()
    challenge = drawn(kept.holding).challenge
    (good,) = answered(challenge, kept).values()
    other = drawn(kept.holding, nonce=bytes(32)).challenge
    (replayed,) = answered(other, kept).values()
    head = good.answer.head
    for came, reason in (
        (None, "no answer"),
        (replayed, "another challenge"),
        (Came(structs.replace(good.answer, head=structs.replace(head, page=1)), NOW_MS), "another page"),
        (Came(structs.replace(good.answer, head=structs.replace(head, version=2)), NOW_MS), "version 2"),
        (Came(good.answer, NOW_MS + ANSWER_WITHIN_MS + 1), "1 ms late"),
        (Came(structs.replace(good.answer, signature=OTHER.sign(head.digest)), NOW_MS), "did not sign"),
        (Came(structs.replace(good.answer, head=structs.replace(head, answered_at_ms=1)), NOW_MS), "did not sign"),
        (Came(structs.replace(good.answer, items=good.answer.items[1:]), NOW_MS), "not the answer"),
    ):
        findings = verify(challenge, {} if came is None else {0: came}, {})
        assert {finding.verdict for finding in findings} == {S}
        assert all(reason in finding.reason for finding in findings)
    assert {f.verdict for f in verify(challenge, {0: Came(good.answer, NOW_MS + ANSWER_WITHIN_MS)}, {})} == {P}


def test_pages_are_judged_apart() -> None:
    kept = MemoryKeeper()
    for number in range(3):
        kept.add(number, 40 * UNIT_BYTES)
    challenge = drawn(kept.holding, 120).challenge
    answers = answered(challenge, kept)
    assert len(answers) == 3
    assert [f.verdict for f in verify(challenge, {0: answers[0], 2: answers[2]}, {})] == [P, S, P]
    swapped = {0: answers[1], 1: answers[0], 2: answers[2]}
    assert [f.verdict for f in verify(challenge, swapped, {})] == [S, S, P]


# --- what is no proof ------------------------------------------------------------------------------------------------


def test_shapes_that_are_no_proof_are_malformed_and_wrong_bytes_failed() -> None:
    kept = keeper()
    challenge = drawn(kept.holding).challenge
    answer = answered(challenge, kept)[0].answer
    at = next(number for number, ask in enumerate(challenge.asks) if 2 < len(ask.units) < 20)
    good, ask = answer.items[at], challenge.asks[at]
    first = good.units[0]
    loss = loss_of(ask)
    other = next(item for item in answer.items if item is not good and item.units)
    for item, expected in (
        (structs.replace(good, units=good.units[:-1]), M),
        (structs.replace(good, units=(*good.units, first)), M),
        (structs.replace(good, units=()), M),
        (structs.replace(good, loss=loss), M),
        (structs.replace(good, salted=SaltedProof(bytes(32), ())), M),
        (Item(AnswerKind.PROOF, (), SaltedProof(bytes(32), ()), None), M),
        (structs.replace(good, units=(structs.replace(first, unit=first.unit[:-1]), *good.units[1:])), M),
        (structs.replace(good, units=(structs.replace(first, path=first.path[:-1]), *good.units[1:])), M),
        (structs.replace(good, units=(structs.replace(first, path=(*first.path, bytes(32))), *good.units[1:])), M),
        (structs.replace(good, units=(good.units[1], first, *good.units[2:])), F),
        (structs.replace(good, units=(structs.replace(first, unit=bytes(UNIT_BYTES)), *good.units[1:])), F),
        (structs.replace(good, units=other.units), M),
        (Item(AnswerKind.UNKNOWN, (), None, None), F),
        (Item(AnswerKind.UNKNOWN, (), None, loss), M),
        (Item(AnswerKind.LOST, (), None, loss), F),
        (Item(AnswerKind.LOST, (), None, None), M),
        (Item(AnswerKind.LOST, good.units, None, loss), M),
        (Item(AnswerKind.LOST, (), None, loss_of(ask, key=OTHER)), M),
        (Item(AnswerKind.LOST, (), None, structs.replace(loss, signature=OTHER.sign(loss.loss.digest))), M),
        (Item(AnswerKind.LOST, (), None, loss_of(challenge.asks[at - 1])), M),
    ):
        items = (*answer.items[:at], item, *answer.items[at + 1 :])
        findings = verify(challenge, {0: signed_again(challenge, answer, items=items)}, {})
        assert findings[at].verdict is expected, item
        assert all(found.verdict is P for number, found in enumerate(findings) if number != at)


def test_items_in_another_order_or_number_do_not_pass() -> None:
    kept = MemoryKeeper()
    for number in range(4):
        kept.add(number, 8 * UNIT_BYTES)
    challenge = drawn(kept.holding, 24).challenge
    answer = answered(challenge, kept)[0].answer
    turned = verify(challenge, {0: signed_again(challenge, answer, items=answer.items[::-1])}, {})
    assert P not in {finding.verdict for finding in turned}
    for items in ((), answer.items[:-1], (*answer.items, answer.items[0])):
        findings = verify(challenge, {0: signed_again(challenge, answer, items=items)}, {})
        assert {finding.verdict for finding in findings} == {M}


def test_an_inner_node_never_passes_for_a_leaf() -> None:
    """White paper 5.7. A unit of 64 bytes that hashes like a node would be one; the tags differ."""
    size = 4 * UNIT_BYTES - UNIT_BYTES + 64
    data = shard_bytes(9, size)
    leaves = leaves_of(memoryview(data))
    kept = MemoryKeeper()
    shard = kept.add(9, size)
    ask = Ask(shard.contract_id, shard.shard_root, size, (3,), None)
    forged = UnitProof(leaves[2] + leaves[3], tuple(merkle_path(leaves, 3)[1:]))
    challenge = structs.replace(drawn(kept.holding).challenge, asks=(ask,))
    for path in (forged.path, (bytes(32), *forged.path), (leaves[2], *forged.path)):
        item = Item(AnswerKind.PROOF, (structs.replace(forged, path=path),), None, None)
        answer = sign_answer(challenge, 0, (item,), FARMER, NOW_MS)
        assert verify(challenge, {0: Came(answer, NOW_MS)}, {})[0].verdict in (F, M)


# --- losses ----------------------------------------------------------------------------------------------------------


def test_a_loss_is_honest_only_if_it_was_noted_before_it_was_first_asked_about() -> None:
    kept = keeper()
    challenge = drawn(kept.holding).challenge
    ask = challenge.asks[0]
    early, late = NOW_MS - 1, NOW_MS
    declared = loss_of(ask, NOW_MS - 100)

    def verdict(noted: NotedLoss | None, *, silent: bool = False) -> Verdict:
        answers = {} if silent else answered(challenge, kept)
        return verify(challenge, answers, {} if noted is None else {ask.contract_id: noted})[0].verdict

    kept.losses[ask.contract_id] = declared
    assert verdict(None) is F, "the farmer's own date counts for nothing"
    assert verdict(note_loss(declared, RENTER, early)) is L
    assert verdict(note_loss(declared, RENTER, early), silent=True) is L
    assert verdict(note_loss(declared, RENTER, late)) is F
    assert verdict(note_loss(declared, RENTER, late), silent=True) is S
    assert verdict(note_loss(declared, OTHER, early)) is F, "somebody else's note"
    assert verdict(note_loss(loss_of(challenge.asks[1]), RENTER, early)) is F, "about another shard"
    assert verdict(note_loss(loss_of(ask, key=OTHER), RENTER, early)) is F, "another farmer's word"
    forged = structs.replace(declared, signature=OTHER.sign(declared.loss.digest))
    assert verdict(note_loss(forged, RENTER, early)) is F, "the farmer never said so"
    swapped = NotedLoss(declared, note_loss(loss_of(ask, NOW_MS - 7), RENTER, early).note)
    assert verdict(swapped) is F, "a note of another declaration"
    note = note_loss(declared, RENTER, early)
    backdated = structs.replace(note.note, note=structs.replace(note.note.note, received_at_ms=1))
    assert verdict(NotedLoss(declared, backdated)) is F, "a note nobody signed"


def test_a_loss_declared_between_a_challenge_and_its_repeat_is_a_lie() -> None:
    kept = keeper()
    first = drawn(kept.holding).challenge
    ask = first.asks[0]
    again = repeat_challenge(
        first, {ask.contract_id}, RENTER, nonce=bytes(32), now_ms=NOW_MS + 1000, answer_within_ms=1000
    ).challenge
    kept.losses[ask.contract_id] = loss_of(ask, NOW_MS + 500)
    noted = {ask.contract_id: note_loss(kept.losses[ask.contract_id], RENTER, NOW_MS + 500, first.digest)}
    assert verify(again, answered(again, kept), noted)[0].verdict is F
    assert verify(first, {}, noted)[0].verdict is S
    conceded = {ask.contract_id: note_loss(kept.losses[ask.contract_id], RENTER, NOW_MS + 500)}
    assert verify(again, answered(again, kept), conceded)[0].verdict is L, "the renter did not say that it had asked"
    assert verify(first, {}, conceded)[0].verdict is S
    with pytest.raises(ValueError):
        note_loss(kept.losses[ask.contract_id], RENTER, NOW_MS, b"x")


def test_declarations_are_bound_to_contract_and_farmer() -> None:
    terms = draft()
    signed = declare_loss(terms, FARMER, NOW_MS)
    verify_loss(signed, terms)
    with pytest.raises(ValueError):
        declare_loss(terms, RENTER, NOW_MS)
    with pytest.raises(MisbehaviourError) as error:
        verify_loss(signed, draft(memo=b"other"))
    assert error.value.code is ReasonCode.UNBOUND_REPLY
    with pytest.raises(MisbehaviourError) as error:
        verify_loss(structs.replace(signed, signature=RENTER.sign(signed.loss.digest)), terms)
    assert error.value.code is ReasonCode.BAD_SIGNATURE
    assert contract(terms).contract_id == signed.loss.contract_id


# --- salts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_salts_prove_the_whole_shard_once_each(count: int) -> None:
    kept = MemoryKeeper()
    shard = kept.add(1, 3 * UNIT_BYTES + 5)
    secrets = kept.add_salts(shard, count)
    for index in range(count):
        ask, secrets = secrets.take(shard.contract_id, shard.shard_root, shard.size_bytes)
        assert ask.salted is not None
        assert ask.salted.index == index
        challenge = salted_challenge([ask], PARTIES, RENTER, nonce=bytes(32), now_ms=NOW_MS, answer_within_ms=9)
        came = answered(challenge.challenge, kept)
        assert [f.verdict for f in verify(challenge.challenge, came, {})] == [P]
        salted = came[0].answer.items[0].salted
        assert salted is not None
        assert len(salted.path) == depth_of(count)
    with pytest.raises(UserError, match="were used"):
        secrets.take(shard.contract_id, shard.shard_root, shard.size_bytes)


def test_no_other_pre_leaf_path_or_index_passes() -> None:
    size, data = 100, [shard_bytes(3, 100)]
    secrets, leaves = prepare(bytes(32), 5, size, data)
    ask, _ = secrets.take(b"c" * 32, ShardRoot(bytes(32)), size)  # type: ignore[arg-type]
    salted = ask.salted
    assert salted is not None
    good = prove_salted(salted, leaves, data)
    assert leads_to_commitment(salted, size, good)
    padded = [*leaves, PADDING, PADDING, PADDING]
    inner = tagged_hash(Tag.NODE, leaves[0] + leaves[1])
    for wrong in (
        structs.replace(good, pre_leaf=bytes(32)),
        structs.replace(good, pre_leaf=leaves[0]),
        structs.replace(good, pre_leaf=inner, path=good.path[1:]),
        structs.replace(good, path=good.path[:-1]),
        structs.replace(good, path=(*good.path, bytes(32))),
        structs.replace(good, path=good.path[::-1]),
        structs.replace(good, path=tuple(merkle_path(padded, 1))),
    ):
        assert not leads_to_commitment(salted, size, wrong)
    assert not leads_to_commitment(structs.replace(salted, index=1), size, good)
    assert not leads_to_commitment(structs.replace(salted, count=6), size, good)
    assert not leads_to_commitment(salted, size + 1, good)
    later = structs.replace(salted, index=1)
    replay = structs.replace(good, path=tuple(merkle_path(padded, 1)))
    assert not leads_to_commitment(later, size, replay), "yesterday's pre-leaf"
    assert commitment_root(size, leaves) == salted.root
    assert salted_leaf(pre_leaf_of(salted.salt, [data[0][:7], data[0][7:]])) == leaves[0]


def test_a_changed_shard_and_missing_leaves_do_not_pass() -> None:
    kept = MemoryKeeper()
    shard = kept.add(1, 2 * UNIT_BYTES)
    ask, _ = kept.add_salts(shard, 4).take(shard.contract_id, shard.shard_root, shard.size_bytes)
    challenge = salted_challenge([ask], PARTIES, RENTER, nonce=bytes(32), now_ms=NOW_MS, answer_within_ms=9).challenge
    kept.shards[shard.shard_root][-1] ^= 1
    assert verify(challenge, answered(challenge, kept), {})[0].verdict is F
    kept.salts[shard.contract_id].pop()
    assert prove_ask(ask, kept).kind is AnswerKind.UNKNOWN
    kept.salts.clear()
    assert prove_ask(ask, kept).kind is AnswerKind.UNKNOWN
    assert not kept.losses
    with pytest.raises(ValueError):
        prepare(bytes(32), 4, 5, [b"four"])
    with pytest.raises(ValueError):
        prepare(bytes(31), 4, 4, [b"four"])
    with pytest.raises(ValueError):
        prepare(bytes(32), 0, 4, [b"four"])


def test_a_salted_answer_with_a_short_path_is_malformed() -> None:
    kept = MemoryKeeper()
    shard = kept.add(1, 50)
    ask, _ = kept.add_salts(shard, 4).take(shard.contract_id, shard.shard_root, shard.size_bytes)
    challenge = salted_challenge([ask], PARTIES, RENTER, nonce=bytes(32), now_ms=NOW_MS, answer_within_ms=9).challenge
    answer = answered(challenge, kept)[0].answer
    (item,) = answer.items
    assert item.salted is not None
    short = structs.replace(item, salted=structs.replace(item.salted, path=item.salted.path[:-1]))
    assert verify(challenge, {0: signed_again(challenge, answer, items=(short,))}, {})[0].verdict is M


def test_paths_of_many_leaves_are_those_of_each() -> None:
    for count in (1, 2, 3, 7, 8, 13):
        leaves = [bytes([number]) * 32 for number in range(count)]
        assert merkle_paths(leaves, range(count)) == [merkle_path(leaves, number) for number in range(count)]
        with pytest.raises(IndexError):
            merkle_paths(leaves, [0, count])
