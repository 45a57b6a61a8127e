"""Whatever bytes a renter sends as PAY or ORDER, a till refuses them in words and its books stay balanced."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from stook.codec import encode
from stook.errors import PeerError
from stook.payments.messages import Order, Pay, PayMethod
from stook.sim.dice import Dice
from stook.sim.loop import run
from stook.sim.pay_pair import HOUR_MS, Pair


class Heard:
    def __init__(self, pair: Pair) -> None:
        self.peer_key, self.peer_id = pair.payer_key.public_key, pair.payer_key.node_id

    async def reply(self, payload: bytes) -> None:
        pass


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_requests_are_refused_and_change_nothing_unsigned(data: st.DataObject) -> None:
    async def scenario() -> None:
        pair = Pair(Dice(1, "hostile"))
        try:
            pair.store(pair.terms(1))
            pair.payer_clock.skew_ms = pair.payee_clock.skew_ms = HOUR_MS
            await pair.pay()
            sent = [payload for method, payload in pair.line.sent if method == PayMethod.PAY]
            payload = bytearray(data.draw(st.sampled_from([*sent, encode(Order(())), encode(Pay((), None))])))
            for _ in range(data.draw(st.integers(1, 4))):
                at = data.draw(st.integers(0, len(payload) - 1))
                payload[at] = data.draw(st.integers(0, 255))
            cut = data.draw(st.integers(0, len(payload)))
            before = pair.payee_books.account(pair.payer_key.node_id)
            for handler in (pair.till.pay, pair.till.order):
                for body in (bytes(payload), bytes(payload[:cut])):
                    with contextlib.suppress(PeerError):
                        await handler(Heard(pair), body)
            after = pair.payee_books.account(pair.payer_key.node_id)
            assert after.owed == before.owed
            assert after.drawn == before.drawn
            assert sum(pair.payee_books.balances().values()) == 0
        finally:
            pair.close()

    run(scenario())
