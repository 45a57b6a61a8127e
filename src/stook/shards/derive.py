"""Keys from keys: HKDF-SHA256 with a purpose from the one table below, so that no two purposes share a key."""

from __future__ import annotations

import enum
import hashlib
import hmac

KEY_BYTES = 32


class Purpose(enum.Enum):
    """What a derived key is for. Values are part of the format and never change."""

    SEGMENT_MASK = "segment-mask"
    SHARD_MASK = "shard-mask"
    MEMO = "memo"
    RECORD = "record"
    NAMES = "names"
    CONVERGENCE = "convergence"
    JOURNAL_NAME = "journal-name"
    JOURNAL_PART = "journal-part"
    JOURNAL_CHECK = "journal-check"
    RECOVERY_SIGN = "recovery-sign"


_INFO = {purpose: b"stook/1/" + purpose.value.encode() + b"\x00" for purpose in Purpose}


def derive_key(
    root: bytes, purpose: Purpose, context: bytes = b"", *, salt: bytes = b"", size: int = KEY_BYTES
) -> bytes:
    """`size` bytes (at most 64) of HKDF-SHA256 (RFC 5869) over `root`.

    The info string is ``"stook/1/" + purpose + 00 + context``. Raises `ValueError` unless `root` has 32 bytes.
    """
    if len(root) != KEY_BYTES:
        raise ValueError(f"a root key has {KEY_BYTES} bytes, not {len(root)}")
    if not 1 <= size <= 64:
        raise ValueError("a derived key has 1 to 64 bytes")
    extracted = hmac.digest(salt or bytes(32), root, hashlib.sha256)
    info = _INFO[purpose] + context
    first = hmac.digest(extracted, info + b"\x01", hashlib.sha256)
    if size <= KEY_BYTES:
        return first[:size]
    return (first + hmac.digest(extracted, first + info + b"\x02", hashlib.sha256))[:size]
