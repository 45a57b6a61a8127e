"""Whatever a peer sends and however it is cut, a session answers with events, within its bounds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.identity.envelope import Kind, seal
from stook.ids import SessionNonce
from stook.wire import frames
from stook.wire.events import Broken, BufferFilled
from stook.wire.frames import FrameType
from stook.wire.session import SessionState
from wire_samples import ALICE, BOB, NETWORK, NOW_MS, initiator, message_id, open_pair, outgoing, pump, responder

CHUNKS = st.lists(st.integers(1, 40_000), max_size=20).map(lambda sizes: [*sizes, 20_000])
"""Sizes used over and over; a large one among them, so that no example takes minutes."""


def cut(data: bytes, sizes: list[int]):
    """`data` in pieces of the given sizes, over and over."""
    at, turn = 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at, turn = at + size, turn + 1


def feed(session, data, sizes):
    return [event for piece in cut(data, sizes) for event in session.feed(piece, NOW_MS)]


def check_typed(session, events):
    """The only failure is a `Broken` at the end, with a typed error."""
    for event in events[:-1]:
        assert not isinstance(event, Broken)
    if events and isinstance(events[-1], Broken):
        assert isinstance(events[-1].error, MalformedError | MisbehaviourError)
        assert isinstance(events[-1].code, ReasonCode)
        assert session.state is SessionState.CLOSED


@settings(deadline=None)
@given(st.binary(max_size=300), CHUNKS)
def test_random_bytes_before_the_hello(data, sizes):
    session = responder()
    check_typed(session, feed(session, data, sizes))
    assert session.open_exchanges == 0


@settings(deadline=None)
@given(st.binary(max_size=300), CHUNKS)
def test_random_bytes_after_the_hello(data, sizes):
    _, session = open_pair()
    check_typed(session, feed(session, data, sizes))


def frame_of(kind: FrameType, exchange_id: int, body: bytes) -> bytes:
    return frames.header(kind, exchange_id, len(body)) + body


BODIES = {
    FrameType.MESSAGE: st.binary(min_size=1, max_size=40),
    FrameType.DATA: st.binary(min_size=1, max_size=70_000),
    FrameType.END: st.just(b""),
    FrameType.RESET: st.binary(min_size=2, max_size=2),
    FrameType.WINDOW: st.binary(min_size=4, max_size=4),
}


@st.composite
def frames_of_a_peer(draw):
    """Well-formed frames in any order; requests are properly signed, so that the deeper states are reached."""
    data = b""
    for number in range(draw(st.integers(0, 12))):
        exchange_id = draw(st.integers(1, 7))
        if draw(st.booleans()):
            sealed = seal(
                key=ALICE,
                network=NETWORK,
                kind=Kind.REQUEST,
                method="PUT",
                message_id=message_id(number),
                session=SessionNonce(b"b" * 16),
                recipient=BOB.node_id,
                sent_at_ms=NOW_MS,
                payload=b"",
            )
            data += frame_of(FrameType.MESSAGE, exchange_id, sealed.data)
        else:
            kind = draw(st.sampled_from(sorted(BODIES)))
            data += frame_of(kind, exchange_id, draw(BODIES[kind]))
    return data


@settings(max_examples=150, deadline=None)
@given(frames_of_a_peer(), CHUNKS, CHUNKS)
def test_chunking_changes_nothing(data, sizes, other_sizes):
    _, session = open_pair()
    _, twin = open_pair()
    events, twin_events = feed(session, data, sizes), feed(twin, data, other_sizes)
    check_typed(session, events)
    assert [str(event) for event in events] == [str(event) for event in twin_events]
    assert outgoing(session) == outgoing(twin)
    assert session.open_exchanges == twin.open_exchanges


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=6),
    st.lists(st.integers(1, 60_000), min_size=1, max_size=6),
    CHUNKS,
    st.integers(0, 3),
)
def test_raw_bytes_arrive_whole_and_in_order(sent, posted, sizes, late):
    """Any frames into any buffers, in any pieces; buffers beyond `late` are posted before the bytes come."""
    one, other = open_pair()
    exchange = one.request("PUT", b"", now_ms=NOW_MS, message_id=message_id(1), alone=False)
    pump(one, other)
    flow, source = other.find(exchange), one.find(exchange)
    data = bytes(i % 251 for i in range(sum(sent)))
    targets = [bytearray(size) for size in posted]
    filled = 0
    for target in targets[late:]:
        filled += other.post(flow, memoryview(target))
    one.feed(outgoing(other), NOW_MS)
    left = memoryview(data)
    for size in sent:
        size = min(size, source.send_credit)
        if size:
            one.send_data(exchange, left[:size])
            left = left[size:]
    arrived = data[: len(data) - len(left)]
    events = feed(other, outgoing(one), sizes)
    filled += sum(isinstance(event, BufferFilled) for event in events)
    for target in targets[:late]:
        filled += other.post(flow, memoryview(target))
    order = [*targets[late:], *targets[:late]]
    expected, full = arrived, 0
    for target in order:
        head, expected = expected[: len(target)], expected[len(target) :]
        assert target[: len(head)] == head
        full += len(head) == len(target)
    assert filled == full
    assert flow.received_bytes == len(arrived)
    # Never more credit than room.
    room = sum(len(t) for t in targets) + frames.INITIAL_CREDIT_BYTES
    assert flow.received_bytes + flow.receive_credit <= room


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=64), st.integers(0, 400))
def test_a_damaged_hello_never_opens_a_session(noise, at):
    one = initiator()
    one.greet(NOW_MS)
    data = bytearray(outgoing(one))
    position = 9 + at % (len(data) - 9)
    damaged = bytes(data[:position]) + noise + bytes(data[position + len(noise) :])
    session = responder()
    events = session.feed(damaged, NOW_MS)
    check_typed(session, events)
    assert session.peer_id is None or damaged == bytes(data)
