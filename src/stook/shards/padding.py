"""Padding goes in before encryption, so that nothing shows outside: plain zeros up to the segment's capacity."""

from __future__ import annotations

from stook.merkle import UNIT_BYTES

ZERO_UNIT = memoryview(bytes(UNIT_BYTES))


def padded_copy(plain: memoryview, begin: int, into: memoryview) -> None:
    """Fill `into` with the bytes of `plain` from `begin` on, and zeros behind its end."""
    data = plain[begin : begin + len(into)]
    filled = len(data)
    into[:filled] = data
    while filled < len(into):
        step = min(UNIT_BYTES, len(into) - filled)
        into[filled : filled + step] = ZERO_UNIT[:step]
        filled += step
