"""The HTTP half of the S3 gateway: reads requests with aiohttp, lets handlers answer, writes what they say.

Nothing is read from a body before its sender is known, no connection holds more than its windows, and whatever goes
wrong is told in S3's own words.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from stook.errors import BugError, StookError
from stook.gateway.s3.access import Caller, authorise, identify
from stook.gateway.s3.body import RequestBody, promise_of
from stook.gateway.s3.configuration import CORS
from stook.gateway.s3.cors import cors_headers, cors_of
from stook.gateway.s3.errors import S3Error, s3_error
from stook.gateway.s3.operations import Operation, operation_of
from stook.gateway.s3.request import Answer, Gateway, Request, error_answer
from stook.gateway.s3.sigv4 import Headers
from stook.gateway.s3.target import Target, parse_target

READ_BUFFER_BYTES = 1 << 18
MAX_HEADER_BYTES = 16 << 10
WRITE_SECONDS = 60.0
"""A client that takes nothing for so long has gone: its window is needed by others."""
QUIET_SECONDS = 10.0
"""How long a slow operation works before the client gets a sign of life."""
DRAIN_BYTES = 1 << 20
"""So much of a body that is not wanted is read so that the connection can be used again."""

OnError = Callable[[str, BaseException], None]


@dataclass(slots=True)
class Counters:
    """What the gateway did, for whoever watches."""

    requests: int = 0
    errors: int = 0
    by_operation: dict[str, int] = field(default_factory=dict)


class S3Server:
    """Serves one gateway on one address. Start it, and stop it before the objects close."""

    def __init__(
        self, gateway: Gateway, *, max_connections: int, on_error: OnError, grace_seconds: float = 5.0
    ) -> None:
        self._gateway = gateway
        self._on_error = on_error
        self._busy = asyncio.Semaphore(max_connections)
        self._count = 0
        self.counters = Counters()
        self._runner = web.ServerRunner(
            web.Server(
                self._handle,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                read_bufsize=READ_BUFFER_BYTES,
                access_log=None,
                handler_cancellation=True,
            ),
            shutdown_timeout=grace_seconds,
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. Raises `OSError`."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=512)
        await site.start()
        address: Any = self._runner.addresses[0]
        return int(address[1])

    async def stop(self) -> None:
        """Take nothing new, and let what runs end within the time of grace."""
        await self._runner.cleanup()

    # --- one request -------------------------------------------------------------------------------------------------

    async def _handle(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(raw)
        except ConnectionError:  # the client has gone: nobody reads what aiohttp does with this
            return web.Response(status=400)

    async def _answer(self, raw: web.BaseRequest) -> web.StreamResponse:
        self._count += 1
        self.counters.requests += 1
        request_id = f"{self._gateway.objects.clock.now_ms():012X}{self._count & 0xFFFF:04X}"
        head_only = raw.method == "HEAD"
        cors: dict[str, str] = {}
        try:
            if self._busy.locked():
                raise S3Error("SlowDown", "too many requests at once: come back")
            async with self._busy:
                headers = Headers(list(raw.headers.items()))
                target = parse_target(raw.raw_path, headers.get("host") or "", self._gateway.domains)
                origin = headers.get("origin")
                if origin is not None and target.bucket:
                    if raw.method == "OPTIONS":
                        return await self._write(raw, await self._preflight(target, headers, origin), request_id, {})
                    cors = await self._cors(target, origin, raw.method) or {}
                return await self._serve(raw, target, headers, request_id, cors)
        except S3Error as error:
            answer = error_answer(error, request_id, raw.path[:1024])
        except StookError as error:
            said = s3_error(error)
            if said.status >= 500:
                self._on_error(request_id, error)
            answer = error_answer(said, request_id, raw.path[:1024])
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            self._on_error(request_id, error)
            answer = error_answer(s3_error(BugError(str(error))), request_id, raw.path[:1024])
        self.counters.errors += 1
        if head_only:
            answer.body = b""
        return await self._write(raw, answer, request_id, cors, failed=True)

    async def _serve(
        self, raw: web.BaseRequest, target: Target, headers: Headers, request_id: str, cors: dict[str, str]
    ) -> web.StreamResponse:
        gateway, now_ms = self._gateway, self._gateway.objects.clock.now_ms()
        caller = await identify(gateway, raw.method, target, headers, now_ms)
        operation = operation_of(raw.method, target, headers)
        await authorise(gateway, operation, target, caller.key)
        counts = self.counters.by_operation
        counts[operation.name] = counts.get(operation.name, 0) + 1
        take = _Taken(raw, headers, caller, gateway)
        take.go_ahead()
        request = Request(raw.method, target, headers, caller.key, now_ms, request_id, take)
        handler = operation.handler
        if handler is None:
            raise BugError(f"{operation.name} has no handler")
        if operation.slow:
            return await self._slow(raw, operation, request, request_id, cors)
        answer = await handler(gateway, request)
        return await self._write(raw, answer, request_id, cors)

    async def _slow(
        self, raw: web.BaseRequest, operation: Operation, request: Request, request_id: str, cors: dict[str, str]
    ) -> web.StreamResponse:
        """Say 200 and white space while it takes long, as S3 does; an error comes in the body then."""
        if operation.handler is None:
            raise BugError(f"{operation.name} has no handler")
        work = asyncio.ensure_future(operation.handler(self._gateway, request))
        try:
            done, _ = await asyncio.wait([work], timeout=QUIET_SECONDS)
            if done:
                return await self._write(raw, work.result(), request_id, cors)
            response = web.StreamResponse(headers=_headers({"Content-Type": "application/xml", **cors}, request_id))
            await response.prepare(raw)
            declaration = b'<?xml version="1.0" encoding="UTF-8"?>\n'
            await response.write(declaration)
            while not done:
                await response.write(b" ")
                done, _ = await asyncio.wait([work], timeout=QUIET_SECONDS)
            try:
                answer = work.result()
            except S3Error as error:
                answer = error_answer(error, request_id, raw.path[:1024])
            except StookError as error:
                answer = error_answer(s3_error(error), request_id, raw.path[:1024])
            await response.write(answer.body.removeprefix(declaration))
            await response.write_eof()
            return response
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])

    # --- pages of other sites ----------------------------------------------------------------------------------------

    async def _cors(
        self, target: Target, origin: str, method: str, asked: tuple[str, ...] = ()
    ) -> dict[str, str] | None:
        try:
            data = await self._gateway.setting(target.bucket, CORS)
        except StookError:
            return None
        return None if data is None else cors_headers(cors_of(data), origin, method, asked)

    async def _preflight(self, target: Target, headers: Headers, origin: str) -> Answer:
        method = headers.get("access-control-request-method")
        if method is None:
            raise S3Error("InvalidRequest", "a preflight says which method it asks for")
        asked = tuple(
            each.strip() for each in (headers.get("access-control-request-headers") or "").split(",") if each.strip()
        )
        allowed = await self._cors(target, origin, method, asked)
        if allowed is None:
            raise S3Error("AccessDenied", "CORSResponse: this CORS request is not allowed")
        return Answer(headers=allowed)

    # --- answers -----------------------------------------------------------------------------------------------------

    async def _write(
        self, raw: web.BaseRequest, answer: Answer, request_id: str, cors: dict[str, str], *, failed: bool = False
    ) -> web.StreamResponse:
        headers = _headers({**answer.headers, **cors}, request_id)
        length = answer.length if answer.stream is not None or raw.method == "HEAD" else len(answer.body)
        if answer.status not in (204, 304):
            headers["Content-Length"] = str(length)
        response = web.StreamResponse(status=answer.status, headers=headers)
        if failed or answer.status >= 400:
            await self._leave_body(raw, response)
        if answer.stream is None or raw.method == "HEAD":
            await response.prepare(raw)
            if answer.body and raw.method != "HEAD":
                await response.write(answer.body)
            await response.write_eof()
            return response
        return await self._stream(raw, response, answer, request_id)

    async def _stream(
        self, raw: web.BaseRequest, response: web.StreamResponse, answer: Answer, request_id: str
    ) -> web.StreamResponse:
        if answer.stream is None:
            raise BugError("there is nothing to stream")
        async with answer.stream as stream:
            # The first bytes are there before the status is: what cannot be read is an error, not a broken body.
            first = await anext(aiter(stream))
            await response.prepare(raw)
            try:
                await _send(response, first)
                async for part in stream:
                    await _send(response, part)
                await response.write_eof()
            except (StookError, TimeoutError) as error:
                # Too late for an error: a connection that breaks off is what tells the client.
                self._on_error(request_id, error)
                if raw.transport is not None:
                    raw.transport.abort()
        return response

    async def _leave_body(self, raw: web.BaseRequest, response: web.StreamResponse) -> None:
        """What the client still sends is read if it is little, else the connection ends with the answer."""
        if _expects(raw):
            response.force_close()
            return
        if raw.body_exists and not raw.content.is_eof():
            size = raw.content_length
            if size is None or size > DRAIN_BYTES:
                response.force_close()
                return
            with contextlib.suppress(Exception):
                async with asyncio.timeout(5):
                    while await raw.content.readany():
                        pass


def _expects(raw: web.BaseRequest) -> bool:
    return raw.headers.get("Expect", "").lower() == "100-continue"


async def _send(response: web.StreamResponse, part: memoryview) -> None:
    view = part
    while view:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(view[: 1 << 18])
        view = view[1 << 18 :]


def _headers(headers: dict[str, str], request_id: str) -> CIMultiDict[str]:
    made = CIMultiDict(headers)
    made["x-amz-request-id"] = request_id
    made["Server"] = "Stook"
    return made


class _Taken:
    """Gives a request its body, and tells a client that waits for it to send."""

    def __init__(self, raw: web.BaseRequest, headers: Headers, caller: Caller, gateway: Gateway) -> None:
        self._raw = raw
        self._headers = headers
        self._caller = caller
        self._gateway = gateway

    def go_ahead(self) -> None:
        """Whoever asked first is let in: they may send. Also with nothing to send: botocore takes an answer without
        this for the end of the connection, and misreads the next one.
        """
        if _expects(self._raw) and self._raw.transport is not None:
            self._raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def __call__(self, max_bytes: int, summed: bool) -> RequestBody:
        promise = promise_of(self._headers, self._caller.payload_hash, max_bytes=max_bytes, summed=summed)
        return RequestBody(
            self._raw.content,
            promise,
            self._caller.payload_hash,
            offload=self._gateway.objects.offload,
            signer=self._caller.make_signer(),
        )
