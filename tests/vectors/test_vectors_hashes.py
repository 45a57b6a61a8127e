"""Golden vectors of the tagged hashes and the Merkle tree. Never delete a file in `data/`."""

import json
from pathlib import Path

import pytest

from stook.hashing import Tag, tagged_hash
from stook.merkle import leaves_of, merkle_path, path_top, shard_root, tree_top, unit_count

DATA = Path(__file__).parent / "data"
TAGS = json.loads((DATA / "hashes-v1.json").read_text())["tags"]
SHARDS = json.loads((DATA / "merkle-v1.json").read_text())["shards"]


@pytest.mark.parametrize("vector", TAGS, ids=lambda v: v["name"])
def test_tagged_hashes(vector):
    tag = Tag[vector["name"]]
    assert tag.value == vector["tag"]
    assert tag.key.hex() == vector["key"]
    assert tagged_hash(tag, b"").hex() == vector["empty"]
    assert tagged_hash(tag, memoryview(b"abc")).hex() == vector["abc"]


@pytest.mark.parametrize("vector", SHARDS, ids=lambda v: str(v["size_bytes"]))
def test_shard_roots_and_paths(vector):
    size = vector["size_bytes"]
    leaves = leaves_of(memoryview((bytes(range(251)) * (size // 251 + 1))[:size]))
    assert len(leaves) == vector["units"] == unit_count(size)
    assert leaves[0].hex() == vector["first_leaf"]
    assert tree_top(leaves).hex() == vector["top"]
    assert shard_root(size, leaves).hex() == vector["root"]
    path = merkle_path(leaves, vector["path_of"])
    assert [step.hex() for step in path] == vector["path"]
    assert path_top(leaves[vector["path_of"]], vector["path_of"], len(leaves), path) == tree_top(leaves)
