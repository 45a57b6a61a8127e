"""XOR with an AES-256-CTR key stream, from any unit on: what the cipher and the mask are both made of."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from stook.merkle import UNIT_BYTES

Bytes = bytes | bytearray | memoryview
Xor = Callable[[Bytes, Bytes], int]
"""``xor(source, target)`` writes the next ``len(source)`` bytes; both may be the same memory."""

_BLOCKS_PER_UNIT = UNIT_BYTES // 16


def xor_stream(key: bytes, first_unit: int = 0) -> Xor:
    """The key stream of `key` from 16 KiB unit `first_unit` on, to be used forward.

    The counter block is a 128-bit big-endian number that starts at 0. Raises `ValueError` unless `key` has 32 bytes.
    """
    if len(key) != 32:
        raise ValueError(f"an AES-256 key has 32 bytes, not {len(key)}")
    counter = (first_unit * _BLOCKS_PER_UNIT).to_bytes(16, "big")
    xor: Xor = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update_into
    return xor
