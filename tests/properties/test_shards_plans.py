"""Every plan covers its object exactly, within the ladder, the budget and the padding it promises."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stook.errors import UserError
from stook.merkle import UNIT_BYTES
from stook.shards.geometry import (
    LADDER,
    MAX_SHARDS,
    SEGMENT_BUDGET_BYTES,
    SMALL_OBJECT_BYTES,
    Policy,
    SegmentShape,
    largest_shape,
    max_shard_bytes,
    plan,
    plan_rest,
    smallest_shape,
    stripe_groups,
    units_of,
)

CODES = st.integers(1, MAX_SHARDS).flatmap(lambda total: st.tuples(st.integers(1, total), st.just(total)))
SIZES = st.one_of(st.integers(0, 4 << 20), st.integers(0, 200 << 20))


@settings(max_examples=150, deadline=None)
@given(SIZES, CODES)
def test_a_plan_covers_the_object_exactly(size, code):
    k, total = code
    cut = plan(size, largest_shape(k, total))
    at = 0
    for piece in cut.pieces:
        assert (piece.offset, piece.shape.k, piece.shape.total) == (at, k, total)
        assert 1 <= piece.length <= piece.shape.capacity
        at += piece.length
    assert (cut.tail_offset, at + cut.tail_bytes) == (at, size)
    steps = [piece.shape.shard_bytes for piece in cut.pieces]
    assert steps == sorted(steps, reverse=True)
    assert all(piece.padding == 0 for piece in cut.pieces[:-1])
    assert cut.padding == sum(piece.shape.capacity for piece in cut.pieces) - at
    if size > SMALL_OBJECT_BYTES:
        assert cut.padding * 8 < size
        assert cut.padding <= k * (2 << 20)
        assert cut.tail_bytes < k * UNIT_BYTES
    else:
        assert not cut.pieces


@settings(max_examples=50, deadline=None)
@given(SIZES, CODES)
def test_a_stream_is_cut_as_if_its_size_were_known(size, code):
    k, total = code
    largest = largest_shape(k, total)
    cut, offset = [], 0
    while size > SMALL_OBJECT_BYTES and size - offset >= largest.capacity:
        cut.append((offset, largest.capacity, largest))
        offset += largest.capacity
    rest = plan_rest(size, offset, largest)
    whole = plan(size, largest)
    assert cut + [(p.offset, p.length, p.shape) for p in rest.pieces] == [
        (p.offset, p.length, p.shape) for p in whole.pieces
    ]
    assert (rest.tail_offset, rest.tail_bytes) == (whole.tail_offset, whole.tail_bytes)


@given(CODES, st.integers(1, 16 << 20))
def test_the_smallest_shape_holds_it_and_the_next_smaller_would_not(code, length):
    k, total = code
    if length > largest_shape(k, total).capacity:
        with pytest.raises(ValueError):
            smallest_shape(length, k, total)
        return
    shape = smallest_shape(length, k, total)
    assert shape.capacity >= length
    assert shape.shard_bytes == LADDER[0] or shape.capacity // 2 < length


def test_no_segment_passes_the_memory_budget():
    for total in range(1, MAX_SHARDS + 1):
        step = max_shard_bytes(total)
        assert step in LADDER
        assert total * step <= SEGMENT_BUDGET_BYTES
        assert step == LADDER[-1] or total * step * 2 > SEGMENT_BUDGET_BYTES


@given(CODES, st.sampled_from(LADDER), st.data())
def test_units_of_a_range_are_those_that_hold_it(code, step, data):
    k, total = code
    if total * step > SEGMENT_BUDGET_BYTES:
        step = max_shard_bytes(total)
    shape = SegmentShape(k, total, step)
    begin = data.draw(st.integers(0, shape.capacity - 1))
    length = data.draw(st.integers(1, min(shape.capacity - begin, 40 * UNIT_BYTES)))
    needed = units_of(shape, begin, length)
    touched = {divmod(unit, k) for unit in range(begin // UNIT_BYTES, (begin + length - 1) // UNIT_BYTES + 1)}
    assert (needed.first, needed.end) == (min(touched)[0], max(touched)[0] + 1)
    assert needed.data_indices == tuple(sorted({index for _, index in touched}))
    assert needed.run_bytes == (needed.end - needed.first) * UNIT_BYTES


@given(st.integers(0, 300), st.integers(1, 300))
def test_stripe_groups_cover_all_stripes_in_order(stripes, group):
    runs = list(stripe_groups(stripes, group))
    assert [stripe for first, end in runs for stripe in range(first, end)] == list(range(stripes))
    assert all(0 < end - first <= group for first, end in runs)


@given(st.integers(1, 10_000))
def test_default_policies_leave_room_for_replacements(domains):
    policy = Policy.default(domains)
    assert policy.n <= min(domains, 40)
    if domains > 1:
        assert policy.k * 2 <= policy.n
    if domains >= 5:
        assert policy.n < domains
        assert policy.k < policy.r < policy.o < policy.n or policy.n < 6


@given(st.text(max_size=12))
def test_any_text_is_a_policy_or_a_typed_error(text):
    try:
        policy = Policy.parse(text)
    except UserError:
        return
    assert 1 <= policy.k <= policy.r <= policy.o <= policy.n <= MAX_SHARDS
    assert Policy.parse(str(policy)) == policy
