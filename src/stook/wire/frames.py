"""Frames: the 9-byte header and the fixed bodies (`docs/protocol/wire.md`). Pure.

::

    u32 body length | u8 type | u32 exchange id | body            all integers big-endian
"""

from __future__ import annotations

import enum
import struct

from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.identity.envelope import MAX_ENVELOPE_BYTES

HEADER_BYTES = 9
MAX_HELLO_BYTES = 4096
MAX_DATA_BYTES = 1 << 20
MAX_EXCHANGE_ID = 2**32 - 1
MAX_CREDIT_BYTES = 2**31 - 1
INITIAL_CREDIT_BYTES = 64 * 1024
"""Raw bytes each end may send on a new exchange before the other says where it wants them."""

_header = struct.Struct(">IBI")
_reset = struct.Struct(">H")
_window = struct.Struct(">I")
_goodbye = struct.Struct(">HQI")


class FrameType(enum.IntEnum):
    """What a frame is. Values never change; an unknown one ends the session."""

    HELLO = 1
    MESSAGE = 2
    DATA = 3
    END = 4
    RESET = 5
    WINDOW = 6
    GOODBYE = 7


_BODY_BOUNDS = {
    FrameType.HELLO: (1, MAX_HELLO_BYTES),
    FrameType.MESSAGE: (1, MAX_ENVELOPE_BYTES),
    FrameType.DATA: (1, MAX_DATA_BYTES),
    FrameType.END: (0, 0),
    FrameType.RESET: (_reset.size, _reset.size),
    FrameType.WINDOW: (_window.size, _window.size),
    FrameType.GOODBYE: (_goodbye.size, _goodbye.size),
}
_OF_SESSION = frozenset({FrameType.HELLO, FrameType.GOODBYE})


def header(frame: FrameType, exchange_id: int, body_bytes: int) -> bytes:
    """The 9 bytes before a body."""
    return _header.pack(body_bytes, frame, exchange_id)


def parse_header(data: memoryview) -> tuple[FrameType, int, int]:
    """Type, exchange id and body length of the header in the first 9 bytes of `data`.

    Raises `MisbehaviourError` (TOO_LARGE) when the body would pass the bound of its type, `MalformedError` for an
    unknown type, a body too short for it, or an exchange id where none belongs (or none where one does).
    """
    body_bytes, number, exchange_id = _header.unpack_from(data)
    try:
        frame = FrameType(number)
    except ValueError:
        raise MalformedError(f"frame type {number} is unknown") from None
    least, most = _BODY_BOUNDS[frame]
    if body_bytes > most:
        raise MisbehaviourError(ReasonCode.TOO_LARGE, f"{frame.name} of {body_bytes} bytes, at most {most} are allowed")
    if body_bytes < least:
        raise MalformedError(f"{frame.name} of {body_bytes} bytes, at least {least} are needed")
    if (exchange_id == 0) != (frame in _OF_SESSION):
        raise MalformedError(f"{frame.name} on exchange {exchange_id}")
    return frame, exchange_id, body_bytes


def end_frame(exchange_id: int) -> bytes:
    """END: nothing more follows from this end."""
    return header(FrameType.END, exchange_id, 0)


def reset_frame(exchange_id: int, code: ReasonCode) -> bytes:
    """RESET: this end gives the exchange up."""
    return header(FrameType.RESET, exchange_id, _reset.size) + _reset.pack(code)


def window_frame(exchange_id: int, credit_bytes: int) -> bytes:
    """WINDOW: the other end may send so many raw bytes more."""
    return header(FrameType.WINDOW, exchange_id, _window.size) + _window.pack(credit_bytes)


def goodbye_frame(code: ReasonCode, now_ms: int, last_exchange: int) -> bytes:
    """GOODBYE: no new exchange is accepted; those of the other end above `last_exchange` were never looked at."""
    return header(FrameType.GOODBYE, 0, _goodbye.size) + _goodbye.pack(code, now_ms, last_exchange)


def parse_code(number: int) -> ReasonCode:
    """A reason code from the wire; one of a later version becomes INTERNAL."""
    try:
        return ReasonCode(number)
    except ValueError:
        return ReasonCode.INTERNAL


def parse_reset(body: bytes | bytearray) -> ReasonCode:
    """The code in a RESET body."""
    return parse_code(_reset.unpack(body)[0])


def parse_window(body: bytes | bytearray) -> int:
    """The credit in a WINDOW body. Raises `MalformedError` for 0."""
    credit: int = _window.unpack(body)[0]
    if credit == 0:
        raise MalformedError("WINDOW of 0 bytes")
    return credit


def parse_goodbye(body: bytes | bytearray) -> tuple[ReasonCode, int, int]:
    """Code, the sender's time in ms, and the last exchange it accepted, from a GOODBYE body."""
    number, now_ms, last_exchange = _goodbye.unpack(body)
    return parse_code(number), now_ms, last_exchange
