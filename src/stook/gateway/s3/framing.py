"""A body in chunks of AWS's own making, taken apart: bytes in, payload out, every signature checked. Pure."""

from __future__ import annotations

import hashlib
import re

from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.sigv4 import ChunkSigner

MAX_LINE_BYTES = 4096
MAX_TRAILER_BYTES = 8192
MAX_CHUNK_BYTES = 5 << 30
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,10})(?:;chunk-signature=([0-9a-f]{64}))?")


class Deframer:
    """Feed it what comes; it gives back payload. At the end `trailers` holds the headers that came behind."""

    def __init__(self, *, signer: ChunkSigner | None, trailing: bool) -> None:
        self._signer = signer
        self._trailing = trailing
        self._line = bytearray()
        self._left = 0
        self._state = self._size_line
        self._signature = ""
        self._digest = hashlib.sha256()
        self._trailer_bytes = 0
        self._trailer_text = b""
        self._seen_signature = False
        self.trailers: dict[str, str] = {}
        self.done = False

    def feed(self, data: bytes) -> list[memoryview]:
        """The payload in `data`. Raises `S3Error` for broken frames and wrong signatures."""
        view, payload = memoryview(data), []
        while view:
            if self.done:
                raise _broken("there are bytes behind the last chunk")
            if self._left:
                part, view = view[: self._left], view[self._left :]
                self._left -= len(part)
                if self._signer is not None:
                    self._digest.update(part)
                payload.append(part)
                if not self._left:
                    self._state = self._chunk_end
                continue
            view = self._take_line(view)
        return payload

    def end(self) -> None:
        """The client has no more. Raises `S3Error` when that is too early."""
        bare_end = self._state == self._trailer_line and not self._trailing and not self._line
        if not self.done and not bare_end:  # the empty line behind the last chunk is missing from some clients
            raise S3Error("IncompleteBody", "the body ended before its last chunk")

    def _take_line(self, view: memoryview) -> memoryview:
        """Collect one line; once it is whole, let the state look at it."""
        room = MAX_LINE_BYTES - len(self._line)
        head = bytes(view[: max(room, 1)])
        end = head.find(b"\n")
        taken = len(head) if end < 0 else end + 1
        self._line += head[:taken]
        if end >= 0:
            line, self._line = bytes(self._line), bytearray()
            # Clients end lines with CR LF; a bare LF, which some trailers have, is taken too.
            self._state(line[:-2] if line.endswith(b"\r\n") else line[:-1])
        elif len(self._line) >= MAX_LINE_BYTES:
            raise _broken("a line of the chunk framing is too long")
        return view[taken:]

    def _size_line(self, line: bytes) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise _broken("no chunk begins like that")
        size, signature = int(match[1], 16), match[2]
        if size > MAX_CHUNK_BYTES:
            raise _broken("a chunk is too large")
        if (signature is None) != (self._signer is None):
            raise _broken("chunks are signed where the request says so, and only there")
        self._signature = (signature or b"").decode()
        self._digest = hashlib.sha256()
        self._left = size
        if not size:
            self._check_chunk()
            self._state = self._trailer_line

    def _chunk_end(self, line: bytes) -> None:
        if line:
            raise _broken("a chunk is longer than it said")
        self._check_chunk()
        self._state = self._size_line

    def _check_chunk(self) -> None:
        if self._signer is not None:
            self._signer.check_chunk(self._digest.hexdigest(), self._signature)

    def _trailer_line(self, line: bytes) -> None:
        if not line:
            # Some clients send an empty line between trailers and their signature.
            if self._trailing and self._signer is not None and not self._seen_signature and self.trailers:
                return
            self._finish()
            return
        self._trailer_bytes += len(line)
        if not self._trailing or self._trailer_bytes > MAX_TRAILER_BYTES:
            raise _broken("these trailing headers were not announced, or are too many")
        name, colon, value = line.partition(b":")
        if not colon:
            raise _broken("a trailing header has no colon")
        key, text = name.decode("latin-1").strip().lower(), value.decode("latin-1").strip()
        if key == "x-amz-trailer-signature":
            if self._signer is None:
                raise _broken("trailing headers are signed where the request says so, and only there")
            self._signer.check_trailer(self._trailer_text, text)
            self._seen_signature = True
            return
        if key in self.trailers or self._seen_signature:
            raise _broken("a trailing header comes twice, or behind the signature")
        self.trailers[key] = text
        self._trailer_text += f"{key}:{text}\n".encode("latin-1")

    def _finish(self) -> None:
        if self._trailing and self._signer is not None and not self._seen_signature:
            raise S3Error("SignatureDoesNotMatch", "the trailing headers are not signed")
        self.done = True


def _broken(why: str) -> S3Error:
    return S3Error("InvalidRequest", f"the body's chunk framing is broken: {why}")
