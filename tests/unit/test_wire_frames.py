import pytest

from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.identity.envelope import MAX_ENVELOPE_BYTES
from stook.wire import frames
from stook.wire.frames import FrameType


def parse(data: bytes):
    return frames.parse_header(memoryview(data))


def test_a_header_is_length_type_exchange():
    assert frames.header(FrameType.MESSAGE, 7, 300) == bytes.fromhex("0000012c0200000007")
    assert parse(bytes.fromhex("0000012c0200000007")) == (FrameType.MESSAGE, 7, 300)


@pytest.mark.parametrize(
    ("frame", "most"),
    [(FrameType.HELLO, 4096), (FrameType.MESSAGE, MAX_ENVELOPE_BYTES), (FrameType.DATA, 1 << 20)],
)
def test_each_type_has_its_bound(frame, most):
    exchange = 0 if frame is FrameType.HELLO else 1
    assert parse(frames.header(frame, exchange, most))[2] == most
    with pytest.raises(MisbehaviourError) as caught:
        parse(frames.header(frame, exchange, most + 1))
    assert caught.value.code is ReasonCode.TOO_LARGE


@pytest.mark.parametrize(
    "data",
    [
        "00000001 00 00000001",  # unknown type
        "00000001 08 00000001",
        "00000000 03 00000001",  # empty DATA
        "00000001 05 00000001",  # short RESET
        "00000001 01 00000001",  # HELLO on an exchange
        "00000001 02 00000000",  # MESSAGE without an exchange
        "0000000e 07 00000003",  # GOODBYE on an exchange
    ],
)
def test_headers_that_make_no_sense(data):
    with pytest.raises(MalformedError):
        parse(bytes.fromhex(data.replace(" ", "")))


def test_bodies_round_trip():
    assert frames.parse_reset(frames.reset_frame(5, ReasonCode.BUSY)[9:]) is ReasonCode.BUSY
    assert frames.parse_window(frames.window_frame(5, 77)[9:]) == 77
    assert frames.parse_goodbye(frames.goodbye_frame(ReasonCode.CLOCK_SKEW, 12, 9)[9:]) == (
        ReasonCode.CLOCK_SKEW,
        12,
        9,
    )
    with pytest.raises(MalformedError):
        frames.parse_window(bytes(4))


def test_a_reason_of_a_later_version_is_internal():
    assert frames.parse_code(998) is ReasonCode.INTERNAL
