"""Twenty-four words to keys, keys to node ids, and signatures.

The phrase is BIP-39, the tree BIP-32, the node branch SIP-32; every branch that must not reveal another is hardened
(`docs/formats/identity.md`). Signatures are deterministic ECDSA over secp256k1 on 32-byte tagged digests. Only this
package holds private keys, and none of its objects prints, pickles or compares one.
"""

from __future__ import annotations

import hashlib
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Annotated, NoReturn, Self

from bip32 import BIP32
from bip32.ripemd160 import ripemd160
from coincurve import PrivateKey
from coincurve import PublicKey as CurvePoint
from mnemonic import Mnemonic
from msgspec import Meta

from stook.codec import Record
from stook.errors import UserError
from stook.ids import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    Bytes32Field,
    NetworkId,
    NetworkIdField,
    NodeId,
    PublicKey,
    Signature,
)

SECRET_BYTES = 32
PHRASE_WORDS = 24
AGENT_CREDENTIAL_VERSION = 1

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HALF_ORDER = CURVE_ORDER // 2
_HARDENED = 1 << 31


class PhraseError(UserError):
    """A recovery phrase was typed wrongly; the text says which word, and never repeats a correct one."""


# --- ids and signatures ----------------------------------------------------------------------------------------------


def node_id_of(public_key: PublicKey) -> NodeId:
    """The id of the node that holds `public_key`: RIPEMD160(SHA256(key)) (white paper 2.2)."""
    inner = hashlib.sha256(public_key).digest()
    try:
        return NodeId(hashlib.new("ripemd160", inner).digest())
    except ValueError:
        # Some OpenSSL builds ship RIPEMD-160 only in a provider that is not loaded.
        return NodeId(bytes(ripemd160(inner)))


@lru_cache(maxsize=4096)
def _point(public_key: bytes) -> CurvePoint:
    # Decompressing a key costs a square root; a node hears from the same few peers again and again.
    return CurvePoint(public_key)


def _der_integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02" + bytes((len(body),)) + body


def _compact(der: bytes) -> Signature:
    """Our own DER signature as r ‖ s; coincurve's other way to it costs a third of the signing again."""
    r_end = 4 + der[3]
    r, s = int.from_bytes(der[4:r_end], "big"), int.from_bytes(der[r_end + 2 :], "big")
    return Signature(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def is_public_key(public_key: bytes) -> bool:
    """Whether the bytes are a compressed point of the curve. Never raises."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        return False
    try:
        _point(public_key)
    except ValueError:
        return False
    return True


def verify(public_key: PublicKey, digest: bytes, signature: Signature) -> bool:
    """Whether the holder of `public_key` signed `digest`.

    False, never an exception, for a wrong length, a point that is not on the curve, and the second ("high s") form
    that every ECDSA signature has, so that a signature cannot be altered and stay valid.
    """
    return _verified(public_key, digest, signature)


@lru_cache(maxsize=4096)
def _verified(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    # Remembered, because contract and receipt are looked at again by whoever is handed them next.
    if len(signature) != SIGNATURE_BYTES or len(digest) != 32 or len(public_key) != PUBLIC_KEY_BYTES:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not 0 < r < CURVE_ORDER or not 0 < s <= _HALF_ORDER:
        return False
    body = _der_integer(r) + _der_integer(s)
    try:
        return _point(public_key).verify(b"\x30" + bytes((len(body),)) + body, digest, hasher=None)
    except ValueError:
        return False


class SigningKey:
    """A private key that signs digests. Its text form shows the public key alone; it refuses to be pickled."""

    __slots__ = ("_private", "public_key")

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self.public_key = PublicKey(private.public_key.format(compressed=True))

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """The key whose 32-byte big-endian scalar is `secret`. Raises `ValueError` unless 0 < scalar < curve order."""
        if len(secret) != SECRET_BYTES or not 0 < int.from_bytes(secret, "big") < CURVE_ORDER:
            raise ValueError("a secret is 32 bytes, above zero and below the curve's order")
        return cls(PrivateKey(secret))

    def sign(self, digest: bytes) -> Signature:
        """Sign a 32-byte tagged digest: r ‖ s, deterministic (RFC 6979), s in the lower half.

        Raises `ValueError` for any other length.
        """
        if len(digest) != 32:
            raise ValueError(f"a digest is 32 bytes, not {len(digest)}")
        return _compact(self._private.sign(digest, hasher=None))

    def reveal_secret(self) -> bytes:
        """The 32-byte scalar. For the key store and for exporting a credential, nothing else."""
        return self._private.secret

    def __repr__(self) -> str:
        return f"{type(self).__name__}(public_key={self.public_key.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SigningKey) and other.public_key == self.public_key

    def __hash__(self) -> int:
        return hash(self.public_key)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is never pickled or copied")


class NodeKey(SigningKey):
    """The key that makes a node: it signs its messages, and its id follows from it."""

    __slots__ = ("node_id",)

    def __init__(self, private: PrivateKey) -> None:
        super().__init__(private)
        self.node_id = node_id_of(self.public_key)


# --- the phrase and its tree -----------------------------------------------------------------------------------------


@cache
def _words() -> Mnemonic:
    return Mnemonic("english")


def new_phrase(entropy: bytes) -> str:
    """The 24 words for 32 bytes of entropy (BIP-39, English). Raises `ValueError` for any other length."""
    if len(entropy) != 32:
        raise ValueError(f"24 words hold 32 bytes of entropy, not {len(entropy)}")
    return _words().to_mnemonic(entropy)


def phrase_entropy(text: str) -> bytes:
    """The 32 bytes that a typed phrase stands for: the inverse of `new_phrase`. Raises `PhraseError`."""
    return bytes(_words().to_entropy(parse_phrase(text)))


def parse_phrase(text: str) -> str:
    """The phrase that a person typed, in the one form that derivation accepts.

    Spaces, line breaks and capitals do not matter. Raises `PhraseError` that says how many words are missing, which
    word is unknown (with the nearest one in the list), or that the checksum does not fit.
    """
    words = text.lower().split()
    known = _words().wordlist
    unknown = [(position, word) for position, word in enumerate(words, 1) if word not in known]
    if unknown:
        raise PhraseError("; ".join(_unknown_word(position, word, known) for position, word in unknown[:4]))
    if len(words) != PHRASE_WORDS:
        raise PhraseError(f"a recovery phrase has {PHRASE_WORDS} words; these are {len(words)}")
    phrase = " ".join(words)
    if not _words().check(phrase):
        raise PhraseError(
            "the checksum of this phrase does not fit: every word is in the list, but one is wrong, or two have "
            "changed places; compare it with what you wrote down"
        )
    return phrase


def _unknown_word(position: int, word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"word {position}, '{word}', is not in the list" + (f"; did you mean '{near[0]}'?" if near else "")


def phrase_seed(phrase: str, passphrase: str = "") -> bytes:
    """The 64-byte BIP-39 seed of a phrase: PBKDF2-HMAC-SHA512, 2,048 rounds. The phrase is not checked."""
    return Mnemonic.to_seed(phrase, passphrase)


class KeyTree:
    """Everything that follows from one phrase. Knowing what one branch gives away says nothing about another."""

    __slots__ = ("_master",)

    def __init__(self, seed: bytes) -> None:
        """Grow the tree from a BIP-39 seed. Raises `ValueError` unless 16 to 64 bytes (BIP-32)."""
        if not 16 <= len(seed) <= 64:
            raise ValueError(f"a seed has 16 to 64 bytes, not {len(seed)}")
        self._master = BIP32.from_seed(seed)

    @classmethod
    def from_phrase(cls, phrase: str, passphrase: str = "") -> Self:
        """The tree of the 24 words, as typed. Raises `PhraseError` (see `parse_phrase`).

        Every passphrase gives a valid tree; a wrong one gives a different, empty identity.
        """
        return cls(phrase_seed(parse_phrase(phrase), passphrase))

    def secret_at(self, path: tuple[int, ...]) -> bytes:
        """The private key at a path of child numbers, 2**31 and above being hardened (BIP-32)."""
        return bytes(self._master.get_privkey_from_path(list(path)))

    def node_key(self, group: int = 0, index: int = 0) -> NodeKey:
        """The node key ``m/3000'/group'/index`` (SIP-32). Raises `ValueError` for numbers outside 0..2**31-1."""
        if not 0 <= group < _HARDENED or not 0 <= index < _HARDENED:
            raise ValueError("a group and an index are 0 to 2**31 - 1")
        return NodeKey.from_secret(self.secret_at((3000 | _HARDENED, group | _HARDENED, index)))

    def content_root(self) -> bytes:
        """The 32-byte root of all content keys, ``m/3001'/0'``."""
        return self.secret_at((3001 | _HARDENED, _HARDENED))

    def recovery_root(self) -> bytes:
        """The 32-byte root of the recovery records' keys and addresses, ``m/3002'/0'``."""
        return self.secret_at((3002 | _HARDENED, _HARDENED))

    def mask_root(self) -> bytes:
        """The 32-byte root of all mask keys, ``m/3003'/0'``; the agent holds it, and it opens no content."""
        return self.secret_at((3003 | _HARDENED, _HARDENED))

    def payment_key(self) -> SigningKey:
        """The first Ethereum account, ``m/44'/60'/0'/0/0``, as every wallet derives it (BIP-44)."""
        return SigningKey.from_secret(self.secret_at((44 | _HARDENED, 60 | _HARDENED, _HARDENED, 0, 0)))

    def agent_credential(self, network: NetworkId, group: int = 0, index: int = 0) -> AgentCredential:
        """What an always-on agent needs to place, audit and repair, and cannot read content with."""
        return AgentCredential(
            version=AGENT_CREDENTIAL_VERSION,
            network=network,
            node_secret=self.node_key(group, index).reveal_secret(),
            mask_root=self.mask_root(),
        )

    def __repr__(self) -> str:
        return f"KeyTree(node_id={self.node_key().node_id.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key tree is never pickled or copied")


class AgentCredential(Record):
    """The secrets of an agent: a node key and the mask root, neither phrase nor content keys."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    node_secret: Bytes32Field
    mask_root: Bytes32Field

    def node_key(self) -> NodeKey:
        """The agent's node key. Raises `ValueError` when the stored scalar is no key."""
        return NodeKey.from_secret(self.node_secret)

    def __repr__(self) -> str:
        return f"AgentCredential(version={self.version}, network={self.network!r}, …)"
