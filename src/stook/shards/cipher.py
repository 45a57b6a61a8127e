"""Everything that content keys do: segments, metadata records, names.

Only the owner's client reaches this module; farmer, bridge and agent never do (import contract). Keys and salts are
arguments: randomness comes from the caller. Formats: `docs/formats/segment.md`, `docs/formats/record.md`.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from stook.codec import MAX_MESSAGE_BYTES, Record, encode
from stook.errors import CorruptionError
from stook.ids import NetworkIdField
from stook.shards.derive import KEY_BYTES, Purpose, derive_key
from stook.shards.keystream import Xor, xor_stream

SALT_BYTES = 32
RECORD_FORMAT = 1
MAX_NAME_BYTES = 1024
_TAG_BYTES = 16
_NONCE = bytes(12)
"""Constant on purpose: the key of a record seals one record only."""


def segment_cipher(key: bytes, first_unit: int = 0) -> Xor:
    """Encrypt, or decrypt, a segment from unit `first_unit` of its ciphertext on.

    `key` must be fresh for every sealing: the same key over other bytes gives both away. Raises `ValueError` unless it
    has 32 bytes.
    """
    return xor_stream(key, first_unit)


def convergent_key(secret: bytes, plain_hash: bytes) -> bytes:
    """The key that equal segments of one owner share, for those who choose to store equal bytes once.

    Off by default: who knows `secret` can test whether some file is stored, and without a secret anybody could.
    Raises `ValueError` unless both have 32 bytes.
    """
    if len(plain_hash) != KEY_BYTES:
        raise ValueError(f"a plaintext hash has {KEY_BYTES} bytes, not {len(plain_hash)}")
    return derive_key(secret, Purpose.CONVERGENCE, plain_hash)


class RecordContext(Record):
    """Where a metadata record belongs. A record opens nowhere else, so a store can neither swap nor roll back."""

    format: int
    network: NetworkIdField
    bucket: bytes
    name: bytes
    """As encrypted by `encrypt_name`."""
    version: int


def seal_record(record_root: bytes, context: RecordContext, plain: bytes, *, salt: bytes) -> bytes:
    """Encrypt and authenticate one metadata record: ``01 ‖ salt ‖ ciphertext ‖ tag``.

    `salt` is 32 fresh random bytes, from which the record gets a key of its own. Raises `ValueError` on wrong lengths.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    key = derive_key(record_root, Purpose.RECORD, salt=salt)
    return bytes([RECORD_FORMAT]) + salt + AESGCM(key).encrypt(_NONCE, plain, encode(context))


def open_record(record_root: bytes, context: RecordContext, sealed: bytes) -> bytes:
    """The plaintext of a record sealed for exactly this context.

    Raises `CorruptionError` when it is not: wrong key, wrong place, wrong version, or a changed byte.
    """
    if not 1 + SALT_BYTES + _TAG_BYTES <= len(sealed) <= MAX_MESSAGE_BYTES or sealed[0] != RECORD_FORMAT:
        raise CorruptionError("no metadata record of a known format")
    key = derive_key(record_root, Purpose.RECORD, salt=sealed[1 : 1 + SALT_BYTES])
    try:
        return AESGCM(key).decrypt(_NONCE, sealed[1 + SALT_BYTES :], encode(context))
    except InvalidTag:
        raise CorruptionError("a metadata record does not belong here, or was changed") from None


def name_key(content_root: bytes, bucket: bytes) -> bytes:
    """The 64-byte key that encrypts the names inside `bucket` (its id; empty: the names of buckets themselves)."""
    return derive_key(content_root, Purpose.NAMES, bucket, size=2 * KEY_BYTES)


def encrypt_name(key: bytes, name: str) -> bytes:
    """Encrypt a name for one bucket, the same name always to the same bytes (AES-256-SIV, 16 bytes longer).

    Equality of names within a bucket shows, and their length; nothing else does. Raises `ValueError` when the name is
    empty or longer than 1024 bytes of UTF-8.
    """
    plain = name.encode()
    if not 1 <= len(plain) <= MAX_NAME_BYTES:
        raise ValueError(f"a name has 1 to {MAX_NAME_BYTES} bytes, not {len(plain)}")
    return AESSIV(key).encrypt(plain, None)


def decrypt_name(key: bytes, sealed: bytes) -> str:
    """The name. Raises `CorruptionError` when it was not encrypted under this key."""
    if not _TAG_BYTES < len(sealed) <= MAX_NAME_BYTES + _TAG_BYTES:
        raise CorruptionError("no encrypted name")
    try:
        return AESSIV(key).decrypt(sealed, None).decode()
    except (InvalidTag, UnicodeDecodeError):
        raise CorruptionError("an encrypted name was changed, or belongs to another bucket") from None
