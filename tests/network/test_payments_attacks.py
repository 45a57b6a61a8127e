"""What payers and payees try against each other over the real till and paymaster, and what it gets them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest

from stook.codec import decode
from stook.money import narrow, wide
from stook.payments.batch import (
    Agreement,
    Batch,
    BatchKind,
    Closing,
    Opening,
    Reason,
    SignedBatch,
    sign_batch,
)
from stook.payments.messages import Pay, PayReply
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK
from stook.sim.loop import run
from stook.sim.pay_pair import DAY_MS, MIB, STORAGE_PRICE, Pair

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
