"""Single rules of payments: what is refused, what is disputed, and what an unpaid farmer does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from contract_samples import FARMER, NETWORK, NOW_MS, OTHER, RENTER
from payment_samples import DRAWER, Pair, evm_cheque, facts, held, order
from stook.contracts.negotiation import DAY_MS, HOUR_MS
from stook.errors import ConfigError
from stook.identity.keys import CURVE_ORDER
from stook.money import narrow, wide
from stook.payments.account import Account
from stook.payments.barter import balanced_bytes, set_off
from stook.payments.batch import MAX_CHANGES, BatchKind, Reason, sign_batch
from stook.payments.cheque import Fault, SignedCheque, draw_cheque, judge
from stook.payments.enforcement import CreditRules, Step, decide, unpaid
from stook.payments.orders import MAX_PRICES, newest
from stook.payments.posting import Known, Standing, deposit, draw_up, pay_up, take
from stook.payments.statement import compare, forecast, statement

LAST = draw_cheque(DRAWER, RENTER, None, 1000)
NEXT = draw_cheque(DRAWER, RENTER, LAST, 1500)


def altered(**changes: object) -> SignedCheque:
    """The next cheque with something changed, signed again by its issuer."""
    cheque = structs.replace(NEXT.cheque, **changes)
    return SignedCheque(cheque, RENTER.sign(cheque.digest))


def high_s() -> SignedCheque:
    s = CURVE_ORDER - int.from_bytes(NEXT.signature[32:], "big")
    return SignedCheque(NEXT.cheque, NEXT.signature[:32] + s.to_bytes(32, "big"))


@pytest.mark.parametrize(
    ("signed", "fault"),
    [
        (altered(chain_id=1), Fault.CHAIN),
        (altered(chequebook=bytes(20)), Fault.CHEQUEBOOK),
        (altered(beneficiary=bytes(20)), Fault.BENEFICIARY),
        (SignedCheque(NEXT.cheque, OTHER.sign(NEXT.cheque.digest)), Fault.SIGNATURE),
        (high_s(), Fault.SIGNATURE),
        (altered(serial=1), Fault.SERIAL),
        (altered(cumulative=wide(999)), Fault.LOWER),
        (altered(cumulative=wide(1000)), Fault.LOWER),
        (evm_cheque(), Fault.CHAIN),
    ],
)
def test_bad_cheques(signed: SignedCheque, fault: Fault) -> None:
    assert judge(signed, DRAWER, LAST).fault is fault
    assert judge(signed, DRAWER, LAST).worth == 0


def test_good_cheques() -> None:
    assert judge(NEXT, DRAWER, LAST).worth == 500
    assert judge(NEXT, DRAWER, NEXT).again
    assert judge(LAST, DRAWER, NEXT).fault is Fault.STALE
    assert judge(NEXT, DRAWER, LAST, covered=1500).fault is None
    assert judge(NEXT, DRAWER, LAST, covered=1499).fault is Fault.UNCOVERED


def test_nobody_draws_for_another_nor_less() -> None:
    with pytest.raises(ValueError, match="issuer"):
        draw_cheque(DRAWER, OTHER, None, 1)
    with pytest.raises(ValueError, match="more than"):
        draw_cheque(DRAWER, RENTER, LAST, 1000)


def test_a_farmer_that_still_holds_disputes_being_closed() -> None:
    pair, one = Pair(), held(1)
    pair.round(facts(NOW_MS + HOUR_MS, one))
    (agreement,) = pair.round(facts(NOW_MS + DAY_MS, replace(one, standing=Standing.FAILED)), {one.contract_id: one})
    assert not agreement.agreed
    assert "FAILED" in agreement.detail
    assert pair.payee.disputed == agreement.amount > 0
    assert pair.payer.owed == pair.payee.owed


def test_a_contract_that_is_paid_from_later_than_its_begin_is_disputed() -> None:
    pair, one = Pair(), held(1)
    pair.round(facts(NOW_MS + HOUR_MS, held(2)))
    known = facts(NOW_MS + DAY_MS, held(2), one)
    (change,) = draw_up(pair.payer, pair.spans["payer"], known, NETWORK, RENTER)
    batch = change.batches[0].signed.batch
    late = structs.replace(batch, opened=(structs.replace(batch.opened[0], start_ms=NOW_MS + DAY_MS),))
    mine = {one.contract_id: one}
    step = take(pair.payee, pair.spans["payee"], sign_batch(late, RENTER), Known(mine, False, NOW_MS + DAY_MS), FARMER)
    agreement = step.batches[0].agreement
    assert agreement is not None
    assert not agreement.agreed
    assert "paid from" in agreement.detail
    assert narrow(agreement.storage) == narrow(batch.storage)


def test_a_farmer_that_lost_it_agrees() -> None:
    pair, one = Pair(), replace(held(1), standing=Standing.LOST)
    pair.round(facts(NOW_MS + HOUR_MS, held(1)))
    (agreement,) = pair.round(facts(NOW_MS + DAY_MS, one))
    assert agreement.agreed
    assert pair.batches[-1].closed[0].reason is Reason.LOST


def test_a_gap_that_was_answered_is_disputed() -> None:
    for answered in (False, True):
        pair, one = Pair(), held(1)
        pair.round(facts(NOW_MS + HOUR_MS, one))
        known = facts(NOW_MS + DAY_MS, one, gap_until_ms=NOW_MS + DAY_MS, gap_receipt=bytes(32))
        agreements = pair.round(known, was_there=answered)
        assert pair.batches[1].kind is BatchKind.GAP
        assert agreements[0].agreed is not answered
        assert (pair.payee.disputed > 0) is answered


def test_a_payer_that_leaves_out_signed_bytes_is_found_out() -> None:
    pair, one = Pair(), held(1)
    pair.round(facts(NOW_MS + HOUR_MS, one))
    pair.payee = replace(pair.payee, orders=(order(1 << 30, NOW_MS + HOUR_MS + 1),))
    (agreement,) = pair.round(facts(NOW_MS + DAY_MS, one))
    assert not agreement.agreed
    assert pair.payee.disputed == 10**15


def test_more_changes_than_a_batch_has_room_for() -> None:
    many = [held(1, shard_root=number.to_bytes(32, "big")) for number in range(2 * MAX_CHANGES + 3)]
    changes = draw_up(Account(FARMER.public_key), {}, facts(NOW_MS + HOUR_MS, *many), NETWORK, RENTER)
    batches = [change.batches[0].signed.batch for change in changes]
    assert [len(batch.opened) for batch in batches] == [MAX_CHANGES, MAX_CHANGES, 3]
    assert narrow(batches[-1].owed) == sum(batch.amount for batch in batches)
    assert [batch.seq for batch in batches] == [1, 2, 3]


def test_nothing_to_say_is_no_batch() -> None:
    assert draw_up(Account(FARMER.public_key), {}, facts(NOW_MS), NETWORK, RENTER) == []
    assert pay_up(Account(FARMER.public_key), DRAWER, RENTER, NOW_MS) is None


def test_a_clock_that_goes_back_owes_nothing_twice() -> None:
    pair, one = Pair(), held(1)
    pair.round(facts(NOW_MS + DAY_MS, one))
    owed = pair.payer.owed
    pair.round(facts(NOW_MS + HOUR_MS, one))
    assert pair.payer.owed == owed
    pair.round(facts(NOW_MS + 2 * DAY_MS, one))
    assert pair.payer.owed == pytest.approx(2 * owed, abs=1)


def test_a_payer_that_never_bills_is_warned_stopped_and_dropped() -> None:
    steps = []
    for days in (1, 3, 8, 15):
        now = NOW_MS + days * DAY_MS
        steps.append(decide(unpaid(None, {}, [held(1)], {}, now), CreditRules(drop=True), now))
    assert steps == [Step.SERVE, Step.WARN, Step.STOP, Step.DROP]
    now = NOW_MS + 15 * DAY_MS
    assert decide(unpaid(None, {}, [held(1)], {}, now), CreditRules(), now) is Step.STOP


def test_credit_limits() -> None:
    owed = unpaid(None, {}, [held(1, grace_ms=0)], {10**15: 1 << 30}, NOW_MS + HOUR_MS)
    assert owed.served == 10**15
    for limit, step in ((0, Step.SERVE), (10**16, Step.SERVE), (owed.total, Step.WARN), (owed.total - 1, Step.STOP)):
        assert decide(owed, CreditRules(limit=limit), NOW_MS + HOUR_MS) is step


def test_who_is_paid_serves() -> None:
    pair, one = Pair(), held(1)
    now = NOW_MS + 20 * DAY_MS
    pair.round(facts(now, one))
    paid = replace(pair.payee, cheque=draw_cheque(DRAWER, RENTER, None, pair.payee.owed))
    assert decide(unpaid(paid, pair.spans["payee"], [one], {}, now), CreditRules(limit=1), now) is Step.SERVE
    assert decide(unpaid(pair.payee, pair.spans["payee"], [one], {}, now), CreditRules(limit=1), now) is Step.STOP


def test_too_many_prices() -> None:
    with pytest.raises(ValueError, match="prices"):
        newest((), [order(1, price=price) for price in range(MAX_PRICES + 1)])


def test_barter() -> None:
    ours, theirs = Account(FARMER.public_key, owed=100), Account(FARMER.public_key, owed=70)
    assert set_off(ours, theirs) == 70
    assert set_off(theirs, replace(ours, owed=0)) == 0
    assert balanced_bytes(given_bytes=12, taken_bytes=10, spare_bytes=5) == 3
    assert balanced_bytes(given_bytes=20, taken_bytes=10, spare_bytes=5) == 0


def test_statement_and_forecast() -> None:
    pair, one = Pair(), held(1)
    pair.round(facts(NOW_MS + DAY_MS, one))
    made = statement({}, pair.lines["payer"], 0, NOW_MS + 2 * DAY_MS).as_json()
    assert made["closing"]["payable"] == str(-pair.payer.owed)
    assert compare(pair.lines["payer"], pair.lines["payee"]) == []
    wrong = [replace(line, amount=line.amount + 1) for line in pair.lines["payee"]]
    assert [each.batch for each in compare(pair.lines["payer"], wrong)] == [1]
    day = forecast(pair.spans["payer"].values(), NOW_MS + DAY_MS, DAY_MS)
    assert day == pytest.approx(pair.payer.owed, abs=1)


def test_more_renewals_and_returns_than_a_batch_has_room_for_are_agreed() -> None:
    pair = Pair()
    many = [held(1, shard_root=number.to_bytes(32, "big")) for number in range(MAX_CHANGES + 40)]
    assert all(each.agreed for each in pair.round(facts(NOW_MS + HOUR_MS, *many)))
    gone = [replace(each, standing=Standing.LOST) for each in many[:20]]
    assert all(each.agreed for each in pair.round(facts(NOW_MS + 2 * HOUR_MS, *gone, *many[20:])))
    begin = NOW_MS + DAY_MS - HOUR_MS
    renewed = [
        replace(each, terms=structs.replace(each.terms, revision=1, origin=each.contract_id, begin_ms=begin))
        for each in many[20:]
    ]
    before = frozenset(each.contract_id for each in gone)
    agreements = pair.round(facts(NOW_MS + DAY_MS, *many[:20], *renewed, paid_before=before))
    assert len(agreements) > 1
    assert all(each.agreed for each in agreements), [each.detail for each in agreements]
    assert pair.spans["payer"].keys() == pair.spans["payee"].keys() == {each.contract_id for each in many}


def test_a_sum_is_never_drawn_on_a_second_chequebook() -> None:
    pair, other = Pair(), replace(DRAWER, chequebook=bytes(20))
    pair.round(facts(NOW_MS + DAY_MS, held(1)))
    pair.post("payer", pay_up(pair.payer, DRAWER, RENTER, NOW_MS))
    pair.post("payee", deposit(pair.payee, pair.payer.cheque, DRAWER, None, NOW_MS).change)
    pair.round(facts(NOW_MS + 2 * DAY_MS, held(1)))
    with pytest.raises(ConfigError, match="drawn on"):
        pay_up(pair.payer, other, RENTER, NOW_MS)
    elsewhere = draw_cheque(other, RENTER, pair.payer.cheque, pair.payer.owed)
    refused = deposit(pair.payee, elsewhere, other, None, NOW_MS)
    assert refused.change is None
    assert refused.judgement.fault is Fault.CHEQUEBOOK
