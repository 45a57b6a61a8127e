from hypothesis import given, settings
from hypothesis import strategies as st

from stook.hashing import Tag, tagged_hash
from stook.merkle import UNIT_BYTES, leaf_hash, leaves_of, merkle_path, path_top, shard_root, tree_top


def naive_top(leaves):
    """Pads nothing, carries nothing: cuts at the largest power of two, as RFC 6962 says."""
    if len(leaves) == 1:
        return leaves[0]
    cut = 1 << ((len(leaves) - 1).bit_length() - 1)
    return tagged_hash(Tag.NODE, naive_top(leaves[:cut]) + naive_top(leaves[cut:]))


leaf_lists = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=300)


@given(leaf_lists, st.data())
@settings(max_examples=100, deadline=None)
def test_any_tree_agrees_with_the_naive_one_and_any_path_leads_to_its_top(leaves, data):
    top = tree_top(leaves)
    assert top == naive_top(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    assert path_top(leaves[index], index, len(leaves), merkle_path(leaves, index)) == top


@given(leaf_lists, st.data())
@settings(max_examples=100, deadline=None)
def test_a_bent_path_never_leads_to_the_top(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = merkle_path(leaves, index)
    wrong = data.draw(st.lists(st.binary(min_size=32, max_size=32), max_size=10))
    if wrong != path:
        assert path_top(leaves[index], index, len(leaves), wrong) != tree_top(leaves)
    lie = data.draw(st.binary(min_size=32, max_size=32))
    if lie != leaves[index]:
        assert path_top(lie, index, len(leaves), path) != tree_top(leaves)


@given(st.integers(1, 5 * UNIT_BYTES), st.binary(min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_leaves_are_those_of_the_units(size, pattern):
    shard = (pattern * (size // len(pattern) + 1))[:size]
    leaves = leaves_of(memoryview(shard))
    assert leaves == [leaf_hash(shard[at : at + UNIT_BYTES]) for at in range(0, size, UNIT_BYTES)]
    assert len(shard_root(size, leaves)) == 32
