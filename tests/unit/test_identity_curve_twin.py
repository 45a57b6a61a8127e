"""A slow, obvious twin of the curve, BIP-32 and RFC 6979, written from their papers, judges the fast libraries."""

import hashlib
import hmac

import pytest

from stook.hashing import Tag, tagged_hash
from stook.identity.keys import KeyTree, NodeKey, node_id_of, verify

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if a[1] != b[1]:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(scalar, point):
    total = None
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point, scalar = add(point, point), scalar >> 1
    return total


def compressed(secret: int) -> bytes:
    x, y = multiply(secret, G)
    return bytes((2 + (y & 1),)) + x.to_bytes(32, "big")


def derive(seed: bytes, path) -> int:
    """BIP-32, private parent to private child."""
    mac = hmac.digest(b"Bitcoin seed", seed, "sha512")
    secret, chain = int.from_bytes(mac[:32], "big"), mac[32:]
    for number in path:
        head = b"\0" + secret.to_bytes(32, "big") if number >> 31 else compressed(secret)
        mac = hmac.digest(chain, head + number.to_bytes(4, "big"), "sha512")
        secret, chain = (int.from_bytes(mac[:32], "big") + secret) % N, mac[32:]
    return secret


def sign(secret: int, digest: bytes) -> bytes:
    """ECDSA with the nonce of RFC 6979 section 3.2, s in the lower half."""
    x = secret.to_bytes(32, "big")
    z = (int.from_bytes(digest, "big") % N).to_bytes(32, "big")
    # libsecp256k1 feeds the digest unreduced into the nonce; for digests below N both are the same.
    assert z == digest
    v, k = b"\1" * 32, b"\0" * 32
    for separator in (b"\0", b"\1"):
        k = hmac.digest(k, v + separator + x + z, "sha256")
        v = hmac.digest(k, v, "sha256")
    v = hmac.digest(k, v, "sha256")
    nonce = int.from_bytes(v, "big")
    assert 0 < nonce < N
    r = multiply(nonce, G)[0] % N
    s = pow(nonce, -1, N) * (int.from_bytes(digest, "big") + r * secret) % N
    return r.to_bytes(32, "big") + min(s, N - s).to_bytes(32, "big")


def twin_verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    x = int.from_bytes(public_key[1:], "big")
    y = pow(x**3 + 7, (P + 1) // 4, P)
    point = (x, y if y & 1 == public_key[0] & 1 else P - y)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    w = pow(s, -1, N)
    reached = add(multiply(int.from_bytes(digest, "big") * w % N, G), multiply(r * w % N, point))
    return reached is not None and reached[0] % N == r


@pytest.mark.parametrize("text", ["", "a", "stook", "the quick brown fox"])
def test_keys_and_signatures_are_the_twins(text):
    seed = hashlib.sha512(text.encode()).digest()
    tree = KeyTree(seed)
    for path in ((), (3000 | 1 << 31, 5 | 1 << 31, 7), (3001 | 1 << 31, 1 << 31), (44 | 1 << 31, 60 | 1 << 31, 0, 9)):
        secret = derive(seed, path)
        assert tree.secret_at(path) == secret.to_bytes(32, "big")
        key = NodeKey.from_secret(tree.secret_at(path))
        assert key.public_key == compressed(secret)
        digest = tagged_hash(Tag.HELLO, text.encode())
        assert key.sign(digest) == sign(secret, digest)
        assert twin_verify(key.public_key, digest, key.sign(digest))
        assert verify(key.public_key, digest, key.sign(digest))


def test_node_id_with_and_without_the_ripemd_of_openssl(monkeypatch):
    key = compressed(1)
    # The well-known hash160 of the generator point.
    expected = "751e76e8199196d454941c45d1b3a323f1433bd6"
    assert node_id_of(key).hex() == expected

    def missing(name, data=b""):
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", missing)
    assert node_id_of(key).hex() == expected
