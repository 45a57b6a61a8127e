"""The session: bytes in, events out. Pure; no socket, clock or task lives here.

Two ends say hello, then either opens exchanges: a signed request, signed replies, raw bytes both ways under credit.
Everything a peer sends is bounded before it is buffered and verified before it becomes an event. A peer that breaks a
rule ends the session: the last event is `Broken`, and what has to be said to the peer lies in `take_outgoing`.

Use: fill `receive_buffer()`, call `received(n, now_ms)`, act on the events; call the sending methods; write
`take_outgoing()` to the carrier after each. How the input was cut into chunks never changes the events.
"""

from __future__ import annotations

import enum

from typing_extensions import Buffer

from stook.codec import decode, encode
from stook.errors import BugError, MalformedError, MisbehaviourError, ReasonCode
from stook.identity.envelope import Kind, Refusal, ReplayWindow, Sealed, check_reply
from stook.identity.keys import node_id_of
from stook.ids import MessageId, NodeId, PublicKey, SessionNonce
from stook.wire import frames
from stook.wire.events import (
    Broken,
    BufferFilled,
    CreditReceived,
    EndReceived,
    Event,
    GoodbyeReceived,
    Opened,
    RefusalReceived,
    ReplyReceived,
    RequestReceived,
    ResetReceived,
)
from stook.wire.flow import Flow, FlowState
from stook.wire.frames import FrameType
from stook.wire.hello import Expected, Party, Role, check_hello, make_hello
from stook.wire.reader import FrameReader
from stook.wire.signing import SessionSigner

MAX_REPLIES = 16
"""Signed replies one exchange may bring."""
_REPLAY_TURNOVER = 3 / 4


class SessionState(enum.Enum):
    """Where a session stands (diagram in `docs/protocol/session.md`)."""

    GREETING = "greeting"
    OPEN = "open"
    LEAVING = "leaving"
    CLOSED = "closed"


class Session:
    """One end of one session.

    `expected` is the node an initiator means to reach, None if it only probes an address. `channel` is the carrier's
    32-byte channel value, `nonce` 16 fresh random bytes.
    """

    def __init__(
        self,
        *,
        role: Role,
        party: Party,
        channel: bytes,
        nonce: SessionNonce,
        expected: NodeId | None = None,
        replay: ReplayWindow | None = None,
    ) -> None:
        self.role = role
        self.state = SessionState.GREETING
        self.peer_id: NodeId | None = None
        self.addressed = role is Role.RESPONDER or expected is not None
        """Whether both ends knew whom they meant; if not, the session serves PROBE alone."""
        self.said_goodbye = False
        self.heard_goodbye = False
        self._party = party
        self._channel = channel
        self._nonce = nonce
        self._expected = expected
        self._replay = replay if replay is not None else ReplayWindow()
        self._signer: SessionSigner | None = None
        self._peer_max_exchanges = 0
        self._next_id = 1 if role is Role.INITIATOR else 2
        self._last_peer_id = 0
        self._flows: dict[int, Flow] = {}
        self._mine_open = 0
        self._theirs_open = 0
        self._outgoing: list[Buffer] = []
        self._reader = FrameReader()
        self._events: list[Event] = []
        self._now_ms = 0

    # --- what the shell may ask --------------------------------------------------------------------------------------

    @property
    def open_exchanges(self) -> int:
        """Exchanges that are not over at both ends."""
        return len(self._flows)

    @property
    def can_open(self) -> bool:
        """Whether the peer takes one more exchange of ours now."""
        return self.free_exchanges > 0

    @property
    def free_exchanges(self) -> int:
        """How many more exchanges of ours the peer takes now."""
        return self._peer_max_exchanges - self._mine_open if self.state is SessionState.OPEN else 0

    @property
    def worn(self) -> bool:
        """Whether so many messages were seen that a new session should take over before the replay window is full."""
        return len(self._replay) > self._replay.capacity * _REPLAY_TURNOVER or self._next_id > 2**32 - 4

    def find(self, exchange_id: int) -> Flow | None:
        """The state of an exchange, or None once it is over."""
        return self._flows.get(exchange_id)

    def take_outgoing(self) -> list[Buffer]:
        """Everything to be written to the carrier, in order; the caller now owns it."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    # --- sending -----------------------------------------------------------------------------------------------------

    def greet(self, now_ms: int) -> None:
        """Initiator: say hello first."""
        if self.role is not Role.INITIATOR or self.state is not SessionState.GREETING:
            raise BugError("only an initiator greets, and once")
        self._say_hello(self._expected or b"", b"", now_ms)

    def request(self, method: str, payload: bytes, *, now_ms: int, message_id: MessageId, alone: bool) -> int:
        """Open an exchange with a signed request; its id. `alone` says END at once: no raw bytes will follow.

        Raises `BugError` unless `can_open`, `ValueError` for a bad method name or a payload above 1 MiB.
        """
        if not self.can_open:
            raise BugError("no exchange can be opened on this session now")
        exchange_id = self._next_id
        sealed = self._signing().seal(Kind.REQUEST, method, payload, reply_to=b"", now_ms=now_ms, message_id=message_id)
        self._next_id += 2
        flow = Flow(exchange_id, mine=True, method=method, request_digest=sealed.digest)
        self._flows[exchange_id] = flow
        self._mine_open += 1
        self._queue_message(exchange_id, sealed)
        if alone:
            self.end(exchange_id)
        return exchange_id

    def reply(self, exchange_id: int, payload: bytes, *, now_ms: int, message_id: MessageId) -> None:
        """Send a signed reply on an exchange of the peer's. Raises `BugError` once this end is done with it."""
        self._answer(Kind.REPLY, exchange_id, payload, now_ms, message_id)

    def refuse(self, exchange_id: int, refusal: Refusal, *, now_ms: int, message_id: MessageId) -> None:
        """Send a signed refusal on an exchange of the peer's, and END."""
        self._answer(Kind.REFUSAL, exchange_id, encode(refusal), now_ms, message_id)
        self.end(exchange_id)

    def send_data(self, exchange_id: int, piece: memoryview) -> None:
        """Send raw bytes: at most 1 MiB, and at most the credit. The piece is queued as it is, not copied."""
        flow = self._sending(exchange_id)
        size_bytes = len(piece)
        if not 0 < size_bytes <= min(flow.send_credit, frames.MAX_DATA_BYTES):
            raise BugError(f"{size_bytes} raw bytes in one piece, credit {flow.send_credit}")
        flow.send_credit -= size_bytes
        self._outgoing.append(frames.header(FrameType.DATA, exchange_id, size_bytes))
        self._outgoing.append(piece)

    def end(self, exchange_id: int) -> None:
        """Say that nothing more follows from this end."""
        flow = self._sending(exchange_id)
        self._outgoing.append(frames.end_frame(exchange_id))
        flow.we_finish()
        self._forget_if_over(flow)

    def reset(self, exchange_id: int, code: ReasonCode) -> None:
        """Give an exchange up in both directions; what still comes is thrown away. Nothing to do once it is over."""
        flow = self._flows.get(exchange_id)
        if flow is None or flow.dropping:
            return
        self._outgoing.append(frames.reset_frame(exchange_id, code))
        flow.drop()
        if flow.we_may_send:
            flow.we_finish()
        self._forget_if_over(flow)

    def post(self, flow: Flow, buffer: memoryview) -> bool:
        """Offer a buffer for raw bytes and give the peer credit for it; whether it is full at once.

        What arrived early can be read even after the exchange is over. Raises `BugError` for an unfit buffer.
        """
        full, credit = flow.post(buffer)
        if credit and flow.exchange_id in self._flows:
            self._outgoing.append(frames.window_frame(flow.exchange_id, credit))
        return full

    def goodbye(self, code: ReasonCode, now_ms: int) -> None:
        """Accept no new exchange; those under way may finish. Said once."""
        if self.said_goodbye or self.state is SessionState.CLOSED:
            return
        self.said_goodbye = True
        self._outgoing.append(frames.goodbye_frame(code, now_ms, self._last_peer_id))
        if self.state is SessionState.OPEN:
            self.state = SessionState.LEAVING

    def close(self) -> None:
        """The carrier is gone: forget everything."""
        self.state = SessionState.CLOSED
        for flow in self._flows.values():
            if flow.peer_may_send:
                flow.drop()  # nothing may land any more in a buffer whose owner is told that the session is lost
        self._flows.clear()
        self._mine_open = self._theirs_open = 0

    # --- receiving ---------------------------------------------------------------------------------------------------

    def receive_buffer(self) -> memoryview:
        """Where the next bytes go: straight into a posted buffer when raw bytes are due for one."""
        return self._reader.receive_buffer()

    def received(self, size_bytes: int, now_ms: int) -> list[Event]:
        """Take the first `size_bytes` of the last `receive_buffer`; what happened, in order."""
        if self.state is SessionState.CLOSED:
            return []
        self._now_ms = now_ms
        try:
            self._reader.received(size_bytes, self)
        except (MalformedError, MisbehaviourError) as error:
            code = error.code if isinstance(error, MisbehaviourError) else ReasonCode.MALFORMED
            self.goodbye(code, now_ms)
            self.close()
            self._events.append(Broken(code, error))
        events, self._events = self._events, []
        return events

    def feed(self, data: Buffer, now_ms: int) -> list[Event]:
        """`receive_buffer` and `received` for input that lies elsewhere already."""
        events: list[Event] = []
        rest = memoryview(data).cast("B")
        while len(rest) and self.state is not SessionState.CLOSED:
            room = self.receive_buffer()
            size_bytes = min(len(room), len(rest))
            room[:size_bytes] = rest[:size_bytes]
            events += self.received(size_bytes, now_ms)
            rest = rest[size_bytes:]
        return events

    def begin_frame(self, frame: FrameType, exchange_id: int, body_bytes: int) -> Flow | None:
        """For the reader: judge a header before anything of its body is kept."""
        greeted = self.peer_id is not None
        if frame is not FrameType.GOODBYE and (frame is FrameType.HELLO) == greeted:
            raise MalformedError(f"{frame.name} {'after' if greeted else 'before'} the hello")
        if frame is not FrameType.DATA:
            return None
        flow = self._known(exchange_id)
        if flow is not None:
            flow.announce(body_bytes)
        return flow

    def buffers_filled(self, flow: Flow, count: int) -> None:
        """For the reader: posted buffers are full."""
        self._events.extend(BufferFilled(flow.exchange_id) for _ in range(count))

    def finish_frame(self, frame: FrameType, exchange_id: int, body: bytearray) -> None:
        """For the reader: act on a whole frame."""
        match frame:
            case FrameType.HELLO:
                self._on_hello(body)
            case FrameType.MESSAGE:
                self._on_message(exchange_id, body)
            case FrameType.GOODBYE:
                self._on_goodbye(*frames.parse_goodbye(body))
            case FrameType.END:
                self._on_end(exchange_id)
            case FrameType.RESET:
                self._on_reset(exchange_id, frames.parse_reset(body))
            case FrameType.WINDOW:
                self._on_window(exchange_id, frames.parse_window(body))
            case FrameType.DATA:
                raise BugError("raw bytes are never a body")

    def _on_hello(self, body: bytearray) -> None:
        initiator = self.role is Role.INITIATOR
        expected = Expected(
            role=Role.RESPONDER if initiator else Role.INITIATOR,
            channel=self._channel,
            node_id=self._expected,
            answers=self._nonce if initiator else b"",
            may_probe=not initiator,
        )
        hello, version = check_hello(memoryview(body), party=self._party, expected=expected, now_ms=self._now_ms)
        peer_id = node_id_of(hello.public_key)
        self.peer_id = peer_id
        self._signer = SessionSigner(self._party, self._nonce, peer_id, hello.nonce, self._replay)
        self._peer_max_exchanges = hello.max_exchanges
        if not initiator:
            self.addressed = hello.recipient != b""
            self._say_hello(peer_id, hello.nonce, self._now_ms)
        self.state = SessionState.LEAVING if self.said_goodbye or self.heard_goodbye else SessionState.OPEN
        self._events.append(
            Opened(peer_id, PublicKey(hello.public_key), version, self.addressed, hello.contact, hello.extension)
        )

    def _on_message(self, exchange_id: int, body: bytearray) -> None:
        if exchange_id not in self._flows:
            self._on_request(exchange_id, body)
            return
        flow = self._known(exchange_id)
        if flow is None or not flow.mine:
            raise MalformedError("a second request on one exchange")
        if flow.dropping:
            return
        flow.replies += 1
        if flow.replies > MAX_REPLIES:
            raise MisbehaviourError(ReasonCode.TOO_LARGE, f"more than {MAX_REPLIES} replies on one exchange")
        envelope = self._signing().open(bytes(body), self._now_ms)
        check_reply(envelope, method=flow.method, request_digest=flow.request_digest)
        if envelope.kind is Kind.REFUSAL:
            self._events.append(RefusalReceived(exchange_id, decode(Refusal, envelope.payload)))
        else:
            self._events.append(ReplyReceived(exchange_id, envelope.payload))

    def _on_request(self, exchange_id: int, body: bytearray) -> None:
        if exchange_id % 2 == self._next_id % 2 or exchange_id <= self._last_peer_id:
            raise MisbehaviourError(ReasonCode.UNKNOWN_EXCHANGE, f"MESSAGE on exchange {exchange_id}")
        if self.said_goodbye:
            return  # it crossed our GOODBYE, which told the peer that this one was never looked at
        if self._theirs_open >= self._party.max_exchanges:
            raise MisbehaviourError(
                ReasonCode.TOO_MANY_EXCHANGES, f"more than {self._party.max_exchanges} exchanges open"
            )
        envelope = self._signing().open(bytes(body), self._now_ms)
        if envelope.kind is not Kind.REQUEST:
            raise MisbehaviourError(ReasonCode.UNBOUND_REPLY, f"a {envelope.kind.name} to a request never made")
        self._last_peer_id = exchange_id
        digest = envelope.digest
        self._flows[exchange_id] = Flow(exchange_id, mine=False, method=envelope.method, request_digest=digest)
        self._theirs_open += 1
        self._events.append(RequestReceived(exchange_id, envelope.method, envelope.payload))

    def _on_goodbye(self, code: ReasonCode, peer_now_ms: int, last_exchange: int) -> None:
        self.heard_goodbye = True
        if self.state is SessionState.OPEN:
            self.state = SessionState.LEAVING
        self._events.append(GoodbyeReceived(code, peer_now_ms, last_exchange))

    def _on_end(self, exchange_id: int) -> None:
        flow = self._known(exchange_id)
        if flow is None:
            return
        flow.peer_finishes()
        if not flow.dropping:
            self._events.append(EndReceived(exchange_id))
        self._forget_if_over(flow)

    def _on_reset(self, exchange_id: int, code: ReasonCode) -> None:
        flow = self._flows.get(exchange_id)
        if flow is None:
            self._check_was_known(exchange_id)
            return
        if not flow.dropping:
            self._events.append(ResetReceived(exchange_id, code))
            if flow.peer_may_send:
                flow.drop()  # what came before an END stays readable
        if flow.we_may_send:
            # Our own last word, so that the peer knows that nothing of ours is still on the way.
            self._outgoing.append(frames.end_frame(exchange_id))
            flow.we_finish()
        if flow.peer_may_send:
            flow.peer_finishes()
        self._forget_if_over(flow)

    def _on_window(self, exchange_id: int, credit_bytes: int) -> None:
        flow = self._flows.get(exchange_id)
        if flow is None:
            self._check_was_known(exchange_id)
            return
        flow.add_credit(credit_bytes)
        if flow.we_may_send:
            self._events.append(CreditReceived(exchange_id))

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _say_hello(self, recipient: bytes, answers: bytes, now_ms: int) -> None:
        body = make_hello(
            self._party,
            role=self.role,
            recipient=recipient,
            nonce=self._nonce,
            answers=answers,
            channel=self._channel,
            now_ms=now_ms,
        )
        self._outgoing.append(frames.header(FrameType.HELLO, 0, len(body)) + body)

    def _signing(self) -> SessionSigner:
        if self._signer is None:
            raise BugError("no message before the hello")
        return self._signer

    def _answer(self, kind: Kind, exchange_id: int, payload: bytes, now_ms: int, message_id: MessageId) -> None:
        flow = self._sending(exchange_id)
        sealed = self._signing().seal(
            kind, flow.method, payload, reply_to=flow.request_digest, now_ms=now_ms, message_id=message_id
        )
        self._queue_message(exchange_id, sealed)

    def _queue_message(self, exchange_id: int, sealed: Sealed) -> None:
        self._outgoing.append(frames.header(FrameType.MESSAGE, exchange_id, len(sealed.data)) + sealed.data)

    def _sending(self, exchange_id: int) -> Flow:
        flow = self._flows.get(exchange_id)
        if flow is None or not flow.we_may_send:
            raise BugError(f"exchange {exchange_id} is over at this end")
        return flow

    def _known(self, exchange_id: int) -> Flow | None:
        """The flow that a frame of the peer belongs to; None when it crossed our GOODBYE. Else UNKNOWN_EXCHANGE."""
        flow = self._flows.get(exchange_id)
        if flow is not None and flow.peer_may_send:
            return flow
        if flow is None and self._crossed_goodbye(exchange_id):
            return None
        raise MisbehaviourError(ReasonCode.UNKNOWN_EXCHANGE, f"a frame for exchange {exchange_id}, which is over")

    def _crossed_goodbye(self, exchange_id: int) -> bool:
        return self.said_goodbye and exchange_id % 2 != self._next_id % 2 and exchange_id > self._last_peer_id

    def _check_was_known(self, exchange_id: int) -> None:
        """RESET and WINDOW may come after an exchange is over here; they may not name one that never was."""
        mine = exchange_id % 2 == self._next_id % 2
        if exchange_id < self._next_id if mine else exchange_id <= self._last_peer_id:
            return
        if not self._crossed_goodbye(exchange_id):
            raise MisbehaviourError(ReasonCode.UNKNOWN_EXCHANGE, f"a frame for exchange {exchange_id}, never opened")

    def _forget_if_over(self, flow: Flow) -> None:
        if flow.state is FlowState.FORGOTTEN and self._flows.pop(flow.exchange_id, None) is not None:
            if flow.mine:
                self._mine_open -= 1
            else:
                self._theirs_open -= 1
