"""What a farmer asks for on the open market, and whom it calls to say so. Pure.

Strategies are values with one function; `Asking` is the one that is shipped. All of them are bounded from both sides:
never above what the farmer announces to everybody, never below its floor.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from stook.contracts.announcement import Announcement
from stook.contracts.market import MAX_ROUNDS, Prices, asked
from stook.identity.contact import Address
from stook.ids import PublicKey

MINUTE_MS = 60_000


class FarmerStrategy(Protocol):
    """How a farmer bargains."""

    def offer(self, announcement: Announcement, wanted: Prices, turn: int) -> Prices | None:
        """What to offer in this round, 0 first, to a renter that last said `wanted`; None: nothing any more."""
        ...


@dataclass(frozen=True, slots=True)
class Asking:
    """Begins with the announced price and comes down, in even steps, to its floor; takes what is between."""

    discount_percent: int = 0
    """How far below the announced prices the floor lies."""

    def __post_init__(self) -> None:
        if not 0 <= self.discount_percent <= 100:
            raise ValueError("a discount is 0 to 100 percent")

    def floor(self, announcement: Announcement) -> Prices:
        """The least it takes."""
        return self._at(announcement, MAX_ROUNDS - 1)

    def offer(self, announcement: Announcement, wanted: Prices, turn: int) -> Prices | None:
        """See `FarmerStrategy`. A bid at or above the announced price is answered with the announced price."""
        most, least = asked(announcement), self.floor(announcement)
        if not 0 <= turn < MAX_ROUNDS:
            return None
        if turn and least.within(wanted):
            # The renter named a price that we can live with: take it, and no more than everybody pays.
            return Prices(
                min(most.storage_price_per_gib_hour, wanted.storage_price_per_gib_hour),
                min(most.download_price_per_gib, wanted.download_price_per_gib),
            )
        return self._at(announcement, turn)

    def _at(self, announcement: Announcement, turn: int) -> Prices:
        percent = self.discount_percent * turn // (MAX_ROUNDS - 1)
        most = asked(announcement)
        return Prices(_less(most.storage_price_per_gib_hour, percent), _less(most.download_price_per_gib, percent))


def _less(price: int, percent: int) -> int:
    return -(-price * (100 - percent) // 100)


@dataclass(slots=True)
class Quote:
    """Prices that bind the farmer towards one renter."""

    prices: Prices
    valid_until_ms: int
    count: int
    """Contracts that may still be made at them."""


class Quotes:
    """The offers that were made and not refused, by renter; in memory, bounded, the newest of each renter.

    A farmer that restarts has forgotten them; a claim at their prices is then refused PRICE_TOO_LOW.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._quotes: OrderedDict[PublicKey, Quote] = OrderedDict()

    def __len__(self) -> int:
        return len(self._quotes)

    def give(self, renter: PublicKey, quote: Quote) -> None:
        """Bind ourselves."""
        self._quotes[renter] = quote
        self._quotes.move_to_end(renter)
        while len(self._quotes) > self._most:
            self._quotes.popitem(last=False)

    def take_back(self, renter: PublicKey, quote: Quote) -> None:
        """It was refused; a newer one stays."""
        if self._quotes.get(renter) is quote:
            del self._quotes[renter]

    def open_to(self, renter: PublicKey, count: int, now_ms: int) -> Quote | None:
        """What holds for so many drafts of this renter now."""
        quote = self._quotes.get(renter)
        if quote is None or quote.valid_until_ms < now_ms or quote.count < count:
            return None
        return quote


_NOWHERE = ("", 0)


class Callers:
    """Which strangers a farmer calls: nobody twice about the same, no address that did not answer lately.

    Anybody may publish a draft with somebody else's address. So an address at which nobody answers is left alone for a
    while, whoever names it; one at which somebody else answers, when the same renter names it; and a host with several
    of either, whoever does: a farmer can be made to try a host, and no more than `per_host` times.
    """

    def __init__(self, rest_ms: int = 10 * MINUTE_MS, per_host: int = 8, most: int = 4096) -> None:
        self.rest_ms = rest_ms
        self.per_host = per_host
        self._most = most
        self._answered: OrderedDict[bytes, int] = OrderedDict()
        self._resting: OrderedDict[tuple[str, int, bytes], int] = OrderedDict()
        """By address and whom it rests from; from everybody: no name."""
        self._proved: OrderedDict[tuple[bytes, str, int], None] = OrderedDict()

    def first_time(self, solicitation: bytes, now_ms: int) -> bool:
        """Whether it was not answered yet; from now on it is."""
        _drop_old(self._answered, now_ms)
        if solicitation in self._answered or len(self._answered) >= self._most:
            return False
        self._answered[solicitation] = now_ms + self.rest_ms
        return True

    def may_call(self, places: Iterable[Address], now_ms: int, renter: bytes = b"") -> bool:
        """Whether none of these addresses failed us lately, nor too many others of their hosts.

        Where this renter itself has answered before it is called all the same, whatever others say of that address.
        """
        _drop_old(self._resting, now_ms)
        if (*_NOWHERE, renter) in self._resting:
            return False
        doubted = [place for place in places if (renter, place.host, place.port) not in self._proved]
        if not doubted:
            return True
        if len(self._resting) >= self._most:
            return False
        hosts = Counter(host for host, _, _ in self._resting)
        return not any(
            (place.host, place.port, b"") in self._resting
            or (place.host, place.port, renter) in self._resting
            or hosts[place.host] >= self.per_host
            for place in doubted
        )

    def failed(self, places: Iterable[Address], now_ms: int, renter: bytes = b"", *, for_all: bool = True) -> None:
        """The renter is not there; `for_all`: nor is anybody. Else only this renter is not called there again."""
        for place in places:
            self._proved.pop((renter, place.host, place.port), None)
            resting = place.host, place.port, b"" if for_all else renter
            self._resting[resting] = now_ms + self.rest_ms
            self._resting.move_to_end(resting)

    def failed_over_its_session(self, now_ms: int, renter: bytes) -> None:
        """It did not answer where it had called us: no address that it names was tried, and none is to blame."""
        self._resting[*_NOWHERE, renter] = now_ms + self.rest_ms
        self._resting.move_to_end((*_NOWHERE, renter))

    def proved(self, renter: bytes, host: str, port: int) -> None:
        """We called there, and this renter answered."""
        self._proved[renter, host, port] = None
        self._proved.move_to_end((renter, host, port))
        if len(self._proved) > self._most:
            self._proved.popitem(last=False)


def _drop_old(known: OrderedDict[Any, int], now_ms: int) -> None:
    while known and next(iter(known.values())) < now_ms:
        known.popitem(last=False)
