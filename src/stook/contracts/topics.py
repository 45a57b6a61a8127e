"""Criteria: four bytes that say what kind of contract it is, by the white paper's matrix of opcodes (section 2.6).

Size and duration follow from the terms; availability and speed are the renter's wish. With the prefix 0x0f before them
the four bytes are the topic on which drafts are published. Bounds are inclusive: exactly 30 days is still LOW
(`docs/formats/contract.md`).
"""

from __future__ import annotations

import enum
from types import MappingProxyType

CONTRACT_PREFIX = 0x0F
CAPACITY_PREFIX = 0x0C
CRITERIA_BYTES = 4
DAY_MS = 24 * 3_600_000
MIB = 1 << 20


class Degree(enum.IntEnum):
    """How much of a criterion. ANY says nothing about it and matches everything."""

    ANY = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Criterion(enum.IntEnum):
    """What a byte of the criteria is about; the value is its place."""

    SIZE = 0
    """Bytes of the shard."""
    DURATION = 1
    """Milliseconds from begin to end."""
    AVAILABILITY = 2
    """Thousandths of the time."""
    SPEED = 3
    """Bits per second."""


BOUNDARIES = MappingProxyType(
    {
        Criterion.SIZE: (8 * MIB, 16 * MIB),
        Criterion.DURATION: (30 * DAY_MS, 90 * DAY_MS),
        Criterion.AVAILABILITY: (500, 800),
        Criterion.SPEED: (6_000_000, 12_000_000),
    }
)
"""The largest value that is LOW and the largest that is MEDIUM; everything above is HIGH.

The paper closes HIGH at 32 MB, 270 days, 99 % and 32 Mbps; here it is open, because a class that nothing falls into
would leave a longer contract without a topic.
"""


def degree(criterion: Criterion, value: int) -> Degree:
    """The degree of a value in the unit of its criterion. Raises `ValueError` when negative."""
    if value < 0:
        raise ValueError(f"{criterion.name} is never negative")
    low, medium = BOUNDARIES[criterion]
    if value <= low:
        return Degree.LOW
    return Degree.MEDIUM if value <= medium else Degree.HIGH


def criteria_of(
    shard_size_bytes: int,
    duration_ms: int,
    availability: Degree = Degree.MEDIUM,
    speed: Degree = Degree.MEDIUM,
) -> bytes:
    """The four bytes for a contract. Raises `ValueError` when a quantity is negative."""
    size, duration = degree(Criterion.SIZE, shard_size_bytes), degree(Criterion.DURATION, duration_ms)
    return bytes((size, duration, availability, speed))


def parse_criteria(criteria: bytes) -> tuple[Degree, Degree, Degree, Degree]:
    """Size, duration, availability, speed. Raises `ValueError` unless four bytes, each the number of a `Degree`."""
    if len(criteria) != CRITERIA_BYTES:
        raise ValueError(f"criteria are {CRITERIA_BYTES} bytes, not {len(criteria)}")
    size, duration, availability, speed = (Degree(byte) for byte in criteria)
    return size, duration, availability, speed


def describes(criteria: bytes, shard_size_bytes: int, duration_ms: int) -> bool:
    """Whether the criteria are well formed and say nothing untrue about this size and duration."""
    try:
        size, duration, _, _ = parse_criteria(criteria)
    except ValueError:
        return False
    return size in (Degree.ANY, degree(Criterion.SIZE, shard_size_bytes)) and duration in (
        Degree.ANY,
        degree(Criterion.DURATION, duration_ms),
    )


def matches(wanted: bytes, criteria: bytes) -> bool:
    """Whether a contract of these criteria is one that is wanted: equal, or ANY on either side, byte by byte.

    Raises `ValueError` when either is not well formed.
    """
    pairs = zip(parse_criteria(wanted), parse_criteria(criteria), strict=True)
    return all(Degree.ANY in pair or pair[0] is pair[1] for pair in pairs)


def topic_of(criteria: bytes) -> bytes:
    """The five bytes of the topic, ``0f`` and the criteria. Raises `ValueError` when not well formed."""
    parse_criteria(criteria)
    return bytes((CONTRACT_PREFIX,)) + criteria
