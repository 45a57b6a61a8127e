"""Golden bytes of a whole conversation. Never delete a file in `data/`; a new version gets a new file."""

import hashlib
import json
from pathlib import Path

import pytest

from stook.errors import ReasonCode
from stook.identity.envelope import Refusal
from stook.identity.keys import NodeKey
from stook.ids import MessageId, NetworkId, SessionNonce
from stook.wire.hello import Party, Role
from stook.wire.session import Session

DATA = Path(__file__).parent / "data" / "wire-v1.json"
NOW_MS = 1_700_000_000_000
CERTIFICATE = b"any bytes stand for the certificate here"


def message_id(number: int) -> MessageId:
    return MessageId(bytes([number]) * 16)


def session(role: Role, secret: bytes, nonce: bytes, expected: bytes | None = None) -> Session:
    party = Party(key=NodeKey.from_secret(secret * 32), network=NetworkId("local"), max_exchanges=64)
    return Session(
        role=role,
        party=party,
        channel=hashlib.sha256(CERTIFICATE).digest(),
        nonce=SessionNonce(nonce * 16),
        expected=None if expected is None else NodeKey.from_secret(expected * 32).node_id,
    )


def conversation():
    """Every kind of frame once, as (who, what it shows, bytes); each side has judged what the other said."""
    one = session(Role.INITIATOR, b"\x01", b"\xaa", expected=b"\x02")
    other = session(Role.RESPONDER, b"\x02", b"\xbb")
    said = []

    def say(who, target, name, text):
        data = b"".join(bytes(piece) for piece in who.take_outgoing())
        events = target.feed(data, NOW_MS)
        assert not any(type(event).__name__ == "Broken" for event in events), events
        said.append((name, text, data))

    def initiator(text):
        say(one, other, "initiator", text)

    def responder(text):
        say(other, one, "responder", text)

    one.greet(NOW_MS)
    initiator("HELLO")
    responder("HELLO")
    one.request("PUT", b"payload", now_ms=NOW_MS, message_id=message_id(1), alone=False)
    initiator("MESSAGE, a request that opens exchange 1")
    other.reply(1, b"ready", now_ms=NOW_MS, message_id=message_id(2))
    responder("MESSAGE, a reply")
    other.post(other.find(1), memoryview(bytearray(100_000)))
    responder("WINDOW for a posted buffer of 100000 bytes")
    one.send_data(1, memoryview(b"raw bytes"))
    one.end(1)
    initiator("DATA and END")
    other.request("PING", b"", now_ms=NOW_MS, message_id=message_id(3), alone=True)
    responder("MESSAGE and END: a request that opens exchange 2 and sends no raw bytes")
    one.refuse(2, Refusal(500, "later", 1000, NOW_MS), now_ms=NOW_MS, message_id=message_id(4))
    initiator("MESSAGE, a refusal, and END")
    other.reset(1, ReasonCode.CANCELLED)
    responder("RESET")
    one.goodbye(ReasonCode.SHUTTING_DOWN, NOW_MS)
    initiator("GOODBYE")
    assert one.open_exchanges == other.open_exchanges == 0
    return said


def test_the_conversation_is_the_same_byte_for_byte():
    golden = json.loads(DATA.read_text())
    told = [{"from": who, "shows": text, "bytes": data.hex()} for who, text, data in conversation()]
    assert told == golden["conversation"]


def test_every_frame_type_is_in_it():
    golden = json.loads(DATA.read_text())
    kinds = set()
    for turn in golden["conversation"]:
        data, at = bytes.fromhex(turn["bytes"]), 0
        while at < len(data):
            kinds.add(data[at + 4])
            at += 9 + int.from_bytes(data[at : at + 4], "big")
        assert at == len(data)
    assert kinds == set(range(1, 8))


@pytest.mark.parametrize("at", range(2))
def test_a_hello_of_the_file_is_judged_alike(at):
    """What a second implementation has to refuse: the same hello seen over another channel."""
    turn = json.loads(DATA.read_text())["conversation"][at]
    one = session(Role.INITIATOR, b"\x01", b"\xaa", expected=b"\x02")
    one.greet(NOW_MS)
    target = session(Role.RESPONDER, b"\x02", b"\xbb") if at == 0 else one
    target._channel = bytes(32)
    (event,) = target.feed(bytes.fromhex(turn["bytes"]), NOW_MS)
    assert event.code is ReasonCode.WRONG_CHANNEL
