"""What the two sides make of time, contracts and batches: the payer draws up, the payee goes through. Pure.

`draw_up` takes what the payer knows and gives signed steps to be stored, then sent. `take` takes such a batch and what
the payee knows, and gives the step that it stores, with its agreement (`docs/protocol/payments.md`).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stook.contracts.contract import Terms
from stook.errors import ConfigError
from stook.identity.keys import SigningKey, node_id_of
from stook.ids import ContractId, NetworkId
from stook.money import Amount, narrow, wide
from stook.payments.account import Account, Change, KeptBatch
from stook.payments.batch import (
    BATCH_VERSION,
    MAX_CHANGES,
    Batch,
    BatchKind,
    Closing,
    Opening,
    Reason,
    SignedBatch,
    sign_agreement,
    sign_batch,
)
from stook.payments.cheque import Drawer, Fault, Judgement, SignedCheque, draw_cheque, judge
from stook.payments.ledger import Kind, Line, Side
from stook.payments.orders import SignedOrder, counts, newest
from stook.payments.tariff import TARIFF_VERSION, Span, download_owed, storage_owed


class Standing(enum.Enum):
    """How a contract stands with one side, as far as paying goes."""

    STORED = 1
    ERASED = 2
    LOST = 3
    FAILED = 4
    GONE = 5


@dataclass(frozen=True, slots=True)
class Held:
    """A contract as one side knows it."""

    terms: Terms
    standing: Standing
    over_ms: int = 0
    """When it was erased, as its farmer signed; 0: not known."""
    contract_id: ContractId = field(init=False)
    """The contract's id, made once: it is a hash."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "contract_id", self.terms.contract_id)


_REASONS = {
    Standing.ERASED: Reason.ERASED,
    Standing.LOST: Reason.LOST,
    Standing.FAILED: Reason.FAILED,
    Standing.GONE: Reason.GONE,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the payer knows about one payee at one moment."""

    held: Sequence[Held]
    """Every contract that stores something there, and every one with an open span."""
    paid_before: Collection[ContractId]
    """Those among them that were paid for once and closed."""
    orders: tuple[SignedOrder, ...]
    receipt: bytes
    """Challenge digest of the newest audit receipt since the last batch, or empty."""
    gap_until_ms: int
    """An audit found it silent since the last batch, and it proved itself then; 0: no gap."""
    gap_receipt: bytes
    now_ms: int


# --- the payer -------------------------------------------------------------------------------------------------------


def draw_up(
    account: Account, spans: Mapping[ContractId, Span], facts: Facts, network: NetworkId, key: SigningKey
) -> list[Change]:
    """The next batches, signed, each a step from the one before; none when there is nothing to say.

    Store each before it is sent. `spans` are the open ones.
    """
    to_ms = max(facts.now_ms, account.cut_ms)
    from_ms = account.cut_ms if account.seq else to_ms
    open_spans, changes = dict(spans), []
    restart = account.seq > 0 and account.seq == account.floor_seq
    gap_ms, floor_ms = min(facts.gap_until_ms, to_ms), account.floor_ms
    if account.seq and not restart and gap_ms > from_ms:
        step = _step(account, open_spans, (), (), (), network, key, from_ms, gap_ms, facts.gap_receipt, BatchKind.GAP)
        changes.append(step)
        account, from_ms, floor_ms = _after(step.account), gap_ms, gap_ms
    if restart:
        facts = replace(facts, paid_before=())  # a restart closed all of them, and they go on where it did
    opened, closed = _moves(floor_ms, open_spans, facts, from_ms, to_ms)
    kind = BatchKind.RESTART if restart else BatchKind.EARNED
    orders = tuple(order for order in facts.orders if _is_new(order, account.billed))
    if not (opened or closed or orders or restart or (open_spans and to_ms > from_ms)):
        return changes
    while len(opened) > MAX_CHANGES or len(closed) > MAX_CHANGES:
        some, opened, closed = _first(opened, closed, facts.paid_before, from_ms)
        step = _step(account, open_spans, *some, (), network, key, from_ms, from_ms, b"", kind)
        changes.append(step)
        kind, account = BatchKind.EARNED, _after(step.account)
    changes.append(
        _step(account, open_spans, opened, closed, orders, network, key, from_ms, to_ms, facts.receipt, kind)
    )
    return changes


def _first(
    opened: list[_Open], closed: list[Closing], paid_before: Collection[ContractId], from_ms: int
) -> tuple[tuple[list[_Open], list[Closing]], list[_Open], list[Closing]]:
    """What goes into a batch without time, and what is left; a renewal's two halves stay together."""
    names = {each.terms.contract_id for each in opened} | {each.contract_id for each in closed}
    now = set(sorted(names)[:MAX_CHANGES])
    # What begins again does so where its batch ends, and this one ends at once.
    renewed = {each.contract_id for each in closed}
    first = [
        _Open(each.terms, from_ms)
        if each.terms.contract_id in paid_before and each.terms.contract_id not in renewed
        else each
        for each in opened
        if each.terms.contract_id in now
    ]
    return (
        (first, [each for each in closed if each.contract_id in now]),
        [each for each in opened if each.terms.contract_id not in now],
        [each for each in closed if each.contract_id not in now],
    )


def _after(account: Account) -> Account:
    """The account as it stands once its change is stored."""
    return replace(account, version=account.version + 1)


def _is_new(signed: SignedOrder, billed: Mapping[int, int]) -> bool:
    return signed.order.received_bytes > billed.get(signed.order.price_per_gib, 0)


@dataclass(frozen=True, slots=True)
class _Open:
    terms: Terms
    start_ms: int


def _moves(
    floor_ms: int, spans: Mapping[ContractId, Span], facts: Facts, from_ms: int, to_ms: int
) -> tuple[list[_Open], list[Closing]]:
    """Which contracts begin and cease to be paid."""
    opened: list[_Open] = []
    closed: list[Closing] = []
    seen = set()
    for held in sorted(facts.held, key=lambda each: each.contract_id):
        name, span, terms = held.contract_id, spans.get(held.contract_id), held.terms
        seen.add(name)
        if span is None:
            again = name in facts.paid_before
            ended = again and terms.end_ms <= from_ms
            if held.standing is Standing.STORED and not ended and terms.begin_ms <= to_ms:
                opened.append(_Open(terms, to_ms if again else max(terms.begin_ms, floor_ms)))
        elif held.standing is not Standing.STORED:
            stop = held.over_ms if held.standing is Standing.ERASED and held.over_ms else from_ms
            closed.append(Closing(name, min(max(stop, from_ms), to_ms), _REASONS[held.standing]))
        elif terms.revision > span.revision:
            at = min(max(terms.begin_ms, from_ms, span.start_ms), to_ms)
            closed.append(Closing(name, at, Reason.RENEWED))
            opened.append(_Open(terms, at))
        elif span.stop_ms <= to_ms:
            closed.append(Closing(name, span.stop_ms, Reason.ENDED))
    closed += [Closing(name, from_ms, Reason.ERASED) for name in spans if name not in seen]
    return opened, closed


def _step(
    account: Account,
    spans: dict[ContractId, Span],
    opened: Sequence[_Open],
    closed: Sequence[Closing],
    orders: tuple[SignedOrder, ...],
    network: NetworkId,
    key: SigningKey,
    from_ms: int,
    to_ms: int,
    receipt: bytes,
    kind: BatchKind,
) -> Change:
    """One signed batch and what it changes; `spans` become the open ones after it."""
    seq, payee = account.seq + 1, account.partner_key
    ended = tuple(spans.pop(each.contract_id).closed(each.stop_ms, seq) for each in closed if each.contract_id in spans)
    begun = tuple(Span.of(each.terms, each.start_ms, seq) for each in opened)
    spans |= {span.contract_id: span for span in begun}
    paying = [*ended, *spans.values()]
    storage = 0 if kind is BatchKind.GAP else storage_owed(paying, seq, from_ms, to_ms)
    download = _download(account, orders)
    batch = Batch(
        version=BATCH_VERSION,
        network=network,
        payer_key=key.public_key,
        payee_key=payee,
        tariff=TARIFF_VERSION,
        seq=seq,
        previous=account.head,
        kind=kind,
        from_ms=from_ms,
        to_ms=to_ms,
        receipt=receipt,
        opened=tuple(Opening(each.terms.contract_id, each.terms.revision, each.start_ms) for each in opened),
        closed=tuple(closed),
        contracts=len(paying),
        storage=wide(storage),
        orders=orders,
        download=wide(download),
        owed=wide(account.owed + storage + download),
    )
    signed = sign_batch(batch, key)
    return Change(
        account=_grown(account, batch, orders),
        batches=(KeptBatch(signed),),
        opened=begun,
        closed=ended,
        lines=accrual_lines(Side.PAYER, batch, to_ms),
    )


def _download(account: Account, orders: Sequence[SignedOrder]) -> int:
    return sum(
        download_owed(price, account.billed.get(price, 0), received) for price, received in counts(orders).items()
    )


def _grown(account: Account, batch: Batch, orders: Sequence[SignedOrder]) -> Account:
    billed = dict(account.billed)
    for price, received in counts(orders).items():
        billed[price] = max(received, billed.get(price, 0))
    return replace(
        account,
        seq=batch.seq,
        cut_ms=batch.to_ms,
        owed=narrow(batch.owed),
        head=batch.digest,
        billed=billed,
        orders=newest(account.orders, orders),
        since_ms=account.since_ms or batch.from_ms,
        silent_ms=0,
    )


def accrual_lines(side: Side, batch: Batch, at_ms: int) -> tuple[Line, ...]:
    """What a batch puts into the ledger: a line for storage, and one for downloads if there were any."""
    partner = node_id_of(batch.payee_key if side is Side.PAYER else batch.payer_key)
    sums = ((Kind.STORAGE, narrow(batch.storage)), (Kind.DOWNLOAD, narrow(batch.download)))
    return tuple(
        Line(partner, batch.seq, at_ms, side, kind, amount, batch.digest, batch.receipt, batch.tariff)
        for kind, amount in sums
        if amount or (kind is Kind.STORAGE and batch.kind is BatchKind.GAP)
    )


def pay_up(account: Account, drawer: Drawer, key: SigningKey, now_ms: int) -> Change | None:
    """A cheque over everything that is unpaid, to be stored before it is sent; None when nothing is.

    Raises `ConfigError` when cheques were drawn elsewhere before: sums are kept for one chequebook, and what was paid
    from the other would be paid again.
    """
    if account.unpaid <= 0:
        return None
    if account.cheque is not None and not drawn_on(account.cheque, drawer):
        who, known = account.partner.hex()[:16], account.cheque.cheque.chequebook.hex()
        raise ConfigError(f"cheques to {who} are drawn on 0x{known}: set that as `chequebook` again")
    # Books that were lost may have had a later cheque than the payee shows: no serial of theirs is signed again.
    least = now_ms if account.floor_seq else 1
    signed = draw_cheque(drawer, key, account.cheque, account.owed - account.bartered, least)
    line = _cheque_line(Side.PAYER, account, Kind.CHEQUE, account.unpaid, signed, now_ms)
    return Change(replace(account, cheque=signed), lines=(line,))


def drawn_on(signed: SignedCheque, drawer: Drawer) -> bool:
    """Whether a cheque is one of this chequebook."""
    return (signed.cheque.chain_id, signed.cheque.chequebook) == (drawer.chain_id, drawer.chequebook)


def acknowledged(account: Account, paid: int, now_ms: int) -> Change | None:
    """The payee says what the cheque it holds is for: so much is delivered. None when that is no news."""
    paid = min(paid, account.drawn)
    if paid <= account.delivered or account.cheque is None:
        return None
    line = _cheque_line(Side.PAYER, account, Kind.DELIVERED, paid - account.delivered, account.cheque, now_ms)
    return Change(replace(account, delivered=Amount(paid)), lines=(line,))


def cashed(account: Account, side: Side, paid_out: int, now_ms: int) -> Change | None:
    """The chain paid out so much in all; None when that is no news. The payer hears of it later than the payee."""
    if paid_out <= account.cashed or account.cheque is None:
        return None
    line = _cheque_line(side, account, Kind.CASHED, paid_out - account.cashed, account.cheque, now_ms)
    return Change(replace(account, cashed=Amount(paid_out)), lines=(line,))


def bartered(account: Account, side: Side, amount: int, now_ms: int) -> Change:
    """So much of what is unpaid is set off against what the other side owes elsewhere."""
    line = Line(
        account.partner, account.seq, now_ms, side, Kind.BARTER, Amount(amount), account.head, b"", TARIFF_VERSION
    )
    return Change(replace(account, bartered=Amount(account.bartered + amount)), lines=(line,))


def _cheque_line(side: Side, account: Account, kind: Kind, amount: int, signed: SignedCheque, now_ms: int) -> Line:
    digest = signed.cheque.digest
    return Line(account.partner, account.seq, now_ms, side, kind, Amount(amount), digest, b"", TARIFF_VERSION)


# --- the payee -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What the payee knows that bears on a batch."""

    held: Mapping[ContractId, Held]
    """Its own contracts, as far as the batch names them or they have open spans."""
    was_there: bool
    """Whether it can say of itself that it was there all through a gap: it ran, or signed what the gap names."""
    now_ms: int
    floor_ms: int = 0
    """Where the last gap or restart ended: a contract may be paid from there instead of from its begin."""
    paid_before: Collection[ContractId] = ()
    """Contracts that had a span before; those may begin again where a batch ends."""
    left_ms: Mapping[ContractId, int] = field(default_factory=dict)
    """Those among them whose last closing was disputed, and where that batch ended: they are due from there."""


def take(
    account: Account, spans: Mapping[ContractId, Span], signed: SignedBatch, known: Known, key: SigningKey
) -> Change:
    """The step that a batch is for its payee; what it finds itself is in the agreement.

    The caller checked that the batch is the next of the chain and signed by its payer. `spans` are the open ones.
    """
    batch, doubts = signed.batch, list[str]()
    open_spans = dict(spans)
    ended, unjust = _close(batch, open_spans, known, doubts)
    begun = _open(batch, open_spans, ended, known, doubts)
    paying = [*ended, *open_spans.values()]
    gap = batch.kind is BatchKind.GAP
    if gap and known.was_there:
        doubts.append("we were there all through the gap")
    storage: int = storage_owed(
        paying, batch.seq, batch.from_ms, batch.from_ms if gap and not known.was_there else batch.to_ms
    )
    storage += sum(span.owed(batch.seq, batch.from_ms, batch.to_ms) for span in unjust)
    own_orders = newest(batch.orders, (each for each in account.orders if each.order.signed_at_ms < batch.to_ms))
    download = _download(account, own_orders)
    agreement = sign_agreement(batch, storage, download, "; ".join(doubts), key)
    claimed = max(0, storage - narrow(batch.storage)) + max(0, download - narrow(batch.download))
    lines = accrual_lines(Side.PAYEE, batch, known.now_ms)
    after = _grown(account, batch, batch.orders)
    if claimed:
        lines += (disputed_line(Side.PAYEE, batch, claimed, known.now_ms),)
        after = replace(after, disputed=Amount(after.disputed + claimed))
    return Change(after, (KeptBatch(signed, agreement),), begun, ended, lines)


def disputed_line(side: Side, batch: Batch, claimed: int, at_ms: int) -> Line:
    """The memorandum of what the payee claims beyond a batch."""
    partner = node_id_of(batch.payee_key if side is Side.PAYER else batch.payer_key)
    return Line(
        partner, batch.seq, at_ms, side, Kind.DISPUTED, Amount(claimed), batch.digest, batch.receipt, batch.tariff
    )


def _close(
    batch: Batch, spans: dict[ContractId, Span], known: Known, doubts: list[str]
) -> tuple[tuple[Span, ...], list[Span]]:
    """The spans that the batch ends, and those among them, as we would have paid them, that it ends unjustly."""
    ended, unjust = list[Span](), list[Span]()
    again = {each.contract_id: each.revision for each in batch.opened}
    closings: dict[ContractId, tuple[int, Reason | None]] = {
        each.contract_id: (each.stop_ms, each.reason) for each in batch.closed
    }
    if batch.kind is BatchKind.RESTART:
        closings |= dict.fromkeys(spans, (batch.from_ms, None))
    for name, (stop_ms, reason) in closings.items():
        span = spans.pop(name, None)
        if span is None:
            continue
        done = span.closed(stop_ms, batch.seq)
        ended.append(done)
        held = known.held.get(name)
        if held is None or held.standing is not Standing.STORED or (reason is None and name in again):
            continue
        over = span.stop_ms
        if reason is Reason.RENEWED and name in again and held.terms.revision > span.revision:
            # Paid for until the next one begins; one that we do not know yet as the payer does may have begun earlier.
            over = min(over, batch.to_ms, held.terms.begin_ms if again[name] == held.terms.revision else 0)
        # Time beyond the batch is in none that follows, for it is closed.
        if min(done.stop_ms, batch.to_ms) < over:
            why = BatchKind.RESTART.name if reason is None else reason.name
            doubts.append(f"{name.hex()[:16]} is stored here and not paid ({why})")
            since = max(done.stop_ms, span.start_ms, batch.from_ms)
            unjust.append(replace(span, start_ms=since, opened_seq=batch.seq))
    return tuple(ended), unjust


def _open(
    batch: Batch, spans: dict[ContractId, Span], ended: Sequence[Span], known: Known, doubts: list[str]
) -> tuple[Span, ...]:
    """The spans that the batch begins, each from where it is due at the latest, whatever the payer says."""
    begun = []
    stops = {span.contract_id: min(span.stop_ms, batch.to_ms) for span in ended}
    for opening in batch.opened:
        name, held = opening.contract_id, known.held.get(opening.contract_id)
        if held is None:
            doubts.append(f"{name.hex()[:16]} is no contract of ours")
            continue
        if name in spans:
            doubts.append(f"{name.hex()[:16]} is paid for already")
            continue
        if held.terms.revision != opening.revision:
            doubts.append(f"{name.hex()[:16]} has revision {held.terms.revision} here")
        span = Span.of(held.terms, opening.start_ms, batch.seq)
        due_ms = max(span.begin_ms, _due(name, batch, stops, known))
        if span.start_ms > due_ms:
            doubts.append(f"{name.hex()[:16]} is paid from {span.start_ms} and not from {due_ms}")
            span = replace(span, start_ms=due_ms)
        begun.append(span)
        spans[name] = span
    return tuple(begun)


def _due(name: ContractId, batch: Batch, stops: Mapping[ContractId, int], known: Known) -> int:
    """From when a contract that the batch opens has to be paid, if it has begun by then."""
    if name in stops:
        return max(batch.from_ms, stops[name])
    if name in known.left_ms:
        return known.left_ms[name]
    return batch.to_ms if name in known.paid_before else known.floor_ms


@dataclass(frozen=True, slots=True)
class Deposited:
    """What taking a cheque comes to: a step to be stored, unless it is refused or known."""

    judgement: Judgement
    change: Change | None


def deposit(account: Account, signed: SignedCheque, drawer: Drawer, covered: int | None, now_ms: int) -> Deposited:
    """Judge a cheque against the one held, and take it if it is good."""
    if account.cheque is not None and not drawn_on(account.cheque, drawer):
        return Deposited(Judgement(Fault.CHEQUEBOOK), None)
    judgement = judge(signed, drawer, account.cheque, covered)
    if judgement.fault is not None or judgement.again:
        return Deposited(judgement, None)
    line = _cheque_line(Side.PAYEE, account, Kind.CHEQUE, judgement.worth, signed, now_ms)
    after = replace(account, cheque=signed, delivered=signed.cheque.amount)
    return Deposited(judgement, Change(after, lines=(line,)))
