"""No single flipped byte, no other encoding, and no order of arrivals gets past the receiver."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.identity.envelope import Kind, ReplayWindow, open_envelope, seal
from stook.identity.keys import NodeKey

ALICE, BOB = (NodeKey.from_secret(bytes((number,)) * 32) for number in (1, 2))
NOW = 1_700_000_000_000
SESSION = bytes(range(16))


def make(**changes) -> bytes:
    fields = {
        "key": ALICE,
        "network": "local",
        "kind": Kind.REQUEST,
        "method": "CLAIM",
        "message_id": bytes(range(100, 116)),
        "session": SESSION,
        "recipient": BOB.node_id,
        "sent_at_ms": NOW,
        "payload": b"some payload",
    }
    return seal(**(fields | changes)).data


def open_it(data: bytes, now_ms: int = NOW, replay: ReplayWindow | None = None):
    return open_envelope(
        data,
        network="local",
        me=BOB.node_id,
        session=SESSION,
        claimed_sender=ALICE.node_id,
        now_ms=now_ms,
        replay=replay or ReplayWindow(),
    )


def refused(data: bytes) -> bool:
    try:
        open_it(data)
    except (MalformedError, MisbehaviourError):
        return True
    return False


@pytest.mark.parametrize("payload", [b"", b"some payload", bytes(300)])
def test_every_flip_of_every_byte_is_refused(payload):
    """Exhaustive in the place: each byte with each single bit, and turned over whole."""
    data = make(payload=payload)
    for at in range(len(data)):
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            assert refused(data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :]), (at, mask)


@given(st.data())
@settings(max_examples=300)
def test_no_other_bytes_are_accepted(draw):
    """Cut, spliced, doubled, inserted, replaced: whatever differs from what was signed is refused."""
    data = make()
    begin = draw.draw(st.integers(0, len(data)))
    end = draw.draw(st.integers(begin, min(len(data), begin + 40)))
    patch = draw.draw(st.binary(max_size=40))
    changed = data[:begin] + patch + data[end:]
    assert changed == data or refused(changed)


def long_forms(token: bytes) -> list[bytes]:
    """Other MessagePack encodings of the same value, for the token kinds an envelope is made of."""
    head, rest = token[0], token[1:]
    if head < 0x80:
        return [b"\xcc" + token, b"\xcd\0" + token, b"\xce\0\0\0" + token, b"\xcf" + bytes(7) + token, b"\xd0" + token]
    if head == 0xCF:
        return [b"\xd3" + rest]
    if 0xA0 <= head < 0xC0:
        size = head & 31
        return [
            b"\xd9" + bytes((size,)) + rest,
            b"\xda\0" + bytes((size,)) + rest,
            b"\xdb\0\0\0" + bytes((size,)) + rest,
        ]
    if head == 0xC4:
        return [b"\xc5\0" + rest, b"\xc6\0\0\0" + rest]
    raise AssertionError(f"unexpected token {head:#x}")


def tokens(data: bytes) -> list[bytes]:
    """The MessagePack tokens after the array head."""
    found, at = [], 1
    while at < len(data):
        head = data[at]
        if head < 0x80:
            size = 1
        elif head == 0xCF:
            size = 9
        elif 0xA0 <= head < 0xC0:
            size = 1 + (head & 31)
        else:
            assert head == 0xC4
            size = 2 + data[at + 1]
        found.append(data[at : at + size])
        at += size
    return found


def test_every_re_encoding_of_every_field_is_refused_as_malformed():
    data = make()
    parts = tokens(data)
    assert len(parts) == 12
    assert data == b"\x9c" + b"".join(parts)
    tried = 0
    for at, token in enumerate(parts):
        for other in long_forms(token):
            with pytest.raises(MalformedError):
                open_it(b"\x9c" + b"".join(parts[:at]) + other + b"".join(parts[at + 1 :]))
            tried += 1
    for head in (b"\xdc\0\x0c", b"\xdd\0\0\0\x0c"):
        with pytest.raises(MalformedError):
            open_it(head + b"".join(parts))
    assert tried >= 30


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_random_bytes_are_refused_with_a_typed_error(data):
    assert refused(data)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12),  # which id
            st.integers(-400_000, 400_000),  # how far its time stamp is off
            st.integers(0, 120_000),  # how much time passes before it
        ),
        max_size=60,
    ),
    st.integers(1, 8),
)
@settings(max_examples=200)
def test_the_replay_window_against_one_that_never_forgets(arrivals, capacity):
    window, seen, now = ReplayWindow(capacity=capacity), set(), NOW
    for number, offset, passed in arrivals:
        now += passed
        message_id, sent_at = bytes((number,)) * 16, now + offset
        answer = window.check(message_id, sent_at, now)
        if abs(offset) > 300_000:
            assert answer is ReasonCode.CLOCK_SKEW
        elif answer is None:
            window.record(message_id, sent_at, now)
            # A message (an id with its time stamp) is never accepted twice.
            assert (number, sent_at) not in seen
            seen.add((number, sent_at))
        else:
            # Refused as seen: it was seen. Refused as too many: there are as many that still count.
            still = {stamp for stamp in seen if stamp[1] >= now - 300_000 - 10_000}
            assert answer in (ReasonCode.REPLAYED, ReasonCode.RATE_LIMITED)
            if answer is ReasonCode.REPLAYED:
                assert any(known == number for known, _ in seen)
            else:
                assert len(still) >= capacity
        assert len(window) <= capacity


@given(st.lists(st.integers(-600_000, 600_000), min_size=1, max_size=40))
@settings(max_examples=100)
def test_even_a_jumping_clock_never_lets_a_copy_in(jumps):
    window, accepted = ReplayWindow(), set()
    now = NOW
    stamps = [NOW + step * 60_000 for step in range(-5, 6)]
    for jump in jumps:
        now += jump
        for number, stamp in enumerate(stamps):
            message_id = bytes((number,)) * 16
            if window.check(message_id, stamp, now) is None:
                window.record(message_id, stamp, now)
                assert message_id not in accepted
                accepted.add(message_id)
