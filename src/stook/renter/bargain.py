"""What a renter says to an offer, and whom it prefers in the end. Pure.

A strategy is a value with one function; `Bargain` is the one that is shipped: it knows the most that it pays, pays a
farmer of no standing less, and leaves room for others when one operator or network makes most of the offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from stook.contracts.market import MAX_ROUNDS, Offer, OfferReply, Prices, asked
from stook.errors import ReasonCode
from stook.ids import NodeId
from stook.renter.planner import Candidate, Reason, Spread

UNLIMITED = 2**63 - 1
NO_LIMIT = Prices(UNLIMITED, UNLIMITED)
_NEWCOMER = 0.4
"""Standing from which a farmer is paid like any other; newcomers begin just above (`docs/protocol/scores.md`)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An offer that was kept: the farmer as placement sees it, its prices, how many contracts, until when."""

    candidate: Candidate
    prices: Prices
    count: int
    valid_until_ms: int


@dataclass(frozen=True, slots=True)
class Table:
    """What was heard of one solicitation so far."""

    offers_wanted: int
    kept: Mapping[NodeId, Kept] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether enough farmers have offered."""
        return len(self.kept) >= self.offers_wanted


class RenterStrategy(Protocol):
    """How a renter bargains."""

    def opening(self) -> Prices:
        """The bid to publish."""
        ...

    def answer(self, offer: Offer, candidate: Candidate, table: Table) -> OfferReply:
        """What to say to a well-formed offer."""
        ...


@dataclass(frozen=True, slots=True)
class Bargain:
    """Keeps what is cheap enough, asks for less where there are rounds left, refuses the rest with its reason."""

    most: Prices = NO_LIMIT
    """What is paid at most, to the best of farmers."""
    opening_percent: int = 60
    """The first bid, as a share of that. Where nothing limits the price no bid is made, and any announced price is
    taken: farmers underbid each other or do not.
    """
    spread: Spread = Spread.STRICT

    def __post_init__(self) -> None:
        if not 0 <= self.opening_percent <= 100:
            raise ValueError("an opening bid is 0 to 100 percent of the limit")

    def opening(self) -> Prices:
        """See `RenterStrategy`."""
        return self._at(self.most, 0)

    def limit(self, candidate: Candidate) -> Prices:
        """The most that this farmer is paid: in proportion to its standing when that is below a newcomer's."""
        share = min(1.0, candidate.weight / _NEWCOMER)
        return Prices(
            _share(self.most.storage_price_per_gib_hour, share), _share(self.most.download_price_per_gib, share)
        )

    def answer(self, offer: Offer, candidate: Candidate, table: Table) -> OfferReply:
        """See `RenterStrategy`. The order of the rules is that of `docs/protocol/market.md`."""
        if candidate.barred is not None:
            return refusal(ReasonCode.NOT_CHOSEN, f"farmers that {_WORDS.get(candidate.barred, 'are barred')} get none")
        if offer.announcement.node_id in table.kept:
            return refusal(ReasonCode.NOT_CHOSEN, "your offer is kept already")
        if table.full:
            return refusal(ReasonCode.NOT_CHOSEN, f"{table.offers_wanted} offers are enough")
        if self.spread is not Spread.FARMERS and (crowd := _crowded(candidate, table, self.spread)):
            return refusal(ReasonCode.NOT_CHOSEN, f"enough offers of {crowd}")
        if not offer.prices.within(asked(offer.announcement.announcement)):
            return refusal(ReasonCode.PRICE_TOO_HIGH, "more than you announce to everybody")
        limit = self.limit(candidate)
        target = self._at(limit, offer.round)
        if offer.prices.within(target):
            return OfferReply(code=0, detail="", counter=None)
        if offer.round + 1 < MAX_ROUNDS:
            return OfferReply(code=ReasonCode.PRICE_TOO_HIGH, detail="", counter=self._at(limit, offer.round + 1))
        return refusal(ReasonCode.PRICE_TOO_HIGH, "more than we pay")

    def _at(self, most: Prices, turn: int) -> Prices:
        """What is paid in this round: from the opening bid, in even steps, up to the limit."""
        opening = self.opening_percent / 100
        share = opening + (1 - opening) * turn / (MAX_ROUNDS - 1)
        return Prices(_bid(most.storage_price_per_gib_hour, share), _bid(most.download_price_per_gib, share))


_WORDS = {
    Reason.CONDEMNED: "lied",
    Reason.SILENT: "do not prove what they hold",
    Reason.LOSES_TOO_MUCH: "lost too much",
}


def refusal(code: ReasonCode, detail: str) -> OfferReply:
    """No, for good."""
    return OfferReply(code=code, detail=detail, counter=None)


def _share(price: int, share: float) -> int:
    return price if share >= 1 else int(price * share)


def _bid(price: int, share: float) -> int:
    return UNLIMITED if price >= UNLIMITED else _share(price, share)


def _crowded(candidate: Candidate, table: Table, spread: Spread) -> str:
    """The operator, network or domain of which a quarter of the offers wanted is kept already; empty if none."""
    cap = max(1, -(-table.offers_wanted // 4))
    others = [one.candidate for one in table.kept.values()]
    mine = candidate
    crowds = (
        ("your operator", sum(bool(mine.operator) and one.operator == mine.operator for one in others)),
        (
            "your failure domain",
            sum(bool(mine.failure_domain) and one.failure_domain == mine.failure_domain for one in others),
        ),
        ("your network", sum(spread is Spread.STRICT and bool(one.networks & mine.networks) for one in others)),
    )
    return next((word for word, count in crowds if count >= cap), "")


def thrifty(candidates: Iterable[Candidate], thrift: float = 1.0) -> list[Candidate]:
    """The candidates with more weight for the cheaper: in proportion to the dearest one's price, at most fourfold.

    With a `thrift` of 0 prices play no part. Bounded, so that a farmer that asks nothing does not get everything.
    """
    found: Sequence[Candidate] = list(candidates)
    dearest = max((_cost(one) for one in found), default=0)
    if thrift <= 0 or dearest == 0:
        return list(found)
    return [replace(one, weight=one.weight * min(4.0, dearest / max(_cost(one), 1)) ** thrift) for one in found]


def _cost(candidate: Candidate) -> int:
    """What a GiB costs in a month that is downloaded once: one figure to compare by."""
    return 720 * candidate.storage_price_per_gib_hour + candidate.download_price_per_gib
