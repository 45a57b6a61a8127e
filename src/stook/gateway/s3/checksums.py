"""The five checksums of S3, and how those of parts make one of the whole. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from awscrt import checksums as crt

from stook.gateway.s3.errors import S3Error

SIZES = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}
"""Algorithms in lower case, as header names end, and their bytes."""
FULL_OBJECT = "FULL_OBJECT"
COMPOSITE = "COMPOSITE"

Buffer = bytes | bytearray | memoryview


class Running(Protocol):
    """A checksum being made."""

    def update(self, data: Buffer, /) -> None:
        """Take in more bytes."""
        ...

    def digest(self) -> bytes:
        """The checksum of all of them."""
        ...


class _Crc:
    def __init__(self, function: Callable[[Buffer, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: Buffer) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def running(algorithm: str) -> Running:
    """A new checksum of one of `SIZES`."""
    if algorithm == "crc32":
        return _Crc(zlib.crc32, 4)
    if algorithm == "crc32c":
        return _Crc(crt.crc32c, 4)
    if algorithm == "crc64nvme":
        return _Crc(crt.crc64nvme, 8)
    return hashlib.sha1(usedforsecurity=False) if algorithm == "sha1" else hashlib.sha256()


def encoded(digest: bytes) -> str:
    """As S3 writes it."""
    return base64.b64encode(digest).decode()


def decoded(text: str, size: int) -> bytes | None:
    """The bytes that base64 `text` stands for, None unless they are `size`."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return None
    return data if len(data) == size else None


def algorithm_named(text: str) -> str:
    """The algorithm that a header names. Raises `S3Error`."""
    name = text.lower()
    if name not in SIZES:
        raise S3Error("InvalidRequest", f"there is no checksum algorithm {text[:40]!r}")
    return name


def default_type(algorithm: str) -> str:
    """How parts' checksums make one when the client does not say."""
    return FULL_OBJECT if algorithm == "crc64nvme" else COMPOSITE


def check_type(algorithm: str, kind: str) -> None:
    """Raises `S3Error` for a pair that S3 does not have."""
    if kind not in (FULL_OBJECT, COMPOSITE):
        raise S3Error("InvalidRequest", "a checksum type is FULL_OBJECT or COMPOSITE")
    wrong = (kind == COMPOSITE) if algorithm == "crc64nvme" else (kind == FULL_OBJECT and algorithm.startswith("sha"))
    if wrong:
        raise S3Error("InvalidRequest", f"{kind} checksums are not made with {algorithm.upper()}")


def combined(algorithm: str, kind: str, parts: Sequence[tuple[bytes, int]]) -> str:
    """The checksum of a whole from its parts' checksums and sizes, as S3 writes it."""
    if kind == COMPOSITE:
        whole = running(algorithm)
        for digest, _ in parts:
            whole.update(digest)
        return f"{encoded(whole.digest())}-{len(parts)}"
    combine = {
        "crc32": crt.combine_crc32,
        "crc32c": crt.combine_crc32c,
        "crc64nvme": crt.combine_crc64nvme,
    }[algorithm]
    value = int.from_bytes(parts[0][0], "big")
    for digest, size in parts[1:]:
        value = combine(value, int.from_bytes(digest, "big"), size)
    return encoded(value.to_bytes(SIZES[algorithm], "big"))
