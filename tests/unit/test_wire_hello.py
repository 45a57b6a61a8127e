"""Every check of a hello, each with its own reason, at both ends."""

import msgspec
import pytest

from stook.codec import decode, encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.identity.contact import Address, AddressKind, Contact, SignedContact
from stook.identity.envelope import TIME_WINDOW_MS
from stook.ids import NetworkId
from stook.wire.events import Broken, GoodbyeReceived, Opened
from stook.wire.hello import SignedHello
from stook.wire.session import SessionState
from wire_samples import ALICE, BOB, CAROL, NOW_MS, initiator, open_pair, outgoing, pump, responder


def meet(one, other, now_ms=NOW_MS):
    one.greet(NOW_MS)
    return pump(one, other, now_ms)


def refusal(events):
    assert isinstance(events[-1], Broken), events
    return events[-1].code


def goodbye(events):
    return next(event.code for event in events if isinstance(event, GoodbyeReceived))


def test_both_ends_know_each_other():
    heard_by_one, heard_by_other = meet(initiator(), responder())
    (first,), (second,) = heard_by_one, heard_by_other
    assert isinstance(first, Opened)
    assert isinstance(second, Opened)
    assert (first.peer_id, first.peer_key) == (BOB.node_id, BOB.public_key)
    assert (second.peer_id, second.peer_key) == (ALICE.node_id, ALICE.public_key)
    assert first.addressed
    assert second.addressed
    assert first.version == 1


def test_another_channel_is_refused_by_the_responder():
    heard_by_one, heard_by_other = meet(initiator(channel=b"x" * 32), responder())
    assert refusal(heard_by_other) is ReasonCode.WRONG_CHANNEL
    assert goodbye(heard_by_one) is ReasonCode.WRONG_CHANNEL


def test_another_channel_is_refused_by_the_initiator():
    # A responder that does not look: its hello comes over a channel that the initiator does not see.
    one = initiator(channel=b"x" * 32)
    one.greet(NOW_MS)
    blind = responder(channel=b"x" * 32)
    blind.feed(outgoing(one), NOW_MS)
    other = responder()
    forged = initiator()
    forged.greet(NOW_MS)
    other.feed(outgoing(forged), NOW_MS)
    assert refusal(one.feed(outgoing(other), NOW_MS)) is ReasonCode.WRONG_CHANNEL


def test_a_foreign_id_is_refused():
    heard_by_one, _ = meet(initiator(to=CAROL.node_id), responder())
    assert goodbye(heard_by_one) is ReasonCode.WRONG_RECIPIENT
    # Carol claims to be Bob: she answers a hello meant for Bob with her own key.
    one = initiator(to=BOB.node_id)
    one.greet(NOW_MS)
    to_carol = initiator(to=CAROL.node_id)
    to_carol.greet(NOW_MS)
    carol = responder(CAROL)
    carol.feed(outgoing(to_carol), NOW_MS)
    assert refusal(one.feed(outgoing(carol), NOW_MS)) is ReasonCode.WRONG_IDENTITY


def test_a_key_that_is_claimed_but_not_held():
    """Carol takes Bob's public key into her hello: she cannot sign for it."""
    one = initiator()
    one.greet(NOW_MS)
    bob = responder()
    bob.feed(outgoing(one), NOW_MS)
    body = outgoing(bob)[9:]
    signed = decode(SignedHello, body)
    forged = SignedHello(signed.hello, CAROL.sign(signed.hello.digest))
    data = outgoing(bob) + len(encode(forged)).to_bytes(4, "big") + b"\x01" + bytes(4) + encode(forged)
    assert refusal(one.feed(data, NOW_MS)) is ReasonCode.BAD_SIGNATURE


def test_the_hello_answers_this_session():
    """Bob's true hello of another session with Alice is of no use."""
    earlier = initiator()
    earlier.greet(NOW_MS)
    bob = responder()
    bob.feed(outgoing(earlier), NOW_MS)
    old = outgoing(bob)
    one = initiator()
    one._nonce = type(one._nonce)(b"n" * 16)
    one.greet(NOW_MS)
    assert refusal(one.feed(old, NOW_MS)) is ReasonCode.WRONG_SESSION


def test_other_networks_are_refused():
    heard_by_one, heard_by_other = meet(initiator(network=NetworkId("elsewhere")), responder())
    assert refusal(heard_by_other) is ReasonCode.WRONG_NETWORK
    assert goodbye(heard_by_one) is ReasonCode.WRONG_NETWORK


@pytest.mark.parametrize(("lowest", "highest", "spoken"), [(1, 3, 2), (2, 2, 2), (1, 1, 1), (3, 9, None)])
def test_the_highest_common_version_is_spoken(lowest, highest, spoken):
    one = initiator(version_min=lowest, version_max=highest)
    heard_by_one, heard_by_other = meet(one, responder(version_min=1, version_max=2))
    if spoken is None:
        assert refusal(heard_by_other) is ReasonCode.WRONG_VERSION
        assert goodbye(heard_by_one) is ReasonCode.WRONG_VERSION
    else:
        assert heard_by_one[0].version == heard_by_other[0].version == spoken


@pytest.mark.parametrize("skew_ms", [TIME_WINDOW_MS + 1, -TIME_WINDOW_MS - 1])
def test_a_clock_that_is_off_is_told_the_time(skew_ms):
    now_ms = NOW_MS + skew_ms
    heard_by_one, heard_by_other = meet(initiator(), responder(), now_ms)
    assert refusal(heard_by_other) is ReasonCode.CLOCK_SKEW
    assert heard_by_one[0] == GoodbyeReceived(ReasonCode.CLOCK_SKEW, now_ms, 0)


def test_a_clock_within_the_window_is_fine():
    heard_by_one, _ = meet(initiator(), responder(), NOW_MS + TIME_WINDOW_MS)
    assert isinstance(heard_by_one[0], Opened)


def test_the_puzzle_is_asked_for():
    heard_by_one, _ = meet(initiator(), responder(puzzle_bits_asked=40))
    assert goodbye(heard_by_one) is ReasonCode.PUZZLE_UNSOLVED


def test_a_hello_sent_back_is_refused():
    one = initiator()
    one.greet(NOW_MS)
    assert refusal(one.feed(outgoing(one), NOW_MS)) is ReasonCode.MALFORMED


def test_a_node_does_not_meet_itself():
    heard_by_one, _ = meet(initiator(ALICE, to=ALICE.node_id), responder(ALICE))
    assert goodbye(heard_by_one) is ReasonCode.WRONG_IDENTITY


def test_an_unaddressed_session_is_marked_at_both_ends():
    one, other = initiator(to=None), responder()
    heard_by_one, heard_by_other = meet(one, other)
    assert not heard_by_one[0].addressed
    assert not heard_by_other[0].addressed
    assert heard_by_one[0].peer_id == BOB.node_id


def contact_of(key, network="test"):
    contact = Contact(
        version=1,
        network=NetworkId(network),
        public_key=key.public_key,
        puzzle_nonce=0,
        sequence=1,
        issued_ms=NOW_MS,
        hd_index=0,
        addresses=(Address(AddressKind.DIRECT, "192.0.2.1", 4000),),
    )
    return SignedContact(contact, key.sign(contact.digest))


def test_a_contact_comes_along_and_is_checked():
    _, heard_by_other = meet(initiator(contact=contact_of(ALICE)), responder())
    assert heard_by_other[0].contact == contact_of(ALICE)
    _, heard_by_other = meet(initiator(contact=contact_of(CAROL)), responder())
    assert refusal(heard_by_other) is ReasonCode.WRONG_IDENTITY
    unsigned = msgspec.structs.replace(contact_of(ALICE), signature=contact_of(CAROL).signature)
    _, heard_by_other = meet(initiator(contact=unsigned), responder())
    assert refusal(heard_by_other) is ReasonCode.BAD_SIGNATURE


def test_every_flipped_bit_of_a_hello_is_refused():
    one = initiator()
    one.greet(NOW_MS)
    data = outgoing(one)
    for at in range(9, len(data)):
        other = responder()
        events = other.feed(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], NOW_MS)
        assert not any(isinstance(event, Opened) for event in events)
        assert other.state in (SessionState.CLOSED, SessionState.GREETING)


def test_no_second_hello_and_nothing_before_the_first():
    one, other = open_pair()
    again = initiator()
    again.greet(NOW_MS)
    assert refusal(other.feed(outgoing(again), NOW_MS)) is ReasonCode.MALFORMED
    assert refusal(responder().feed(bytes.fromhex("000000010200000001"), NOW_MS)) is ReasonCode.MALFORMED
    assert one.state is SessionState.OPEN


def test_typed_errors_only():
    events = responder().feed(bytes.fromhex("0000000101000000000f"), NOW_MS)
    assert isinstance(events[-1].error, MalformedError | MisbehaviourError)
