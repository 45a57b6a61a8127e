"""Policies and shapes by example."""

import pytest

from stook.errors import UserError
from stook.shards.geometry import Policy, SegmentShape, largest_shape, max_shard_bytes, plan, plan_rest, units_of

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("text", "policy"),
    [("3/10", (3, 6, 8, 10)), ("4/8", (4, 6, 7, 8)), ("1/1", (1, 1, 1, 1)), ("20/24/30/40", (20, 24, 30, 40))],
)
def test_policies_are_written_as_two_or_four_numbers(text, policy):
    assert Policy.parse(text) == Policy(*policy)


@pytest.mark.parametrize(
    "text", ["", "3", "3/", "a/b", "0/4", "5/4", "1/256", "1/2/3", "4/3/5/6", "٣/١٠", "-1/4", "1/ 4"]
)
def test_impossible_policies_are_the_users_error(text):
    with pytest.raises(UserError):
        Policy.parse(text)


def test_default_policies():
    assert str(Policy.default(1)) == "1/1/1/1"
    assert str(Policy.default(12)) == "4/6/8/10"
    assert str(Policy.default(25)) == "10/14/17/20"
    assert str(Policy.default(1000)) == "20/27/34/40"
    with pytest.raises(UserError):
        Policy.default(0)


@pytest.mark.parametrize(
    ("k", "total", "shard_bytes"),
    [(0, 1, 16384), (2, 1, 16384), (1, 256, 16384), (1, 1, 16383), (1, 1, 16 * MIB), (3, 17, 8 * MIB), (1, 1, 0)],
)
def test_shapes_outside_the_format_are_refused(k, total, shard_bytes):
    with pytest.raises(ValueError):
        SegmentShape(k, total, shard_bytes)


def test_the_largest_shards_within_the_budget():
    assert [max_shard_bytes(total) // KIB for total in (1, 16, 17, 32, 40, 64, 128, 255)] == [
        8192,
        8192,
        4096,
        4096,
        2048,
        2048,
        1024,
        512,
    ]
    assert [max_shard_bytes(total, 104 * MIB) // KIB for total in (1, 13, 14, 26, 31, 41)] == [
        8192,
        8192,
        4096,
        4096,
        2048,
        2048,
    ]
    assert [max_shard_bytes(255, size) for size in (0, 300 * MIB)] == [16 * KIB, 512 * KIB]
    for total in (0, 256):
        with pytest.raises(ValueError):
            max_shard_bytes(total)


def test_plans_by_example():
    shape = largest_shape(4, 12)
    assert plan(MIB, shape).tail_bytes == MIB
    assert [(p.length, p.shape.shard_bytes) for p in plan(256 * MIB, shape).pieces] == [(32 * MIB, 8 * MIB)] * 8
    assert [(p.length, p.shape.shard_bytes) for p in plan(5 * MIB, shape).pieces] == [(4 * MIB, MIB), (MIB, 256 * KIB)]
    assert {p.shape.shard_bytes for p in plan(32 * MIB, largest_shape(4, 12, 12 * MIB)).pieces} == {MIB}
    cut = plan(2 * MIB + 1000, largest_shape(20, 40))
    assert [p.shape.shard_bytes for p in cut.pieces] == [64 * KIB, 32 * KIB, 16 * KIB]
    assert cut.padding == 0 or cut.padding * 8 < 2 * MIB + 1000
    for size, offset in [(-1, 0), (MIB, 2 * MIB), (64 * MIB, 0)]:
        with pytest.raises(ValueError):
            plan_rest(size, offset, shape)
    with pytest.raises(ValueError):
        plan(-1, shape)


def test_little_padding_in_a_large_object_is_still_much():
    shape = largest_shape(3, 10)
    cut = plan(256 * MIB, shape)
    assert [(p.length // MIB, p.shape.shard_bytes // MIB) for p in cut.pieces[9:]] == [(24, 8), (12, 4), (4, 2)]
    assert plan(258 * MIB, shape).pieces[-1].padding == 6 * MIB


def test_ranges_outside_the_segment_are_refused():
    shape = largest_shape(3, 10)
    for begin, length in [(-1, 2), (0, 0), (0, shape.capacity + 1), (shape.capacity, 1)]:
        with pytest.raises(ValueError):
            units_of(shape, begin, length)
