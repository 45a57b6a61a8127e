"""Barter: two nodes that store for each other set one account off against the other. Pure."""

from __future__ import annotations

from stook.money import Amount
from stook.payments.account import Account


def set_off(ours: Account, theirs: Account) -> Amount:
    """How much cancels out: `ours` is what we owe them as payer, `theirs` what they owe us as payee."""
    return Amount(max(0, min(ours.unpaid, theirs.unpaid)))


def balanced_bytes(given_bytes: int, taken_bytes: int, spare_bytes: int) -> int:
    """How much more a partner may store here: as much as it stores for us, and a beginning so that somebody can."""
    return max(0, taken_bytes + spare_bytes - given_bytes)
