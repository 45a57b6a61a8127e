"""What a name may be, and in what order names stand: bytewise by their UTF-8. Pure."""

from __future__ import annotations

from stook.errors import UserError
from stook.storage.renter_ports import MAX_BUCKET_NAME_CHARS, MAX_NAME_BYTES


def name_bytes(name: str) -> bytes:
    """The UTF-8 of an object's name. Raises `UserError` when it is empty, too long, or holds a lone surrogate."""
    try:
        data = name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name {name!a} is no valid Unicode: rename it") from None
    if not 0 < len(data) <= MAX_NAME_BYTES:
        raise UserError(f"a name has 1 to {MAX_NAME_BYTES} bytes of UTF-8, not {len(data)}: {name[:40]!a}")
    return data


def prefix_bytes(prefix: str) -> bytes:
    """The UTF-8 of the beginning of names, or of a delimiter; may be empty. Raises `UserError` as `name_bytes`."""
    return name_bytes(prefix) if prefix else b""


def bucket_name_bytes(name: str) -> bytes:
    """The UTF-8 of a bucket's name. Raises `UserError` when it cannot be one."""
    if not 0 < len(name) <= MAX_BUCKET_NAME_CHARS or not name.isprintable() or "/" in name:
        raise UserError(
            f"a bucket's name has 1 to {MAX_BUCKET_NAME_CHARS} printable characters without '/', not {name!a}"
        )
    return name.encode()


def after_prefix(prefix: bytes) -> bytes:
    """The smallest byte string above everything that begins with `prefix`, which is some UTF-8, not empty.

    UTF-8 never holds 0xFF, so the last byte can always grow.
    """
    return prefix[:-1] + bytes([prefix[-1] + 1])


def common_prefix(name: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """`name` up to and with the first `delimiter` after `prefix`; None when there is none, or no delimiter."""
    at = name.find(delimiter, len(prefix)) if delimiter else -1
    return None if at < 0 else name[: at + len(delimiter)]
