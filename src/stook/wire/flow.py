"""One exchange as a session sees it: who has said END, how much may be sent, where raw bytes land. Pure.

::

            our END or RESET                    the peer's END or RESET
    OPEN ───────────────────► WE_ARE_DONE ───────────────────────────────► forgotten
      │                                                                       ▲
      └──── the peer's END or RESET ────► PEER_IS_DONE ── our END or RESET ───┘

Raw bytes go straight into buffers that the consumer posted. Before it posts any, at most `INITIAL_CREDIT_BYTES` are
kept here: the credit of the sender never exceeds the room that waits for it.
"""

from __future__ import annotations

import enum
from collections import deque

from stook.errors import BugError, MisbehaviourError, ReasonCode
from stook.wire.frames import INITIAL_CREDIT_BYTES, MAX_CREDIT_BYTES


class FlowState(enum.Enum):
    """Where an exchange stands between the two ends."""

    OPEN = "open"
    WE_ARE_DONE = "we are done"
    PEER_IS_DONE = "peer is done"
    FORGOTTEN = "forgotten"


class Flow:
    """The state of one exchange at one end."""

    __slots__ = (
        "_backlog",
        "_coming",
        "_filled",
        "_posted",
        "_sinks",
        "dropping",
        "exchange_id",
        "method",
        "mine",
        "receive_credit",
        "received_bytes",
        "replies",
        "request_digest",
        "send_credit",
        "state",
    )

    def __init__(self, exchange_id: int, *, mine: bool, method: str, request_digest: bytes) -> None:
        self.exchange_id = exchange_id
        self.mine = mine
        self.method = method
        self.request_digest = request_digest
        self.state = FlowState.OPEN
        self.dropping = False
        self.replies = 0
        self.send_credit = INITIAL_CREDIT_BYTES
        self.receive_credit = INITIAL_CREDIT_BYTES
        self.received_bytes = 0
        self._backlog = bytearray()
        self._sinks: deque[memoryview] = deque()
        self._filled = 0
        self._posted = 0
        """Room in posted buffers."""
        self._coming = 0
        """Raw bytes of DATA frames that have begun and are not here yet."""

    # --- ends --------------------------------------------------------------------------------------------------------

    @property
    def we_may_send(self) -> bool:
        """Whether this end has not said END or RESET yet."""
        return self.state in (FlowState.OPEN, FlowState.PEER_IS_DONE)

    @property
    def peer_may_send(self) -> bool:
        """Whether the peer has not said END or RESET yet."""
        return self.state in (FlowState.OPEN, FlowState.WE_ARE_DONE)

    def we_finish(self) -> None:
        """This end said END or RESET."""
        self.state = FlowState.WE_ARE_DONE if self.peer_may_send else FlowState.FORGOTTEN

    def peer_finishes(self) -> None:
        """The peer said END or RESET."""
        self.state = FlowState.PEER_IS_DONE if self.we_may_send else FlowState.FORGOTTEN

    def drop(self) -> None:
        """From now on throw away whatever still comes, and let go of every buffer."""
        self.dropping = True
        self._sinks.clear()
        self._backlog = bytearray()
        self._posted = self._filled = 0

    # --- sending -----------------------------------------------------------------------------------------------------

    def add_credit(self, size_bytes: int) -> None:
        """The peer lets us send more. Raises `MisbehaviourError` (CREDIT_EXCEEDED) beyond any sensible sum."""
        self.send_credit += size_bytes
        if self.send_credit > MAX_CREDIT_BYTES:
            raise MisbehaviourError(ReasonCode.CREDIT_EXCEEDED, f"credit of {self.send_credit} bytes")

    # --- receiving ---------------------------------------------------------------------------------------------------

    @property
    def backlog_bytes(self) -> int:
        """Raw bytes kept because nobody posted a buffer for them yet."""
        return len(self._backlog)

    @property
    def wants_bytes(self) -> bool:
        """Whether a posted buffer is still being filled."""
        return bool(self._sinks)

    def announce(self, size_bytes: int) -> None:
        """A DATA frame of `size_bytes` begins. Raises `MisbehaviourError` (CREDIT_EXCEEDED) beyond the credit given."""
        if size_bytes > self.receive_credit:
            raise MisbehaviourError(
                ReasonCode.CREDIT_EXCEEDED, f"DATA of {size_bytes} bytes where {self.receive_credit} were allowed"
            )
        self.receive_credit -= size_bytes
        self._coming += size_bytes

    def sink(self, most_bytes: int) -> memoryview | None:
        """Where the next raw bytes belong, at most `most_bytes`; None when no buffer waits for them."""
        if not self._sinks:
            return None
        return self._sinks[0][self._filled : self._filled + most_bytes]

    def landed(self, size_bytes: int) -> bool:
        """The last `sink` has got `size_bytes`; whether that filled a posted buffer."""
        self.received_bytes += size_bytes
        self._coming -= size_bytes
        self._filled += size_bytes
        self._posted -= size_bytes
        if self._filled < len(self._sinks[0]):
            return False
        self._sinks.popleft()
        self._filled = 0
        return True

    def take(self, data: memoryview) -> int:
        """Raw bytes that did not come in place: copy them to their buffers or keep them; how many buffers are full."""
        if self.dropping:
            return 0
        full = 0
        while len(data) and (room := self.sink(len(data))) is not None:
            size_bytes = len(room)
            room[:] = data[:size_bytes]
            full += self.landed(size_bytes)
            data = data[size_bytes:]
        if len(data):
            self._backlog += data
            self._coming -= len(data)
            self.received_bytes += len(data)
        return full

    def post(self, buffer: memoryview) -> tuple[bool, int]:
        """Offer a buffer, filled after those already posted: whether it is full at once, and the credit to send.

        Raises `BugError` for an empty or read-only buffer.
        """
        if buffer.readonly or buffer.ndim != 1 or buffer.itemsize != 1 or not buffer.contiguous or not len(buffer):
            raise BugError("raw bytes are received into a writable, contiguous, non-empty buffer of bytes")
        full = False
        kept = min(len(self._backlog), len(buffer))
        if kept:  # no other buffer waits: a backlog and posted buffers never exist together
            buffer[:kept] = self._backlog[:kept]
            del self._backlog[:kept]
        if kept == len(buffer):
            full = True
        else:
            self._sinks.append(buffer[kept:])
            self._posted += len(buffer) - kept
        return full, self._credit_due()

    def _credit_due(self) -> int:
        """Credit that brings the sender up to all room there is, held back while small and not needed."""
        if not self.peer_may_send:
            return 0
        room = self._posted + INITIAL_CREDIT_BYTES - len(self._backlog)
        spoken_for = self.receive_credit + self._coming
        due = room - spoken_for
        if due <= 0 or (due < INITIAL_CREDIT_BYTES // 2 and spoken_for >= self._posted):
            return 0
        self.receive_credit += due
        return due
