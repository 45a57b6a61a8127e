"""Every check of `open_envelope` has its own reason, in the order written down; only good mail is remembered."""

import msgspec
import pytest

from stook.codec import encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode, RefusedError
from stook.hashing import Tag, tagged_hash
from stook.identity.envelope import (
    MAX_ENVELOPE_BYTES,
    MAX_PAYLOAD_BYTES,
    TIME_WINDOW_MS,
    Envelope,
    Kind,
    Refusal,
    ReplayWindow,
    check_reply,
    open_envelope,
    seal,
)
from stook.identity.keys import NodeKey

ALICE, BOB, EVE = (NodeKey.from_secret(bytes((number,)) * 32) for number in (1, 2, 3))
NOW = 1_700_000_000_000
SESSION = b"session-of-bob-1"
ID = b"message-number-1"


def sealed(**changes):
    fields = {
        "key": ALICE,
        "network": "local",
        "kind": Kind.REQUEST,
        "method": "CLAIM",
        "message_id": ID,
        "session": SESSION,
        "recipient": BOB.node_id,
        "sent_at_ms": NOW,
        "payload": b"payload",
    }
    return seal(**(fields | changes))


def opened(data, **changes):
    fields = {
        "network": "local",
        "me": BOB.node_id,
        "session": SESSION,
        "claimed_sender": ALICE.node_id,
        "now_ms": NOW,
        "replay": ReplayWindow(),
    }
    return open_envelope(data, **(fields | changes))


def signed_as_is(**changes) -> bytes:
    """An envelope that `seal` would not make, with a good signature."""
    template = opened(sealed().data)
    changed = msgspec.structs.replace(template, **changes)
    signer = {key.public_key: key for key in (ALICE, BOB, EVE)}[changed.sender_key]
    return encode(msgspec.structs.replace(changed, signature=signer.sign(changed.digest)))


def code_of(data, **changes) -> ReasonCode:
    with pytest.raises(MisbehaviourError) as caught:
        opened(data, **changes)
    return caught.value.code


def test_what_was_sealed_is_opened():
    envelope = opened(sealed().data)
    assert (envelope.kind, envelope.method, envelope.payload) == (Kind.REQUEST, "CLAIM", b"payload")
    assert envelope.sender == ALICE.node_id
    assert envelope.digest == sealed().digest
    assert opened(memoryview(bytearray(sealed().data))) == envelope


def test_the_signature_covers_every_byte_before_it():
    data = sealed().data
    assert data[-66:-64] == b"\xc4\x40"
    assert sealed().digest == tagged_hash(Tag.ENVELOPE, data[:-66])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes(MAX_ENVELOPE_BYTES + 1), ReasonCode.TOO_LARGE),
        (signed_as_is(version=2), ReasonCode.WRONG_VERSION),
        (sealed(network="other").data, ReasonCode.WRONG_NETWORK),
        (sealed(recipient=EVE.node_id).data, ReasonCode.WRONG_RECIPIENT),
        (sealed(session=b"session-of-bob-0").data, ReasonCode.WRONG_SESSION),
        (sealed(key=EVE).data, ReasonCode.WRONG_IDENTITY),
        (sealed(sent_at_ms=NOW - TIME_WINDOW_MS - 1).data, ReasonCode.CLOCK_SKEW),
        (sealed(sent_at_ms=NOW + TIME_WINDOW_MS + 1).data, ReasonCode.CLOCK_SKEW),
        (sealed().data[:-1] + bytes((sealed().data[-1] ^ 1,)), ReasonCode.BAD_SIGNATURE),
    ],
)
def test_each_check_has_its_own_reason(data, code):
    replay = ReplayWindow()
    assert code_of(data, replay=replay) is code
    assert len(replay) == 0


@pytest.mark.parametrize("offset", [-TIME_WINDOW_MS, TIME_WINDOW_MS])
def test_the_time_window_has_two_sides_and_includes_its_ends(offset):
    assert opened(sealed(sent_at_ms=NOW + offset).data)


def test_a_second_copy_is_replayed():
    replay = ReplayWindow()
    opened(sealed().data, replay=replay)
    assert code_of(sealed().data, replay=replay) is ReasonCode.REPLAYED
    # The id counts, not the bytes.
    assert code_of(sealed(payload=b"other").data, replay=replay) is ReasonCode.REPLAYED
    assert code_of(sealed(sent_at_ms=NOW + 60_000).data, replay=replay) is ReasonCode.REPLAYED
    assert opened(sealed(message_id=b"message-number-2").data, replay=replay)
    assert len(replay) == 2


def test_a_forger_cannot_make_a_message_look_replayed():
    replay = ReplayWindow()
    forged = sealed().data[:-64] + bytes(64)
    assert code_of(forged, replay=replay) is ReasonCode.BAD_SIGNATURE
    assert opened(sealed().data, replay=replay)


def test_a_full_window_refuses_and_forgets_nothing():
    replay = ReplayWindow(capacity=2)
    ids = [bytes((number,)) * 16 for number in range(3)]
    for message_id in ids[:2]:
        opened(sealed(message_id=message_id).data, replay=replay)
    assert code_of(sealed(message_id=ids[2]).data, replay=replay) is ReasonCode.RATE_LIMITED
    assert code_of(sealed(message_id=ids[0]).data, replay=replay) is ReasonCode.REPLAYED
    later = NOW + TIME_WINDOW_MS + 20_000
    assert opened(sealed(message_id=ids[2], sent_at_ms=later).data, replay=replay, now_ms=later)
    assert len(replay) == 1


def test_checks_come_in_the_order_written_down():
    """A message wrong in everything is refused for the first thing; mended one by one, for the next."""
    faults = [
        (ReasonCode.WRONG_VERSION, {"version": 2}),
        (ReasonCode.WRONG_NETWORK, {"network": "other"}),
        (ReasonCode.WRONG_RECIPIENT, {"recipient": EVE.node_id}),
        (ReasonCode.WRONG_SESSION, {"session": bytes(16)}),
        (ReasonCode.WRONG_IDENTITY, {"sender_key": EVE.public_key}),
        (ReasonCode.CLOCK_SKEW, {"sent_at_ms": NOW - TIME_WINDOW_MS - 1}),
        (ReasonCode.REPLAYED, {}),
        (ReasonCode.BAD_SIGNATURE, {"message_id": bytes(16)}),
    ]
    template = msgspec.structs.replace(opened(sealed().data), signature=bytes(64))
    for at, (code, _) in enumerate(faults):
        replay = ReplayWindow()
        opened(sealed().data, replay=replay)
        changes = {name: value for _, fault in faults[at:] for name, value in fault.items()}
        if code is not ReasonCode.BAD_SIGNATURE:
            changes.pop("message_id")
        assert code_of(encode(msgspec.structs.replace(template, **changes)), replay=replay) is code


@pytest.mark.parametrize(
    "changes",
    [
        {"method": ""},
        {"method": "claim"},
        {"method": "A" * 33},
        {"method": "CLAIM\n"},
        {"message_id": bytes(15)},
        {"session": bytes(17)},
        {"recipient": bytes(19)},
        {"sent_at_ms": -1},
        {"sent_at_ms": 2**63},
        {"kind": 4},
        {"network": ""},
        {"network": "Local"},
        {"reply_to": bytes(32)},
        {"reply_to": bytes(5)},
        {"kind": Kind.REPLY},
        {"kind": Kind.REFUSAL, "reply_to": bytes(31)},
        {"version": 0},
        {"payload": bytes(MAX_PAYLOAD_BYTES + 1)},
    ],
)
def test_fields_out_of_bounds_are_malformed(changes):
    with pytest.raises(MalformedError):
        opened(signed_as_is(**changes))


@pytest.mark.parametrize("data", [b"", b"\x9c", b"\xc0", sealed().data + b"\0", sealed().data[:-1], b"\xff" * 300])
def test_other_bytes_are_malformed(data):
    with pytest.raises(MalformedError):
        opened(data)


def test_a_signed_message_for_a_key_off_the_curve_is_refused():
    wrong = b"\2" + b"\xff" * 32
    template = msgspec.structs.replace(opened(sealed().data), sender_key=wrong)
    assert code_of(encode(template), claimed_sender=template.sender) is ReasonCode.BAD_SIGNATURE


def test_the_largest_message_passes():
    changes = {"payload": bytes(MAX_PAYLOAD_BYTES), "network": "n" * 32, "method": "M" * 32, "sent_at_ms": 2**63 - 1}
    data = sealed(**changes, kind=Kind.REPLY, reply_to=bytes(32)).data
    assert len(data) <= MAX_ENVELOPE_BYTES
    assert opened(data, network="n" * 32, now_ms=2**63 - 1).payload == bytes(MAX_PAYLOAD_BYTES)


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": bytes(MAX_PAYLOAD_BYTES + 1)},
        {"method": "claim"},
        {"method": "A" * 33},
        {"reply_to": bytes(32)},
        {"kind": Kind.REPLY},
        {"kind": Kind.REFUSAL, "reply_to": bytes(31)},
    ],
)
def test_seal_makes_nothing_that_open_would_refuse(changes):
    with pytest.raises(ValueError):
        sealed(**changes)


def reply(**changes) -> Envelope:
    fields = {"kind": Kind.REPLY, "reply_to": sealed().digest} | changes
    return opened(sealed(**fields).data)


@pytest.mark.parametrize("kind", [Kind.REPLY, Kind.REFUSAL])
def test_a_reply_names_its_request(kind):
    check_reply(reply(kind=kind), method="CLAIM", request_digest=sealed().digest)


@pytest.mark.parametrize(
    ("envelope", "digest"),
    [
        (reply(reply_to=bytes(32)), sealed().digest),
        (reply(method="CANCEL"), sealed().digest),
        (reply(), sealed(message_id=bytes(16)).digest),
        (opened(sealed().data), sealed().digest),
        (opened(sealed().data), b""),
    ],
)
def test_any_other_reply_is_unbound(envelope, digest):
    with pytest.raises(MisbehaviourError) as caught:
        check_reply(envelope, method="CLAIM", request_digest=digest)
    assert caught.value.code is ReasonCode.UNBOUND_REPLY
    assert caught.value.peer == ALICE.node_id.hex()


def test_a_refusal_becomes_the_callers_error():
    refusal = Refusal.of(ReasonCode.BUSY, "8 transfers\nrunning\x1b[2J", retry_after_ms=500, now_ms=NOW)
    assert refusal.detail == "8 transfers running [2J"
    error = refusal.error(peer="ab" * 20)
    assert isinstance(error, RefusedError)
    assert (error.code, error.retry_after_ms, error.retryable) == (ReasonCode.BUSY, 500, True)
    assert "8 transfers" in str(error)


def test_a_refusal_is_bounded_and_survives_unknown_codes():
    assert len(Refusal.of(ReasonCode.BUSY, "x" * 1000, now_ms=NOW, retry_after_ms=-5).detail) == 200
    assert Refusal.of(ReasonCode.BUSY, now_ms=NOW, retry_after_ms=-5).retry_after_ms == 0
    error = Refusal(799, "from the future", 0, NOW).error()
    assert error.code is ReasonCode.INTERNAL
    assert error.detail == "code 799: from the future"


def test_replay_window_limits():
    with pytest.raises(ValueError, match="at least one"):
        ReplayWindow(capacity=0)
    window = ReplayWindow()
    window.record(ID, NOW, NOW)
    with pytest.raises(ValueError, match="REPLAYED"):
        window.record(ID, NOW, NOW)


def test_a_clock_set_back_lets_nothing_forgotten_in_again():
    window = ReplayWindow()
    window.record(ID, NOW, NOW)
    later = NOW + 2 * TIME_WINDOW_MS
    window.record(b"message-number-2", later, later)
    assert len(window) == 1
    assert window.check(ID, NOW, NOW) is ReasonCode.CLOCK_SKEW
