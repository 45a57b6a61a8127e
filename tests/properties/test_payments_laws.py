"""What both sides owe and pay, against exact rational arithmetic and a naive twin."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from contract_samples import FARMER, NOW_MS, RENTER
from payment_samples import DRAWER, Pair, evm_cheque, facts, held, order
from stook.contracts.negotiation import DAY_MS, HOUR_MS
from stook.money import narrow
from stook.payments.cheque import draw_cheque, judge
from stook.payments.ledger import balances, reconcile
from stook.payments.orders import DAY_MS as ORDER_DAY_MS
from stook.payments.orders import STEP_BYTES, allowance_bytes, may_serve
from stook.payments.posting import Standing, acknowledged, deposit, pay_up
from stook.payments.statement import adds_up, explain
from stook.payments.tariff import Span, download_owed

prices = st.integers(0, 2**63 - 1)
moments = st.integers(0, 60 * DAY_MS)


def exact(span: Span, from_ms: int, to_ms: int) -> Fraction:
    """The cost of a time, without any rounding."""
    return Fraction(span.price_per_gib_hour * span.size_bytes * (to_ms - from_ms), 2**30 * 3_600_000)


@given(price=prices, cuts=st.lists(moments, min_size=1, max_size=20))
def test_batches_telescope_and_are_rounded_once(price: int, cuts: list[int]) -> None:
    span = Span.of(held(1, storage_price_per_gib_hour=price).terms, 0, 1)
    total, at = 0, NOW_MS
    for seq, cut in enumerate(sorted(cuts), 1):
        owed = span.owed(seq, at, NOW_MS + cut)
        assert owed == span.until(min(span.stop_ms, NOW_MS + cut)) - span.until(at)
        total += owed
        at = NOW_MS + cut
    assert 0 <= total - exact(span, NOW_MS, at) < 1


@given(price=prices, count=st.integers(2, 24 * 60), k=st.data())
def test_equal_batches_are_the_white_papers_price_by_audits(price: int, count: int, k: st.DataObject) -> None:
    span = Span.of(held(1, storage_price_per_gib_hour=price).terms, 0, 1)
    step = 60 * DAY_MS // count
    number = k.draw(st.integers(2, count))
    owed = span.owed(number, NOW_MS + (number - 1) * step, NOW_MS + number * step)
    assert abs(owed - exact(span, 0, step)) < 1


@given(price=prices, counts=st.lists(st.integers(0, 2**40), max_size=20))
def test_downloads_are_rounded_once_whatever_was_signed_between(price: int, counts: list[int]) -> None:
    total, before = 0, 0
    for now in counts:
        total += download_owed(price, before, now)
        before = max(before, now)
    assert 0 <= total - Fraction(price * before, 2**30) < 1


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, dict[int, tuple[Standing, int]], int, int]]:
    """(moment, contracts with their standing and revision, bytes signed for, gap until) step by step."""
    steps, at, standing, received = [], 0, {}, 0
    for _ in range(draw(st.integers(1, 8))):
        at += draw(st.integers(0, 10 * DAY_MS))
        for number in range(4):
            known = standing.get(number)
            if known is None and draw(st.booleans()):
                standing[number] = (Standing.STORED, 0)
            elif known is not None and known[0] is Standing.STORED:
                move = draw(st.sampled_from(("stay", "stay", "erase", "lose", "renew")))
                if move == "renew":
                    standing[number] = (Standing.STORED, known[1] + 1)
                elif move != "stay":
                    standing[number] = (Standing.ERASED if move == "erase" else Standing.LOST, known[1])
            elif known is not None and draw(st.booleans()):
                standing[number] = (Standing.STORED, known[1])
        received += draw(st.integers(0, 1 << 30))
        gap = draw(st.sampled_from((0, 0, 0, at)))
        steps.append((at, dict(standing), received, gap))
    return steps


@settings(max_examples=150)
@given(history=histories())
def test_both_sides_agree_to_the_unit_and_every_batch_can_be_explained(history) -> None:
    pair, revised = Pair(), {}
    for at, standing, received, gap in history:
        now = NOW_MS + at
        contracts = []
        for number, (state, revision) in standing.items():
            base = held(number)
            if revision:
                begin = revised.setdefault((number, revision), now)
                from msgspec import structs

                terms = structs.replace(
                    base.terms, revision=revision, origin=base.contract_id, begin_ms=begin, end_ms=begin + 60 * DAY_MS
                )
                contracts.append(type(base)(terms, state, now if state is Standing.ERASED else 0))
            else:
                contracts.append(type(base)(base.terms, state, now if state is Standing.ERASED else 0))
        before = frozenset(span.contract_id for span in pair.closed)
        agreements = pair.round(
            facts(
                now,
                *contracts,
                orders=(order(received, now),) if received else (),
                gap_until_ms=NOW_MS + gap if gap else 0,
                gap_receipt=bytes(32) if gap else b"",
                paid_before=before,
            )
        )
        assert all(each.agreed for each in agreements), [each.detail for each in agreements]
        change = pay_up(pair.payer, DRAWER, RENTER, now)
        pair.post("payer", change)
        if change is not None:
            taken = deposit(pair.payee, pair.payer.cheque, DRAWER, None, now)
            assert taken.judgement.fault is None
            pair.post("payee", taken.change)
            pair.post("payer", acknowledged(pair.payer, pair.payee.drawn, now))
        assert pair.payer.owed == pair.payee.owed == pair.payee.drawn
        found = reconcile(pair.lines["payer"], pair.lines["payee"])
        assert found.agrees
        assert found.in_transit == 0
    for side in ("payer", "payee"):
        assert sum(balances(pair.lines[side]).values()) == 0
    spans = [*pair.closed, *pair.spans["payer"].values()]
    for batch in pair.batches:
        assert adds_up(batch, explain(batch, spans))
    naive = sum(narrow(batch.storage) + narrow(batch.download) for batch in pair.batches)
    assert naive == pair.payer.owed


@given(history=histories())
def test_no_contract_is_ever_paid_twice_for_one_moment(history) -> None:
    pair = Pair()
    for at, standing, _received, gap in history:
        contracts = [
            held(n, state, NOW_MS + at if state is Standing.ERASED else 0) for n, (state, _) in standing.items()
        ]
        pair.round(
            facts(
                NOW_MS + at,
                *contracts,
                gap_until_ms=NOW_MS + gap if gap else 0,
                gap_receipt=bytes(32) if gap else b"",
                paid_before=frozenset(span.contract_id for span in pair.closed),
            )
        )
    spans = [*pair.closed, *pair.spans["payer"].values()]
    paid: dict[bytes, list[tuple[int, int]]] = {}
    for batch in pair.batches:
        for part in explain(batch, spans):
            paid.setdefault(part.contract_id, []).append((part.from_ms, part.to_ms))
    for times in paid.values():
        times.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(times))
        assert all(since >= NOW_MS for since, _ in times)


@given(cheques=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 2**100)), max_size=12))
def test_cheques_in_any_order_pay_the_highest_and_no_more(cheques: list[tuple[int, int]]) -> None:
    """Whatever is lost, repeated or out of order: what was taken is never more than the highest cheque."""
    from stook.payments.cheque import Drawer

    sample = evm_cheque().cheque
    drawer = Drawer(RENTER.public_key, sample.chain_id, sample.chequebook, sample.beneficiary)
    last, taken = None, 0
    for serial, amount in cheques:
        signed = evm_cheque(amount, serial)
        judgement = judge(signed, drawer, last)
        if judgement.fault is None and not judgement.again:
            last, taken = signed, taken + judgement.worth
    assert taken == (last.cheque.amount if last else 0)
    assert taken <= max((amount for _, amount in cheques), default=0)


@given(amounts=st.lists(st.integers(1, 2**100), min_size=1, max_size=8))
def test_serials_count_and_sums_grow(amounts: list[int]) -> None:
    last, total = None, 0
    for number, amount in enumerate(amounts, 1):
        total += amount
        cheque = draw_cheque(DRAWER, RENTER, last, total)
        judgement = judge(cheque, DRAWER, last)
        assert (judgement.fault, judgement.worth, cheque.cheque.serial) == (None, amount, number)
        last = cheque


@given(received=st.integers(0, 2**45), wanted=st.integers(1, 1 << 22), age=st.integers(0, 400 * ORDER_DAY_MS))
def test_a_farmer_is_never_ahead_by_more_than_the_allowance(received: int, wanted: int, age: int) -> None:
    allowed = allowance_bytes(received, age)
    most = received + allowed - wanted
    assert may_serve(most, received, wanted, age)
    assert not may_serve(most + 1, received, wanted, age)
    assert allowance_bytes(received, age) == STEP_BYTES + received // 8 + STEP_BYTES * (age // ORDER_DAY_MS)


def test_a_year_of_hours_is_the_year() -> None:
    span = Span.of(held(1).terms, 0, 1)
    hours = sum(span.owed(2 + n, NOW_MS + n * HOUR_MS, NOW_MS + (n + 1) * HOUR_MS) for n in range(60 * 24))
    assert hours == span.until(span.stop_ms)
    assert FARMER.public_key != RENTER.public_key
