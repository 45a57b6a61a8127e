"""Cheap signatures for large simulations: keyed hashes that only their own key's holder can make, in this process.

A signature costs 50 µs and its check as much, so in a network of hundreds of nodes they are half of all work. Here a
node keeps its real key, and its id that follows from it, but signs with a keyed hash of the digest; and while the
context is open, a public key that was made cheap in it is checked against that hash. All else is checked as ever:
other keys' signatures by the curve, and nobody passes who did not sign. So refusals and verdicts are what they would
be, only faster. What cannot be shown with them: that a stranger checks receipts later, and anything about the curve
itself.

Production code has no switch for this. `CheapSignatures` is the one place that puts a function in the stead of another
(`docs/decisions/0161-cheap-signatures-live-in-the-simulator.md`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import TracebackType
from typing import Any

from blake3 import blake3

from stook.identity import keys
from stook.identity.keys import NodeKey
from stook.ids import SIGNATURE_BYTES, PublicKey, Signature

REAL_BELOW = 50
"""Networks of fewer farmers sign truly unless told otherwise."""
_Check = Callable[[bytes, bytes, bytes], bool]
_module: dict[str, Any] = vars(keys)


class Signatures(enum.StrEnum):
    """How the nodes of a simulation sign; every result says which."""

    REAL = "real"
    CHEAP = "cheap"

    @classmethod
    def for_farmers(cls, count: int) -> Signatures:
        """What a network of so many farmers uses unless told otherwise."""
        return cls.REAL if count < REAL_BELOW else cls.CHEAP


class CheapKey(NodeKey):
    """A node key that signs with a keyed hash. Only who has it can make its signatures."""

    __slots__ = ("_secret_hash",)

    def __init__(self, private: Any) -> None:
        super().__init__(private)
        self._secret_hash = blake3(self.reveal_secret(), derive_key_context="stook.sim cheap signatures").digest()

    def sign(self, digest: bytes) -> Signature:
        """64 bytes that follow from key and digest. Raises `ValueError` unless the digest has 32 bytes."""
        if len(digest) != 32:
            raise ValueError(f"a digest is 32 bytes, not {len(digest)}")
        return Signature(blake3(digest, key=self._secret_hash).digest(length=SIGNATURE_BYTES))

    def signed(self, digest: bytes, signature: bytes) -> bool:
        """Whether `sign` gave this signature for this digest."""
        return len(digest) == 32 and signature == self.sign(digest)


class CheapSignatures:
    """A context in which the keys that `cheapen` made are believed. May be nested; the same process only."""

    def __init__(self) -> None:
        self._keys: dict[PublicKey, CheapKey] = {}
        self._before: list[_Check] = []

    def cheapen(self, key: NodeKey) -> NodeKey:
        """The same node, signing cheaply."""
        cheap = CheapKey.from_secret(key.reveal_secret())
        self._keys[cheap.public_key] = cheap
        return cheap

    def __enter__(self) -> CheapSignatures:
        before: _Check = _module["_verified"]
        mine = self._keys

        def verified(public_key: bytes, digest: bytes, signature: bytes) -> bool:
            key = mine.get(PublicKey(public_key))
            return before(public_key, digest, signature) if key is None else key.signed(digest, signature)

        self._before.append(before)
        _module["_verified"] = verified
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _module["_verified"] = self._before.pop()
