"""The format of `docs/formats/segment.md` and `shard.md` written as plainly as can be: slow, and the judge of the fast.

Shares no code with `stook.shards`: field arithmetic by long multiplication, CTR from single AES blocks, HKDF and the
Merkle tree from their papers.
"""

import functools

from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

UNIT = 16384


def multiply(a, b):
    """The product in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(15, 7, -1):
        if product >> bit & 1:
            product ^= 0x11D << (bit - 8)
    return product


@functools.cache
def inverse(a):
    return next(b for b in range(1, 256) if multiply(a, b) == 1)


@functools.cache
def times(a):
    """A translation table that multiplies by `a`."""
    return bytes(multiply(a, b) for b in range(256))


def xor(left, right):
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def code_row(k, index):
    return [int(index == j) if index < k else inverse(index ^ j) for j in range(k)]


def encode_row(k, index, data_rows):
    result = bytes(len(data_rows[0]))
    for coefficient, row in zip(code_row(k, index), data_rows, strict=True):
        result = xor(result, row.translate(times(coefficient)))
    return result


def key_stream(key, size):
    blocks = b"".join(counter.to_bytes(16, "big") for counter in range(-(-size // 16)))
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return aes.update(blocks)[:size]


def hkdf(root, purpose, context=b"", salt=None, size=32):
    info = b"stook/1/" + purpose + b"\x00" + context
    return HKDF(hashes.SHA256(), length=size, salt=salt, info=info).derive(root)


def tagged(tag, data):
    return blake3(data, key=blake3(b"stook/1/" + tag).digest()).digest()


def top(leaves):
    """RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return tagged(b"merkle-node", top(leaves[:split]) + top(leaves[split:]))


def root(shard):
    leaves = [tagged(b"merkle-leaf", shard[at : at + UNIT]) for at in range(0, len(shard), UNIT)]
    return tagged(b"shard-root", len(shard).to_bytes(8, "big") + top(leaves)), b"".join(leaves)


def mask_shard(segment_mask_key, index, copy, shard):
    key = hkdf(segment_mask_key, b"shard-mask", bytes([index]) + copy.to_bytes(2, "big"))
    return xor(shard, key_stream(key, len(shard)))


def seal(plain, key, mask_root, segment_id, k, total, shard_bytes):
    """The masked shards of a segment, in order of index."""
    padded = plain + bytes(k * shard_bytes - len(plain))
    ciphertext = xor(padded, key_stream(key, len(padded)))
    units = [ciphertext[at : at + UNIT] for at in range(0, len(ciphertext), UNIT)]
    data_rows = [b"".join(units[i::k]) for i in range(k)]
    rows = data_rows + [encode_row(k, index, data_rows) for index in range(k, total)]
    segment_mask_key = hkdf(mask_root, b"segment-mask", segment_id)
    return [mask_shard(segment_mask_key, index, 0, row) for index, row in enumerate(rows)]
