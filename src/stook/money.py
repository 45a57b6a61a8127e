"""Money is whole numbers of the smallest unit; prices multiply out exactly and are rounded once, up.

One *credit* is 10**18 units, the convention of ERC-20 tokens, so that the ledger and a chain count alike.
"""

from __future__ import annotations

from typing import NewType

Amount = NewType("Amount", int)
"""A sum in the smallest unit. Never a float, never negative on the wire."""

UNITS_PER_CREDIT = 10**18
BYTES_PER_GIB = 2**30
MS_PER_HOUR = 3_600_000


def storage_cost(price_per_gib_hour: int, size_bytes: int, duration_ms: int) -> Amount:
    """Cost of keeping `size_bytes` for `duration_ms`, rounded up once to the unit.

    Raises `ValueError` when an argument is negative.
    """
    if price_per_gib_hour < 0 or size_bytes < 0 or duration_ms < 0:
        raise ValueError("prices, sizes and durations are never negative")
    return Amount(-(-price_per_gib_hour * size_bytes * duration_ms // (BYTES_PER_GIB * MS_PER_HOUR)))


def download_cost(price_per_gib: int, size_bytes: int) -> Amount:
    """Cost of fetching `size_bytes`, rounded up once to the unit. Raises `ValueError` when negative."""
    if price_per_gib < 0 or size_bytes < 0:
        raise ValueError("prices and sizes are never negative")
    return Amount(-(-price_per_gib * size_bytes // BYTES_PER_GIB))


NOTHING = Amount(0)
WIDE_BYTES = 16
MAX_AMOUNT = 2**128 - 1


def wide(amount: int) -> bytes:
    """16 big-endian bytes of a sum: integers of the encoding end at 2^64, and that is 18 credits.

    Raises `OverflowError` for a negative sum and above `MAX_AMOUNT`.
    """
    return amount.to_bytes(WIDE_BYTES, "big")


def narrow(data: bytes) -> Amount:
    """The sum that `wide` wrote."""
    return Amount(int.from_bytes(data, "big"))
