"""A payer, a payee, their contracts and what they make of them; and the golden vectors of payments."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from contract_samples import FARMER, NETWORK, NOW_MS, RENTER, draft
from stook.codec import encode
from stook.contracts.negotiation import DAY_MS, HOUR_MS
from stook.hashing import Tag, tagged_hash
from stook.identity.accounts import account_of, recoverable
from stook.ids import ContractId, ShardRoot
from stook.money import wide
from stook.payments import tariff
from stook.payments.account import Account, Change
from stook.payments.batch import Batch, BatchKind, sign_agreement
from stook.payments.cheque import Cheque, Drawer, SignedCheque, draw_cheque
from stook.payments.orders import SignedOrder, sign_order
from stook.payments.posting import Facts, Held, Known, Standing, draw_up, take

DRAWER = Drawer.ledger(NETWORK, RENTER.public_key, FARMER.public_key)


def terms_of(number: int, **changes: object):
    """Terms of one contract among many."""
    return draft(**{"shard_root": ShardRoot(tagged_hash(Tag.SHARD, bytes((number,)))), **changes})


def facts(now_ms: int, *held: Held, **changes: object) -> Facts:
    """What the payer knows: these contracts, and nothing else."""
    known = Facts(
        held=held, paid_before=frozenset(), orders=(), receipt=b"", gap_until_ms=0, gap_receipt=b"", now_ms=now_ms
    )
    return replace(known, **changes)


class Pair:
    """Both sides of one account, in memory: what each would store."""

    def __init__(self) -> None:
        self.payer = Account(FARMER.public_key)
        self.payee = Account(RENTER.public_key)
        self.spans = {"payer": {}, "payee": {}}
        self.closed = []
        self.lines = {"payer": [], "payee": []}
        self.batches = []

    def _apply(self, side: str, change: Change) -> None:
        setattr(self, side, replace(change.account, version=change.account.version + 1))
        for span in change.closed:
            del self.spans[side][span.contract_id]
        self.closed += [span for span in change.closed if side == "payer"]
        self.spans[side] |= {span.contract_id: span for span in change.opened if not span.closed_seq}
        self.lines[side] += change.lines

    def post(self, side: str, change: Change | None) -> None:
        """Store a change on one side."""
        if change is not None:
            self._apply(side, change)

    def round(self, known: Facts, theirs: dict[ContractId, Held] | None = None, *, was_there: bool = False) -> list:
        """The payer draws up, the payee takes; the agreements."""
        found = []
        held = {each.contract_id: each for each in known.held} if theirs is None else theirs
        for change in draw_up(self.payer, self.spans["payer"], known, NETWORK, RENTER):
            self._apply("payer", change)
            signed = change.batches[0].signed
            self.batches.append(signed.batch)
            floor = max((each.to_ms for each in self.batches[:-1] if each.kind is not BatchKind.EARNED), default=0)
            mine = Known(held, was_there, known.now_ms, floor, known.paid_before)
            step = take(self.payee, self.spans["payee"], signed, mine, FARMER)
            self._apply("payee", step)
            found.append(step.batches[0].agreement)
        return found


def held(number: int, standing: Standing = Standing.STORED, over_ms: int = 0, **changes: object) -> Held:
    """One contract as a side knows it."""
    return Held(terms_of(number, **changes), standing, over_ms)


def order(received: int, at_ms: int = NOW_MS, price: int = 10**15) -> SignedOrder:
    """RENTER's word to FARMER."""
    return sign_order(RENTER, NETWORK, FARMER.public_key, price, received, at_ms)


def evm_cheque(cumulative: int = 10**20, serial: int = 7) -> SignedCheque:
    """A cheque of chain 31337."""
    cheque = Cheque(31337, bytes(range(20)), account_of(FARMER.public_key), wide(cumulative), serial)
    return SignedCheque(cheque, RENTER.sign(cheque.digest))


def made() -> dict:
    """Everything in `tests/vectors/data/payments-v1.json`."""
    pair = Pair()
    one, two = held(1), held(2, shard_size_bytes=1 << 14)
    pair.round(facts(NOW_MS + HOUR_MS, one, two))
    agreements = pair.round(
        facts(
            NOW_MS + DAY_MS,
            one,
            replace(two, standing=Standing.ERASED, over_ms=NOW_MS + 2 * HOUR_MS),
            orders=(order(5 << 20),),
            receipt=bytes(range(32)),
        ),
        {one.contract_id: one},
    )
    span = tariff.Span.of(one.terms, 0, 1)
    batch = pair.batches[-1]
    signed = structs.replace(draw_cheque(DRAWER, RENTER, None, pair.payer.owed))
    on_chain = evm_cheque()
    return {
        "tags": {tag.value: tag.key.hex() for tag in (Tag.BANDWIDTH_ORDER, Tag.PAY_BATCH, Tag.PAY_AGREEMENT)},
        "tariff": [
            {
                "from_ms": a,
                "to_ms": b,
                "price": span.price_per_gib_hour,
                "size": span.size_bytes,
                "begin_ms": NOW_MS,
                "owed": str(span.owed(2, a, b)),
            }
            for a, b in ((NOW_MS, NOW_MS + 1), (NOW_MS + 1, NOW_MS + 2), (NOW_MS, NOW_MS + DAY_MS), (0, 2 * NOW_MS))
        ],
        "download": [
            {"price": price, "before": a, "now": b, "owed": str(tariff.download_owed(price, a, b))}
            for price, a, b in ((10**15, 0, 1), (10**15, 1, 2), (3, 0, 1 << 30), (7, 5, 5), (7, 6, 5))
        ],
        "accounts": {"renter": account_of(RENTER.public_key).hex(), "farmer": account_of(FARMER.public_key).hex()},
        "cheques": [
            {
                "encoded": encode(each).hex(),
                "digest": each.cheque.digest.hex(),
                "recoverable": recoverable(RENTER.public_key, each.cheque.digest, each.signature).hex(),
            }
            for each in (signed, on_chain)
        ],
        "order": {"encoded": encode(order(5 << 20)).hex(), "digest": order(5 << 20).order.digest.hex()},
        "batch": {
            "encoded": encode(batch).hex(),
            "digest": batch.digest.hex(),
            "signature": RENTER.sign(batch.digest).hex(),
        },
        "agreement": {"encoded": encode(agreements[-1]).hex(), "digest": agreements[-1].digest.hex()},
        "disputed": encode(sign_agreement(batch, batch.amount + 1, 0, "one unit more", FARMER)).hex(),
    }


def batch_samples() -> tuple[Batch, Batch]:
    """A first batch with little in it, and a later one with everything."""
    pair = Pair()
    one, two = held(1), held(2)
    pair.round(facts(NOW_MS, one))
    gone = replace(one, standing=Standing.ERASED, over_ms=NOW_MS + HOUR_MS)
    pair.round(facts(NOW_MS + DAY_MS, gone, two, orders=(order(5 << 20),), receipt=bytes(32)))
    return pair.batches[0], pair.batches[-1]
