"""What payers and payees try against each other over the real till and paymaster, and what it gets them."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest
from msgspec import structs

from stook.codec import decode, encode
from stook.errors import ConfigError, RefusedError, UnreachableError
from stook.ids import PublicKey
from stook.money import MAX_AMOUNT, Amount, narrow, wide
from stook.payments.batch import (
    Agreement,
    Batch,
    BatchKind,
    Closing,
    Opening,
    Reason,
    SignedBatch,
    sign_agreement,
    sign_batch,
)
from stook.payments.cheque import Drawer
from stook.payments.enforcement import Step
from stook.payments.messages import Order, Pay, PayMethod, PayReply
from stook.payments.orders import MAX_PRICES, sign_order
from stook.payments.settlement import LedgerSettlement
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK
from stook.sim.loop import run
from stook.sim.pay_pair import DAY_MS, MIB, STORAGE_PRICE, DyingBooks, Pair
from stook.storage.renter_ports import PlacementState
from stook.wire.endpoint import Peer

DAILY = -(-STORAGE_PRICE * MIB * 24 // (1 << 30))


def played(scenario: Callable[[Pair], Awaitable[None]], **settings: object) -> None:
    async def scene() -> None:
        pair = Pair(Dice(1, "attacks"), **settings)
        try:
            await scenario(pair)
        finally:
            pair.close()

    run(scene())


def later(pair: Pair, ms: int) -> None:
    pair.payer_clock.skew_ms += ms
    pair.payee_clock.skew_ms += ms


class Liar:
    """A payer that writes its own batches, and admits nothing in them."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.seq, self.head, self.cut_ms = 0, b"", pair.payer_clock.now_ms()

    async def send(
        self,
        *opened: Opening,
        closed: tuple[Closing, ...] = (),
        to_ms: int = 0,
        kind: BatchKind = BatchKind.EARNED,
        storage: int = 0,
        owed: int = 0,
    ) -> Agreement:
        """One batch up to `to_ms`, or without time; what the payee makes of it."""
        pair, to_ms = self.pair, to_ms or self.cut_ms
        batch = Batch(
            version=1,
            network=NETWORK,
            payer_key=pair.payer_key.public_key,
            payee_key=pair.payee_key.public_key,
            tariff=1,
            seq=self.seq + 1,
            previous=self.head,
            kind=kind,
            from_ms=self.cut_ms,
            to_ms=to_ms,
            receipt=b"",
            opened=opened,
            closed=closed,
            contracts=1,
            storage=wide(storage),
            orders=(),
            download=wide(0),
            owed=wide(owed),
        )
        signed: SignedBatch = sign_batch(batch, pair.payer_key)
        (agreement,) = decode(PayReply, await pair.replay(Pay((signed,), None))).agreements
        self.seq, self.head, self.cut_ms = batch.seq, batch.digest, to_ms
        return agreement


def test_a_contract_that_is_opened_twice_is_paid_from_the_first_time_on() -> None:
    async def scenario(pair: Pair) -> None:
        terms = pair.terms(1)
        name, liar = pair.store(terms), Liar(pair)
        assert (await liar.send(Opening(name, 0, terms.begin_ms))).agreed
        assert not (await liar.send(Opening(name, 0, terms.end_ms))).agreed
        later(pair, 50 * DAY_MS)
        agreement = await liar.send(to_ms=pair.payer_clock.now_ms())
        assert not agreement.agreed
        assert narrow(agreement.storage) == pytest.approx(50 * DAILY, rel=1e-6)
        (span,) = pair.payee_books.spans_at(pair.payer_key.node_id, 3)
        assert span.start_ms == terms.begin_ms

    played(scenario)


def tricks(name: bytes, end_ms: int) -> Iterator[tuple[str, dict]]:
    """Batches without time that end a contract for which a later one begins again."""
    for reason in (Reason.LOST, Reason.RENEWED, Reason.ENDED):
        for stop_ms in (0, end_ms):
            yield f"{reason.name} {stop_ms}", {"closed": (Closing(name, stop_ms, reason),)}
    yield "restart", {"kind": BatchKind.RESTART}


@pytest.mark.parametrize("trick", range(7))
@pytest.mark.parametrize("revision", [0, 1])
def test_closing_without_time_and_beginning_again_later_saves_nothing(trick: int, revision: int) -> None:
    async def scenario(pair: Pair) -> None:
        terms = pair.terms(1)
        name, liar = pair.store(terms), Liar(pair)
        if revision:
            pair.renew(name)
        await liar.send(Opening(name, revision, terms.begin_ms))
        _, batch = list(tricks(name, terms.end_ms + 90 * DAY_MS))[trick]
        for _ in range(4):
            assert not (await liar.send(**batch)).agreed
            later(pair, DAY_MS)
            now = pair.payer_clock.now_ms()
            await liar.send(Opening(name, revision, now), to_ms=now)
        held = pair.contracts.get(name)
        daily = DAILY if not revision else held.contract.terms.storage_price_per_gib_hour * MIB * 24 / (1 << 30)
        claimed = pair.payee_books.account(pair.payer_key.node_id).disputed
        assert claimed == pytest.approx(4 * daily, rel=1e-6)

    played(scenario)


def test_a_revision_is_due_from_where_the_one_before_stopped() -> None:
    async def scenario(pair: Pair) -> None:
        terms = pair.terms(1)
        name, liar = pair.store(terms), Liar(pair)
        await liar.send(Opening(name, 0, terms.begin_ms))
        later(pair, DAY_MS)
        pair.renew(name)
        later(pair, DAY_MS)
        now = pair.payer_clock.now_ms()
        agreement = await liar.send(
            Opening(name, 1, terms.end_ms), closed=(Closing(name, terms.end_ms, Reason.RENEWED),), to_ms=now
        )
        assert narrow(agreement.storage) >= 2 * DAILY - 10**6
        later(pair, DAY_MS)
        agreement = await liar.send(to_ms=pair.payer_clock.now_ms())
        assert narrow(agreement.storage) > DAILY

    played(scenario)


def twist(pair: Pair, change: Callable[[Pay, PayReply], PayReply]) -> None:
    """From now on the payee's replies to PAY are changed on their way out."""
    call = pair.line.call

    async def twisted(to: Peer, method: str, payload: bytes, *, deadline_seconds: float) -> bytes:
        said = await call(to, method, payload, deadline_seconds=deadline_seconds)
        return encode(change(decode(Pay, payload), decode(PayReply, said))) if method == PayMethod.PAY else said

    pair.line.call = twisted


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_farmer_that_claims_lost_books_is_not_paid_twice_for_a_byte(ahead: int) -> None:
    async def scenario(pair: Pair) -> None:
        name = pair.store(pair.terms(1, size_bytes=64 * MIB))
        await pair.pay()
        assert pair.fetch(name, 32 * MIB)
        await pair.pay()
        first = pair.payee_books.batch(pair.payer_key.node_id, 1)
        owed = pair.payer_books.account(pair.payee_key.node_id).owed
        assert owed > 0
        shown = first.signed if ahead else None

        def lie(asked: Pay, said: PayReply) -> PayReply:
            if asked.batches:
                return said
            return structs.replace(said, seq=said.seq + 1, orders=(), last_batch=shown or said.last_batch)

        honest = pair.line.call
        for _ in range(2):
            twist(pair, lie)
            await pair.pay()
            pair.line.call = honest
            await pair.pay()
        assert pair.payer_books.account(pair.payee_key.node_id).owed == owed
        assert max(each.cheque.amount for each in pair.line.cheques) == owed

    played(scenario)


def test_orders_that_are_shown_long_after_a_loss_charge_nothing() -> None:
    async def scenario(pair: Pair) -> None:
        name = pair.store(pair.terms(1, size_bytes=64 * MIB))
        await pair.pay()
        assert pair.fetch(name, 32 * MIB)
        await pair.pay()
        later(pair, DAY_MS)
        await pair.pay()
        me, partner = pair.payer_key.node_id, pair.payee_key.node_id
        owed, orders = pair.payer_books.account(partner).owed, pair.payee_books.account(me).orders
        pair.payer_books = DyingBooks(pair.dice.child("again"), 0.0)
        pair.start_payer()
        twist(pair, lambda _asked, said: structs.replace(said, orders=()))
        await pair.pay()
        await pair.paymaster._learn(pair.payee_key.public_key, orders)
        await pair.pay()
        assert pair.payer_books.account(partner).owed == owed

    played(scenario)


def test_books_from_a_backup_go_on_with_the_payees() -> None:
    async def scenario(pair: Pair) -> None:
        pair.store(pair.terms(1))
        await pair.pay()
        later(pair, DAY_MS)
        await pair.pay()
        backup = DyingBooks(pair.dice.child("backup"), 0.0)
        pair.payer_books._db.backup(backup._db)
        later(pair, DAY_MS)
        await pair.pay()
        pair.payer_books = backup
        pair.start_payer()
        me, partner = pair.payer_key.node_id, pair.payee_key.node_id
        for _ in range(3):
            later(pair, DAY_MS)
            await pair.pay()
            ours, theirs = pair.payer_books.account(partner), pair.payee_books.account(me)
            assert (ours.seq, ours.owed, ours.drawn) == (theirs.seq, theirs.owed, theirs.drawn)
            assert theirs.disputed == 0
            assert pair.payer_books.open_spans(partner).keys() == pair.payee_books.open_spans(me).keys()
        assert theirs.owed == pytest.approx(5 * DAILY, rel=1e-5)

    played(scenario)


def test_a_claim_that_no_book_holds_stops_no_payment() -> None:
    async def scenario(pair: Pair) -> None:
        pair.store(pair.terms(1))
        much = MAX_AMOUNT

        def claim(asked: Pay, said: PayReply) -> PayReply:
            signed = (sign_agreement(each.batch, much, much, "much", pair.payee_key) for each in asked.batches)
            return structs.replace(said, agreements=tuple(signed))

        twist(pair, claim)
        for _ in range(2):
            later(pair, DAY_MS)
            assert (await pair.paymaster.pay_all()).paid == 1
        assert pair.payer_books.account(pair.payee_key.node_id).disputed == 0

    played(scenario)


def test_nine_prices_stop_no_payment() -> None:
    async def scenario(pair: Pair) -> None:
        terms = pair.terms(1)
        pair.store(terms)
        await pair.pay()
        for price in range(1, 10):
            pair.paymaster.received(structs.replace(terms, download_price_per_gib=price), 10)
        assert (await pair.paymaster.pay_all()).paid == 1
        assert len(pair.payee_books.account(pair.payer_key.node_id).orders) == MAX_PRICES
        # Books of before, with nine: this farmer is passed over, and the round goes on.
        ninth = sign_order(pair.payer_key, NETWORK, pair.payee_key.public_key, 9, 10, 1)
        pair.payer_books.add_orders(pair.payee_key.public_key, [ninth], 1)
        assert (await pair.paymaster.pay_all()).unreached == 1

    played(scenario)


def test_a_batch_at_a_ninth_price_is_refused_in_words() -> None:
    async def scenario(pair: Pair) -> None:
        pair.store(pair.terms(1))
        me, them = pair.payer_key, pair.payee_key.public_key
        await pair.replay(Pay((), None))
        pair.payee_books.add_orders(
            me.public_key, [sign_order(me, NETWORK, them, price, 1, 1) for price in range(1, MAX_PRICES + 1)], 1
        )
        pair.payer_books.add_orders(them, [sign_order(me, NETWORK, them, MAX_PRICES + 1, 1, 1)], 1)
        assert (await pair.paymaster.pay_all()).unreached == 1

    played(scenario)


def test_lost_books_do_not_pay_again_from_a_new_chequebook() -> None:
    class Elsewhere(LedgerSettlement):
        def drawer(self, payer: PublicKey, payee: PublicKey, chequebook: bytes) -> Drawer:
            return replace(super().drawer(payer, payee, chequebook), chequebook=bytes(20))

    async def scenario(pair: Pair) -> None:
        pair.store(pair.terms(1))
        await pair.pay()
        later(pair, DAY_MS)
        await pair.pay()
        pair.payer_books = DyingBooks(pair.dice.child("again"), 0.0)
        pair.start_payer()
        pair.paymaster.settlement = Elsewhere(NETWORK)
        later(pair, DAY_MS)
        with pytest.raises(ConfigError, match="drawn on"):
            await pair.pay()
        assert len({each.cheque.chequebook for each in pair.line.cheques}) == 1

    played(scenario)


class Watched(LedgerSettlement):
    """A settlement that notes what it is asked, and whether through its own thread."""

    def __init__(self) -> None:
        super().__init__(NETWORK)
        self.asked: list[str] = []
        self.inside = False

    async def chain(self, work: Callable[[], object], /) -> object:
        self.inside = True
        try:
            return work()
        finally:
            self.inside = False

    def drawer(self, payer: PublicKey, payee: PublicKey, chequebook: bytes) -> Drawer:
        assert self.inside
        return super().drawer(payer, payee, chequebook)

    def covered(self, drawer: Drawer) -> int | None:
        assert self.inside
        self.asked.append("covered")
        return super().covered(drawer)

    def paid_out(self, drawer: Drawer) -> Amount:
        assert self.inside
        return super().paid_out(drawer)


def test_the_chain_is_asked_in_its_own_thread_and_not_about_bad_cheques() -> None:
    async def scenario(pair: Pair) -> None:
        ours, theirs = Watched(), Watched()
        pair.paymaster.settlement, pair.paymaster._chain = ours, ours.chain
        pair.till.settlement, pair.till._chain = theirs, theirs.chain
        pair.store(pair.terms(1))
        await pair.pay()
        later(pair, DAY_MS)
        assert (await pair.paymaster.pay_all()).paid == 1
        assert theirs.asked
        cheque = pair.payer_books.account(pair.payee_key.node_id).cheque
        bad = structs.replace(cheque, cheque=structs.replace(cheque.cheque, serial=9))
        theirs.asked.clear()
        with pytest.raises(RefusedError):
            await pair.replay(Pay((), bad))
        assert theirs.asked == []

    played(scenario)


def test_a_stranger_writes_nothing_into_the_books() -> None:
    async def scenario(pair: Pair) -> None:
        with pytest.raises(RefusedError, match="no contract"):
            await Liar(pair).send(owed=MAX_AMOUNT, storage=MAX_AMOUNT)
        order = sign_order(pair.payer_key, NETWORK, pair.payee_key.public_key, 5, 10, 1)
        for request in (Order((order,)), Order(())):
            with contextlib.suppress(RefusedError):
                await pair.line.call(Peer(pair.payee_key.node_id), PayMethod.ORDER, encode(request), deadline_seconds=1)
        assert decode(PayReply, await pair.replay(Pay((), None))).seq == 0
        assert pair.payee_books.accounts() == []
        assert pair.till.standings == {}

    played(scenario)


def test_a_lost_reply_leaves_no_dispute_on_one_side_only() -> None:
    async def scenario(pair: Pair) -> None:
        name = pair.store(pair.terms(1))
        await pair.pay()
        later(pair, DAY_MS)
        pair._place(pair.placements[name].contract, PlacementState.LOST)  # as its renter thinks, wrongly
        call, lost = pair.line.call, []

        async def lossy(to: Peer, method: str, payload: bytes, *, deadline_seconds: float) -> bytes:
            said = await call(to, method, payload, deadline_seconds=deadline_seconds)
            if decode(Pay, payload).batches and not lost:
                lost.append(payload)
                raise UnreachableError("lost on the way back")
            return said

        pair.line.call = lossy
        await pair.pay()
        assert lost
        claimed = pair.payee_books.account(pair.payer_key.node_id).disputed
        assert claimed > 0
        await pair.pay()
        assert pair.payer_books.account(pair.payee_key.node_id).disputed == claimed
        await pair.pay()
        assert pair.payer_books.account(pair.payee_key.node_id).disputed == claimed

    played(scenario)


@pytest.mark.parametrize("admits", [True, False])
def test_batches_without_cheques_make_no_debt_younger(admits: bool) -> None:
    async def scenario(pair: Pair) -> None:
        terms = pair.terms(1)
        name, liar, owed = pair.store(terms), Liar(pair), 0
        await liar.send(Opening(name, 0, terms.begin_ms if admits else terms.end_ms))
        for _ in range(9):
            later(pair, DAY_MS)
            owed += DAILY if admits else 0
            await liar.send(to_ms=pair.payer_clock.now_ms(), storage=DAILY if admits else 0, owed=owed)
        await pair.till.collect()
        assert pair.till.standings[pair.payer_key.public_key].step is Step.STOP

    played(scenario)
