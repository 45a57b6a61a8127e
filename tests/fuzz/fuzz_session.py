"""Targets: frames, and a whole session with a hostile peer that holds a valid key.

The input is a script. It says what the peer sends (good frames, spoiled ones, lies about lengths, replays, signed
requests on any exchange) in which chunks, and what our own side does meanwhile within what its interface allows.
"""

from __future__ import annotations

from typing import Any

import wire_samples as wires
from fuzz_base import Memory, Tape, check_text, target
from stook.codec import encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.identity.envelope import Kind, Refusal, seal
from stook.identity.keys import NodeKey
from stook.ids import SessionNonce
from stook.wire import frames
from stook.wire.events import Broken, BufferFilled, Opened, RequestReceived
from stook.wire.flow import Flow
from stook.wire.frames import HEADER_BYTES, INITIAL_CREDIT_BYTES, FrameType, parse_header
from stook.wire.hello import Role, make_hello
from stook.wire.session import Session, SessionState

MAX_EXCHANGES = 4
METHODS = ("PUT", "GET", "WAIT", "A" * 32)
PEER_NONCE = SessionNonce(b"p" * 16)


@target(
    "wire.frame_header",
    seeds=lambda: [
        frames.end_frame(1),
        frames.reset_frame(2, ReasonCode.BUSY),
        frames.window_frame(3, 1),
        frames.goodbye_frame(ReasonCode.STALE, 5, 7),
        frames.header(FrameType.DATA, 1, 1 << 20),
    ],
    covers=(
        "stook.wire.frames.parse_header",
        "stook.wire.frames.parse_reset",
        "stook.wire.frames.parse_window",
        "stook.wire.frames.parse_goodbye",
        "stook.wire.frames.parse_code",
    ),
)
def frame_header(data: bytes) -> None:
    """A header that is good is said again in the same bytes; bodies have one form."""
    whole = data.ljust(HEADER_BYTES, b"\0")
    frame, exchange_id, body_bytes = parse_header(memoryview(whole))
    assert frames.header(frame, exchange_id, body_bytes) == whole[:HEADER_BYTES]
    body = whole[HEADER_BYTES : HEADER_BYTES + body_bytes].ljust(min(body_bytes, 14), b"\0")
    match frame:
        case FrameType.RESET:
            assert isinstance(frames.parse_reset(body), ReasonCode)
        case FrameType.WINDOW:
            assert frames.window_frame(exchange_id, frames.parse_window(body))[HEADER_BYTES:] == body
        case FrameType.GOODBYE:
            code, now_ms, last = frames.parse_goodbye(body)
            assert frames.goodbye_frame(code, now_ms, last)[HEADER_BYTES + 2 :] == body[2:]


class HostilePeer:
    """Holds a valid key, and says what the tape says: mostly well formed, seldom right."""

    def __init__(self, tape: Tape, *, ours: NodeKey, peer: NodeKey, role: Role, channel: bytes) -> None:
        self.tape = tape
        self.now_ms = wires.NOW_MS
        self.ours = ours
        self.peer = peer
        self.role = role
        """Ours; the peer has the other one."""
        self.channel = channel
        self.nonce = SessionNonce(b"a" * 16 if role is Role.INITIATOR else b"b" * 16)
        self.wire = bytearray()
        self.sent: list[bytes] = []
        self.messages = 0
        self.next_id = 2 if role is Role.INITIATOR else 1
        self.opened: list[int] = []

    def exchanges(self) -> list[int]:
        """Numbers of exchanges that may be open: the peer's own, and ours as far as the peer knows them."""
        return self.opened

    def find(self, exchange_id: int) -> Flow | None:
        """Our exchange of that number, so that a reply can name the right request."""
        return None

    def hello(self) -> bytes:
        """The peer's own hello, in a frame; right in everything."""
        body = make_hello(
            wires.party(self.peer, max_exchanges=4),
            role=Role.RESPONDER if self.role is Role.INITIATOR else Role.INITIATOR,
            recipient=self.ours.node_id,
            nonce=PEER_NONCE,
            answers=self.nonce if self.role is Role.INITIATOR else b"",
            channel=self.channel,
            now_ms=self.now_ms,
        )
        return frames.header(FrameType.HELLO, 0, len(body)) + body

    def say(self, frame: bytes) -> None:
        """Put a frame on the wire, as it is or spoiled."""
        if self.tape.number(7) == 7:
            frame = self.tape.spoiled(frame)
        self.sent.append(frame)
        self.wire += frame

    def message(self) -> bytes:
        """A signed message with as little wrong as the tape likes."""
        tape = self.tape
        exchange_id = 1 + tape.number(11)
        flow = self.find(exchange_id)
        kind = tape.pick(list(Kind))
        self.messages += tape.pick((1, 1, 1, 0))
        payload = tape.chunk(64)
        if kind is Kind.REFUSAL and tape.number(3):
            payload = encode(Refusal.of(tape.pick(list(ReasonCode)), "because", now_ms=self.now_ms))
        digest = bytes(32) if flow is None else flow.request_digest
        sealed = seal(
            key=tape.pick((self.peer, self.peer, self.peer, wires.CAROL)),
            network=wires.NETWORK,
            kind=kind,
            method=tape.pick(METHODS) if flow is None else flow.method,
            message_id=wires.message_id(self.messages),
            session=tape.pick((self.nonce, self.nonce, self.nonce, PEER_NONCE)),
            recipient=self.ours.node_id,
            sent_at_ms=self.now_ms + tape.pick((0, 0, 0, 10**6)),
            payload=payload,
            reply_to=b"" if kind is Kind.REQUEST else digest,
        )
        return frames.header(FrameType.MESSAGE, exchange_id, len(sealed.data)) + sealed.data

    def sensible_frame(self) -> bytes:
        """What an honest node might send, so that the play goes on for a while."""
        tape, kind = self.tape, self.tape.number(5)
        known = [number for number in self.exchanges() if number]
        if kind == 0 or not known:
            exchange_id, self.next_id = self.next_id, self.next_id + 2
            self.opened.append(exchange_id)
            return self.sealed(exchange_id, Kind.REQUEST, tape.pick((*METHODS, "PING", "PROBE")), tape.chunk(30), b"")
        exchange_id = tape.pick(known[-4:])
        flow = self.find(exchange_id)
        if kind == 1 and flow is not None:
            payload = tape.chunk(64)
            if tape.number(3) == 3:
                payload = encode(Refusal.of(tape.pick(list(ReasonCode)), "because", now_ms=self.now_ms))
                return self.sealed(exchange_id, Kind.REFUSAL, flow.method, payload, flow.request_digest)
            return self.sealed(exchange_id, Kind.REPLY, flow.method, payload, flow.request_digest)
        if kind == 2:
            return frames.window_frame(exchange_id, 100_000)
        if kind == 3:
            return frames.end_frame(exchange_id)
        if kind == 4 and tape.number(1):
            return frames.reset_frame(exchange_id, tape.pick(list(ReasonCode)))
        size = tape.pick((1, 100, 3000, 30_000))
        return frames.header(FrameType.DATA, exchange_id, size) + bytes(size)

    def sealed(self, exchange_id: int, kind: Kind, method: str, payload: bytes, reply_to: bytes) -> bytes:
        """A message that is right in everything, in a frame."""
        self.messages += 1
        message = seal(
            key=self.peer,
            network=wires.NETWORK,
            kind=kind,
            method=method,
            message_id=wires.message_id(1000 + self.messages),
            session=self.nonce,
            recipient=self.ours.node_id,
            sent_at_ms=self.now_ms,
            payload=payload,
            reply_to=reply_to,
        )
        return frames.header(FrameType.MESSAGE, exchange_id, len(message.data)) + message.data

    def plain_frame(self) -> bytes:
        """Any frame but a message; its header may lie about its body."""
        tape = self.tape
        kind = tape.pick(list(FrameType))
        exchange_id = tape.pick((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2**32 - 1, tape.number(2**32 - 1)))
        match kind:
            case FrameType.DATA:
                body = bytes(tape.pick((1, 2, 100, 16384, INITIAL_CREDIT_BYTES, INITIAL_CREDIT_BYTES + 1)))
            case FrameType.RESET:
                body = tape.take(2).ljust(2, b"\0")
            case FrameType.WINDOW:
                body = tape.pick(
                    (b"\0\0\0\1", b"\0\1\0\0", b"\x7f\xff\xff\xff", bytes(4), tape.take(4).ljust(4, b"\0"))
                )
            case FrameType.GOODBYE:
                body = tape.take(14).ljust(14, b"\0")
            case FrameType.END:
                body = b""
            case _:
                body = tape.chunk(40)
        length = len(body) if tape.number(7) else tape.number(2**32 - 1)
        return length.to_bytes(4, "big") + bytes([kind]) + exchange_id.to_bytes(4, "big") + body

    def peer_acts(self) -> None:
        """One thing the peer does."""
        match self.tape.number(9):
            case 6 | 7 | 8 | 9:
                self.wire += self.sensible_frame()
            case 0 | 1:
                self.say(self.message())
            case 2 | 3:
                self.say(self.plain_frame())
            case 4 if self.sent:
                self.say(self.tape.pick(self.sent[-16:]))
            case _:
                self.wire += self.tape.chunk(40)


class Play(HostilePeer):
    """One session, its hostile peer, and what our side may do."""

    def __init__(self, tape: Tape, *, role: Role) -> None:
        alice_is_ours = role is Role.INITIATOR
        super().__init__(
            tape,
            ours=wires.ALICE if alice_is_ours else wires.BOB,
            peer=wires.BOB if alice_is_ours else wires.ALICE,
            role=role,
            channel=wires.CHANNEL,
        )
        make = wires.initiator if alice_is_ours else wires.responder
        self.session: Session = make(max_exchanges=MAX_EXCHANGES)
        self.known: set[int] = set()
        self.broken = False
        if alice_is_ours:
            self.session.greet(self.now_ms)

    def exchanges(self) -> list[int]:
        return sorted(self.known | set(self.opened))

    def find(self, exchange_id: int) -> Flow | None:
        flow = self.session.find(exchange_id)
        return flow if flow is not None and flow.mine else None

    # --- our side ----------------------------------------------------------------------------------------------------

    def we_act(self) -> None:
        """One thing our own side does; each is allowed by what the session says of itself."""
        session, tape = self.session, self.tape
        action = tape.number(9)
        if action == 0:
            if session.can_open:
                self.known.add(self.request())
            return
        if action == 1:
            session.goodbye(ReasonCode.SHUTTING_DOWN, self.now_ms)
            return
        if action == 2:
            self.now_ms += tape.number(700_000)
            return
        flow = session.find(tape.pick(sorted(self.known))) if self.known else None
        if flow is None:
            return
        if action in (3, 4) and not flow.dropping:
            size = tape.pick((1, 100, 70_000, 1 << 20))
            session.post(flow, memoryview(bytearray(size)))
        elif action == 5:
            session.reset(flow.exchange_id, ReasonCode.CANCELLED)
        elif flow.we_may_send:
            self.we_send(action, flow)

    def request(self) -> int:
        """Open an exchange."""
        self.messages += 1
        return self.session.request(
            METHODS[0],
            b"asked",
            now_ms=self.now_ms,
            message_id=wires.message_id(self.messages),
            alone=bool(self.tape.number(1)),
        )

    def we_send(self, action: int, flow: Any) -> None:
        """Say something on an exchange that is open at our end."""
        session, exchange_id = self.session, flow.exchange_id
        self.messages += 1
        names = {"now_ms": self.now_ms, "message_id": wires.message_id(self.messages)}
        if action == 6:
            session.end(exchange_id)
        elif action == 7 and flow.send_credit:
            session.send_data(exchange_id, memoryview(bytes(min(flow.send_credit, 1 << 20, 5000))))
        elif not flow.mine and action == 8:
            session.reply(exchange_id, b"answer", **names)
        elif not flow.mine and action == 9:
            session.refuse(exchange_id, Refusal.of(ReasonCode.BUSY, now_ms=self.now_ms), **names)

    # --- the wire ----------------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Feed what is on the wire, cut as the tape says, and judge what comes out."""
        data, self.wire = bytes(self.wire), bytearray()
        step = 1 + self.tape.pick((0, 1, 8, 9, 40, 1000, 20_000, 1 << 20))
        step = max(step, len(data) // 300)
        for at in range(0, len(data), step):
            events = self.session.feed(data[at : at + step], self.now_ms)
            assert not (self.broken and events), "a closed session told something"
            self.judge(events)

    def judge(self, events: list[Any]) -> None:
        """What a session promises after every chunk."""
        session = self.session
        for number, event in enumerate(events):
            match event:
                case Broken():
                    assert number == len(events) - 1
                    assert isinstance(event.error, MalformedError | MisbehaviourError)
                    assert isinstance(event.code, ReasonCode)
                    assert session.state is SessionState.CLOSED
                    assert session.open_exchanges == 0
                    check_text(event.error)
                    self.broken = True
                case Opened():
                    assert event.peer_id == self.peer.node_id
                case RequestReceived():
                    self.known.add(event.exchange_id)
                    assert len(event.payload) <= 1 << 20
                case BufferFilled():
                    assert session.find(event.exchange_id) is not None or event.exchange_id in self.known
        assert session.open_exchanges <= MAX_EXCHANGES + 4
        for exchange_id in self.known:
            flow = session.find(exchange_id)
            if flow is not None:
                assert flow.backlog_bytes <= INITIAL_CREDIT_BYTES
                assert 0 <= flow.send_credit <= frames.MAX_CREDIT_BYTES
                assert flow.receive_credit >= 0
        session.take_outgoing()

    def run(self, greeted: bool) -> None:
        """The whole play."""
        hello = self.hello()
        if greeted:
            self.wire += hello
            self.deliver()
            assert self.session.state is SessionState.OPEN
        else:
            self.wire += self.tape.spoiled(hello, 2) if self.tape.number(1) else self.tape.chunk(200)
        turns = 0
        while not self.tape.over and not self.broken and turns < 64:
            turns += 1
            self.peer_acts() if self.tape.number(2) else self.we_act()
            if self.tape.number(1):
                self.deliver()
        self.deliver()
        self.session.close()
        assert not self.session.feed(hello, self.now_ms)
        assert self.session.open_exchanges == 0


def scripts() -> list[bytes]:
    """Scripts of each length and some variety; the fuzzer does better with them than with none."""
    plain = [bytes(length) for length in (0, 8, 64, 200)]
    return plain + [bytes((at * step + step) % 256 for at in range(240)) for step in (1, 3, 7, 11, 29, 31, 77)]


_SESSION = {"covers": ("stook.wire.session.Session.received",), "memory": Memory(64, 12 << 20), "weight": 10}


@target("wire.session.responder", seeds=scripts, **_SESSION)
def responder(data: bytes) -> None:
    """We were called."""
    Play(Tape(data), role=Role.RESPONDER).run(greeted=True)


@target("wire.session.initiator", seeds=scripts, **_SESSION)
def initiator(data: bytes) -> None:
    """We called."""
    Play(Tape(data), role=Role.INITIATOR).run(greeted=True)


@target("wire.session.ungreeted", seeds=scripts, **_SESSION)
def ungreeted(data: bytes) -> None:
    """Before any valid hello, at either end."""
    tape = Tape(data)
    Play(tape, role=tape.pick(list(Role))).run(greeted=False)


@target("wire.session.stream", seeds=lambda: _streams(), **_SESSION)
def stream(data: bytes) -> None:
    """Plain bytes of a stream, whole and in single bytes, tell the same and leave the same behind."""
    for make in (wires.responder, wires.initiator):
        whole, dripping = make(), make()
        for session in (whole, dripping):
            if session.role is Role.INITIATOR:
                session.greet(wires.NOW_MS)
        told = whole.feed(data, wires.NOW_MS)
        dripped = [event for byte in data for event in dripping.feed(bytes((byte,)), wires.NOW_MS)]
        assert [str(event) for event in told] == [str(event) for event in dripped]
        assert wires.outgoing(whole) == wires.outgoing(dripping)
        whole.close()
        dripping.close()


def _streams() -> list[bytes]:
    one, other = wires.initiator(), wires.responder()
    one.greet(wires.NOW_MS)
    greeting = wires.outgoing(one)
    other.feed(greeting, wires.NOW_MS)
    answer = wires.outgoing(other)
    one.feed(answer, wires.NOW_MS)
    exchange = one.request("PUT", b"payload", now_ms=wires.NOW_MS, message_id=wires.message_id(1), alone=False)
    one.send_data(exchange, memoryview(bytes(300)))
    one.end(exchange)
    asked = wires.outgoing(one)
    other.feed(asked, wires.NOW_MS)
    other.reply(exchange, b"done", now_ms=wires.NOW_MS, message_id=wires.message_id(2))
    other.end(exchange)
    return [greeting, greeting + asked, answer, answer + wires.outgoing(other)]
