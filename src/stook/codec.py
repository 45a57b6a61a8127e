"""One canonical MessagePack form for everything that is signed, sent or stored.

Values are `msgspec` structs encoded as arrays in field order. `decode` bounds the size before it looks at a byte,
checks types and lengths, and refuses bytes that are not the one encoding of the value, so a signature covers exactly
one byte string (`docs/formats/encoding.md`).
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from typing_extensions import dataclass_transform

from stook.errors import MalformedError

T = TypeVar("T")

MAX_MESSAGE_BYTES = 1 << 20
_encoder = msgspec.msgpack.Encoder()


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _RecordMeta(msgspec.StructMeta):
    """Tells type checkers that every subclass of `Record` is frozen, as msgspec makes it."""


class Record(msgspec.Struct, metaclass=_RecordMeta, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every structure with a canonical encoding: immutable, positional, no unknown fields."""


@cache
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(cast("Any", kind))


def encode(value: Any) -> bytes:
    """The canonical bytes of `value`."""
    return _encoder.encode(value)


def decode(kind: type[T], data: bytes | memoryview, *, max_bytes: int = MAX_MESSAGE_BYTES) -> T:
    """The value that `data` encodes.

    Raises `MalformedError` when `data` is longer than `max_bytes`, is no `kind`, or is not the canonical encoding.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"{kind.__name__}: {len(data)} bytes, at most {max_bytes} are allowed")
    try:
        value: T = _decoder(cast("Hashable", kind)).decode(data)
        canonical = _encoder.encode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError, ValueError) as error:
        raise MalformedError(f"{kind.__name__}: {error}") from None
    if canonical != data:
        raise MalformedError(f"{kind.__name__}: not the canonical encoding")
    return value
