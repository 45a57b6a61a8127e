"""What an agent's book forgets: who announced itself long ago, and whom it never dealt with."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.overlay_samples import NETWORK, NOW_MS, contact_of, key_of

from stook.contracts.announcement import ANNOUNCEMENT_LIFE_MS, Announcement, SignedAnnouncement, sign_announcement
from stook.ids import NodeId
from stook.renter import market
from stook.renter.book import FarmerBook
from stook.renter.market import Market
from stook.sim.loop import InlineOffload
from stook.storage.renter_memory import MemoryAgentStore
from stook.storage.renter_ports import Outcome, OutcomeKind


def announced(number: int, issued_ms: int = NOW_MS) -> SignedAnnouncement:
    text = Announcement(contact_of(key_of(number)), issued_ms, 10**9, 10**8, 1, 1, 0, 10**10, 4 << 20, (0,), "", "")
    return sign_announcement(text, key_of(number))


class Clock:
    """Stands still until a test moves it."""

    at_ms = NOW_MS

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000


def test_strangers_are_forgotten_when_they_are_silent_for_a_day() -> None:
    async def main() -> None:
        clock, store = Clock(), MemoryAgentStore()
        book = FarmerBook(store, NETWORK, clock, InlineOffload())
        await book.learn(announced(number) for number in range(1, 6))
        book.note(Outcome(key_of(1).node_id, OutcomeKind.REACH, ok=True, value=0.0, at_ms=NOW_MS))
        assert await book.forget() == 0
        clock.at_ms += ANNOUNCEMENT_LIFE_MS + 1
        await book.learn([announced(2, clock.at_ms)])
        assert await book.forget() == 3
        left = {key_of(1).node_id, key_of(2).node_id}
        assert set(book.farmers()) == {one.node_id for one in store.announcements()} == left

    asyncio.run(main())


def test_those_of_yesterday_lock_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(market, "MAX_FARMERS", 4)
        clock = Clock()
        book = FarmerBook(MemoryAgentStore(), NETWORK, clock, InlineOffload())
        await book.learn(announced(number) for number in range(1, 5))

        def is_full(number: int) -> bool:
            of: Any = SimpleNamespace(_book=book)
            return Market._is_full_of_others(of, NodeId(key_of(number).node_id))

        assert [is_full(1), is_full(9)] == [False, True]
        clock.at_ms += ANNOUNCEMENT_LIFE_MS + 1
        assert not is_full(9)

    asyncio.run(main())
