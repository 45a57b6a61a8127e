"""Sealing and opening take no memory worth speaking of beyond the caller's buffers."""

import tracemalloc

import pytest

from stook.shards.arena import GROUP_BYTES, Scratch, ShardArena
from stook.shards.erasure import load_codec
from stook.shards.geometry import SEGMENT_BUDGET_BYTES, SegmentShape
from stook.shards.pipeline import seal, unseal

KEYS = {"key": bytes(32), "mask_key": bytes(32)}


def test_buffers_are_bounded_and_reused():
    shape, codec = SegmentShape(4, 10, 1 << 20), load_codec()
    arena, scratch = ShardArena.of(shape), Scratch()
    plain, into = memoryview(bytearray(shape.capacity)), memoryview(bytearray(shape.capacity))

    def run():
        segment = seal(plain, shape=shape, arena=arena, codec=codec, **KEYS)
        shards = {shard.index: shard.data for shard in segment.shards[6:]}
        unseal(shards, shape=shape, into=into, codec=codec, scratch=scratch, **KEYS)

    run()
    tracemalloc.start()
    try:
        run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert into == plain


def test_scratch_stays_near_the_group_size():
    shape, codec, scratch = SegmentShape(20, 40, 16384), load_codec(), Scratch()
    segment = seal(memoryview(b"x"), shape=shape, arena=ShardArena.of(shape), codec=codec, **KEYS)
    tracemalloc.start()
    try:
        into = memoryview(bytearray(1))
        shards = {shard.index: shard.data for shard in segment.shards[20:]}
        unseal(shards, shape=shape, into=into, codec=codec, scratch=scratch, **KEYS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * GROUP_BYTES


def test_arenas_refuse_more_than_they_hold():
    for size in (0, 16383, SEGMENT_BUDGET_BYTES + 1):
        with pytest.raises(ValueError):
            ShardArena(size)
    arena = ShardArena(1 << 20, max_shards=10)
    for shape in (SegmentShape(3, 10, 131072), SegmentShape(3, 11, 16384)):
        with pytest.raises(ValueError):
            arena.lay(shape)


def test_a_segment_takes_one_byte_to_its_capacity():
    shape, codec = SegmentShape(2, 3, 16384), load_codec()
    for size in (0, shape.capacity + 1):
        with pytest.raises(ValueError):
            seal(memoryview(bytes(size)), shape=shape, arena=ShardArena.of(shape), codec=codec, **KEYS)
