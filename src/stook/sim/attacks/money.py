"""Attacks on payments: bad cheques, denied and invented downloads, renters that do not pay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from msgspec import structs

from stook.codec import decode, encode
from stook.contracts.verdict import Verdict
from stook.errors import RefusedError
from stook.identity.keys import CURVE_ORDER
from stook.ids import Signature
from stook.money import download_cost, narrow, wide
from stook.payments.batch import sign_agreement
from stook.payments.cheque import Cheque, Drawer, SignedCheque, draw_cheque, judge
from stook.payments.enforcement import CreditRules, Step
from stook.payments.ledger import Book
from stook.payments.messages import Pay, PayReply
from stook.payments.orders import STEP_BYTES
from stook.payments.settlement import LedgerSettlement
from stook.sim.attacks.outcome import Attack, Outcome
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK, node_key
from stook.sim.loop import run
from stook.sim.pay_pair import DAY_MS, DOWNLOAD_PRICE, MIB, STORAGE_PRICE, Pair
from stook.wire.endpoint import Exchange

DAY = 86_400.0
SIZE = 64 * MIB


async def _paid_pair(seed: int, name: str, credit: CreditRules | None = None) -> Pair:
    """A pair with a shard stored, a day old, proved and paid."""
    pair = Pair(Dice(seed, name), credit=credit)
    pair.store(pair.terms(1))
    await asyncio.sleep(DAY)
    pair.judge(Verdict.PASSED)
    await pair.pay()
    return pair


# --- cheques ---------------------------------------------------------------------------------------------------------


def _cheques(name: str, make: Callable[[Pair, SignedCheque], list[SignedCheque]]) -> Callable[[int], Outcome]:
    """An attack that shows the payee cheques beside the good one that it holds."""

    async def main(seed: int) -> Outcome:
        pair = await _paid_pair(seed, name)
        try:
            me = pair.payer_key.node_id
            before = pair.payee_books.account(me)
            if before is None or before.cheque is None:
                return Outcome(False, 0, "no cheque came at all")
            held, said = before.drawn, []
            for signed in make(pair, before.cheque):
                try:
                    await pair.replay(Pay((), signed))
                    said.append("no news")
                except RefusedError as error:
                    said.append(f"{error.code.name} ({error.detail})")
            after = pair.payee_books.account(me)
            gain = after.drawn - held if after is not None else 0
            return Outcome(not gain, gain, f"{len(said)} shown: {', '.join(said)}. The book says {held} as before.")
        finally:
            pair.close()

    return lambda seed: run(main(seed))


def _signed(pair: Pair, cheque: Cheque) -> SignedCheque:
    return SignedCheque(cheque, pair.payer_key.sign(cheque.digest))


def _again(pair: Pair, held: SignedCheque) -> list[SignedCheque]:
    """The same cheque twice, and one of its serial over more."""
    more = structs.replace(held.cheque, cumulative=wide(2 * held.cheque.amount))
    return [held, held, _signed(pair, more)]


def _lower(pair: Pair, held: SignedCheque) -> list[SignedCheque]:
    """A later one over less, an equal one, an earlier serial."""
    cheque, serial = held.cheque, held.cheque.serial
    return [
        _signed(pair, structs.replace(cheque, serial=serial + 1, cumulative=wide(cheque.amount - 1))),
        _signed(pair, structs.replace(cheque, serial=serial + 1)),
    ]


def _forged(field: str) -> Callable[[Pair, SignedCheque], list[SignedCheque]]:
    """The next cheque, over more, with one field that is not this farmer's."""

    def make(pair: Pair, held: SignedCheque) -> list[SignedCheque]:
        value = 1 if field == "chain_id" else bytes(20)
        cheque = structs.replace(
            held.cheque, serial=held.cheque.serial + 1, cumulative=wide(held.cheque.amount + 1000), **{field: value}
        )
        return [_signed(pair, cheque)]

    return make


def _malleable(pair: Pair, held: SignedCheque) -> list[SignedCheque]:
    """The second form that every ECDSA signature has, and another's signature."""
    cheque = structs.replace(held.cheque, serial=held.cheque.serial + 1, cumulative=wide(held.cheque.amount + 1000))
    good = pair.payer_key.sign(cheque.digest)
    high = CURVE_ORDER - int.from_bytes(good[32:], "big")
    other = node_key(pair.dice.child("other")).sign(cheque.digest)
    return [
        SignedCheque(cheque, Signature(good[:32] + high.to_bytes(32, "big"))),
        SignedCheque(cheque, other),
    ]


@dataclass
class _Pool:
    """A chequebook that several beneficiaries draw on: what it has left, and what each was paid."""

    left: int
    paid: dict[bytes, int]

    def covered(self, beneficiary: bytes) -> int:
        return self.paid.get(beneficiary, 0) + self.left

    def redeem(self, signed: SignedCheque) -> int:
        account = signed.cheque.beneficiary
        paid = min(self.left, signed.cheque.amount - self.paid.get(account, 0))
        self.left -= paid
        self.paid[account] = self.paid.get(account, 0) + paid
        return paid


class _PooledSettlement(LedgerSettlement):
    """LEDGER, but with a pool behind the cheques, as on a chain; the real one has tests of its own."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__(NETWORK)
        self._pool = pool

    def covered(self, drawer: Drawer) -> int:
        return self._pool.covered(drawer.beneficiary)


async def _over_committed(seed: int) -> Outcome:
    """One deposit, and cheques over ten times as much to two farmers; one is faster."""
    pair = await _paid_pair(seed, "over-committed", CreditRules(limit=10**12))
    try:
        account = pair.payee_books.account(pair.payer_key.node_id)
        if account is None or account.cheque is None:
            return Outcome(False, 0, "no cheque came at all")
        deposit = 2 * account.drawn
        pool = _Pool(deposit, {})
        pair.till.settlement = _PooledSettlement(pool)
        drawer = Drawer.ledger(NETWORK, pair.payer_key.public_key, pair.payee_key.public_key)
        over = draw_cheque(drawer, pair.payer_key, account.cheque, 10 * deposit)
        refused = judge(over, drawer, account.cheque, pool.covered(drawer.beneficiary)).fault
        await pair.till.collect()
        before = pair.till.standings[pair.payer_key.public_key].step
        rival = draw_cheque(
            Drawer.ledger(NETWORK, pair.payer_key.public_key, node_key(pair.dice.child("rival")).public_key),
            pair.payer_key,
            None,
            deposit,
        )
        taken = pool.redeem(rival)
        await pair.till.collect()
        after = pair.till.standings[pair.payer_key.public_key].step
        got = pool.redeem(account.cheque)
        lost = account.drawn - got
        caught = refused is not None and before is Step.SERVE and after is Step.STOP
        return Outcome(
            caught,
            lost,
            f"A cheque over ten deposits was {refused}; after another had redeemed {taken} of {deposit}, the farmer "
            f"saw that nothing stood behind its cheque over {account.drawn}, and went from {before} to {after}.",
        )
    finally:
        pair.close()


# --- downloads -------------------------------------------------------------------------------------------------------


async def _claims(seed: int) -> Outcome:
    """A farmer that signs agreements over downloads that never were."""
    pair = await _paid_pair(seed, "claims downloads")
    try:
        honest, invented = pair.till.pay, 10**18

        async def lying(exchange: Exchange, payload: bytes) -> None:
            class Heard:
                peer_key, peer_id, said = exchange.peer_key, exchange.peer_id, b""

                async def reply(self, text: bytes) -> None:
                    Heard.said = text

            await honest(cast("Exchange", Heard()), payload)
            reply = decode(PayReply, Heard.said)
            batches = decode(Pay, payload).batches
            signed = tuple(
                sign_agreement(
                    one.batch, narrow(one.batch.storage), narrow(one.batch.download) + invented, "", pair.payee_key
                )
                for one in batches
            )
            await exchange.reply(encode(structs.replace(reply, agreements=signed)))

        pair.till.pay = lying  # type: ignore[method-assign]
        await asyncio.sleep(DAY)
        await pair.pay()
        account = pair.payer_books.account(pair.payee_key.node_id)
        downloads = pair.payer_books.balances().get(Book.EXPENSE_DOWNLOAD, 0)
        disputed = account.disputed if account is not None else 0
        return Outcome(
            not downloads and disputed == invented,
            downloads,
            f"It claimed {invented} units for nothing: paid {downloads}; {disputed} stand as a dispute in its name.",
        )
    finally:
        pair.close()


async def _denies(seed: int) -> Outcome:
    """A renter that fetches and never signs; and one that signed, and leaves it out of its batch."""
    pair = await _paid_pair(seed, "denies downloads")
    try:
        name, taken = next(iter(pair.placements)), 0
        terms = pair.placements[name].contract.terms
        try:
            while taken < 100 * STEP_BYTES:
                pair.till.reserve(terms, MIB)
                taken += MIB
        except RefusedError as error:
            code = error.code.name
        # Bytes that were signed for and then left out of the batch are found in the farmer's own books.
        pair.paymaster.received(terms, 8 * MIB)
        await asyncio.sleep(1)
        order = pair.payer_books.account(pair.payee_key.node_id)
        held = pair.payee_books.account(pair.payer_key.node_id)
        signed = len(held.orders) if held is not None else 0
        return Outcome(
            taken <= 2 * STEP_BYTES and signed == 1 and order is not None,
            taken,
            f"After {taken >> 20} MiB without a word: {code}. What was signed, {signed} order, is in the farmer's "
            "books, and its agreement counts it whether or not the batch does.",
        )
    finally:
        pair.close()


async def _first_step(seed: int) -> Outcome:
    """A farmer that serves one step, takes the order for it, and nothing more."""
    pair = await _paid_pair(seed, "first step only")
    try:
        name = next(iter(pair.placements))
        served = 0
        while served < 16 * MIB and pair.fetch(name, 4 * MIB):
            served += 4 * MIB
        await asyncio.sleep(DAY)
        await pair.pay()
        paid = pair.payer_books.balances().get(Book.EXPENSE_DOWNLOAD, 0)
        fair = download_cost(DOWNLOAD_PRICE, served)
        return Outcome(paid == fair, paid - fair, f"It served {served >> 20} MiB and was paid for {served >> 20} MiB.")
    finally:
        pair.close()


# --- not paying ------------------------------------------------------------------------------------------------------


async def _never_pays(seed: int) -> Outcome:
    """A renter that audits and pays nobody."""
    pair = Pair(Dice(seed, "never pays"), credit=CreditRules(drop=True))
    try:
        terms = pair.terms(1, grace_days=7)
        pair.store(terms)
        steps: dict[Step, int] = {}
        for day in range(1, 20):
            await asyncio.sleep(DAY)
            pair.judge(Verdict.PASSED)
            await pair.till.collect()
            steps.setdefault(pair.till.standings[pair.payer_key.public_key].step, day)
        try:
            pair.till.admit(pair.payer_key.public_key)
            refused = False
        except RefusedError:
            refused = True
        stopped = steps.get(Step.STOP, 99)
        told = ", ".join(f"{step} on day {day}" for step, day in steps.items())
        return Outcome(refused and stopped <= 8 and Step.DROP in steps, stopped, f"With a grace of 7 days: {told}.")
    finally:
        pair.close()


async def _never_audits(seed: int) -> Outcome:
    """A renter that never audits, in the hope that only proofs are paid."""
    pair = Pair(Dice(seed, "never audits"))
    try:
        terms = pair.terms(1, size_bytes=4 * MIB)
        pair.store(terms)
        for _ in range(30):
            await asyncio.sleep(DAY)
            await pair.pay()
        account = pair.payee_books.account(pair.payer_key.node_id)
        paid = account.drawn if account is not None else 0
        span_ms = (account.cut_ms if account is not None else 0) - terms.begin_ms
        fair = -(-STORAGE_PRICE * terms.shard_size_bytes * span_ms // ((1 << 30) * 3_600_000))
        days = (fair - paid) / max(1, fair) * 30
        return Outcome(
            paid == fair and span_ms > 29 * DAY_MS,
            round(days, 4),
            f"30 days without an audit came to {paid} units, the same as with audits: {fair}.",
        )
    finally:
        pair.close()


def _run(work: Callable[[int], Awaitable[Outcome]]) -> Callable[[int], Outcome]:
    async def main(seed: int) -> Outcome:
        return await work(seed)

    return lambda seed: run(main(seed))


_NOTHING = "not one unit"
ATTACKS = (
    Attack(
        "double-cashing", "", "be paid twice by one cheque, or by two of one serial", _NOTHING, "units got for nothing",
        "cheques are cumulative: one that is held already is worth 0; two of one serial prove that their issuer cheats",
        _cheques("double cashing", _again),
    ),
    Attack(
        "lower-later-cheque", "", "take back what was paid, by a later cheque over less", _NOTHING, "units taken back",
        "only a higher serial with a higher sum counts; the highest is kept",
        _cheques("lower later cheque", _lower),
    ),
    Attack(
        "anothers-cheque", "", "pay with a cheque that is made out to another farmer", _NOTHING, "units believed",
        "the beneficiary is signed, and is the account of the farmer's own key",
        _cheques("another's cheque", _forged("beneficiary")),
    ),
    Attack(
        "other-chain", "", "pay with a cheque of another chain, where it is worth nothing", _NOTHING, "units believed",
        "EIP-712: the chain's id is part of what is signed",
        _cheques("other chain", _forged("chain_id")),
    ),
    Attack(
        "other-chequebook", "", "pay with a cheque of a chequebook that is empty, or not ours", _NOTHING,
        "units believed",
        "EIP-712: the contract is part of what is signed; its code, issuer and token are compared with ours",
        _cheques("other chequebook", _forged("chequebook")),
    ),
    Attack(
        "malleable-signature", "", "make a second valid cheque out of one, by its high-s form, or sign for another",
        _NOTHING, "units believed",
        "s in the lower half, here and in the contract; the issuer is the renter's node key",
        _cheques("malleable signature", _malleable),
    ),
    Attack(
        "over-committed-deposit", "", "pay many farmers out of one deposit that is enough for one",
        "no cheque beyond the cover is taken, and who finds its cover gone stops serving", "units not covered",
        "cover is asked when a cheque comes and again each hour; only a reserve is one's own alone",
        _run(_over_committed),
    ),
    Attack(
        "claims-downloads", "", "a farmer is paid for downloads that never were", _NOTHING, "units got for nothing",
        "only bytes that who fetched has signed for are owed; the rest is a dispute that the farmer signed",
        _run(_claims),
    ),
    Attack(
        "denies-downloads", "", "a renter fetches without signing, or leaves out what it signed",
        "two steps of 64 MiB, a day", "bytes got for nothing",
        "a farmer serves a step ahead, an eighth of what was signed for, and a step a day; orders are its own evidence",
        _run(_denies),
    ),
    Attack(
        "first-step-only", "", "a farmer serves the first step and is paid for the whole", _NOTHING,
        "units got for nothing",
        "bytes are signed for after they were verified, never ahead",
        _run(_first_step),
    ),
    Attack(
        "never-pays", "", "store and audit, and pay nobody", "not served after the grace of 7 days and a day more",
        "days served for nothing",
        "time accrues in the farmer's own books: warned, then PAYMENT_DUE, then erased where the operator wants it",
        _run(_never_pays),
    ),
    Attack(
        "never-audits", "", "never audit, so as not to owe for proofs", _NOTHING, "days stored for nothing",
        "storage accrues by time; an audit that was not made counts as passed",
        _run(_never_audits),
    ),
)  # fmt: skip
