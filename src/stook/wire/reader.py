"""Cuts the incoming byte stream into frames without copying raw bytes more than once. Pure.

The reader decides where the next bytes should land: in a small scratch buffer while headers are due, in the body of a
message, or straight in the buffer that the consumer of an exchange posted. Only the few raw bytes that follow a header
into scratch are copied.
"""

from __future__ import annotations

from typing import Protocol

from stook.wire import frames
from stook.wire.flow import Flow
from stook.wire.frames import HEADER_BYTES, FrameType

SCRATCH_BYTES = 16 * 1024
"""One TLS record: reading more ahead would only be copied."""


class FrameHandler(Protocol):
    """Judges frames. What it raises passes through the reader."""

    def begin_frame(self, frame: FrameType, exchange_id: int, body_bytes: int) -> Flow | None:
        """A good header came; for DATA, the flow that takes the bytes, or None to throw them away."""
        ...

    def finish_frame(self, frame: FrameType, exchange_id: int, body: bytearray) -> None:
        """A whole frame other than DATA."""
        ...

    def buffers_filled(self, flow: Flow, count: int) -> None:
        """`count` posted buffers of a flow are full."""
        ...


class FrameReader:
    """Where the next bytes go, and what they are."""

    __slots__ = (
        "_body",
        "_body_filled",
        "_data_left",
        "_direct",
        "_exchange_id",
        "_flow",
        "_frame",
        "_held",
        "_scratch",
    )

    def __init__(self) -> None:
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._held = 0
        """Bytes of a cut-off header at the front of scratch, always fewer than 9."""
        self._frame = FrameType.HELLO
        self._exchange_id = 0
        self._body: bytearray | None = None
        self._body_filled = 0
        self._flow: Flow | None = None
        self._data_left = 0
        self._direct = False

    def receive_buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        self._direct = False
        if self._body is not None:
            return memoryview(self._body)[self._body_filled :]
        if self._data_left and self._flow is not None:
            sink = self._flow.sink(self._data_left)
            if sink is not None:
                self._direct = True
                return sink
        return self._scratch[self._held :]

    def received(self, size_bytes: int, handler: FrameHandler) -> None:
        """The first `size_bytes` of the last `receive_buffer` are there."""
        if self._body is not None:
            self._body_filled += size_bytes
            self._finish_body(handler)
        elif self._direct and self._flow is not None:
            self._data_left -= size_bytes
            if self._flow.landed(size_bytes):
                handler.buffers_filled(self._flow, 1)
        else:
            self._parse(self._scratch[: self._held + size_bytes], handler)

    def _parse(self, data: memoryview, handler: FrameHandler) -> None:
        """Consume scratch: headers, small bodies, and raw bytes that came along with them."""
        at, end = 0, len(data)
        self._held = 0
        while at < end:
            if self._data_left:
                size_bytes = min(self._data_left, end - at)
                self._take_data(data[at : at + size_bytes], handler)
                at += size_bytes
            elif end - at < HEADER_BYTES:
                self._scratch[: end - at] = bytes(data[at:end])
                self._held = end - at
                return
            else:
                body_bytes = self._begin_frame(data[at : at + HEADER_BYTES], handler)
                at += HEADER_BYTES
                if self._frame is not FrameType.DATA:
                    self._body = bytearray(body_bytes)
                    self._body_filled = min(body_bytes, end - at)
                    self._body[: self._body_filled] = data[at : at + self._body_filled]
                    at += self._body_filled
                    self._finish_body(handler)

    def _begin_frame(self, header: memoryview, handler: FrameHandler) -> int:
        self._frame, self._exchange_id, body_bytes = frames.parse_header(header)
        flow = handler.begin_frame(self._frame, self._exchange_id, body_bytes)
        if self._frame is FrameType.DATA:
            self._flow = flow
            self._data_left = body_bytes
        return body_bytes

    def _take_data(self, data: memoryview, handler: FrameHandler) -> None:
        self._data_left -= len(data)
        if self._flow is not None:
            count = self._flow.take(data)
            if count:
                handler.buffers_filled(self._flow, count)

    def _finish_body(self, handler: FrameHandler) -> None:
        body = self._body
        if body is not None and self._body_filled == len(body):
            self._body = None
            handler.finish_frame(self._frame, self._exchange_id, body)
