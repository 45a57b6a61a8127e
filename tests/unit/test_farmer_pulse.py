"""Heartbeats are counted for each caller, and sums are not added up for each of them."""

from __future__ import annotations

import pytest

from stook.errors import ReasonCode, RefusedError
from stook.farmer.pulse import PulseBook, Spacing
from stook.farmer.settings import AuditLimits
from stook.ids import PublicKey
from stook.storage.ports import Totals

LIMITS = AuditLimits(heartbeat_burst=3, heartbeats_per_second=0.5, heartbeat_callers=2, totals_seconds=60)
ONE, OTHER, THIRD = (PublicKey(bytes([2, number]) + bytes(31)) for number in range(3))


def refused(book: PulseBook, caller: PublicKey, now: float) -> int:
    with pytest.raises(RefusedError) as error:
        book.admit(caller, now)
    assert error.value.code is ReasonCode.RATE_LIMITED
    assert error.value.retryable
    return error.value.retry_after_ms


def test_one_who_asks_without_end_is_told_when_to_come_again() -> None:
    book = PulseBook(LIMITS)
    for _ in range(3):
        book.admit(ONE, 10.0)
    pause_ms = refused(book, ONE, 10.0)
    assert 2000 <= pause_ms <= 2002
    book.admit(OTHER, 10.0)
    refused(book, ONE, 11.0)
    book.admit(ONE, 10.0 + pause_ms / 1000)
    refused(book, ONE, 10.0 + pause_ms / 1000)
    for _ in range(3):
        book.admit(ONE, 1000.0)
    refused(book, ONE, 1000.0)
    refused(book, ONE, 900.0)  # a clock that goes back gives nothing


def test_only_so_many_callers_are_remembered() -> None:
    book = PulseBook(LIMITS)
    for _ in range(3):
        book.admit(ONE, 0.0)
    book.admit(OTHER, 0.0)
    book.admit(THIRD, 0.0)
    book.admit(ONE, 0.0)  # forgotten, and begun anew


def test_sums_are_added_up_once_a_minute() -> None:
    book, sums = PulseBook(LIMITS), []

    def add_up(caller: PublicKey) -> Totals:
        sums.append(caller)
        return Totals(0, len(sums), 0, 0)

    book.admit(ONE, 0.0)
    assert [book.totals(ONE, at, add_up).stored_bytes for at in (0.0, 59.0, 60.0, 61.0)] == [1, 1, 2, 2]
    assert book.totals(OTHER, 0.0, add_up).stored_bytes == 3
    assert sums == [ONE, ONE, OTHER]


def test_what_was_done_just_now_is_not_done_again_so_soon() -> None:
    spacing = Spacing(5, 2, "just now")
    spacing.admit(b"a", 0.0)
    with pytest.raises(RefusedError) as error:
        spacing.admit(b"a", 4.0)
    assert (error.value.code, error.value.retry_after_ms) == (ReasonCode.RATE_LIMITED, 1001)
    spacing.admit(b"b", 4.0)
    spacing.admit(b"a", 5.0)
    spacing.admit(b"c", 6.0)  # and b, longest ago, is forgotten
    spacing.admit(b"b", 6.0)
