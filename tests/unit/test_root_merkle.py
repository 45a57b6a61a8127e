"""The fast tree against a recursive twin written from RFC 6962, section 2.1."""

import pytest
from blake3 import blake3

from stook.hashing import Tag, tagged_hash
from stook.merkle import (
    UNIT_BYTES,
    leaf_hash,
    leaves_of,
    merkle_path,
    path_top,
    shard_root,
    split_leaves,
    tree_top,
    unit_count,
)


def split_point(count: int) -> int:
    """The largest power of two smaller than `count`."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def twin_top(leaves):
    """MTH of RFC 6962 2.1, with tagged hashes for its 0x00 and 0x01 prefixes."""
    if len(leaves) == 1:
        return leaves[0]
    cut = split_point(len(leaves))
    return tagged_hash(Tag.NODE, twin_top(leaves[:cut]) + twin_top(leaves[cut:]))


def twin_path(leaves, index):
    """PATH of RFC 6962 2.1.1."""
    if len(leaves) == 1:
        return []
    cut = split_point(len(leaves))
    if index < cut:
        return [*twin_path(leaves[:cut], index), twin_top(leaves[cut:])]
    return [*twin_path(leaves[cut:], index - cut), twin_top(leaves[:cut])]


def some_leaves(count: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


@pytest.mark.parametrize("count", [*range(1, 40), 63, 64, 65, 255, 256])
def test_tops_and_paths_are_the_twins(count):
    leaves = some_leaves(count)
    assert tree_top(leaves) == twin_top(leaves)
    for index in range(count):
        path = merkle_path(leaves, index)
        assert path == twin_path(leaves, index)
        assert path_top(leaves[index], index, count, path) == tree_top(leaves)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 8, 13, 16])
def test_a_path_proves_one_leaf_at_one_place_in_one_tree(count):
    leaves = some_leaves(count)
    top = tree_top(leaves)
    for index in range(count):
        path = merkle_path(leaves, index)
        for other in range(-1, count + 2):
            if other != index:
                assert path_top(leaves[index], other, count, path) != top
        assert path_top(leaf_hash(b"another"), index, count, path) != top
        assert path_top(leaves[index], index, count, [*path, bytes(32)]) is None
        if path:
            assert path_top(leaves[index], index, count, path[:-1]) is None
            assert path_top(leaves[index], index, count, [bytes(32), *path[1:]]) != top
            for at in range(len(path) - 1):
                swapped = path.copy()
                swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
                assert path_top(leaves[index], index, count, swapped) != top


def test_an_inner_node_never_passes_for_a_leaf():
    """White paper 5.7: an answer taken from higher up the tree. The depth is fixed by index and count."""
    leaves = some_leaves(8)
    node = tagged_hash(Tag.NODE, leaves[0] + leaves[1])
    short = merkle_path(leaves, 0)[1:]
    assert path_top(node, 0, 8, short) is None
    # Claimed as a smaller tree it leads to the same top, but not to the same root: the size is hashed in.
    assert path_top(node, 0, 4, short) == tree_top(leaves)
    assert shard_root(8 * UNIT_BYTES, leaves) != shard_root(4 * UNIT_BYTES, [node, *some_leaves(3)])


def test_leaves_and_nodes_share_no_digest():
    pair = bytes(64)
    assert leaf_hash(pair) != tagged_hash(Tag.NODE, pair)


@pytest.mark.parametrize(
    ("size", "units"), [(1, 1), (UNIT_BYTES - 1, 1), (UNIT_BYTES, 1), (UNIT_BYTES + 1, 2), (4 << 20, 256)]
)
def test_unit_counts(size, units):
    assert unit_count(size) == units


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_shard_has_no_root(size):
    with pytest.raises(ValueError, match="at least one byte"):
        unit_count(size)
    with pytest.raises(ValueError, match="at least one leaf"):
        tree_top([])


@pytest.mark.parametrize("size", [1, UNIT_BYTES, UNIT_BYTES + 1, 3 * UNIT_BYTES + 5])
def test_a_root_binds_size_and_every_byte(size):
    shard = bytearray(size)
    leaves = leaves_of(memoryview(shard))
    root = shard_root(size, leaves)
    twin = blake3(size.to_bytes(8, "big") + twin_top(leaves), key=Tag.SHARD.key).digest()
    assert root == twin
    for at in {0, size // 2, size - 1}:
        shard[at] ^= 1
        assert shard_root(size, leaves_of(memoryview(shard))) != root
        shard[at] ^= 1
    if size % UNIT_BYTES != 1:
        assert shard_root(size - 1, leaves) != root


@pytest.mark.parametrize(("size", "count"), [(UNIT_BYTES, 2), (UNIT_BYTES + 1, 1), (1, 0)])
def test_a_root_needs_as_many_leaves_as_the_size_has_units(size, count):
    with pytest.raises(ValueError, match="leaves, not"):
        shard_root(size, some_leaves(count))


def test_paths_outside_the_tree():
    leaves = some_leaves(3)
    for index in (-1, 3):
        with pytest.raises(IndexError):
            merkle_path(leaves, index)
        assert path_top(leaves[0], index, 3, []) is None
    assert path_top(leaves[0], 0, 0, []) is None


def test_a_leaf_list_is_cut_in_32_byte_pieces():
    leaves = some_leaves(5)
    assert split_leaves(b"".join(leaves)) == leaves
    assert split_leaves(b"") == []
    with pytest.raises(ValueError, match="multiple of 32"):
        split_leaves(bytes(33))
