"""The till: takes batches, orders and cheques, knows what is unpaid, and says whether a renter is served.

Serves PAY and ORDER (`docs/protocol/payments.md`). On the way of a transfer there is a look into memory and nothing
else: what is unpaid is added up by a chore, what is served is counted in memory, and orders heal a count that is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from structlog.typing import FilteringBoundLogger

from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.contract import Settlement as Kind
from stook.contracts.contract import Terms
from stook.contracts.lifecycle import ContractState
from stook.errors import ConflictError, MisbehaviourError, ReasonCode, RefusedError
from stook.identity.keys import NodeKey, node_id_of
from stook.ids import ContractId, NetworkId, NodeId, PublicKey
from stook.money import narrow, wide
from stook.payments.account import Account, Change
from stook.payments.batch import Agreement, Batch, BatchKind, SignedBatch, is_batch
from stook.payments.cheque import Drawer, SignedCheque, judge
from stook.payments.enforcement import CreditRules, Step, Unpaid, decide, unpaid
from stook.payments.ledger import Side
from stook.payments.messages import Order, OrderReply, Pay, PayReply
from stook.payments.orders import is_order, may_serve, newest
from stook.payments.posting import Held, Known, Standing, cashed, deposit, take
from stook.payments.settlement import Cashed, Settlement
from stook.storage.books import Books
from stook.storage.ports import ContractStore
from stook.wire.endpoint import Exchange

_TRIES = 4
_BATCHES_SEEN = 32
_STANDINGS = {ContractState.ACTIVE: Standing.STORED, ContractState.LOST: Standing.LOST}


@dataclass(slots=True)
class _Served:
    """Bytes of one renter at one price."""

    served: int = 0
    """Since the first order that is held, as far as this process knows."""
    signed: int = 0


@dataclass(frozen=True, slots=True)
class RenterStanding:
    """How one renter stands with this farmer."""

    step: Step
    unpaid: Unpaid


class Till:
    """The earning part of a farmer."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network: NetworkId,
        contracts: ContractStore,
        books: Books,
        settlement: Settlement,
        clock: Clock,
        offload: Offload,
        log: FilteringBoundLogger,
        rules: CreditRules | None = None,
        chain: Offload | None = None,
    ) -> None:
        self._key = key
        self._network = network
        self._contracts = contracts
        self.books = books
        self.settlement = settlement
        self._clock = clock
        self._offload = offload
        self._chain = chain if chain is not None else offload
        """For what may ask the settlement: a chain that hangs holds up no disk."""
        self._log = log
        self._rules = rules if rules is not None else CreditRules()
        self._started_ms = clock.now_ms()
        self._alone: WeakValueDictionary[NodeId, asyncio.Lock] = WeakValueDictionary()
        self._served: dict[tuple[PublicKey, int], _Served] = {}
        self._since_ms: dict[PublicKey, int] = {}
        self.standings: dict[PublicKey, RenterStanding] = {}
        """As of the last time it was added up."""

    # --- on the way of a transfer ------------------------------------------------------------------------------------

    def admit(self, renter_key: PublicKey) -> None:
        """Raise PAYMENT_DUE when this renter is not served because it does not pay."""
        standing = self.standings.get(renter_key)
        if standing is not None and standing.step in (Step.STOP, Step.DROP):
            raise RefusedError(ReasonCode.PAYMENT_DUE, f"{standing.unpaid.total} units are unpaid here")

    def reserve(self, terms: Terms, size_bytes: int) -> None:
        """Count bytes that are about to be sent; PAYMENT_DUE when too many are not signed for."""
        if not (price := terms.download_price_per_gib):
            return
        self.admit(terms.renter_key)
        counted = self._counted(terms.renter_key, price)
        since = self._since_ms.setdefault(terms.renter_key, self._clock.now_ms())
        if not may_serve(counted.served, counted.signed, size_bytes, self._clock.now_ms() - since):
            raise RefusedError(
                ReasonCode.PAYMENT_DUE, f"{counted.served - counted.signed} bytes sent are not signed for"
            )
        counted.served += size_bytes

    def release(self, terms: Terms, unsent_bytes: int) -> None:
        """Of what was reserved so much was not sent."""
        if terms.download_price_per_gib and unsent_bytes:
            self._counted(terms.renter_key, terms.download_price_per_gib).served -= unsent_bytes

    def _counted(self, renter_key: PublicKey, price: int) -> _Served:
        counted = self._served.get((renter_key, price))
        if counted is None:
            counted = self._served[renter_key, price] = _Served()
        return counted

    def _signed_for(self, account: Account) -> None:
        """Take note of the orders held. Bytes signed for were served, though a restart forgot it."""
        for each in account.orders:
            counted = self._counted(account.partner_key, each.order.price_per_gib)
            counted.signed = max(counted.signed, each.order.received_bytes)
            counted.served = max(counted.served, counted.signed)
        if account.since_ms:
            self._since_ms[account.partner_key] = account.since_ms

    # --- ORDER -------------------------------------------------------------------------------------------------------

    async def order(self, exchange: Exchange, payload: bytes) -> None:
        """Keep who fetches' word for bytes; answer with the newest word held."""
        request, renter = decode(Order, payload), exchange.peer_key
        account = await self._offload(lambda: self._keep_orders(renter, request))
        self._signed_for(account)
        await exchange.reply(encode(OrderReply(account.orders)))

    def _keep_orders(self, renter: PublicKey, request: Order) -> Account:
        for each in request.orders:
            if not is_order(each, self._network, renter, self._key.public_key):
                raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "an order that the caller did not sign for us")
        if request.orders:
            self._expect(renter)
        known = self.books.account(node_id_of(renter)) or Account(renter)
        try:
            newest(known.orders, request.orders)
        except ValueError as error:
            raise RefusedError(ReasonCode.RATE_LIMITED, str(error)) from None
        if request.orders:
            self.books.add_orders(renter, request.orders, self._clock.now_ms())
        return self.books.account(node_id_of(renter)) or Account(renter)

    # --- PAY ---------------------------------------------------------------------------------------------------------

    async def pay(self, exchange: Exchange, payload: bytes) -> None:
        """Take the next batches and the cheque, durably, and say where the account stands."""
        request, renter = decode(Pay, payload), exchange.peer_key
        lock = self._alone.setdefault(exchange.peer_id, asyncio.Lock())
        async with lock:
            if request.batches or request.cheque:
                await self._offload(lambda: self._expect(renter))
            agreements = await self._offload(lambda: self._take_all(renter, request))
            if (cheque := request.cheque) is not None:
                await self._chain(lambda: self._deposit(renter, node_id_of(renter), cheque))
            reply = await self._offload(lambda: self._reply(renter, agreements))
        if request.batches or request.cheque:
            await self._chain(lambda: self._add_up(renter))
        await exchange.reply(encode(reply))

    def _expect(self, renter: PublicKey) -> None:
        """Raise UNKNOWN_CONTRACT for who never had a contract here: nothing of a stranger's is written down."""
        account = self.books.account(node_id_of(renter))
        if (account is None or not account.seq) and not self._contracts.owned_by(renter, b"", 1):
            raise RefusedError(ReasonCode.UNKNOWN_CONTRACT, "no contract of yours is here, and none was paid for")

    def _take_all(self, renter: PublicKey, request: Pay) -> tuple[Agreement, ...]:
        return tuple(self._take(renter, node_id_of(renter), signed) for signed in request.batches)

    def _reply(self, renter: PublicKey, agreements: tuple[Agreement, ...]) -> PayReply:
        partner = node_id_of(renter)
        account = self.books.account(partner) or Account(renter)
        last = self.books.batch(partner, account.seq) if account.seq else None
        self._signed_for(account)
        return PayReply(
            seq=account.seq,
            agreements=agreements,
            paid=wide(account.drawn),
            last_batch=last.signed if last is not None else None,
            last_cheque=account.cheque,
            orders=account.orders,
        )

    def _take(self, renter: PublicKey, partner: NodeId, signed: SignedBatch) -> Agreement:
        batch = signed.batch
        if batch.network != self._network:
            raise RefusedError(ReasonCode.WRONG_NETWORK, f"a batch in network {batch.network}")
        if batch.payee_key != self._key.public_key:
            raise RefusedError(ReasonCode.WRONG_RECIPIENT, "a batch for another farmer")
        if not is_batch(signed, renter):
            raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "a batch that the caller did not sign")
        for each in batch.orders:
            if not is_order(each, self._network, renter, self._key.public_key):
                raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "an order that the caller did not sign for us")
        for _ in range(_TRIES):
            account = self.books.account(partner) or Account(renter)
            if batch.seq <= account.seq:
                kept = self.books.batch(partner, batch.seq)
                if kept is None or kept.agreement is None or kept.signed.batch != batch:
                    raise RefusedError(ReasonCode.BATCH_OUT_OF_ORDER, f"we hold another batch {batch.seq}")
                return kept.agreement
            if batch.seq != account.seq + 1 or batch.previous != account.head or not _follows(batch, account):
                raise RefusedError(ReasonCode.BATCH_OUT_OF_ORDER, f"our last batch is {account.seq}")
            change = self._judge(account, partner, signed)
            try:
                self.books.post(change)
            except ConflictError:
                continue
            agreement = change.batches[0].agreement
            if agreement is not None:
                if not agreement.agreed:
                    self._log.warning("batch disputed", renter=partner.hex(), batch=batch.seq, why=agreement.detail)
                return agreement
        raise RefusedError(ReasonCode.BUSY, "somebody else writes into our books", retry_after_ms=1000)

    def _judge(self, account: Account, partner: NodeId, signed: SignedBatch) -> Change:
        batch = signed.batch
        spans = self.books.open_spans(partner)
        if narrow(batch.owed) != account.owed + batch.amount:
            raise RefusedError(ReasonCode.BATCH_OUT_OF_ORDER, "what it owes in all is not what all batches owe")
        try:
            newest(account.orders, batch.orders)
        except ValueError as error:
            raise RefusedError(ReasonCode.RATE_LIMITED, str(error)) from None
        names = {each.contract_id for each in batch.opened} | {each.contract_id for each in batch.closed}
        names |= set(spans) if batch.kind is BatchKind.RESTART else set()
        opened = [each.contract_id for each in batch.opened]
        there = self._started_ms <= batch.from_ms
        if batch.kind is BatchKind.GAP and len(batch.receipt) == 32:
            kept = self._contracts.audits.round(batch.receipt)
            there = there or (kept is not None and bool(kept.heads))
        known = Known(
            held=self._held_by(account.partner_key, names),
            was_there=there,
            now_ms=self._clock.now_ms(),
            floor_ms=self._floor(partner, account.seq),
            paid_before=self.books.paid_before(partner, opened),
            left_ms=self._left(partner, opened),
        )
        return take(account, spans, signed, known, self._key)

    def _floor(self, partner: NodeId, seq: int) -> int:
        """Where the last gap or restart ended, as far as the newest batches tell."""
        newest_batches = self.books.batches(partner, max(0, seq - _BATCHES_SEEN), _BATCHES_SEEN)
        broken = [one.signed.batch.to_ms for one in newest_batches if one.signed.batch.kind is not BatchKind.EARNED]
        return max(broken, default=0)

    def _left(self, partner: NodeId, names: list[ContractId]) -> Mapping[ContractId, int]:
        """Those of these contracts whose last closing we disputed, and where that batch ended."""
        last = self.books.closed_last(partner, names)
        batches = {seq: self.books.batch(partner, seq) for seq in set(last.values())}
        disputed = {
            seq: kept.signed.batch.to_ms
            for seq, kept in batches.items()
            if kept is not None and kept.agreement is not None and not kept.agreement.agreed
        }
        return {name: disputed[seq] for name, seq in last.items() if seq in disputed}

    def _held_by(self, renter: PublicKey, names: set[ContractId]) -> Mapping[ContractId, Held]:
        found = ((name, self._contracts.get(name)) for name in names)
        return {
            name: Held(one.contract.terms, _STANDINGS.get(one.state, Standing.ERASED))
            for name, one in found
            if one is not None and one.contract.terms.renter_key == renter
        }

    def _deposit(self, renter: PublicKey, partner: NodeId, signed: SignedCheque) -> None:
        drawer = self.settlement.drawer(renter, self._key.public_key, signed.cheque.chequebook)
        for _ in range(_TRIES):
            account = self.books.account(partner) or Account(renter)
            covered = self._cover(account, drawer, signed)
            taken = deposit(account, signed, drawer, covered, self._clock.now_ms())
            if taken.judgement.fault is not None:
                self._log.warning("cheque refused", renter=partner.hex(), why=taken.judgement.fault.value)
                raise RefusedError(ReasonCode.CHEQUE_INVALID, taken.judgement.fault.value)
            if taken.change is None:
                return
            try:
                self.books.post(taken.change)
            except ConflictError:
                continue
            return
        raise RefusedError(ReasonCode.BUSY, "somebody else writes into our books", retry_after_ms=1000)

    def _cover(self, account: Account, drawer: Drawer, signed: SignedCheque) -> int | None:
        """What stands behind a cheque; the chain is asked only about one that would be taken otherwise."""
        judgement = judge(signed, drawer, account.cheque)
        if judgement.fault is not None or judgement.again:
            return None
        covered, payable = self.settlement.covered(drawer), self.settlement.redeemable(drawer, signed)
        if covered is None or payable is None or covered < signed.cheque.amount:
            return covered
        # The contract may have begun with a made-up sum paid out: only what was paid in truth needs no redeeming.
        real = account.cashed + payable
        if real < signed.cheque.amount:
            real = self.settlement.received(drawer) + payable
        return min(covered, real)

    # --- what is unpaid ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what was signed for before, so that what is served from now on is counted on top of it."""
        for account in await self._offload(self.books.accounts):
            self._signed_for(account)

    async def collect(self) -> int:
        """Add up what every renter owes and decide about it; how many are not served."""
        renters = await self._offload(self._renters)
        for renter in renters:
            await self._chain(lambda renter=renter: self._add_up(renter))  # type: ignore[misc]
        return sum(each.step in (Step.STOP, Step.DROP) for each in self.standings.values())

    def _renters(self) -> list[PublicKey]:
        return sorted({account.partner_key for account in self.books.accounts()} | set(self._contracts.renters()))

    def _add_up(self, renter: PublicKey) -> None:
        now, partner = self._clock.now_ms(), node_id_of(renter)
        held, after = list[Held](), b""
        while page := self._contracts.owned_by(renter, after, 500):
            held += [Held(one.contract.terms, Standing.STORED) for one in page if one.state is ContractState.ACTIVE]
            after = page[-1].contract_id
        unsigned = {
            price: max(0, counted.served - counted.signed)
            for (key, price), counted in self._served.items()
            if key == renter
        }
        account = self.books.account(partner)
        uncovered = self._uncovered(account) if account is not None else 0
        owed = unpaid(account, self.books.open_spans(partner), held, unsigned, now, uncovered, self._since(account))
        step, before = decide(owed, self._rules, now), self.standings.get(renter)
        self.standings[renter] = RenterStanding(step, owed)
        if before is None or before.step is not step:
            log = self._log.info if step is Step.SERVE else self._log.warning
            log("renter's standing", renter=partner.hex(), step=step.value, unpaid=owed.total)

    def _since(self, account: Account | None) -> int:
        """Where the first batch began that is not paid in whole, or when we first disputed one; 0: there is none."""
        if account is None:
            return 0
        paid, low, high = account.drawn + account.bartered, 1, account.seq
        found = [line.at_ms for line in self.books.disputes(account.partner, 1)] if account.disputed else []
        if account.owed > paid:
            while low < high:  # sums only grow along the chain
                middle = (low + high) // 2
                kept = self.books.batch(account.partner, middle)
                beyond = kept is None or narrow(kept.signed.batch.owed) > paid
                low, high = (low, middle) if beyond else (middle + 1, high)
            first = self.books.batch(account.partner, low)
            found += [first.signed.batch.from_ms] if first is not None else []
        return min(found, default=0)

    def _uncovered(self, account: Account) -> int:
        """What of the cheque held could not be redeemed now: others may have been faster, or money was asked back."""
        if account.cheque is None:
            return 0
        drawer = self.settlement.drawer(account.partner_key, self._key.public_key, account.cheque.cheque.chequebook)
        covered = self.settlement.covered(drawer)
        return 0 if covered is None else max(0, account.drawn - covered)


def cash(books: Books, settlement: Settlement, key: NodeKey, partner: NodeId, now_ms: int) -> Cashed | None:
    """Redeem one partner's cheque and write down what came of it. Blocks."""
    account = books.account(partner)
    if account is None or account.cheque is None or settlement.kind is Kind.LEDGER:
        return None
    drawer = settlement.drawer(account.partner_key, key.public_key, account.cheque.cheque.chequebook)
    done, before = None, account.cashed
    if settlement.paid_out(drawer) > before:
        before = max(before, settlement.received(drawer))  # killed before it was written down, or redeemed by others
    if account.drawn > before:
        done = settlement.cash(drawer, account.cheque)
    total = before + (done.paid if done is not None else 0)
    for _ in range(_TRIES):
        now = books.account(partner)
        change = cashed(now, Side.PAYEE, total, now_ms) if now is not None else None
        if change is None:
            return done
        try:
            books.post(change)
        except ConflictError:
            continue
        return done
    return done


def _follows(batch: Batch, account: Account) -> bool:
    """Whether a batch begins where the last one ended: no time is left out."""
    return not account.seq or batch.from_ms == account.cut_ms
