"""One exchange: a signed request, its signed replies, and raw bytes either way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from typing_extensions import Buffer

from stook.errors import DeadlineError, MisbehaviourError, PeerError, ReasonCode, RefusedError
from stook.identity.envelope import MAX_PAYLOAD_BYTES, Refusal
from stook.ids import MessageId, NodeId, PublicKey
from stook.wire.flow import Flow
from stook.wire.frames import MAX_DATA_BYTES
from stook.wire.limits import Limits
from stook.wire.pace import Pace
from stook.wire.session import Session


class Line(Protocol):
    """What an exchange needs of the link it runs over."""

    session: Session
    limits: Limits
    upload: Pace
    download: Pace
    peer_id: NodeId
    peer_key: PublicKey
    writable: bool

    @property
    def drained_bytes(self) -> int:
        """Bytes that the network has taken, whatever exchange they belong to."""
        ...

    def now_ms(self) -> int:
        """The time for an envelope."""
        ...

    def new_message_id(self) -> MessageId:
        """16 random bytes."""
        ...

    def flush(self) -> None:
        """Write what the session has to say, now."""
        ...

    def flush_soon(self) -> None:
        """Write it before the loop goes to sleep, together with whatever else comes up."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task that ends with the endpoint."""
        ...


class Exchange:
    """Both ends of one request. Made by `Endpoint`, never by hand.

    Any call raises `UnreachableError` once the session is lost, and `RefusedError` once the peer refused or reset the
    exchange (code CANCELLED when it merely left). Replies and raw bytes are each received in the order sent; use one
    task per direction.
    """

    def __init__(self, line: Line, flow: Flow) -> None:
        self.peer_id: NodeId = line.peer_id
        """Who is at the other end; proved by its hello."""
        self.peer_key: PublicKey = line.peer_key
        self.method: str = flow.method
        self._line = line
        self._flow = flow
        self._replies: deque[bytes] = deque()
        self._unread_bytes = 0
        self._replied = False
        self._peer_ended = False
        self._failure: PeerError | None = None
        self._send_failure: PeerError | None = None
        self._posted: deque[asyncio.Future[None]] = deque()
        self._post_queue: asyncio.Future[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._sent = 0

    @property
    def progress(self) -> int:
        """Raw bytes received so far."""
        return self._flow.received_bytes

    @property
    def sent(self) -> int:
        """Raw bytes sent so far."""
        return self._sent

    @property
    def replied(self) -> bool:
        """Whether this end, the callee, has replied or refused."""
        return self._replied

    @property
    def failure(self) -> PeerError | None:
        """Why nothing more can be done here, or None."""
        return self._failure

    # --- messages ----------------------------------------------------------------------------------------------------

    async def next_reply(self) -> bytes:
        """Caller: the payload of the next signed reply; wait for it as long as the exchange's deadline allows.

        Raises `RefusedError` for a signed refusal, `MisbehaviourError` (TRUNCATED) when the peer ended without one.
        """
        while not self._replies:
            self._raise_failure()
            if self._peer_ended:
                raise self._truncated("a reply")
            await self._change(None)
        payload = self._replies.popleft()
        self._unread_bytes -= len(payload)
        return payload

    async def reply(self, payload: bytes) -> None:
        """Callee: send a signed reply; may be used more than once (an interim reply, then the last)."""
        self._raise_send_failure()
        line = self._line
        line.session.reply(self._flow.exchange_id, payload, now_ms=line.now_ms(), message_id=line.new_message_id())
        self._replied = True
        line.flush_soon()
        await self._moving(lambda: line.writable, sending=True)

    async def refuse(self, code: ReasonCode, detail: str = "", retry_after_ms: int = 0) -> None:
        """Callee: send a signed refusal; the exchange is over."""
        self._raise_send_failure()
        self._refuse(code, detail, retry_after_ms)

    def _refuse(self, code: ReasonCode, detail: str, retry_after_ms: int) -> None:
        line, now_ms = self._line, self._line.now_ms()
        refusal = Refusal.of(code, detail, retry_after_ms=retry_after_ms, now_ms=now_ms)
        line.session.refuse(self._flow.exchange_id, refusal, now_ms=now_ms, message_id=line.new_message_id())
        self._replied = True
        line.flush_soon()

    # --- raw bytes ---------------------------------------------------------------------------------------------------

    async def send(self, data: Buffer) -> None:
        """Send raw bytes without copying them; waits for the peer's credit and the network.

        `data` may be reused on return. Raises `DeadlineError` when the peer takes less than the low-speed limit.
        """
        line, flow = self._line, self._flow
        view = memoryview(data).cast("B")
        while len(view):
            self._raise_send_failure()
            if not (flow.send_credit and line.writable):
                await self._moving(lambda: flow.send_credit > 0 and line.writable, sending=True)
                self._raise_send_failure()  # credit and the end of the exchange may come together
            size_bytes = line.upload.piece_bytes(min(len(view), flow.send_credit, MAX_DATA_BYTES))
            if line.upload.bytes_per_second:
                await line.upload.take(size_bytes)
                self._raise_send_failure()
            line.session.send_data(flow.exchange_id, view[:size_bytes])
            line.flush()
            self._sent += size_bytes
            view = view[size_bytes:]
            if len(view):
                await asyncio.sleep(0)  # a fast line must not keep the loop from everybody else

    async def finish(self) -> None:
        """Say that nothing more follows from this end, neither raw bytes nor replies. Nothing to do if it is over."""
        if self._may_end():
            self._line.session.end(self._flow.exchange_id)
            self._line.flush_soon()

    def post(self, buffer: memoryview) -> asyncio.Future[None]:
        """Offer `buffer` for the next raw bytes and let the peer send that many; done when it is full.

        Several may be posted: they are filled in order. This is how bytes keep flowing while earlier ones are hashed.
        Cancelling the future resets the exchange. Fails as `receive_into` does, the low-speed limit excepted.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._on_posted_done)
        failure = self._failure or (self._truncated("raw bytes") if self._exhausted(len(buffer)) else None)
        if not len(buffer):
            future.set_result(None)
        elif failure is not None:
            future.set_exception(failure)
        elif self._line.download.bytes_per_second:
            before, self._post_queue = self._post_queue, future
            self._line.spawn(self._post_paced(buffer, before, future))
        else:
            self._post_now(buffer, future)
        return future

    async def receive_into(self, buffer: memoryview) -> None:
        """Fill `buffer` exactly with the next raw bytes.

        Raises `MisbehaviourError` (TRUNCATED) when the peer ends first, `DeadlineError` when it sends slower than the
        low-speed limit. Cancelling it resets the exchange.
        """
        await self.filled(self.post(buffer))

    async def filled(self, posted: asyncio.Future[None]) -> None:
        """Wait for a posted buffer under the low-speed limit; fails as `receive_into` does."""
        if not posted.done():
            limits = self._line.limits
            seconds = limits.low_speed_seconds if limits.low_speed_bytes_per_second else None
            try:
                while not posted.done():
                    mark = self.progress
                    await asyncio.wait((posted,), timeout=seconds)
                    self._judge_speed(self.progress - mark, posted.done())
            except BaseException:
                # The buffer goes back to its owner: nothing may land in it any more.
                posted.cancel()
                raise
        posted.result()

    async def expect_end(self) -> None:
        """Wait until the peer says that nothing more follows. Raises `MisbehaviourError` (TOO_LARGE) on raw bytes."""
        while not self._peer_ended and not self._flow.backlog_bytes:
            self._raise_failure()
            await self._moving(lambda: self._peer_ended or self._flow.backlog_bytes > 0, sending=False)
        if self._flow.backlog_bytes:
            raise MisbehaviourError(
                ReasonCode.TOO_LARGE, f"more raw bytes than {self.method} allows", peer=self.peer_id.hex()
            )

    # --- for the link and the endpoint -------------------------------------------------------------------------------

    def on_reply(self, payload: bytes) -> None:
        """A signed reply came. More unread bytes than one message holds end the exchange."""
        if self._unread_bytes > MAX_PAYLOAD_BYTES:
            self.give_up(ReasonCode.TOO_LARGE)
            return
        self._replies.append(payload)
        self._unread_bytes += len(payload)
        self._notify()

    def on_filled(self) -> None:
        """The oldest posted buffer is full."""
        future = self._posted.popleft()
        if not future.done():
            future.set_result(None)

    def on_end(self) -> None:
        """The peer has nothing more to say."""
        self._peer_ended = True
        self._fail_posted(self._failure or self._truncated("raw bytes"))
        self._notify()

    def on_failure(self, error: PeerError) -> None:
        """The exchange is over for `error`; the first one counts."""
        if self._failure is None:
            self._failure = error
        self._fail_posted(self._failure)
        self.on_stopped(error)

    def on_stopped(self, error: PeerError) -> None:
        """Nothing more can be sent; what the peer sent before it said END can still be read."""
        if self._send_failure is None:
            self._send_failure = error
        if not self._peer_ended and self._failure is None:
            self.on_failure(error)
        self._notify()

    def on_change(self) -> None:
        """Credit came, or the network takes bytes again."""
        self._notify()

    def give_up(self, code: ReasonCode) -> None:
        """End both directions now, whatever state they are in; no raw byte lands in a posted buffer afterwards."""
        self._line.session.reset(self._flow.exchange_id, code)
        self._line.flush_soon()
        peer = self.peer_id.hex()
        match code:
            case ReasonCode.CANCELLED:
                self.on_failure(RefusedError(code, f"{self.method} was given up here", peer=peer))
            case ReasonCode.TOO_SLOW:
                self.on_failure(DeadlineError(f"{self.method} is below the low-speed limit", peer=peer))
            case _:
                self.on_failure(MisbehaviourError(code, f"{self.method} was given up", peer=peer))

    def leave(self) -> None:
        """Caller: leave in peace when the peer is done, else reset."""
        if not self._peer_ended:
            self.give_up(ReasonCode.CANCELLED)
        elif self._may_end():
            self._line.session.end(self._flow.exchange_id)
            self._line.flush_soon()

    def refuse_if_possible(self, code: ReasonCode, detail: str = "", retry_after_ms: int = 0) -> None:
        """Callee: refuse unless this end is done or the peer is gone."""
        if self._may_end():
            self._refuse(code, detail, retry_after_ms)

    def conclude(self) -> None:
        """Callee: the handler has returned. Say END, and stop a caller that still sends."""
        if self._may_end():
            if self._replied:
                self._line.session.end(self._flow.exchange_id)
            else:
                self._refuse(ReasonCode.INTERNAL, "no answer", 0)
        if not self._peer_ended:
            self._line.session.reset(self._flow.exchange_id, ReasonCode.CANCELLED)
        self._line.flush_soon()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _raise_send_failure(self) -> None:
        if self._send_failure is not None:
            raise self._send_failure

    def _may_end(self) -> bool:
        return self._send_failure is None and self._flow.we_may_send

    def _truncated(self, what: str) -> MisbehaviourError:
        return MisbehaviourError(ReasonCode.TRUNCATED, f"{self.method} ended before {what}", peer=self.peer_id.hex())

    def _exhausted(self, size_bytes: int) -> bool:
        return self._peer_ended and self._flow.backlog_bytes < size_bytes

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self, seconds: float | None) -> None:
        """Wait for any event of this exchange, at most `seconds`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if seconds is None:
            await waiter
        else:
            await asyncio.wait((waiter,), timeout=seconds)

    async def _moving(self, ready: Callable[[], bool], *, sending: bool) -> None:
        """Wait until `ready`; give up when for a whole window hardly any raw byte went either way.

        While the network is what we wait for, bytes that it takes count, whosever they are.
        """
        limits = self._line.limits
        seconds = limits.low_speed_seconds if limits.low_speed_bytes_per_second else None
        loop = asyncio.get_running_loop()
        begun, mark, drained = loop.time(), self.progress + self._sent, self._line.drained_bytes
        while not ready():
            if sending:
                self._raise_send_failure()
            else:
                self._raise_failure()
            await self._change(seconds)
            if seconds is not None and loop.time() - begun >= seconds:
                moved = self.progress + self._sent - mark
                if not self._line.writable:
                    moved += self._line.drained_bytes - drained
                self._judge_speed(moved, ready())
                begun, mark, drained = loop.time(), self.progress + self._sent, self._line.drained_bytes

    def _judge_speed(self, moved_bytes: int, ready: bool) -> None:
        limits = self._line.limits
        if ready or moved_bytes >= limits.low_speed_bytes_per_second * limits.low_speed_seconds:
            return
        self.give_up(ReasonCode.TOO_SLOW)
        raise DeadlineError(
            f"{self.method}: {moved_bytes} bytes in {limits.low_speed_seconds:g} s is below the low-speed limit",
            peer=self.peer_id.hex(),
        )

    # --- posted buffers ----------------------------------------------------------------------------------------------

    def _post_now(self, buffer: memoryview, future: asyncio.Future[None]) -> None:
        if self._line.session.post(self._flow, buffer):
            future.set_result(None)
        else:
            self._posted.append(future)
        self._line.flush_soon()

    async def _post_paced(
        self, buffer: memoryview, before: asyncio.Future[None] | None, future: asyncio.Future[None]
    ) -> None:
        """Post `buffer` piece by piece as the download cap allows, after every buffer posted earlier."""
        pace = self._line.download
        if before is not None:
            await asyncio.wait((before,))
        try:
            while len(buffer) and not future.done():
                piece_bytes = pace.piece_bytes(len(buffer))
                await pace.take(piece_bytes)
                if self._exhausted(piece_bytes):
                    raise self._failure or self._truncated("raw bytes")
                self._raise_failure()
                piece: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._post_now(buffer[:piece_bytes], piece)
                await piece
                buffer = buffer[piece_bytes:]
        except PeerError as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(None)

    def _fail_posted(self, error: PeerError) -> None:
        posted, self._posted = self._posted, deque()
        for future in posted:
            if not future.done():
                future.set_exception(error)

    def _on_posted_done(self, future: asyncio.Future[None]) -> None:
        if future.cancelled():
            if self._failure is None:
                self.give_up(ReasonCode.CANCELLED)
        else:
            future.exception()  # it may have nobody waiting; `failure` keeps the reason
