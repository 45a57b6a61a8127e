"""Golden vectors of identity: official BIP-39 and BIP-32, and our own. Never delete a file in `data/`."""

import json
from pathlib import Path

import pytest

from stook.codec import encode
from stook.identity.keys import KeyTree, NodeKey, new_phrase, node_id_of, parse_phrase, phrase_seed, verify
from stook.identity.pow import puzzle_bits, solve_puzzle

DATA = Path(__file__).parent / "data"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def load(name):
    return json.loads((DATA / name).read_text())


def private_key_of(xprv: str) -> bytes:
    """The scalar in a serialized extended private key: bytes 46 to 78 (BIP-32)."""
    number = 0
    for char in xprv:
        number = number * 58 + BASE58.index(char)
    return number.to_bytes(82, "big")[46:78]


def child_numbers(path: str) -> tuple[int, ...]:
    return tuple(int(step.rstrip("'")) | (1 << 31 if step.endswith("'") else 0) for step in path.split("/")[1:] if step)


OFFICIAL_39 = load("bip39-official-v1.json")
OFFICIAL_32 = [(v["seed"], c) for v in load("bip32-official-v1.json")["vectors"] for c in v["chains"]]
OWN = load("identity-v1.json")


@pytest.mark.parametrize("vector", OFFICIAL_39["vectors"], ids=lambda v: v["entropy"])
def test_official_bip39_phrases_seeds_and_master_keys(vector):
    phrase = vector["phrase"]
    seed = phrase_seed(phrase, OFFICIAL_39["passphrase"])
    assert seed.hex() == vector["seed"]
    assert KeyTree(seed).secret_at(()) == private_key_of(vector["master_xprv"])
    if len(vector["entropy"]) == 64:
        assert new_phrase(bytes.fromhex(vector["entropy"])) == phrase
        assert parse_phrase(phrase) == phrase


@pytest.mark.parametrize(("seed", "chain"), OFFICIAL_32, ids=lambda v: v["path"] if isinstance(v, dict) else v[:8])
def test_official_bip32_chains(seed, chain):
    tree = KeyTree(bytes.fromhex(seed))
    assert tree.secret_at(child_numbers(chain["path"])) == private_key_of(chain["xprv"])


@pytest.mark.parametrize("case", OWN["cases"], ids=lambda c: c["phrase"][:14] + "+" + c["passphrase"])
def test_every_branch_of_the_tree(case):
    tree = KeyTree.from_phrase(case["phrase"], case["passphrase"])
    assert phrase_seed(case["phrase"], case["passphrase"]).hex() == case["seed"]
    for node in case["nodes"]:
        key = tree.node_key(node["group"], node["index"])
        assert key.reveal_secret().hex() == node["secret"]
        assert key.reveal_secret() == tree.secret_at(child_numbers(node["path"]))
        assert key.public_key.hex() == node["public_key"]
        assert key.node_id.hex() == node["node_id"] == node_id_of(key.public_key).hex()
    for name in ("content_root", "recovery_root", "mask_root"):
        assert getattr(tree, name)().hex() == case[name]["secret"]
        assert tree.secret_at(child_numbers(case[name]["path"])).hex() == case[name]["secret"]
    assert tree.payment_key().reveal_secret().hex() == case["payment_key"]["secret"]
    assert tree.payment_key().public_key.hex() == case["payment_key"]["public_key"]
    assert encode(tree.agent_credential("local")).hex() == case["agent_credential"]


@pytest.mark.parametrize("vector", OWN["signatures"], ids=lambda v: v["digest"][:8])
def test_signatures(vector):
    key = NodeKey.from_secret(bytes.fromhex(vector["secret"]))
    digest = bytes.fromhex(vector["digest"])
    assert key.public_key.hex() == vector["public_key"]
    assert key.sign(digest).hex() == vector["signature"]
    assert verify(key.public_key, digest, bytes.fromhex(vector["signature"]))


@pytest.mark.parametrize("vector", OWN["puzzles"], ids=lambda v: str(v["asked_bits"]))
def test_puzzles(vector):
    key = bytes.fromhex(vector["public_key"])
    assert solve_puzzle(key, vector["asked_bits"], attempts=100_000) == vector["first_nonce"]
    assert puzzle_bits(key, vector["first_nonce"]) == vector["bits"]
