from __future__ import annotations

import pytest

from stook.contracts.topics import (
    BOUNDARIES,
    DAY_MS,
    Criterion,
    Degree,
    criteria_of,
    degree,
    describes,
    matches,
    parse_criteria,
    topic_of,
)

MIB = 1 << 20
EXPECTED = [
    (Criterion.SIZE, 0, Degree.LOW),
    (Criterion.SIZE, 8 * MIB, Degree.LOW),
    (Criterion.SIZE, 8 * MIB + 1, Degree.MEDIUM),
    (Criterion.SIZE, 16 * MIB, Degree.MEDIUM),
    (Criterion.SIZE, 16 * MIB + 1, Degree.HIGH),
    (Criterion.SIZE, 33 * MIB, Degree.HIGH),
    (Criterion.DURATION, 30 * DAY_MS, Degree.LOW),
    (Criterion.DURATION, 30 * DAY_MS + 1, Degree.MEDIUM),
    (Criterion.DURATION, 90 * DAY_MS, Degree.MEDIUM),
    (Criterion.DURATION, 90 * DAY_MS + 1, Degree.HIGH),
    (Criterion.DURATION, 3650 * DAY_MS, Degree.HIGH),
    (Criterion.AVAILABILITY, 500, Degree.LOW),
    (Criterion.AVAILABILITY, 501, Degree.MEDIUM),
    (Criterion.AVAILABILITY, 800, Degree.MEDIUM),
    (Criterion.AVAILABILITY, 801, Degree.HIGH),
    (Criterion.AVAILABILITY, 1000, Degree.HIGH),
    (Criterion.SPEED, 6_000_000, Degree.LOW),
    (Criterion.SPEED, 6_000_001, Degree.MEDIUM),
    (Criterion.SPEED, 12_000_000, Degree.MEDIUM),
    (Criterion.SPEED, 12_000_001, Degree.HIGH),
]


@pytest.mark.parametrize(("criterion", "value", "expected"), EXPECTED)
def test_each_side_of_each_boundary(criterion: Criterion, value: int, expected: Degree) -> None:
    assert degree(criterion, value) is expected


def test_the_table_covers_every_boundary() -> None:
    edges = {(criterion, edge) for criterion, pair in BOUNDARIES.items() for edge in pair}
    assert edges <= {(criterion, value) for criterion, value, _ in EXPECTED}
    assert {(criterion, edge + 1) for criterion, edge in edges} <= {(c, value) for c, value, _ in EXPECTED}


def test_a_negative_quantity_has_no_degree() -> None:
    with pytest.raises(ValueError, match="never negative"):
        degree(Criterion.SIZE, -1)


def test_topics_of_the_paper() -> None:
    assert topic_of(bytes((1, 2, 3, 3))).hex() == "0f01020303"  # web asset
    assert topic_of(bytes((3, 3, 1, 1))).hex() == "0f03030101"  # backup
    topics = {topic_of(bytes((a, b, c, d))) for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3) for d in (1, 2, 3)}
    assert len(topics) == 81


def test_criteria_follow_from_size_and_duration() -> None:
    criteria = criteria_of(1 << 20, 60 * DAY_MS, speed=Degree.HIGH)
    assert parse_criteria(criteria) == (Degree.LOW, Degree.MEDIUM, Degree.MEDIUM, Degree.HIGH)
    assert describes(criteria, 1 << 20, 60 * DAY_MS)
    assert describes(b"\0\0\0\0", 1 << 20, 60 * DAY_MS)
    assert not describes(criteria, 9 << 20, 60 * DAY_MS)
    assert not describes(criteria, 1 << 20, 91 * DAY_MS)
    assert not describes(bytes((1, 2, 4, 0)), 1 << 20, 60 * DAY_MS)
    assert not describes(b"\1\2\2", 1 << 20, 60 * DAY_MS)


def test_any_matches_everything() -> None:
    web = bytes((1, 2, 3, 3))
    assert matches(b"\0\0\0\0", web)
    assert matches(web, b"\0\0\0\0")
    assert matches(web, web)
    assert not matches(bytes((1, 2, 3, 2)), web)
    with pytest.raises(ValueError, match="Degree"):
        matches(bytes((1, 2, 3, 9)), web)
