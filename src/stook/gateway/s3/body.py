"""The body of a request: unframed, hashed while it comes, and not believed before its end."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from stook.clock import Offload
from stook.gateway.s3 import checksums
from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.framing import Deframer
from stook.gateway.s3.sigv4 import (
    SIGNED_CHUNKS,
    SIGNED_CHUNKS_TRAILER,
    UNSIGNED,
    UNSIGNED_CHUNKS_TRAILER,
    ChunkSigner,
    Headers,
)

MAX_OBJECT_BYTES = 5 << 40
MAX_PUT_BYTES = 5 << 30
IDLE_SECONDS = 30.0
"""A client that sends nothing for so long is told to come back: its memory is needed by others."""
_STRIDE = 1 << 20
_INLINE = 128 << 10
"""Hashing less than this takes less time than handing it to a thread."""


class Stream(Protocol):
    """Where the bytes come from: aiohttp's `StreamReader`."""

    async def readany(self) -> bytes:
        """Some bytes; none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Promise:
    """What the client says of its body, beforehand."""

    size: int | None
    """Payload bytes, without framing."""
    framed: bool
    sha256: str | None
    """Signed with the headers."""
    md5: bytes | None
    checksum: tuple[str, bytes] | None
    """Algorithm and value, from a header."""
    trailer: str | None
    """The algorithm whose value comes behind the body."""
    algorithm: str | None
    """The algorithm to be kept with the object, if any."""


def promise_of(headers: Headers, payload_hash: str, *, max_bytes: int = MAX_PUT_BYTES, summed: bool = True) -> Promise:
    """Read a request's headers. Raises `S3Error`."""
    framed = payload_hash in (SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER)
    length = headers.get("x-amz-decoded-content-length" if framed else "content-length")
    size = None
    if length is not None:
        if not (length.isascii() and length.isdigit() and len(length) <= 15):
            raise S3Error("InvalidArgument", "the length of the body is no number")
        size = int(length)
        if size > max_bytes:
            raise S3Error("EntityTooLarge", f"a body has at most {max_bytes} bytes")
    elif framed:
        raise S3Error("MissingContentLength", "a body in chunks needs x-amz-decoded-content-length")
    md5_text = headers.get("content-md5")
    md5 = None if md5_text is None else checksums.decoded(md5_text.strip(), 16)
    if md5_text is not None and md5 is None:
        raise S3Error("InvalidDigest", "Content-MD5 must be the base64 of 16 bytes")
    checksum, trailer = _checksum_of(headers, framed=framed) if summed else (None, None)
    named = headers.get("x-amz-sdk-checksum-algorithm") or headers.get("x-amz-checksum-algorithm")
    named = named if summed else None
    algorithm = checksum[0] if checksum else trailer or (checksums.algorithm_named(named) if named else None)
    if named and algorithm and checksums.algorithm_named(named) != algorithm:
        raise S3Error("InvalidRequest", "the checksum sent is not of the algorithm announced")
    sha256 = None if framed or payload_hash == UNSIGNED else payload_hash
    return Promise(size, framed, sha256, md5, checksum, trailer, algorithm)


def _checksum_of(headers: Headers, *, framed: bool) -> tuple[tuple[str, bytes] | None, str | None]:
    found: list[tuple[str, bytes]] = []
    for algorithm, size in checksums.SIZES.items():
        text = headers.get(f"x-amz-checksum-{algorithm}")
        if text is None:
            continue
        value = checksums.decoded(text.strip(), size)
        if value is None:
            raise S3Error("InvalidRequest", f"the value of x-amz-checksum-{algorithm} is invalid")
        found.append((algorithm, value))
    if len(found) > 1:
        raise S3Error("InvalidRequest", "expecting a single x-amz-checksum- header")
    trailer = headers.get("x-amz-trailer")
    if trailer is None:
        return (found[0] if found else None), None
    name = trailer.strip().lower()
    if not framed or not name.startswith("x-amz-checksum-") or found:
        raise S3Error("InvalidRequest", "the value specified in x-amz-trailer is not supported")
    return None, checksums.algorithm_named(name.removeprefix("x-amz-checksum-"))


class RequestBody:
    """One request's body. `fill` it to its end, then `finish` says what it was, or that it is not to be believed."""

    def __init__(
        self,
        stream: Stream,
        promise: Promise,
        payload_hash: str,
        *,
        offload: Offload,
        signer: ChunkSigner | None = None,
        etag: bool = True,
    ) -> None:
        self._stream = stream
        self.promise = promise
        self._offload = offload
        trailing = payload_hash in (SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER)
        self._deframer = Deframer(signer=signer, trailing=trailing) if promise.framed else None
        self._pieces: deque[memoryview] = deque()
        self._ended = False
        self.size_bytes = 0
        self._md5 = hashlib.md5(usedforsecurity=False) if etag or promise.md5 is not None else None
        self._sha256 = hashlib.sha256() if promise.sha256 is not None else None
        self._algorithm = promise.algorithm
        self._running = checksums.running(promise.algorithm) if promise.algorithm else None
        self._hashers = [each for each in (self._md5, self._sha256, self._running) if each is not None]

    def also(self, algorithm: str) -> None:
        """Make this checksum even where the client sends none. Before the first byte."""
        if self._running is None:
            self._algorithm = algorithm
            self._running = checksums.running(algorithm)
            self._hashers.append(self._running)

    async def fill(self, buffer: memoryview) -> int:
        """Fill `buffer` with payload; fewer bytes only at the end. Raises `S3Error`."""
        filled = hashed = 0
        hashing: asyncio.Task[None] | None = None
        try:
            while filled < len(buffer):
                if not self._pieces and not await self._more():
                    break
                piece = self._pieces[0]
                part = piece[: len(buffer) - filled]
                buffer[filled : filled + len(part)] = part
                filled += len(part)
                if len(part) == len(piece):
                    self._pieces.popleft()
                else:
                    self._pieces[0] = piece[len(part) :]
                if filled - hashed >= _STRIDE:
                    if hashing is not None:
                        await hashing
                    hashing = asyncio.create_task(self._hash(buffer[hashed:filled]))
                    hashed = filled
        finally:
            if hashing is not None:  # it reads from the buffer, which is the caller's again from here on
                await asyncio.wait([hashing])
                hashing.result()
        await self._hash(buffer[hashed:filled])
        self.size_bytes += filled
        if self.promise.size is not None and self.size_bytes > self.promise.size:
            raise S3Error("IncompleteBody", "the body is longer than it was said to be")
        return filled

    async def _more(self) -> bool:
        """Get some payload; False at the end."""
        while not self._ended:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    data = await self._stream.readany()
            except TimeoutError:
                raise S3Error("RequestTimeout", "nothing came from your connection for too long") from None
            if not data:
                self._ended = True
                if self._deframer is not None:
                    self._deframer.end()
                return False
            pieces = [memoryview(data)] if self._deframer is None else self._deframer.feed(data)
            if pieces:
                self._pieces.extend(pieces)
                return True
        return False

    async def _hash(self, part: memoryview) -> None:
        if not part or not self._hashers:
            return

        def work() -> None:
            for each in self._hashers:
                each.update(part)

        if len(part) < _INLINE:
            work()
        else:
            await self._offload(work)

    async def finish(self) -> Finished:
        """Everything came, and is what was promised. Raises `S3Error`."""
        if self._pieces or await self._more():
            raise S3Error("IncompleteBody", "the body is longer than it was said to be")
        promise = self.promise
        if promise.size is not None and self.size_bytes != promise.size:
            raise S3Error("IncompleteBody", f"{promise.size} bytes were announced and {self.size_bytes} came")
        if self._sha256 is not None and not hmac.compare_digest(self._sha256.hexdigest(), promise.sha256 or ""):
            raise S3Error("XAmzContentSHA256Mismatch", "the body is not the one whose x-amz-content-sha256 was signed")
        md5 = self._md5.digest() if self._md5 is not None else b""
        if promise.md5 is not None and md5 != promise.md5:
            raise S3Error("BadDigest", "the Content-MD5 you specified did not match what we received")
        return Finished(md5.hex(), self._checksum())

    def _checksum(self) -> tuple[str, str] | None:
        promise = self.promise
        if self._running is None or self._algorithm is None:
            return None
        value = self._running.digest()
        wanted = promise.checksum[1] if promise.checksum else None
        if promise.trailer is not None and self._deframer is not None:
            text = self._deframer.trailers.get(f"x-amz-checksum-{promise.trailer}")
            wanted = checksums.decoded(text, len(value)) if text is not None else None
            if wanted is None:
                raise S3Error("InvalidRequest", "the trailing checksum that was announced is missing or invalid")
        if wanted is not None and wanted != value:
            raise S3Error("BadDigest", f"the {self._algorithm.upper()} you specified did not match what we received")
        return self._algorithm, checksums.encoded(value)

    async def whole(self, max_bytes: int) -> bytes:
        """A small body, all of it, believed. Raises `S3Error`, also when it is larger than `max_bytes`."""
        size = self.promise.size
        if size is not None and size > max_bytes:
            raise S3Error("EntityTooLarge", f"such a body has at most {max_bytes} bytes")
        buffer = bytearray(max_bytes + 1 if size is None else size)
        got = await self.fill(memoryview(buffer))
        if got > max_bytes:
            raise S3Error("EntityTooLarge", f"such a body has at most {max_bytes} bytes")
        await self.finish()
        return bytes(buffer[:got])


@dataclass(frozen=True, slots=True)
class Finished:
    """What a believed body was."""

    md5: str
    checksum: tuple[str, str] | None
    """Algorithm and value in base64, where one was asked for or sent."""
