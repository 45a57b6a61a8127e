import pytest

from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey
from stook.identity.pow import MAX_PUZZLE_BITS, puzzle_bits, solve_puzzle

KEY = NodeKey.from_secret(b"\7" * 32).public_key


def test_bits_are_the_leading_zeros_of_the_tagged_hash():
    for nonce in range(500):
        text = f"{int.from_bytes(tagged_hash(Tag.PUZZLE, KEY + nonce.to_bytes(8, 'big')), 'big'):0256b}"
        assert puzzle_bits(KEY, nonce) == len(text) - len(text.lstrip("0"))


def test_a_solution_is_the_first_one_and_belongs_to_one_key():
    nonce = solve_puzzle(KEY, 8, attempts=100_000)
    assert nonce is not None
    assert puzzle_bits(KEY, nonce) >= 8
    assert all(puzzle_bits(KEY, earlier) < 8 for earlier in range(nonce))
    other = NodeKey.from_secret(b"\6" * 32).public_key
    assert puzzle_bits(other, nonce) < 8


def test_the_search_can_be_cut_in_slices():
    whole = solve_puzzle(KEY, 9, attempts=100_000)
    found, at = None, 0
    while found is None:
        found = solve_puzzle(KEY, 9, first_nonce=at, attempts=50)
        at += 50
    assert found == whole
    assert solve_puzzle(KEY, 40, attempts=3) is None


def test_the_search_ends_with_the_last_nonce():
    assert solve_puzzle(KEY, 40, first_nonce=(1 << 63) - 2, attempts=100) is None


@pytest.mark.parametrize("bits", [-1, MAX_PUZZLE_BITS + 1])
def test_bits_are_bounded(bits):
    with pytest.raises(ValueError, match="0 to 40"):
        solve_puzzle(KEY, bits, attempts=1)


@pytest.mark.parametrize("nonce", [-1, 1 << 63])
def test_nonces_are_bounded(nonce):
    with pytest.raises(ValueError, match="nonce"):
        puzzle_bits(KEY, nonce)
