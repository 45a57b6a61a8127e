"""The fast seal and its way back, judged by the slow twin, over every codec."""

import itertools
import random

import pytest
import shards_twin

from stook.errors import NotEnoughError, ReasonCode
from stook.merkle import UNIT_BYTES
from stook.shards import arena as arena_module
from stook.shards.arena import Scratch, ShardArena
from stook.shards.erasure import IsalCodec, NumpyCodec, find_isal
from stook.shards.geometry import SegmentShape, units_of
from stook.shards.mask import segment_mask_key
from stook.shards.pipeline import plain_hash, seal, unseal
from stook.shards.rebuild import DamagedShardError, check_shard, check_units, rebuild, rebuild_units

KEY, MASK_ROOT, SEGMENT_ID = bytes(range(32)), bytes(range(32, 64)), bytes(range(16))
MASK_KEY = segment_mask_key(MASK_ROOT, SEGMENT_ID)


@pytest.fixture(params=["numpy", "isa-l"])
def codec(request):
    if request.param == "numpy":
        return NumpyCodec()
    library = find_isal()
    if library is None:
        pytest.skip("no ISA-L on this platform")
    return IsalCodec(library)


def sealed(codec, plain, shape, arena=None):
    return seal(
        memoryview(plain),
        key=KEY,
        mask_key=MASK_KEY,
        shape=shape,
        arena=arena or ShardArena.of(shape),
        codec=codec,
    )


def opened(codec, shards, shape, length, begin=0, **options):
    into = memoryview(bytearray(b"\x55" * length))
    unseal(
        shards,
        key=KEY,
        mask_key=MASK_KEY,
        shape=shape,
        into=into,
        begin=begin,
        codec=codec,
        scratch=Scratch(),
        **options,
    )
    return bytes(into)


@pytest.mark.parametrize(
    ("k", "total", "shard_bytes", "size"),
    [
        (1, 1, 16384, 1),
        (1, 3, 16384, 16384),
        (3, 5, 16384, 40_000),
        (3, 10, 65536, 3 * 65536),
        (4, 10, 32768, 4 * 32768 - 1),
        (20, 40, 16384, 200_001),
        (2, 255, 16384, 32_000),
    ],
)
def test_seal_gives_the_bytes_of_the_twin(codec, k, total, shard_bytes, size):
    plain = random.Random(size).randbytes(size)
    shape = SegmentShape(k, total, shard_bytes)
    segment = sealed(codec, plain, shape)
    expected = shards_twin.seal(plain, KEY, MASK_ROOT, SEGMENT_ID, k, total, shard_bytes)
    assert [bytes(shard.data) for shard in segment.shards] == expected
    for shard, data in zip(segment.shards, expected, strict=True):
        assert (shard.root, shard.leaves) == shards_twin.root(data)
        check_shard(shard.index, shard.data, shard.root, shard_bytes)
    assert segment.plain_hash == shards_twin.tagged(b"plaintext", plain) == plain_hash(memoryview(plain))
    assert segment.roots == tuple(shard.root for shard in segment.shards)


def test_groups_of_any_size_give_the_same_bytes(codec, monkeypatch):
    shape = SegmentShape(3, 5, 131072)
    plain = random.Random(1).randbytes(300_000)
    roots = []
    for group_bytes in (1, 8 * UNIT_BYTES, 24 * UNIT_BYTES, 8 << 20):
        monkeypatch.setattr(arena_module, "GROUP_BYTES", group_bytes)
        segment = sealed(codec, plain, shape)
        roots.append(segment.roots)
        shards = {shard.index: shard.data for shard in segment.shards[2:]}
        assert opened(codec, shards, shape, len(plain)) == plain
    assert len(set(roots)) == 1


@pytest.mark.parametrize(("k", "total"), [(1, 3), (2, 4), (3, 5)])
def test_any_k_shards_open_a_segment(codec, k, total):
    shape = SegmentShape(k, total, 16384)
    plain = random.Random(k).randbytes(shape.capacity - 77)
    segment = sealed(codec, plain, shape)
    data = {shard.index: shard.data for shard in segment.shards}
    for count in range(k, total + 1):
        for present in itertools.combinations(range(total), count):
            shards = {index: data[index] for index in present}
            assert opened(codec, shards, shape, len(plain), roots=segment.roots) == plain


def test_any_k_of_255(codec):
    shape = SegmentShape(100, 255, 16384)
    plain = random.Random(5).randbytes(1_600_000)
    segment = sealed(codec, plain, shape)
    present = random.Random(6).sample(range(255), 100)
    shards = {index: segment.shards[index].data for index in present}
    assert opened(codec, shards, shape, len(plain)) == plain


def test_ranges_need_only_their_units(codec):
    shape = SegmentShape(3, 6, 131072)
    plain = random.Random(9).randbytes(shape.capacity)
    segment = sealed(codec, plain, shape)
    rng = random.Random(10)
    ranges = [(0, 1), (16383, 2), (3 * 16384 - 1, 2), (shape.capacity - 1, 1), (5, shape.capacity - 9)]
    ranges += [(begin := rng.randrange(shape.capacity), rng.randint(1, shape.capacity - begin)) for _ in range(12)]
    for begin, length in ranges:
        needed = units_of(shape, begin, length)
        low, high = needed.first * UNIT_BYTES, needed.end * UNIT_BYTES
        runs = {shard.index: shard.data[low:high] for shard in segment.shards}
        for chosen in (needed.data_indices, (3, 4, 5), (0, 4, 5)):
            shards = {index: runs[index] for index in chosen}
            assert opened(codec, shards, shape, length, begin) == plain[begin : begin + length]


def test_a_missing_unit_is_rebuilt_from_any_k_others(codec):
    shape = SegmentShape(3, 6, 65536)
    segment = sealed(codec, random.Random(2).randbytes(shape.capacity), shape)
    runs = {shard.index: shard.data[UNIT_BYTES : 3 * UNIT_BYTES] for shard in segment.shards}
    for present in itertools.combinations(range(6), 3):
        for wanted in set(range(6)) - set(present):
            target = memoryview(bytearray(2 * UNIT_BYTES))
            leaves = rebuild_units(
                {index: runs[index] for index in present},
                {wanted: target},
                k=3,
                mask_key=MASK_KEY,
                codec=codec,
                scratch=Scratch(),
                first_unit=1,
            )
            assert target == runs[wanted]
            assert b"".join(leaves[wanted]) == segment.shards[wanted].leaves[32:96]


def test_repair_restores_the_same_shards_without_the_content_key(codec):
    shape = SegmentShape(4, 9, 65536)
    segment = sealed(codec, random.Random(3).randbytes(shape.capacity), shape)
    rng, scratch = random.Random(4), Scratch()
    for _ in range(8):
        present, wanted = rng.sample(range(9), 4), rng.sample(range(9), 3)
        before = {index: bytes(segment.shards[index].data) for index in present}
        targets = {index: memoryview(bytearray(shape.shard_bytes)) for index in wanted}
        rebuilt = rebuild(
            {index: segment.shards[index].data for index in present},
            targets,
            k=4,
            mask_key=MASK_KEY,
            codec=codec,
            scratch=scratch,
        )
        assert rebuilt == {index: segment.shards[index] for index in wanted}
        assert all(segment.shards[index].data == data for index, data in before.items())


def test_rows_beyond_the_sealing_can_be_added_later(codec):
    plain = random.Random(8).randbytes(50_000)
    narrow = sealed(codec, plain, SegmentShape(3, 5, 32768))
    wide = sealed(codec, plain, SegmentShape(3, 200, 32768))
    target = memoryview(bytearray(32768))
    rebuilt = rebuild(
        {shard.index: shard.data for shard in narrow.shards[1:4]},
        {199: target},
        k=3,
        mask_key=MASK_KEY,
        codec=codec,
        scratch=Scratch(),
    )
    assert rebuilt[199] == wide.shards[199]


def test_a_mirror_is_another_shard_and_serves_as_well(codec):
    shape = SegmentShape(2, 4, 16384)
    plain = random.Random(11).randbytes(30_000)
    segment = sealed(codec, plain, shape)
    mirror = memoryview(bytearray(16384))
    made = rebuild(
        {3: segment.shards[3].data},
        {3: mirror},
        k=2,
        mask_key=MASK_KEY,
        codec=codec,
        scratch=Scratch(),
        target_copies={3: 1},
    )
    unmasked = shards_twin.mask_shard(MASK_KEY, 3, 0, bytes(segment.shards[3].data))
    assert bytes(mirror) == shards_twin.mask_shard(MASK_KEY, 3, 1, unmasked)
    assert made[3].root != segment.shards[3].root
    assert made[3].copy == 1
    shards = {1: segment.shards[1].data, 3: mirror}
    assert opened(codec, shards, shape, len(plain), copies={3: 1}) == plain


def test_damaged_and_missing_shards_are_refused(codec):
    shape = SegmentShape(3, 6, 32768)
    plain = random.Random(12).randbytes(shape.capacity)
    segment = sealed(codec, plain, shape)
    shards = {shard.index: shard.data for shard in segment.shards[2:5]}
    with pytest.raises(NotEnoughError):
        opened(codec, {index: shards[index] for index in (2, 3)}, shape, len(plain))
    for wrong in (b"", bytes(shards[3])[:-1], bytes(shards[3])[:16384]):
        with pytest.raises(DamagedShardError) as caught:
            opened(codec, shards | {3: memoryview(wrong)}, shape, len(plain))
        assert (caught.value.index, caught.value.code) == (3, ReasonCode.TRUNCATED)
    for wrong in (bytes(shards[3])[:-1], bytes(shards[3]) + b"\0"):
        with pytest.raises(DamagedShardError) as caught:
            opened(codec, shards | {3: memoryview(wrong)}, shape, len(plain), roots=segment.roots)
        assert (caught.value.index, caught.value.code) == (3, ReasonCode.TRUNCATED)
    for at in (0, 16384, 32767):
        changed = bytearray(shards[4])
        changed[at] ^= 1
        with pytest.raises(DamagedShardError) as caught:
            opened(codec, shards | {4: memoryview(changed)}, shape, len(plain), roots=segment.roots)
        assert (caught.value.index, caught.value.code) == (4, ReasonCode.HASH_MISMATCH)
        check_units(4, shards[4][16384:], segment.shards[4].leaves, first_unit=1)
        with pytest.raises(DamagedShardError):
            check_units(4, memoryview(changed), segment.shards[4].leaves)
    with pytest.raises(ValueError):
        opened(codec, {0: segment.shards[0].data[16384:]}, shape, 10, 3 * 16384, roots=segment.roots)


def test_rebuild_refuses_what_does_not_fit(codec):
    shape = SegmentShape(2, 4, 32768)
    segment = sealed(codec, b"abc", shape)
    options = {"k": 2, "mask_key": MASK_KEY, "codec": codec, "scratch": Scratch()}
    data = [shard.data for shard in segment.shards]
    with pytest.raises(NotEnoughError):
        rebuild({1: data[1]}, {0: memoryview(bytearray(32768))}, **options)
    with pytest.raises(ValueError):
        rebuild({1: data[1], 2: data[2]}, {0: memoryview(bytearray(16384))}, **options)
    with pytest.raises(DamagedShardError):
        rebuild({1: data[1], 2: data[2][:16384]}, {0: memoryview(bytearray(32768))}, **options)
    with pytest.raises(DamagedShardError):
        rebuild({1: data[1][:100], 2: data[2][:100]}, {0: memoryview(bytearray(100))}, **options)


def test_arena_and_scratch_are_used_again(codec):
    arena, scratch = ShardArena(1 << 20, max_shards=20), Scratch()
    rng = random.Random(13)
    for k, total, shard_bytes in [(3, 10, 65536), (10, 20, 32768), (1, 1, 1 << 20), (10, 20, 16384), (3, 10, 65536)]:
        shape = SegmentShape(k, total, shard_bytes)
        plain = rng.randbytes(rng.randint(1, shape.capacity))
        segment = sealed(codec, plain, shape, arena)
        assert segment.roots == sealed(codec, plain, shape).roots
        into = memoryview(bytearray(len(plain)))
        shards = {shard.index: shard.data for shard in segment.shards[-k:]}
        unseal(shards, key=KEY, mask_key=MASK_KEY, shape=shape, into=into, codec=codec, scratch=scratch)
        assert into == plain
