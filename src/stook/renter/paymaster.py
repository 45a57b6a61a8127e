"""The paymaster: draws up what each farmer earned, writes it down, pays it, and signs for what was fetched.

It reads what audits and placements left in the agent's store, and decides by `stook.payments.posting`; nothing here is
on the way of an upload. What is signed is durable before it is sent, and what was sent in vain is sent again with the
next round (`docs/protocol/payments.md`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from stook.audits.containment import Silence
from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.contract import Terms
from stook.contracts.verdict import Verdict
from stook.errors import ConflictError, PeerError, RefusedError
from stook.identity.accounts import account_of
from stook.identity.keys import NodeKey, node_id_of
from stook.ids import ContractId, NetworkId, NodeId, PublicKey
from stook.money import MAX_AMOUNT, Amount, narrow
from stook.payments.account import Account, Change, KeptBatch
from stook.payments.batch import is_agreement, is_batch
from stook.payments.cheque import Drawer, judge
from stook.payments.ledger import Side
from stook.payments.messages import MAX_BATCHES, Order, OrderReply, Pay, PayMethod, PayReply
from stook.payments.orders import SIGN_EVERY_BYTES, SignedOrder, counts, is_order, newest, sign_order
from stook.payments.posting import (
    Facts,
    Held,
    Standing,
    acknowledged,
    cashed,
    disputed_line,
    draw_up,
    pay_up,
)
from stook.payments.settlement import Settlement
from stook.renter.tasks import Tasks
from stook.storage.agent_audit_ports import Dossier, HoldingTotals, KeptReceipt
from stook.storage.books import Books
from stook.storage.renter_ports import Placement, PlacementState
from stook.wire.endpoint import Peer

DAY_MS = 24 * 3_600_000
_MANY = 1_000_000
_RECEIPTS = 64
_TRIES = 4
FAREWELL_SECONDS = 3.0


class Placements(Protocol):
    """Of the agent's store what paying needs."""

    def totals(self) -> list[HoldingTotals]:
        """Sums for every farmer that holds something."""
        ...

    def placements_at(self, farmer: NodeId, after: bytes, limit: int) -> list[Placement]:
        """What stands at one farmer, erased ones left out."""
        ...

    def placement(self, contract_id: ContractId) -> Placement | None:
        """One placement, erased or not."""
        ...

    def receipts(self, farmer: NodeId | None, limit: int) -> list[KeptReceipt]:
        """Rounds of audits, newest first."""
        ...


class Farmers(Protocol):
    """Of what is known of farmers."""

    def dossier(self, farmer: NodeId) -> Dossier:
        """What is thought of one."""
        ...

    def peer(self, farmer: NodeId) -> Peer:
        """Whom to call."""
        ...


class Line(Protocol):
    """Of the endpoint."""

    async def call(self, to: Peer, method: str, payload: bytes, *, deadline_seconds: float) -> bytes:
        """Ask, and wait for the answer."""
        ...


@dataclass(frozen=True, slots=True)
class PayRules:
    """How often, and with whom at once."""

    step_seconds: float = 300.0
    """How often it is looked whom to pay."""
    every_ms: int = DAY_MS
    """Without an audit, a farmer is paid after so long."""
    call_deadline_seconds: float = 20.0
    at_once: int = 8
    chequebook: bytes = b""
    """The account that cheques are drawn on, with settlement EVM."""


@dataclass(frozen=True, slots=True)
class PayReport:
    """What one round did."""

    paid: int = 0
    """Farmers whose account is settled now: everything owed is in a cheque that they hold."""
    unreached: int = 0
    disputed: int = 0


class Paymaster:
    """The paying part of a `LocalAgent`."""

    def __init__(
        self,
        *,
        endpoint: Line,
        key: NodeKey,
        network: NetworkId,
        book: Farmers,
        store: Placements,
        books: Books,
        settlement: Settlement,
        clock: Clock,
        offload: Offload,
        rules: PayRules = PayRules(),
        chain: Offload | None = None,
        on_error: Callable[[str, Exception], None] = lambda _name, _error: None,
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._network = network
        self._book = book
        self._store = store
        self.books = books
        self.settlement = settlement
        self._clock = clock
        self._offload = offload
        self._chain = chain if chain is not None else offload
        """For what may ask the settlement: a chain that hangs holds up no disk."""
        self._rules = rules
        self._on_error = on_error
        self._alone: WeakValueDictionary[NodeId, asyncio.Lock] = WeakValueDictionary()
        self._gate = asyncio.Semaphore(rules.at_once)
        self._received: defaultdict[PublicKey, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        """Bytes by farmer and price that no order counts yet."""
        self._signing: dict[PublicKey, asyncio.Task[None]] = {}

    # --- bytes that came ---------------------------------------------------------------------------------------------

    def received(self, terms: Terms, size_bytes: int) -> None:
        """So many bytes came under this contract, verified. In memory; signed for beside the transfers."""
        price, farmer = terms.download_price_per_gib, terms.farmer_key
        if not price or not size_bytes:
            return
        waiting = self._received[farmer]
        waiting[price] += size_bytes
        if sum(waiting.values()) >= SIGN_EVERY_BYTES and farmer not in self._signing:
            self._signing[farmer] = asyncio.create_task(self._order(farmer))

    async def _order(self, farmer: PublicKey) -> None:
        """Sign for what came, until nothing more did; nobody waits for it."""
        try:
            while sum(self._received[farmer].values()) >= SIGN_EVERY_BYTES:
                orders = await self.sign_for(farmer)
                try:
                    answer = await self._call(farmer, PayMethod.ORDER, encode(Order(orders)))
                    await self._learn(farmer, decode(OrderReply, answer).orders)
                except PeerError:
                    return  # it goes along with the next one, or with the next batch
        finally:
            del self._signing[farmer]

    async def sign_for(self, farmer: PublicKey) -> tuple[SignedOrder, ...]:
        """Orders over everything that came from this farmer, kept."""
        waiting = self._received.pop(farmer, None)
        signed = []
        for price, size_bytes in waiting.items() if waiting is not None else ():
            now = self._clock.now_ms()

            def sign(total: int, price: int = price, now: int = now) -> SignedOrder:
                return sign_order(self._key, self._network, farmer, price, total, now)

            add = partial(self.books.add_received, farmer, price, size_bytes, sign, now)
            try:
                signed.append(await self._offload(add))
            except ValueError as error:
                self._on_error("pay", error)  # a price too many; what came at the others is signed for
        return tuple(signed)

    async def _learn(self, farmer: PublicKey, orders: Sequence[SignedOrder]) -> None:
        """Orders of ours that the farmer holds; higher than ours only when we lost our books."""
        mine = [each for each in orders if is_order(each, self._network, self._key.public_key, farmer)]
        for _ in range(_TRIES):
            account = await self._offload(lambda: self.books.account(node_id_of(farmer)))
            known = counts(account.orders) if account is not None else {}
            higher = [each for each in mine if each.order.received_bytes > known.get(each.order.price_per_gib, 0)]
            if not higher:
                return
            if account is None or not account.floor_seq:
                now = self._clock.now_ms()
                await self._offload(partial(self.books.add_orders, farmer, higher, now))
                return
            # Signed before the books were lost: what it charges was in a batch, as far as we can tell.
            orders = newest(account.orders, higher)
            learned = replace(account, orders=orders, billed=_billed(account, higher))
            with contextlib.suppress(ConflictError):
                await self._post(Change(learned))
                return

    @property
    def unsigned_bytes(self) -> int:
        """Bytes that came and that no order counts yet: what a kill would lose."""
        return sum(sum(waiting.values()) for waiting in self._received.values())

    async def aclose(self) -> None:
        """Sign for what came and end the tasks. What was signed is kept, and sent with the next batch."""
        for task in list(self._signing.values()):
            task.cancel()
        await asyncio.gather(*self._signing.values(), return_exceptions=True)
        calls = []
        for farmer, waiting in list(self._received.items()):
            came, orders = sum(waiting.values()), await self.sign_for(farmer)
            total = sum(counts(orders).values())
            # Short-lived processes tell it as often as long-lived ones do: once in so many bytes, in all.
            if total // SIGN_EVERY_BYTES > (total - came) // SIGN_EVERY_BYTES:
                calls.append(self._call(farmer, PayMethod.ORDER, encode(Order(orders)), FAREWELL_SECONDS))
        await asyncio.gather(*calls, return_exceptions=True)

    # --- rounds ------------------------------------------------------------------------------------------------------

    async def pay_due(self) -> PayReport:
        """Pay everybody that was audited since the last time, or not paid for long."""
        return await self._round(everybody=False)

    async def pay_all(self) -> PayReport:
        """Pay everybody up to now."""
        return await self._round(everybody=True)

    async def _round(self, *, everybody: bool) -> PayReport:
        for farmer_key in list(self._received):
            await self.sign_for(farmer_key)
        keys = await self._offload(self._farmers)
        due = [key for key in keys.values() if everybody or await self._is_due(key)]
        async with Tasks() as group:
            tasks = [group.create_task(self._pay(key)) for key in due]
        found = [task.result() for task in tasks]
        return PayReport(
            paid=sum(account is not None and account.delivered >= account.owed for account in found),
            unreached=sum(account is None for account in found),
            disputed=sum(account is not None and account.disputed > 0 for account in found),
        )

    def _farmers(self) -> dict[NodeId, PublicKey]:
        """Everybody with an account, or with something stored that has a price. Blocks."""
        found = {account.partner: account.partner_key for account in self.books.accounts()}
        for totals in self._store.totals():
            if totals.farmer in found:
                continue
            for placement in self._store.placements_at(totals.farmer, b"", _MANY):
                terms = placement.contract.terms
                if placement.state is PlacementState.STORED and terms.storage_price_per_gib_hour:
                    found[totals.farmer] = terms.farmer_key
                    break
        return found

    async def _is_due(self, key: PublicKey) -> bool:
        farmer, now = node_id_of(key), self._clock.now_ms()
        account = await self._offload(lambda: self.books.account(farmer))
        if account is None or now - account.cut_ms >= self._rules.every_ms or account.delivered < account.owed:
            return True
        rounds = await self._offload(lambda: self._store.receipts(farmer, 1))
        return bool(rounds) and rounds[0].judged_ms > account.cut_ms

    async def _pay(self, key: PublicKey) -> Account | None:
        """One farmer's account up to now; the account, or None when it does not answer."""
        farmer = node_id_of(key)
        lock = self._alone.setdefault(farmer, asyncio.Lock())
        async with self._gate, lock:
            for _ in range(_TRIES):
                try:
                    await self._note_silence(farmer)
                    return await self._settle(key, farmer)
                except ConflictError:
                    continue  # another process of ours pays as well: look again
                except PeerError:
                    return None
                except (ValueError, ArithmeticError) as error:
                    # Figures of this one farmer that do not fit: the others are paid all the same.
                    self._on_error("pay", error)
                    return None
        return None

    async def _note_silence(self, farmer: NodeId) -> None:
        """An audit found it silent: what passes until it proves itself is a gap, however long nobody looks."""
        if self._book.dossier(farmer).silence.state in (Silence.CONTAINED, Silence.OFFLINE):
            account = await self._offload(lambda: self.books.account(farmer))
            if account is not None and account.seq and not account.silent_ms:
                await self._post(Change(replace(account, silent_ms=self._clock.now_ms())))

    async def _settle(self, key: PublicKey, farmer: NodeId) -> Account:
        reply = await self._ask(key, Pay((), None))
        account = await self._offload(lambda: self.books.account(farmer)) or Account(key)
        if reply.seq > account.seq:
            account = await self._adopt(account, reply)
        facts = await self._facts(account, farmer)
        if facts is not None:
            spans = await self._offload(lambda: self.books.open_spans(farmer))
            changes = draw_up(account, spans, facts, self._network, self._key)
            last = changes[-1].account if changes else account
            last = replace(last, version=account.version + len(changes))
            drawer = await self._chain(lambda: self._drawer(key))
            cheque = pay_up(last, drawer, self._key, facts.now_ms)
            if cheque is not None:
                changes.append(cheque)
            if changes:
                await self._offload(lambda: self.books.post(*changes))
        await self._ask_again(key, farmer, reply.seq)
        await self._deliver(key, farmer, reply)
        await self._note_cashed(key, farmer)
        return await self._offload(lambda: self.books.account(farmer)) or Account(key)

    async def _ask_again(self, key: PublicKey, farmer: NodeId, seq: int) -> None:
        """Of batches that the farmer has, fetch the agreements whose replies were lost."""
        unanswered = await self._offload(partial(self.books.unanswered, farmer, seq, MAX_BATCHES))
        if not unanswered:
            return
        with contextlib.suppress(RefusedError):  # it holds others: that is no reason not to pay it
            reply = await self._ask(key, Pay(tuple(each.signed for each in unanswered), None))
            account = await self._offload(lambda: self.books.account(farmer)) or Account(key)
            await self._note(account, unanswered, reply)

    async def _deliver(self, key: PublicKey, farmer: NodeId, reply: PayReply) -> None:
        """Send what the farmer does not have, batch by batch, and the newest cheque with the last."""
        seq, paid = reply.seq, narrow(reply.paid)
        while True:
            missing = await self._offload(partial(self.books.batches, farmer, seq, MAX_BATCHES))
            account = await self._offload(lambda: self.books.account(farmer)) or Account(key)
            last = not missing or missing[-1].signed.batch.seq == account.seq
            cheque = account.cheque if last and account.drawn > paid else None
            if not missing and cheque is None:
                await self._post(acknowledged(account, paid, self._clock.now_ms()))
                return
            reply = await self._ask(key, Pay(tuple(each.signed for each in missing), cheque))
            await self._note(account, missing, reply)
            if reply.seq <= seq and missing:
                return  # it does not go on: asked again with the next round
            seq, paid = reply.seq, narrow(reply.paid)
            if last:
                return

    async def _note(self, account: Account, sent: Sequence[KeptBatch], reply: PayReply) -> None:
        """What the farmer made of the batches, and of the cheque."""
        kept, lines, claimed, now = [], [], 0, self._clock.now_ms()
        for one, agreement in zip(sent, reply.agreements, strict=False):
            batch = one.signed.batch
            if one.agreement is None and is_agreement(agreement, batch):
                kept.append(KeptBatch(one.signed, agreement))
                beyond = max(0, narrow(agreement.storage) - narrow(batch.storage))
                beyond += max(0, narrow(agreement.download) - narrow(batch.download))
                # A claim that no book holds is none: its agreement is kept, and counts for nothing.
                if beyond and account.disputed + claimed + beyond <= MAX_AMOUNT:
                    claimed += beyond
                    lines.append(disputed_line(Side.PAYER, batch, beyond, now))
        if kept:
            after = replace(account, disputed=type(account.disputed)(account.disputed + claimed))
            await self._post(Change(after, tuple(kept), lines=tuple(lines)))
            account = replace(after, version=account.version + 1)
        await self._post(acknowledged(account, narrow(reply.paid), now))

    async def note_cashed(self) -> None:
        """Ask the chain what every farmer has redeemed, and write it down."""
        for account in await self._offload(self.books.accounts):
            await self._note_cashed(account.partner_key, account.partner)

    async def _note_cashed(self, key: PublicKey, farmer: NodeId) -> None:
        drawer = await self._chain(lambda: self._drawer(key))
        paid_out = await self._chain(lambda: self.settlement.paid_out(drawer))
        account = await self._offload(lambda: self.books.account(farmer))
        if account is not None and account.cheque is not None and judge(account.cheque, drawer, None).fault is None:
            await self._post(cashed(account, Side.PAYER, min(paid_out, account.delivered), self._clock.now_ms()))

    def _drawer(self, farmer: PublicKey) -> Drawer:
        return self.settlement.drawer(self._key.public_key, farmer, self._rules.chequebook)

    async def _post(self, change: Change | None) -> None:
        if change is not None:
            await self._offload(lambda: self.books.post(change))

    # --- what is known -----------------------------------------------------------------------------------------------

    async def _facts(self, account: Account, farmer: NodeId) -> Facts | None:
        """What there is to pay for; None while the farmer is silent: nothing is paid before it proves itself."""
        silence = self._book.dossier(farmer).silence.state
        if silence in (Silence.CONTAINED, Silence.OFFLINE):
            return None
        return await self._offload(lambda: self._read_facts(account, farmer, silence))

    def _read_facts(self, account: Account, farmer: NodeId, silence: Silence) -> Facts | None:
        spans = self.books.open_spans(farmer)
        placements = {each.contract_id: each for each in self._store.placements_at(farmer, b"", _MANY)}
        for name in spans.keys() - placements.keys():
            found = self._store.placement(name)
            if found is not None:
                placements[name] = found
        held = [one for each in placements.values() if (one := _held(each, spans, silence)) is not None]
        since = [each for each in self._store.receipts(farmer, _RECEIPTS) if each.judged_ms > account.cut_ms]
        silent = [each for each in since if each.outcome is Verdict.SILENT]
        gap_until = 0
        if silent and account.seq:
            after = [each.judged_ms for each in since if each.judged_ms > silent[0].judged_ms]
            if not after and silence is Silence.CLEAR:
                return None
            gap_until = min(after, default=0)
        if account.silent_ms:
            proved = [each.judged_ms for each in since if each.judged_ms > account.silent_ms]
            gap_until = max(gap_until, min(proved, default=self._clock.now_ms()))
        return Facts(
            held=held,
            paid_before=self.books.paid_before(farmer, [each.contract_id for each in held]),
            orders=account.orders,
            receipt=since[0].challenge if since else b"",
            gap_until_ms=gap_until,
            gap_receipt=silent[0].challenge if silent else b"",
            now_ms=self._clock.now_ms(),
        )

    async def _adopt(self, account: Account, reply: PayReply) -> Account:
        """We lost our books, and the farmer shows the last that we signed: go on from there.

        What was open there begins anew where it ended. Raises `ConflictError` when it is not our signature.
        """
        signed, cheque = reply.last_batch, reply.last_cheque
        mine = self._key.public_key
        if signed is None or not is_batch(signed, mine) or signed.batch.payee_key != account.partner_key:
            raise ConflictError("the farmer names a batch that we did not sign")
        if signed.batch.seq != reply.seq or signed.batch.seq <= account.seq:
            raise ConflictError(
                f"the farmer says {reply.seq} and shows batch {signed.batch.seq}; ours is {account.seq}"
            )
        if cheque is not None:
            # Of whatever chequebook: the sum was paid, and `pay_up` goes on with no other.
            said = cheque.cheque
            drawer = Drawer(mine, said.chain_id, said.chequebook, account_of(account.partner_key))
            if judge(cheque, drawer, None).fault is not None:
                cheque = None
        batch, known = signed.batch, account.cheque
        if cheque is not None and cheque.cheque.amount > account.drawn:
            known = cheque
        shown = (*reply.orders, *batch.orders)
        shown = tuple(each for each in shown if is_order(each, self._network, mine, account.partner_key))
        # An order that is held back now charges nothing later: what any of them counts passes for billed.
        orders = newest(account.orders, shown)
        spans = await self._offload(lambda: self.books.open_spans(account.partner))
        closed = tuple(span.closed(batch.to_ms, batch.seq) for span in spans.values())
        drawn = known.cheque.amount if known is not None else 0
        after = replace(
            account,
            seq=batch.seq,
            cut_ms=batch.to_ms,
            owed=narrow(batch.owed),
            head=batch.digest,
            cheque=known,
            orders=orders,
            billed=_billed(account, orders),
            delivered=Amount(min(narrow(reply.paid), drawn)),
            floor_seq=batch.seq,
            floor_ms=batch.to_ms,
        )
        await self._offload(lambda: self.books.post(Change(after, (KeptBatch(signed),), closed=closed)))
        return replace(after, version=after.version + 1)

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _ask(self, key: PublicKey, request: Pay) -> PayReply:
        return decode(PayReply, await self._call(key, PayMethod.PAY, encode(request)))

    async def _call(self, key: PublicKey, method: PayMethod, payload: bytes, seconds: float = 0.0) -> bytes:
        deadline = seconds or self._rules.call_deadline_seconds
        return await self._endpoint.call(self._book.peer(node_id_of(key)), method, payload, deadline_seconds=deadline)


def _billed(account: Account, orders: Iterable[SignedOrder]) -> dict[int, int]:
    """Bytes by price that are charged, when everything is that these orders count."""
    billed = dict(account.billed)
    for price, received in counts(orders).items():
        billed[price] = max(received, billed.get(price, 0))
    return billed


def _held(placement: Placement, spans: Iterable[ContractId], silence: Silence) -> Held | None:
    """A placement as far as paying goes; None for what was never stored."""
    terms, state = placement.contract.terms, placement.state
    if state is PlacementState.STORED:
        return Held(terms, Standing.STORED)
    if placement.contract_id not in spans:
        return None
    if state is PlacementState.CANCELLING:
        return Held(terms, Standing.STORED)  # it stands there until the farmer says that it erased it
    if state is PlacementState.ERASED:
        return Held(terms, Standing.ERASED, placement.erased.receipt.erased_at_ms if placement.erased else 0)
    lost = {Silence.CONDEMNED: Standing.FAILED, Silence.GONE: Standing.GONE}
    return Held(terms, lost.get(silence, Standing.LOST))
