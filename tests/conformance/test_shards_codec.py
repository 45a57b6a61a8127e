"""Every codec gives the same bytes as field arithmetic done by hand."""

import itertools
import random

import pytest
import shards_twin

from stook.errors import NotEnoughError
from stook.shards.erasure import IsalCodec, NumpyCodec, code_row, decode_matrix, encode_matrix, find_isal, load_codec

LENGTH = 72
"""Bytes per row: enough for the vector paths of the library and a rest behind them."""


@pytest.fixture(params=["numpy", "isa-l"])
def codec(request):
    if request.param == "numpy":
        return NumpyCodec()
    library = find_isal()
    if library is None:
        pytest.skip("no ISA-L on this platform")
    return IsalCodec(library)


def random_rows(rng, count, length=LENGTH):
    return [rng.randbytes(length) for _ in range(count)]


def apply(codec, matrix, sources, length=LENGTH):
    targets = [memoryview(bytearray(b"\xaa" * length)) for _ in matrix]
    codec.bind(matrix, [memoryview(row) for row in sources], targets)(0, length)
    return [bytes(target) for target in targets]


def all_rows(codec, k, total, data):
    return data + (apply(codec, encode_matrix(k, total), data) if total > k else [])


@pytest.mark.parametrize(("k", "total"), [(1, 2), (1, 5), (2, 3), (3, 10), (10, 20), (20, 40), (100, 255), (255, 255)])
def test_parity_is_what_long_multiplication_gives(codec, k, total):
    data = random_rows(random.Random(k * 256 + total), k)
    rows = all_rows(codec, k, total, data)
    for index in {0, k - 1, min(k, total - 1), total - 1}:
        assert rows[index] == shards_twin.encode_row(k, index, data)


def test_rows_do_not_depend_on_how_many_there_are():
    assert encode_matrix(4, 255)[:6] == encode_matrix(4, 10)
    assert all(list(code_row(7, i)) == shards_twin.code_row(7, i) for i in range(255))


@pytest.mark.parametrize(("k", "total"), [(1, 4), (2, 5), (3, 6), (4, 7), (3, 10)])
def test_every_erasure_pattern_of_small_codes(codec, k, total):
    rows = all_rows(codec, k, total, random_rows(random.Random(7), k))
    everything = tuple(range(total))
    for present in itertools.combinations(everything, k):
        rebuilt = apply(codec, decode_matrix(k, present, everything), [rows[index] for index in present])
        assert rebuilt == rows


@pytest.mark.parametrize(("k", "total"), [(10, 20), (20, 40), (100, 255), (1, 255), (254, 255), (128, 255)])
def test_random_erasure_patterns_of_large_codes(codec, k, total):
    rng = random.Random(k)
    rows = all_rows(codec, k, total, random_rows(rng, k))
    for _ in range(3):
        present = tuple(rng.sample(range(total), k))
        wanted = tuple(rng.sample(range(total), min(total, 12)))
        rebuilt = apply(codec, decode_matrix(k, present, wanted), [rows[index] for index in present])
        assert rebuilt == [rows[index] for index in wanted]


@pytest.mark.parametrize("length", [8, 64, 1024, 16384, 65536 + 8, 200_000])
def test_lengths_and_offsets(codec, length):
    rng = random.Random(length)
    data = random_rows(rng, 3, length)
    targets = [memoryview(bytearray(length)) for _ in range(2)]
    transform = codec.bind(encode_matrix(3, 5), [memoryview(row) for row in data], targets)
    middle = length // 16 * 8
    transform(middle, length - middle)
    transform(0, middle)
    for index, target in enumerate(targets, start=3):
        assert target == shards_twin.encode_row(3, index, data)


def test_ranges_outside_the_rows_are_refused(codec):
    rows = [memoryview(bytearray(64)) for _ in range(3)]
    transform = codec.bind(encode_matrix(2, 3), rows[:2], rows[2:])
    for offset, length in [(8, 64), (0, 72), (-8, 8), (64, 8)]:
        with pytest.raises(ValueError):
            transform(offset, length)


def test_matrix_and_rows_must_fit(codec):
    row = memoryview(bytearray(64))
    with pytest.raises(ValueError):
        codec.bind(encode_matrix(3, 5), [row] * 2, [row] * 2)
    with pytest.raises(ValueError):
        codec.bind(encode_matrix(3, 5), [row] * 3, [row])
    with pytest.raises(ValueError):
        codec.bind(encode_matrix(1, 2), [row], [memoryview(bytes(64))])


def test_too_few_rows_are_a_typed_error():
    for present in [(0, 1), (0, 1, 1), (0, 1, 2, 3)]:
        with pytest.raises(NotEnoughError):
            decode_matrix(3, present, (2,))


def test_no_row_outside_the_field():
    for k, index in [(3, 255), (3, -1), (0, 0), (256, 0)]:
        with pytest.raises(ValueError):
            code_row(k, index)


def test_loader_takes_the_fast_one_when_there_is_one(monkeypatch):
    assert load_codec().name == ("isa-l" if find_isal() else "numpy")
    monkeypatch.setattr("stook.shards.erasure.find_isal", lambda: None)
    assert load_codec().name == "numpy"
