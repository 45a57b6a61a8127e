"""The puzzle that makes a node id cost something: S/Kademlia's static puzzle, with a nonce beside the key.

The strength of a solution is the number of leading zero bits of the tagged hash of the public key and an 8-byte
nonce. It can be improved at any time without changing the id, so a network may raise what it asks for. It is a price,
not a proof of personhood: `docs/formats/identity.md` says what it does not stop.
"""

from __future__ import annotations

from stook.hashing import Tag, tagged_hash
from stook.ids import PublicKey

MAX_PUZZLE_BITS = 40
"""The most a network may ask for: about an hour of many cores."""


def puzzle_bits(public_key: PublicKey, nonce: int) -> int:
    """How many leading zero bits the solution `nonce` has: 0 to 256. Raises `ValueError` outside 0..2**63-1."""
    if not 0 <= nonce < 1 << 63:
        raise ValueError("a puzzle nonce is 0 to 2**63 - 1")
    digest = tagged_hash(Tag.PUZZLE, public_key + nonce.to_bytes(8, "big"))
    return 256 - int.from_bytes(digest, "big").bit_length()


def solve_puzzle(public_key: PublicKey, bits: int, *, first_nonce: int = 0, attempts: int) -> int | None:
    """The first nonce from `first_nonce` on that gives at least `bits`, or None after `attempts` tries.

    Takes about 2**bits tries on average, one or two microseconds each; call it in slices, away from an event loop.
    Raises `ValueError` outside 0..`MAX_PUZZLE_BITS`.
    """
    if not 0 <= bits <= MAX_PUZZLE_BITS:
        raise ValueError(f"a puzzle asks for 0 to {MAX_PUZZLE_BITS} bits")
    for nonce in range(first_nonce, min(first_nonce + attempts, 1 << 63)):
        if puzzle_bits(public_key, nonce) >= bits:
            return nonce
    return None
