"""One live session: a `Session` on a `Connection`, its exchanges, and its timers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from stook.clock import Clock, Entropy
from stook.errors import BugError, PeerError, ReasonCode, RefusedError, UnreachableError
from stook.ids import NONCE_BYTES, MessageId, NodeId, PublicKey
from stook.wire.carrier import Connection
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
from stook.wire.exchange import Exchange
from stook.wire.hello import Role
from stook.wire.limits import Limits
from stook.wire.pace import Pace
from stook.wire.session import Session, SessionState

PING = "PING"
LINGER_SECONDS = 2.0
"""How long a peer that was told GOODBYE may take to hang up; hanging up first could lose the GOODBYE on its way."""


class NotLookedAtError(UnreachableError):
    """The session ended and the peer said that it never looked at the request: asking again is safe."""


class LinkOwner(Protocol):
    """What a link tells the endpoint."""

    clock: Clock
    entropy: Entropy
    limits: Limits
    upload: Pace
    download: Pace

    def link_opened(self, link: Link, opened: Opened) -> None:
        """The peer's hello was good."""
        ...

    def link_closed(self, link: Link) -> None:
        """The connection is gone."""
        ...

    def serve(self, link: Link, exchange: Exchange, request: RequestReceived) -> None:
        """The peer called."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task that ends with the endpoint."""
        ...


class Link:
    """A session at work. Implements `Receiver` for its connection and `Line` for its exchanges."""

    def __init__(self, owner: LinkOwner, connection: Connection, session: Session) -> None:
        self.session = session
        self.limits = owner.limits
        self.upload = owner.upload
        self.download = owner.download
        self.peer_id = NodeId(b"")
        self.peer_key = PublicKey(b"")
        self.dialled: tuple[str, int] | None = None
        """The host and port that we called; None when the peer called us."""
        self.writable = True
        self.request_bytes = 0
        """Request payloads that handlers hold now."""
        self._written_bytes = 0
        self.failure: PeerError | None = None
        self._owner = owner
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._exchanges: dict[int, Exchange] = {}
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._opened.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._slots: deque[asyncio.Future[None]] = deque()
        self._doubtful = False
        self._flushing = False
        self._gone = False
        self.idle_since = self.heard_at = self._loop.time()
        """When the last exchange ended, and when the peer was last heard, in loop time."""
        self._timer = self._loop.call_later(self.limits.handshake_seconds, self._on_handshake_deadline)

    # --- for the endpoint --------------------------------------------------------------------------------------------

    @property
    def remote(self) -> tuple[str, int]:
        """Host and port of the other end."""
        return self._connection.remote

    @property
    def greeting(self) -> bool:
        """Whether the peer's hello is still awaited."""
        return self.session.state is SessionState.GREETING and not self._gone

    @property
    def usable(self) -> bool:
        """Whether new exchanges may be opened, at once or after waiting for a slot."""
        return self.session.state is SessionState.OPEN and not self._gone and not self._doubtful

    @property
    def idle(self) -> bool:
        """Whether no exchange is under way."""
        return not self.session.open_exchanges

    @property
    def drained_bytes(self) -> int:
        """Bytes that the network has taken so far, give or take its own overhead."""
        return self._written_bytes - self._connection.backlog_bytes

    async def greet(self) -> None:
        """Initiator: say hello and wait for the peer's. Raises the reason when there is none."""
        self.session.greet(self.now_ms())
        self.flush()
        await asyncio.shield(self._opened)

    async def open(self, method: str, payload: bytes, *, alone: bool) -> Exchange:
        """Open an exchange, waiting for a free slot. Raises `NotLookedAtError` when the session ends before."""
        while self.usable and not self.session.can_open:
            slot: asyncio.Future[None] = self._loop.create_future()
            self._slots.append(slot)
            try:
                await slot
            except asyncio.CancelledError:
                self._free_slots()  # ours may have come just now: pass it on
                raise
        if not self.usable:
            raise NotLookedAtError("the session ended before the request was sent", peer=self.peer_id.hex())
        return self._start(method, payload, alone=alone)

    def doubt(self) -> None:
        """Nothing came for a whole deadline: open nothing new here until the peer says something, or hang up.

        A slow handler at the other end must not cost the session and what else is under way on it; a dead session must
        not cost the next caller its deadline too.
        """
        if self.usable:
            self._doubtful = True
            self.spawn(self._find_out())

    async def _find_out(self) -> None:
        seconds, begun = self.limits.handshake_seconds, self._loop.time()
        try:
            async with asyncio.timeout(seconds):
                if self.session.can_open:
                    await self._start(PING, b"", alone=True).next_reply()
                else:
                    await asyncio.sleep(seconds)
        except TimeoutError:
            if self.heard_at < begun:
                self.abort(UnreachableError(f"silent for {seconds:g} s", peer=self.peer_id.hex()))
        except PeerError:
            return  # it is alive enough to refuse, or gone altogether
        finally:
            self._doubtful = False
            self._free_slots()

    def retire(self, code: ReasonCode = ReasonCode.SHUTTING_DOWN) -> None:
        """Take and open no new exchange; hang up when those under way are over."""
        self.session.goodbye(code, self.now_ms())
        self.flush()
        self._hang_up_if_over()

    def abort(self, error: PeerError) -> None:
        """Hang up now; everything under way fails with `error`."""
        self._fail(error)
        self._connection.abort()

    # --- for exchanges -----------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The time for an envelope."""
        return self._owner.clock.now_ms()

    def new_message_id(self) -> MessageId:
        """16 random bytes."""
        return MessageId(self._owner.entropy(NONCE_BYTES))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task that ends with the endpoint."""
        self._owner.spawn(work)

    def flush(self) -> None:
        """Write what the session has to say, now."""
        outgoing = self.session.take_outgoing()
        if outgoing and not self._gone:
            self._written_bytes += sum(len(memoryview(piece)) for piece in outgoing)
            self._connection.write(outgoing)
            if self._connection.backlog_bytes > self.limits.max_backlog_bytes:
                self.abort(UnreachableError("the peer does not read", peer=self.peer_id.hex()))

    def flush_soon(self) -> None:
        """Write it before the loop goes to sleep, together with whatever else comes up."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self.flush()
        self._tidy()

    # --- Receiver ----------------------------------------------------------------------------------------------------

    def receive_buffer(self) -> memoryview:
        """Where the next bytes go."""
        return self.session.receive_buffer()

    def received(self, size_bytes: int) -> None:
        """Bytes came: act on what they mean."""
        self.heard_at = self._loop.time()
        events = self.session.received(size_bytes, self.now_ms())
        if events:
            for event in events:
                self._on_event(event)
            self._retire_if_worn()
            self.flush_soon()

    def pause_writing(self) -> None:
        """The network takes no more for now."""
        self.writable = False

    def resume_writing(self) -> None:
        """The network takes bytes again."""
        self.writable = True
        for exchange in list(self._exchanges.values()):
            exchange.on_change()

    def connection_lost(self, reason: Exception | None) -> None:
        """The stream is over."""
        if self._gone:
            return
        self._gone = True
        self._timer.cancel()
        why = f": {reason}" if reason is not None else ""
        self._fail(UnreachableError(f"the connection was lost{why}", peer=self.peer_id.hex() or None))
        self._owner.link_closed(self)

    # --- events ------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case Opened():
                self._on_opened(event)
            case RequestReceived():
                # What came in one piece with it may have ended the exchange, or the session, already.
                if self.session.find(event.exchange_id) is not None:
                    self._owner.serve(self, self._add(event.exchange_id), event)
            case GoodbyeReceived():
                self._on_goodbye(event)
            case Broken():
                self._on_broken(event.error)
            case _:
                exchange = self._exchanges.get(event.exchange_id)
                if exchange is not None:
                    self._on_exchange_event(exchange, event)

    def _on_exchange_event(self, exchange: Exchange, event: Event) -> None:
        peer = self.peer_id.hex()
        match event:
            case BufferFilled():
                exchange.on_filled()
            case CreditReceived():
                exchange.on_change()
            case ReplyReceived():
                exchange.on_reply(event.payload)
            case RefusalReceived():
                exchange.on_failure(event.refusal.error(peer=peer))
            case EndReceived():
                exchange.on_end()
            case ResetReceived():
                exchange.on_stopped(RefusedError(event.code, "the peer gave the exchange up", peer=peer))
            case _:
                raise BugError(f"no exchange takes a {type(event).__name__}")

    def _on_opened(self, opened: Opened) -> None:
        self.peer_id = opened.peer_id
        self.peer_key = opened.peer_key
        self._timer.cancel()
        self.idle_since = self._loop.time()
        self._timer = self._loop.call_later(self.limits.idle_seconds, self._on_idle_deadline)
        if not self._opened.done():
            self._opened.set_result(None)
        self._owner.link_opened(self, opened)

    def _on_goodbye(self, goodbye: GoodbyeReceived) -> None:
        peer = self.peer_id.hex() or None
        if not self._opened.done():
            error = RefusedError(goodbye.code, f"the peer's clock reads {goodbye.now_ms} ms", peer=peer)
            self._on_broken(error)
            return
        mine = 1 if self.session.role is Role.INITIATOR else 0
        for exchange_id, exchange in list(self._exchanges.items()):
            if exchange_id % 2 == mine and exchange_id > goodbye.last_exchange:
                exchange.on_failure(NotLookedAtError(f"the peer left: {goodbye.code.name}", peer=peer))
        self._free_slots()
        if goodbye.code not in (ReasonCode.SHUTTING_DOWN, ReasonCode.BUSY):
            # It accuses us of breaking the protocol and reads no further.
            self._on_broken(RefusedError(goodbye.code, "the peer ended the session", peer=peer))
            return
        self.retire()

    def _on_broken(self, error: PeerError) -> None:
        self._fail(error)
        self.flush()
        self._linger()

    # --- ends --------------------------------------------------------------------------------------------------------

    def _fail(self, error: PeerError) -> None:
        """Nothing more can be done on this session."""
        if self.failure is None:
            self.failure = error
        outgoing = self.session.take_outgoing()
        self.session.close()
        if outgoing and not self._gone:
            self._connection.write(outgoing)  # a GOODBYE that says why
        exchanges, self._exchanges = self._exchanges, {}
        for exchange in exchanges.values():
            exchange.on_stopped(error)
        if not self._opened.done():
            self._opened.set_exception(error)
        self._free_slots()

    def _linger(self) -> None:
        self._timer.cancel()
        if self.session.heard_goodbye:
            self._connection.close()
        else:
            self._timer = self._loop.call_later(LINGER_SECONDS, self._connection.abort)

    def _hang_up_if_over(self) -> None:
        if self.session.said_goodbye and self.idle and not self._gone and self.session.state is SessionState.LEAVING:
            self._fail(UnreachableError("the session is over", peer=self.peer_id.hex()))
            self._linger()

    def _on_handshake_deadline(self) -> None:
        self.session.goodbye(ReasonCode.TOO_SLOW, self.now_ms())
        self.abort(UnreachableError(f"no valid hello from {self.remote[0]} within {self.limits.handshake_seconds:g} s"))

    def _on_idle_deadline(self) -> None:
        left = self.idle_since + self.limits.idle_seconds - self._loop.time()
        if self.idle and left <= 0:
            self.retire()
            return
        given_up = all(exchange.failure is not None for exchange in self._exchanges.values())
        if not self.idle and given_up and self._loop.time() - self.heard_at >= self.limits.idle_seconds:
            # An exchange given up here is not over before the peer has said so: a dead line would be kept for ever.
            self.doubt()
        self._timer = self._loop.call_later(left if self.idle else self.limits.idle_seconds, self._on_idle_deadline)

    def _retire_if_worn(self) -> None:
        if self.session.state is SessionState.OPEN and self.session.worn:
            self.retire()

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def _start(self, method: str, payload: bytes, *, alone: bool) -> Exchange:
        exchange_id = self.session.request(
            method, payload, now_ms=self.now_ms(), message_id=self.new_message_id(), alone=alone
        )
        exchange = self._add(exchange_id)
        self.flush_soon()
        self._retire_if_worn()
        return exchange

    def _add(self, exchange_id: int) -> Exchange:
        flow = self.session.find(exchange_id)
        if flow is None:
            raise BugError(f"exchange {exchange_id} was not opened")
        exchange = self._exchanges[exchange_id] = Exchange(self, flow)
        return exchange

    def _tidy(self) -> None:
        """Forget exchanges that are over, wake who waits for a slot, hang up when leaving."""
        if self.session.open_exchanges < len(self._exchanges):
            for exchange_id in [one for one in self._exchanges if self.session.find(one) is None]:
                del self._exchanges[exchange_id]
            self.idle_since = self._loop.time()
            self._free_slots()
        self._hang_up_if_over()

    def _free_slots(self) -> None:
        """Wake as many waiting callers as there is room for; all of them when there will never be any."""
        room = self.session.free_exchanges if self.usable else len(self._slots)
        while room > 0 and self._slots:
            slot = self._slots.popleft()
            if not slot.done():
                slot.set_result(None)
                room -= 1
