"""The session machine by hand: what is allowed, and each violation with its own reason."""

import pytest

from stook.errors import BugError, ReasonCode
from stook.identity.envelope import Kind, Refusal, ReplayWindow, seal
from stook.ids import SessionNonce
from stook.wire import frames
from stook.wire.events import (
    Broken,
    BufferFilled,
    CreditReceived,
    EndReceived,
    GoodbyeReceived,
    RefusalReceived,
    ReplyReceived,
    RequestReceived,
    ResetReceived,
)
from stook.wire.frames import INITIAL_CREDIT_BYTES, FrameType
from stook.wire.session import MAX_REPLIES, SessionState
from wire_samples import ALICE, BOB, CAROL, NETWORK, NOW_MS, initiator, message_id, open_pair, outgoing, pump, responder


def request(session, number=1, method="GET", payload=b"please", alone=False):
    return session.request(method, payload, now_ms=NOW_MS, message_id=message_id(number), alone=alone)


def reply(session, exchange, number=100, payload=b"here"):
    session.reply(exchange, payload, now_ms=NOW_MS, message_id=message_id(number))


def broken(events):
    assert isinstance(events[-1], Broken), events
    return events[-1].code


def message(exchange_id, **changes):
    """A MESSAGE frame from Alice to Bob, sealed as it should be but for `changes`."""
    values = {
        "key": ALICE,
        "network": NETWORK,
        "kind": Kind.REQUEST,
        "method": "GET",
        "message_id": message_id(1),
        "session": SessionNonce(b"b" * 16),
        "recipient": BOB.node_id,
        "sent_at_ms": NOW_MS,
        "payload": b"",
    }
    data = seal(**(values | changes)).data
    return frames.header(FrameType.MESSAGE, exchange_id, len(data)) + data


# --- the good road ---------------------------------------------------------------------------------------------------


def test_request_and_reply():
    one, other = open_pair()
    exchange = request(one, alone=True)
    _, heard = pump(one, other)
    assert heard == [RequestReceived(exchange, "GET", b"please"), EndReceived(exchange)]
    reply(other, exchange)
    other.end(exchange)
    heard, _ = pump(one, other)
    assert heard == [ReplyReceived(exchange, b"here"), EndReceived(exchange)]
    assert one.open_exchanges == other.open_exchanges == 0


def test_either_end_may_call():
    one, other = open_pair()
    assert request(one) == 1
    assert request(one, 2) == 3
    assert request(other, 3) == 2
    assert request(other, 4) == 4
    heard_by_one, heard_by_other = pump(one, other)
    assert [event.exchange_id for event in heard_by_one] == [2, 4]
    assert [event.exchange_id for event in heard_by_other] == [1, 3]


def test_a_refusal_ends_the_callee():
    one, other = open_pair()
    exchange = request(one, alone=True)
    pump(one, other)
    refusal = Refusal.of(ReasonCode.NO_SPACE, "full", now_ms=NOW_MS)
    other.refuse(exchange, refusal, now_ms=NOW_MS, message_id=message_id(9))
    heard, _ = pump(one, other)
    assert heard == [RefusalReceived(exchange, refusal), EndReceived(exchange)]


def test_raw_bytes_land_in_place_and_give_credit():
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    target = bytearray(200_000)
    assert not other.post(other.find(exchange), memoryview(target))
    heard, _ = pump(one, other)
    assert heard == [CreditReceived(exchange)]
    assert one.find(exchange).send_credit == INITIAL_CREDIT_BYTES + 200_000
    data = bytes(range(250)) * 800
    one.send_data(exchange, memoryview(data))
    one.end(exchange)
    _, heard = pump(one, other)
    assert heard == [BufferFilled(exchange), EndReceived(exchange)]
    assert target == data
    assert other.find(exchange).received_bytes == 200_000


def test_most_raw_bytes_are_never_copied():
    """After the header the session asks for bytes straight into the posted buffer."""
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    target = bytearray(1 << 20)
    other.post(other.find(exchange), memoryview(target))
    other.take_outgoing()
    other.feed(frames.header(FrameType.DATA, exchange, 1 << 20), NOW_MS)
    room = other.receive_buffer()
    assert len(room) == 1 << 20
    room[:3] = b"abc"
    assert target[:3] == b"abc"
    assert other.received(3, NOW_MS) == []
    assert len(other.receive_buffer()) == (1 << 20) - 3


def test_early_bytes_wait_within_the_first_credit():
    one, other = open_pair()
    exchange = request(one)
    one.send_data(exchange, memoryview(b"early"))
    one.end(exchange)
    pump(one, other)
    flow = other.find(exchange)
    assert flow.backlog_bytes == 5
    other.end(exchange)  # over at both ends, and still readable
    target = bytearray(5)
    assert other.post(flow, memoryview(target))
    assert target == b"early"


def test_credit_follows_the_room_there_is():
    """However buffers are posted and frames cut, the peer may never send more than what waits for it."""
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    flow, credit = other.find(exchange), one.find(exchange)
    other.post(flow, memoryview(bytearray(1 << 20)))
    pump(one, other)
    other.feed(frames.header(FrameType.DATA, exchange, 1 << 20), NOW_MS)  # announced, not here yet
    credit.send_credit -= 1 << 20
    other.post(flow, memoryview(bytearray(1 << 20)))
    other.take_outgoing()
    assert flow.receive_credit <= (1 << 20) + INITIAL_CREDIT_BYTES


# --- violations ------------------------------------------------------------------------------------------------------


def test_a_replayed_request():
    _, other = open_pair()
    assert not isinstance(other.feed(message(1), NOW_MS)[-1], Broken)
    assert broken(other.feed(message(3), NOW_MS)) is ReasonCode.REPLAYED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"recipient": CAROL.node_id}, ReasonCode.WRONG_RECIPIENT),
        ({"session": SessionNonce(b"c" * 16)}, ReasonCode.WRONG_SESSION),
        ({"network": "other"}, ReasonCode.WRONG_NETWORK),
        ({"key": CAROL}, ReasonCode.WRONG_IDENTITY),
        ({"sent_at_ms": NOW_MS - 300_001}, ReasonCode.CLOCK_SKEW),
        ({"sent_at_ms": NOW_MS + 300_001}, ReasonCode.CLOCK_SKEW),
        ({"kind": Kind.REPLY, "reply_to": bytes(32)}, ReasonCode.UNBOUND_REPLY),
    ],
)
def test_messages_that_are_not_for_this_session(changes, code):
    one, other = open_pair()
    assert broken(other.feed(message(1, **changes), NOW_MS)) is code
    assert other.state is SessionState.CLOSED
    heard = one.feed(outgoing(other), NOW_MS)
    assert [event.code for event in heard if isinstance(event, GoodbyeReceived)] == [code]


def test_a_flipped_bit_breaks_the_signature():
    _, other = open_pair()
    data = bytearray(message(1))
    data[-1] ^= 1
    assert broken(other.feed(data, NOW_MS)) is ReasonCode.BAD_SIGNATURE


def test_a_reply_to_another_request():
    one, _other = open_pair()
    first = request(one)
    frame = message(
        first,
        key=BOB,
        kind=Kind.REPLY,
        session=SessionNonce(b"a" * 16),
        recipient=ALICE.node_id,
        reply_to=bytes(32),
    )
    assert broken(one.feed(frame, NOW_MS)) is ReasonCode.UNBOUND_REPLY


def test_an_oversized_header_is_refused_before_anything_is_kept():
    _, other = open_pair()
    events = other.feed((1 << 30).to_bytes(4, "big") + b"\x02" + (1).to_bytes(4, "big"), NOW_MS)
    assert broken(events) is ReasonCode.TOO_LARGE
    fresh = responder()
    assert broken(fresh.feed(bytes.fromhex("000010010100000000"), NOW_MS)) is ReasonCode.TOO_LARGE


@pytest.mark.parametrize("frame", [FrameType.DATA, FrameType.END, FrameType.RESET, FrameType.WINDOW])
def test_frames_for_an_exchange_that_never_was(frame):
    _, other = open_pair()
    bodies = {FrameType.DATA: b"x", FrameType.END: b"", FrameType.RESET: b"\x01\xf4", FrameType.WINDOW: b"\0\0\0\1"}
    data = frames.header(frame, 1, len(bodies[frame])) + bodies[frame]
    assert broken(other.feed(data, NOW_MS)) is ReasonCode.UNKNOWN_EXCHANGE


def test_requests_have_new_ids_of_their_own_side():
    for exchange in (2, 4):
        assert broken(open_pair()[1].feed(message(exchange), NOW_MS)) is ReasonCode.UNKNOWN_EXCHANGE
    _, other = open_pair()
    other.feed(message(5), NOW_MS)
    assert broken(other.feed(message(3, message_id=message_id(2)), NOW_MS)) is ReasonCode.UNKNOWN_EXCHANGE


def test_one_request_per_exchange():
    _, other = open_pair()
    other.feed(message(1), NOW_MS)
    assert broken(other.feed(message(1, message_id=message_id(2)), NOW_MS)) is ReasonCode.MALFORMED


def test_nothing_after_end():
    one, other = open_pair()
    exchange = request(one, alone=True)
    pump(one, other)
    data = frames.header(FrameType.DATA, exchange, 1) + b"x"
    assert broken(other.feed(data, NOW_MS)) is ReasonCode.UNKNOWN_EXCHANGE


def test_more_exchanges_than_told():
    one, other = open_pair(max_exchanges=2)
    request(one, 1)
    request(one, 2)
    assert not one.can_open
    with pytest.raises(BugError):
        request(one, 3)
    pump(one, other)
    assert broken(other.feed(message(5, message_id=message_id(7)), NOW_MS)) is ReasonCode.TOO_MANY_EXCHANGES


def test_more_bytes_than_credit():
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    with pytest.raises(BugError):
        one.send_data(exchange, memoryview(bytes(INITIAL_CREDIT_BYTES + 1)))
    data = frames.header(FrameType.DATA, exchange, INITIAL_CREDIT_BYTES + 1)
    assert broken(other.feed(data, NOW_MS)) is ReasonCode.CREDIT_EXCEEDED


def test_credit_without_measure():
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    assert broken(one.feed(frames.window_frame(exchange, 2**31 - 1), NOW_MS)) is ReasonCode.CREDIT_EXCEEDED


def test_replies_without_end():
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    for number in range(MAX_REPLIES):
        reply(other, exchange, number + 10)
    heard, _ = pump(one, other)
    assert len(heard) == MAX_REPLIES
    reply(other, exchange, 99)
    assert broken(pump(one, other)[0]) is ReasonCode.TOO_LARGE


def test_a_full_replay_window_is_said_and_foreseen():
    other = responder()
    other._replay = ReplayWindow(capacity=4)
    one = initiator()
    one.greet(NOW_MS)
    pump(one, other)
    for number in range(4):
        assert other.worn == (number > 3)
        one_more = message(2 * number + 1, message_id=message_id(number))
        assert not isinstance(other.feed(one_more, NOW_MS)[-1], Broken)
    assert other.worn
    assert broken(other.feed(message(99, message_id=message_id(99)), NOW_MS)) is ReasonCode.RATE_LIMITED


# --- resets ----------------------------------------------------------------------------------------------------------


def test_a_reset_is_answered_and_late_bytes_are_dropped():
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    one.send_data(exchange, memoryview(b"on the way"))
    late = outgoing(one)
    target = bytearray(10)
    other.post(other.find(exchange), memoryview(target))
    other.reset(exchange, ReasonCode.CANCELLED)
    reset = outgoing(other)
    assert other.feed(late, NOW_MS) == []
    assert target == bytes(10)  # the buffer went back to its owner: nothing may land in it
    assert other.open_exchanges == 1
    heard = one.feed(reset, NOW_MS)
    assert heard[-1] == ResetReceived(exchange, ReasonCode.CANCELLED)
    assert other.feed(outgoing(one), NOW_MS) == []
    assert one.open_exchanges == other.open_exchanges == 0
    assert other.can_open


def test_resets_that_cross():
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    one.reset(exchange, ReasonCode.CANCELLED)
    other.reset(exchange, ReasonCode.TOO_SLOW)
    assert pump(one, other) == ([], [])
    assert one.open_exchanges == other.open_exchanges == 0


def test_a_reset_after_end_leaves_what_came_readable():
    one, other = open_pair()
    exchange = request(one)
    pump(one, other)
    other.send_data(exchange, memoryview(b"all of it"))
    other.end(exchange)
    other.reset(exchange, ReasonCode.CANCELLED)
    flow = one.find(exchange)
    heard, _ = pump(one, other)
    assert heard == [EndReceived(exchange), ResetReceived(exchange, ReasonCode.CANCELLED)]
    target = bytearray(9)
    assert one.post(flow, memoryview(target))
    assert target == b"all of it"
    assert one.open_exchanges == other.open_exchanges == 0


def test_reset_and_window_for_an_exchange_that_is_over_are_late_not_wrong():
    one, other = open_pair()
    exchange = request(one, alone=True)
    pump(one, other)
    other.end(exchange)
    pump(one, other)
    assert one.feed(frames.reset_frame(exchange, ReasonCode.CANCELLED), NOW_MS) == []
    assert one.feed(frames.window_frame(exchange, 5), NOW_MS) == []
    assert other.feed(frames.window_frame(exchange, 5), NOW_MS) == []


# --- goodbye ---------------------------------------------------------------------------------------------------------


def test_goodbye_lets_exchanges_finish_and_names_what_was_never_looked_at():
    one, other = open_pair()
    first = request(one, 1)
    pump(one, other)
    second = request(one, 2)
    one.send_data(second, memoryview(b"crossing"))
    one.end(second)
    crossing = outgoing(one)
    other.goodbye(ReasonCode.SHUTTING_DOWN, NOW_MS)
    farewell = outgoing(other)
    assert other.feed(crossing, NOW_MS) == []
    (heard,) = one.feed(farewell, NOW_MS)
    assert heard == GoodbyeReceived(ReasonCode.SHUTTING_DOWN, NOW_MS, first)
    assert second > first
    assert not one.can_open
    assert not other.can_open
    reply(other, first)
    assert pump(one, other)[0] == [ReplyReceived(first, b"here")]


def test_a_broken_session_says_nothing_more_and_hears_nothing_more():
    one, other = open_pair()
    target = bytearray(100)
    exchange = request(one)
    pump(one, other)
    other.post(other.find(exchange), memoryview(target))
    other.take_outgoing()
    other.feed(frames.header(FrameType.DATA, exchange, 50) + b"x" * 20, NOW_MS)
    events = other.feed(b"y" * 30 + b"\xff" * 9, NOW_MS)
    assert isinstance(events[-1], Broken)
    assert other.feed(b"z" * 100, NOW_MS) == []
    other.receive_buffer()[:1] = b"!"
    assert target[50:] == bytes(50)
