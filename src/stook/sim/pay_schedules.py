"""Random histories of one payer and one payee, reckoned against what truly was.

Audits, downloads, renewals, losses, silence, lost and repeated messages, deaths of either side, clocks that jump. What
must hold afterwards: nobody was overpaid, nobody is short by more than the bound that is written in
`docs/protocol/payments.md`, both books agree to the unit, and no cheque's serial was ever signed twice.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction

from stook.contracts.verdict import Verdict
from stook.ids import ContractId
from stook.payments.batch import BatchKind
from stook.payments.ledger import Book, reconcile
from stook.sim.dice import Dice
from stook.sim.loop import run
from stook.sim.pay_pair import DOWNLOAD_PRICE, HOUR_MS, MIB, STORAGE_PRICE, Pair

MAX_STEPS = 30
SKEW_MS = 4 * 60_000
"""Clocks differ by less than messages may: beyond it no message passes, which is a lost line."""


@dataclass(frozen=True, slots=True)
class ScheduleReport:
    """What one history came to."""

    seed: int
    owed: int
    batches: int
    cheques: int
    deaths: int
    wrong: tuple[str, ...]


@dataclass(slots=True)
class _Truth:
    """One contract as it was."""

    size_bytes: int
    prices: list[tuple[int, int]]
    """(from when, price)."""
    begin_ms: int
    end_ms: int
    gone_ms: int = 0

    def cost(self, until_ms: int, from_ms: int = 0) -> Fraction:
        """Exact storage cost to a moment, perhaps from a later one than its begin."""
        until, total = min(until_ms, self.end_ms), Fraction(0)
        for (since, price), (then, _) in zip(self.prices, [*self.prices[1:], (until, 0)], strict=True):
            stretch = max(0, min(then, until) - max(since, from_ms))
            total += Fraction(price * self.size_bytes * stretch, (1 << 30) * HOUR_MS)
        return total


def run_schedule(seed: int) -> ScheduleReport:
    """One history and its reckoning."""
    return run(_History(seed).play())


class _History:
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._dice = Dice(seed, "pay schedule")
        self._truth: dict[ContractId, _Truth] = {}
        self._number = 0
        self._deaths = 0
        self._silent_since = 0
        self._gaps: list[tuple[int, int]] = []
        self._wrong: list[str] = []

    async def play(self) -> ScheduleReport:
        dice = self._dice
        pair = Pair(
            dice.child("pair"), loss=dice.between(0, 0.3), repeat=dice.between(0, 0.3), deaths=dice.between(0, 0.1)
        )
        try:
            for _ in range(dice.whole(5, MAX_STEPS)):
                await asyncio.sleep(dice.wait(12 * 3600.0))
                await self._step(pair)
            await self._end(pair)
            self._reckon(pair)
            account = pair.payer_books.account(pair.payee_key.node_id)
            return ScheduleReport(
                seed=self._seed,
                owed=account.owed if account is not None else 0,
                batches=account.seq if account is not None else 0,
                cheques=len({each.cheque.serial for each in pair.line.cheques}),
                deaths=self._deaths,
                wrong=tuple(self._wrong),
            )
        finally:
            pair.close()

    async def _step(self, pair: Pair) -> None:
        dice = self._dice
        move = dice.whole(0, 12)
        names = [name for name, one in self._truth.items() if not one.gone_ms]
        name = names[dice.whole(0, len(names) - 1)] if names else None
        if move <= 1 or name is None:
            self._store(pair)
        elif move <= 4:
            await self._audit(pair)
        elif move <= 6:
            for _ in range(dice.whole(1, 20)):
                pair.fetch(name, dice.whole(1, 4 * MIB))
            await asyncio.sleep(1)
        elif move == 7:
            self._over(pair, name, lost=dice.chance(0.5))
        elif move == 8:
            self._renew(pair, name)
        elif move == 9:
            self._deaths += 1
            pair.start_payer() if dice.chance(0.5) else pair.start_payee()
        elif move == 10:
            clock = pair.payer_clock if dice.chance(0.5) else pair.payee_clock
            clock.skew_ms = dice.whole(-SKEW_MS, SKEW_MS) // 2
        elif move == 11:
            pair.payee_up = not pair.payee_up
            if pair.payee_up:
                pair.start_payee()
            await self._audit(pair)
        else:
            await pair.pay()

    def _store(self, pair: Pair) -> None:
        self._number += 1
        terms = pair.terms(self._number, days=self._dice.whole(1, 20), size_bytes=MIB << self._dice.whole(0, 2))
        name = pair.store(terms)
        self._truth[name] = _Truth(
            terms.shard_size_bytes, [(terms.begin_ms, STORAGE_PRICE)], terms.begin_ms, terms.end_ms
        )

    def _over(self, pair: Pair, name: ContractId, *, lost: bool) -> None:
        pair.lose(name) if lost else pair.erase(name)
        self._truth[name].gone_ms = pair.now_ms() + (SKEW_MS if not lost else 0)

    def _renew(self, pair: Pair, name: ContractId) -> None:
        account = pair.payer_books.account(pair.payee_key.node_id)
        if account is None or account.cut_ms <= self._truth[name].prices[-1][0] + SKEW_MS:
            return  # contracts run for months: none is renewed twice between two batches
        before = pair.placements[name].contract.terms
        pair.renew(name)
        after = pair.placements[name].contract.terms
        if after.revision > before.revision:
            one = self._truth[name]
            one.prices.append((after.begin_ms, after.storage_price_per_gib_hour))
            one.end_ms = after.end_ms

    async def _audit(self, pair: Pair) -> None:
        if pair.payee_up:
            if self._silent_since:
                self._gaps.append((self._silent_since, pair.now_ms()))
                self._silent_since = 0
            pair.judge(Verdict.PASSED)
        else:
            self._silent_since = self._silent_since or pair.now_ms()
            pair.judge(Verdict.SILENT)
        await pair.pay()

    async def _end(self, pair: Pair) -> None:
        """Everything comes to rest: the line holds, clocks are right, and the payer pays what is left."""
        pair.calm()
        await asyncio.sleep(3600)
        await self._audit(pair)
        await pair.pay()

    # --- reckoning ---------------------------------------------------------------------------------------------------

    def _reckon(self, pair: Pair) -> None:
        ours, theirs = pair.payer_books, pair.payee_books
        me, them = pair.payer_key.node_id, pair.payee_key.node_id
        payer, payee = ours.account(them), theirs.account(me)
        if payer is None or payee is None:
            if any(not one.gone_ms for one in self._truth.values()):
                self._wrong.append("no account was ever opened")
            return
        found = reconcile(ours.lines(), theirs.lines())
        if not found.agrees or found.in_transit:
            self._wrong.append(f"the books differ: {found}")
        if not payer.owed == payee.owed == payer.drawn == payee.drawn == payer.delivered:
            self._wrong.append("not everything that is owed is in a cheque that was delivered")
        for books in (ours, theirs):
            if sum(books.balances().values()):
                self._wrong.append("a book does not balance")
        self._check_serials(pair)
        storage = ours.balances().get(Book.EXPENSE_STORAGE, 0)
        most, least = self._bounds(pair)
        if storage > most:
            self._wrong.append(f"overpaid: {storage} for storage, at most {most}")
        if storage < least:
            self._wrong.append(f"underpaid: {storage} for storage, at least {least}")
        download = ours.balances().get(Book.EXPENSE_DOWNLOAD, 0)
        dearest = -(-DOWNLOAD_PRICE * pair.received_bytes // (1 << 30))
        cheapest = DOWNLOAD_PRICE * (pair.received_bytes - pair.forgotten_bytes) // (1 << 30)
        if not cheapest <= download <= dearest:
            self._wrong.append(f"downloads: {download}, not within {cheapest} and {dearest}")

    def _check_serials(self, pair: Pair) -> None:
        contents = defaultdict(set)
        for signed in pair.line.cheques:
            contents[signed.cheque.serial].add(signed.cheque)
        if any(len(each) > 1 for each in contents.values()):
            self._wrong.append("a serial was signed twice")

    def _bounds(self, pair: Pair) -> tuple[Fraction, Fraction]:
        """What storage may come to at most, and at least, by what truly was and by where batches ended."""
        them, now = pair.payee_key.node_id, pair.now_ms()
        batches = [kept.signed.batch for kept in pair.payer_books.batches(them, 0, -1)]
        gaps = [(batch.from_ms, batch.to_ms) for batch in batches if batch.kind is BatchKind.GAP]
        cuts = [batch.to_ms for batch in batches]
        most = least = Fraction(0)
        for one in self._truth.values():
            until = one.gone_ms or now
            most += one.cost(until + SKEW_MS) + 1 + len(one.prices)
            # Unpaid by right: after the last batch before it went, and in gaps. A skewed clock shifts every border.
            settled = max((cut for cut in cuts if cut <= until - 2 * SKEW_MS), default=0) if one.gone_ms else now
            opened = any(one.begin_ms + 2 * SKEW_MS < cut <= until for cut in cuts)
            if opened or not one.gone_ms:
                dearest = max(price for _, price in one.prices) * one.size_bytes
                lost_ms = sum(max(0, min(end, settled) - max(begin, one.begin_ms)) for begin, end in gaps)
                lost_ms += 4 * SKEW_MS + 2 * SKEW_MS * len(one.prices)
                # A revision that no batch fell into was never seen: the one before is paid on, or nothing.
                first = min((cut for cut in cuts if cut >= one.begin_ms), default=now)
                since = max(since for since, _ in one.prices if since <= max(first, one.begin_ms))
                ends = [then for then, _ in one.prices[1:]] + [now]
                seen = [
                    each
                    for each, then in zip(one.prices, ends, strict=True)
                    if each[0] == since or any(each[0] <= cut <= then for cut in cuts)
                ]
                least += max(
                    Fraction(0),
                    replace(one, prices=seen).cost(settled, since) - Fraction(dearest * lost_ms, (1 << 30) * HOUR_MS),
                )
        return most, least


def run_schedules(count: int, seed: int = 1) -> list[ScheduleReport]:
    """So many histories, with seeds that follow one another."""
    return [run_schedule(seed * 1_000_000 + number) for number in range(count)]
