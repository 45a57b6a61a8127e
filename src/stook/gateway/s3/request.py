"""What a handler is given and what it gives back, free of any HTTP library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from stook.gateway.s3.body import MAX_PUT_BYTES, RequestBody
from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.sigv4 import Headers
from stook.gateway.s3.target import Target
from stook.gateway.s3.xml import Node, Writer, parse
from stook.renter.objects import Objects
from stook.storage.renter_ports import Bucket
from stook.storage.s3_ports import AccessKey, BucketFacts, is_version_id

MAX_DOCUMENT_BYTES = 1 << 20
Stream = AbstractAsyncContextManager[AsyncIterator[memoryview]]


@dataclass(slots=True)
class Answer:
    """A response. `stream` gives exactly `length` bytes once it is entered; without one `body` is all."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Stream | None = None
    length: int = 0


@dataclass(slots=True)
class Request:
    """A request that is who it says it is."""

    method: str
    target: Target
    headers: Headers
    key: AccessKey | None
    """None: anonymous, which a bucket's policy allowed."""
    now_ms: int
    request_id: str
    take_body: Callable[[int, bool], RequestBody]
    """The body, of at most so many bytes, and whether checksum headers are about it; call it once."""

    @property
    def bucket(self) -> str:
        """The bucket named."""
        return self.target.bucket

    @property
    def name(self) -> str:
        """The key of the object named."""
        return self.target.key

    @property
    def version_id(self) -> str:
        """The version asked for, or empty. Raises `S3Error` when it can be none."""
        value = self.target.get("versionId")
        if value is None:
            return ""
        if not is_version_id(value):
            raise S3Error("InvalidArgument" if value == "" else "NoSuchVersion", "there is no such version id")
        return value

    def body(self, max_bytes: int = MAX_PUT_BYTES) -> RequestBody:
        """The body to come. Raises `S3Error` when its headers contradict each other."""
        return self.take_body(max_bytes, True)

    async def document(
        self, root: str, max_bytes: int = MAX_DOCUMENT_BYTES, *, summed: bool = True
    ) -> tuple[Node, bytes]:
        """The body as XML, verified. Raises `S3Error`. Not `summed`: checksum headers are about something else."""
        data = await self.take_body(max_bytes, summed).whole(max_bytes)
        return parse(data, root), data


@dataclass(frozen=True, slots=True)
class Gateway:
    """What every handler works with."""

    objects: Objects
    owner_id: str
    region: str
    domains: tuple[str, ...]

    async def bucket(self, request: Request) -> BucketFacts:
        """The bucket of a request. Raises `NotFoundError`."""
        return await self.objects.offload(lambda: self.objects.store.bucket(request.bucket))

    async def bucket_named(self, name: str) -> Bucket:
        """Raises `NotFoundError`."""
        return (await self.objects.offload(lambda: self.objects.store.bucket(name))).bucket

    async def setting(self, bucket: str, kind: str) -> bytes | None:
        """A document kept for a bucket."""
        return await self.objects.offload(lambda: self.objects.store.setting(bucket, kind))

    async def set_setting(self, bucket: str, kind: str, value: bytes | None) -> None:
        """Keep it, or none."""
        await self.objects.offload(lambda: self.objects.store.set_setting(bucket, kind, value))


def xml_answer(writer: Writer, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """A document."""
    return Answer(status, {"Content-Type": "application/xml", **(headers or {})}, writer.document())


def error_answer(error: S3Error, request_id: str, resource: str) -> Answer:
    """An error as S3 says it."""
    writer = Writer("Error")
    writer.text("Code", error.code).text("Message", error.message).text("Condition", error.condition)
    writer.text("Resource", resource)
    writer.text("RequestId", request_id)
    body = writer.document().replace(b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', b"", 1)
    return Answer(error.status, {"Content-Type": "application/xml", **error.headers}, body)


def whole_number(text: str | None, default: int, name: str, *, most: int) -> int:
    """A parameter that counts something, cut to `most`. Raises `S3Error`."""
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise S3Error("InvalidArgument", f"{name} must be a number that is not negative")
    return min(int(text), most)
