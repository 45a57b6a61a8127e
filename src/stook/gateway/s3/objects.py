"""PutObject, GetObject, HeadObject, CopyObject, DeleteObject, DeleteObjects, GetObjectAttributes."""

from __future__ import annotations

import re
from itertools import accumulate
from urllib.parse import unquote_to_bytes

from stook.errors import ConflictError, StookError
from stook.gateway.s3 import meta
from stook.gateway.s3.checksums import FULL_OBJECT
from stook.gateway.s3.configuration import default_lock
from stook.gateway.s3.errors import S3Error, s3_error
from stook.gateway.s3.request import Answer, Gateway, Request, xml_answer
from stook.gateway.s3.xml import Node, Writer, iso_time, malformed
from stook.renter.objects import NewObject
from stook.shards.pointer import AnyObjectRecord
from stook.storage.renter_ports import Bucket
from stook.storage.s3_ports import (
    Gone,
    ObjectFacts,
    Pairs,
    StoredObject,
    Version,
    Versioning,
    Wanted,
    is_version_id,
    make_facts,
)

MAX_DELETE = 1000
MAX_DELETE_BYTES = 4 << 20
_COPY_TRIES = 5
_OVERRIDES = ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires")


def check_key(name: str) -> None:
    """Raises `S3Error` for what can be no key of an object."""
    if not name:
        raise S3Error("InvalidArgument", "the key of an object is not empty")


async def found_object(gateway: Gateway, bucket: str, name: str, version_id: str) -> StoredObject:
    """The object, or the version named. Raises `S3Error` in the words of a GET."""
    found = await gateway.objects.find(bucket, name, version_id)
    if found is None:
        code = "NoSuchVersion" if version_id and version_id != "null" else "NoSuchKey"
        raise S3Error(code, "the specified key does not exist" if code == "NoSuchKey" else "there is no such version")
    if isinstance(found, Version):
        headers = {"x-amz-delete-marker": "true", "x-amz-version-id": found.version_id}
        if version_id:
            raise S3Error("MethodNotAllowed", "a delete marker has no content", headers=headers)
        raise S3Error("NoSuchKey", "the specified key does not exist", headers=headers)
    return found


# ----------------------------------------------------------------------------------------------------------------- in


async def put_object(gateway: Gateway, request: Request) -> Answer:
    """PutObject: stored, verified and durable before it is visible."""
    check_key(request.name)
    meta.check_ignored(request.headers)
    facts, tags = meta.facts_of(request.headers), meta.tags_of(request.headers.get("x-amz-tagging"))
    conditions = meta.conditions_of(request.headers)
    of = await gateway.bucket(request)
    lock = meta.lock_of(request.headers, await default_lock(gateway, of, request.now_ms), request.now_ms)
    body = request.body()
    objects = gateway.objects
    async with objects.land(of.bucket, request.name, body, body.promise.size) as landed:
        came = await body.finish()
        checksum = None if came.checksum is None else (*came.checksum, FULL_OBJECT)
        facts = make_facts(headers=facts.headers, metadata=facts.metadata, checksum=checksum)
        new = NewObject(of.bucket, request.name, came.md5, facts, tags, lock, conditions)
        version = await objects.commit(new, landed)
    headers = {"ETag": f'"{version.etag}"'}
    if checksum is not None:
        headers |= {f"x-amz-checksum-{checksum[0]}": checksum[1], "x-amz-checksum-type": checksum[2]}
    if of.versioning is not Versioning.NEVER:
        headers["x-amz-version-id"] = version.version_id
    return Answer(headers=headers)


# ---------------------------------------------------------------------------------------------------------------- out


async def get_object(gateway: Gateway, request: Request) -> Answer:
    """GetObject."""
    return await _get(gateway, request, with_body=True)


async def head_object(gateway: Gateway, request: Request) -> Answer:
    """HeadObject."""
    return await _get(gateway, request, with_body=False)


async def _get(gateway: Gateway, request: Request, *, with_body: bool) -> Answer:
    check_key(request.name)
    of = await gateway.bucket(request)
    found = await found_object(gateway, request.bucket, request.name, request.version_id)
    version, size = found.version, found.version.size_bytes
    if not meta.check_read(request.headers, version):
        return Answer(304, {"ETag": f'"{version.etag}"', "Last-Modified": meta.http_date(version.modified_ms)})
    wanted = request.headers.get("range")
    part_text = request.target.get("partNumber")
    status, begin, end = 200, 0, size
    parts = 0
    if part_text is not None:
        if wanted is not None:
            raise S3Error("InvalidRequest", "cannot specify both a range and a part number")
        begin, end, parts = _part_of(found, part_text)
        status = 206
    elif (span := meta.parse_range(wanted, size)) is not None:
        (begin, end), status = span, 206
    whole = (begin, end) == (0, size)
    checksums = request.headers.get("x-amz-checksum-mode") == "ENABLED" and whole
    headers = meta.object_headers(found, versioned=of.versioning is not Versioning.NEVER, checksums=checksums)
    headers |= _overrides(request)
    if status == 206 and size:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    if parts:
        headers["x-amz-mp-parts-count"] = str(parts)
    answer = Answer(status, headers, length=end - begin)
    if with_body and begin < end:
        answer.stream = gateway.objects.read(of.bucket, found, begin, end)
    return answer


def _part_of(found: StoredObject, text: str) -> tuple[int, int, int]:
    """Begin and end of a part, and how many there are (0 for an object that came whole)."""
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= 10_000):
        raise S3Error("InvalidArgument", "a part number is between 1 and 10000")
    number, sizes = int(text), found.facts.part_bytes
    if number > max(len(sizes), 1):
        raise S3Error("InvalidRange", "the requested part number is not satisfiable")
    if not sizes:
        return 0, found.version.size_bytes, 0
    ends = list(accumulate(sizes))
    return ends[number - 1] - sizes[number - 1], ends[number - 1], len(sizes)


def _overrides(request: Request) -> dict[str, str]:
    headers = {}
    for name in _OVERRIDES:
        value = request.target.get(f"response-{name}")
        if value is not None:
            if request.key is None:
                raise S3Error("InvalidRequest", "request specific response headers need a signed request")
            headers[name.title()] = meta.wire_value(value)
    return headers


async def get_attributes(gateway: Gateway, request: Request) -> Answer:
    """GetObjectAttributes."""
    of = await gateway.bucket(request)
    found = await found_object(gateway, request.bucket, request.name, request.version_id)
    wanted = {each.strip() for each in (request.headers.joined("x-amz-object-attributes") or "").split(",")}
    if not wanted - {""}:
        raise S3Error("InvalidArgument", "x-amz-object-attributes says what is wanted")
    facts, writer = found.facts, Writer("GetObjectAttributesResponse")
    if "ETag" in wanted:
        writer.text("ETag", found.version.etag)
    if "Checksum" in wanted and facts.checksum is not None:
        algorithm, value, kind = facts.checksum
        writer.begin("Checksum").text(f"Checksum{algorithm.upper()}", value).text("ChecksumType", kind).end()
    if "ObjectParts" in wanted and facts.part_bytes:
        writer.begin("ObjectParts").text("PartsCount", len(facts.part_bytes)).end()
    if "StorageClass" in wanted:
        writer.text("StorageClass", "STANDARD")
    if "ObjectSize" in wanted:
        writer.text("ObjectSize", found.version.size_bytes)
    headers = {"Last-Modified": meta.http_date(found.version.modified_ms)}
    if of.versioning is not Versioning.NEVER:
        headers["x-amz-version-id"] = found.version.version_id
    return xml_answer(writer, headers=headers)


# --------------------------------------------------------------------------------------------------------------- copy


def copy_source(request: Request) -> tuple[str, str, str]:
    """Bucket, key and version of ``x-amz-copy-source``. Raises `S3Error`."""
    raw = request.headers.get("x-amz-copy-source") or ""
    path, _, query = raw.partition("?")
    try:
        text = unquote_to_bytes(path.encode("utf-8", "surrogateescape")).decode().removeprefix("/")
    except UnicodeDecodeError:
        raise S3Error("InvalidArgument", "the copy source is no UTF-8") from None
    bucket, _, name = text.partition("/")
    version_id = query.removeprefix("versionId=") if query.startswith("versionId=") else ""
    if not bucket or not name or (query and not is_version_id(version_id)):
        raise S3Error("InvalidArgument", "copy source must be BUCKET/KEY, with ?versionId=… if at all")
    return bucket, name, version_id


async def source_of(gateway: Gateway, request: Request) -> tuple[Bucket, StoredObject]:
    """What is to be copied, if the key may read it and its conditions hold. Raises `S3Error`."""
    bucket, name, version_id = copy_source(request)
    if request.key is None or not request.key.may(bucket, write=False):
        raise S3Error("AccessDenied", "this key may not read the source")
    of = await gateway.bucket_named(bucket)
    found = await found_object(gateway, bucket, name, version_id)
    meta.check_read(request.headers, found.version, "x-amz-copy-source-")
    return of, found


async def copy_object(gateway: Gateway, request: Request) -> Answer:
    """CopyObject: the copy shares the source's segments, so that no byte moves."""
    check_key(request.name)
    meta.check_ignored(request.headers)
    of = await gateway.bucket(request)
    directive = request.headers.get("x-amz-metadata-directive") or "COPY"
    if directive not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", "a metadata directive is COPY or REPLACE")
    lock = meta.lock_of(request.headers, await default_lock(gateway, of, request.now_ms), request.now_ms)
    for left in reversed(range(_COPY_TRIES)):
        source_bucket, source = await source_of(gateway, request)
        record = gateway.objects.open_record(source_bucket, source)
        new = NewObject(
            of.bucket,
            request.name,
            source.version.etag,
            _copied_facts(request, source, directive),
            _copied_tags(request, source),
            lock,
            meta.conditions_of(request.headers),
            mode=record.mode,
        )
        _check_onto_itself(request, source, directive)
        try:
            version = await gateway.objects.copy(new, record)
            break
        except ConflictError as error:
            # The source was replaced between our look and the commit, and its segments given up: look again.
            if not left or s3_error(error).code != "ConditionalRequestConflict":
                raise
    writer = Writer("CopyObjectResult")
    writer.text("LastModified", iso_time(version.modified_ms)).text("ETag", f'"{version.etag}"')
    if new.facts.checksum is not None:
        writer.text(f"Checksum{new.facts.checksum[0].upper()}", new.facts.checksum[1])
        writer.text("ChecksumType", new.facts.checksum[2])
    headers = {}
    if of.versioning is not Versioning.NEVER:
        headers["x-amz-version-id"] = version.version_id
    if source.version.version_id != "null":
        headers["x-amz-copy-source-version-id"] = source.version.version_id
    return xml_answer(writer, headers=headers)


def _check_onto_itself(request: Request, source: StoredObject, directive: str) -> None:
    bucket, name, version_id = copy_source(request)
    if (bucket, name) == (request.bucket, request.name) and directive == "COPY" and not version_id:
        if request.headers.get("x-amz-tagging-directive") == "REPLACE" or request.headers.get("x-amz-storage-class"):
            return
        raise S3Error(
            "InvalidRequest",
            "this copy request is illegal because it is trying to copy an object to itself without changing anything",
        )


def _copied_facts(request: Request, source: StoredObject, directive: str) -> ObjectFacts:
    facts = source.facts
    if directive == "COPY":
        return make_facts(facts.headers, facts.metadata, facts.checksum, facts.part_bytes)
    fresh = meta.facts_of(request.headers)
    return make_facts(fresh.headers, fresh.metadata, facts.checksum, facts.part_bytes)


def _copied_tags(request: Request, source: StoredObject) -> Pairs:
    directive = request.headers.get("x-amz-tagging-directive") or "COPY"
    if directive not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", "a tagging directive is COPY or REPLACE")
    return source.tags if directive == "COPY" else meta.tags_of(request.headers.get("x-amz-tagging"))


_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{1,19})", re.ASCII)


def copy_range(request: Request, record: AnyObjectRecord) -> tuple[int, int]:
    """Begin and end of what is to be copied as a part. Raises `S3Error`."""
    text = request.headers.get("x-amz-copy-source-range")
    if text is None:
        return 0, record.size
    match = _RANGE.fullmatch(text)
    if match is None:
        raise S3Error("InvalidArgument", "x-amz-copy-source-range must be bytes=FIRST-LAST")
    begin, end = int(match[1]), int(match[2]) + 1
    if begin >= end or end > record.size:
        raise S3Error("InvalidRange", "the range is not within the source")
    return begin, end


# ------------------------------------------------------------------------------------------------------------- delete


async def delete_object(gateway: Gateway, request: Request) -> Answer:
    """DeleteObject."""
    check_key(request.name)
    wanted = Wanted(request.name, request.version_id, meta.bare_etag(request.headers.get("if-match") or ""))
    (gone,) = await _delete(gateway, request, [wanted])
    if isinstance(gone, StookError):
        raise gone
    headers = {}
    if gone.version_id:
        headers["x-amz-version-id"] = gone.version_id
    if gone.marker:
        headers["x-amz-delete-marker"] = "true"
    return Answer(204, headers)


async def _delete(gateway: Gateway, request: Request, wanted: list[Wanted]) -> list[Gone | StookError]:
    bypass = (request.headers.get("x-amz-bypass-governance-retention") or "").lower() == "true"
    store, now_ms = gateway.objects.store, request.now_ms
    return await gateway.objects.offload(lambda: store.delete(request.bucket, wanted, now_ms=now_ms, bypass=bypass))


async def delete_objects(gateway: Gateway, request: Request) -> Answer:
    """DeleteObjects."""
    root, _ = await request.document("Delete", MAX_DELETE_BYTES)
    nodes = list(root.all("Object"))
    if not 1 <= len(nodes) <= MAX_DELETE:
        raise malformed()
    asked = [_asked(node) for node in nodes]
    good = [each for each in asked if isinstance(each, Wanted)]
    done = iter(await _delete(gateway, request, good))
    quiet = (root.value("Quiet") or "").strip().lower() == "true"
    writer = Writer("DeleteResult")
    for each in asked:
        result = next(done) if isinstance(each, Wanted) else each[1]
        name, version_id = (each.name, each.version_id) if isinstance(each, Wanted) else (each[0], "")
        if isinstance(result, Gone):
            if not quiet:
                _deleted(writer, result, version_id)
            continue
        error = result if isinstance(result, S3Error) else s3_error(result)
        writer.begin("Error").text("Key", name)
        if version_id:
            writer.text("VersionId", version_id)
        writer.text("Code", error.code).text("Message", error.message).end()
    return xml_answer(writer)


def _asked(node: Node) -> Wanted | tuple[str, S3Error]:
    name, version_id = node.value("Key"), node.value("VersionId")
    if not name:
        raise malformed()
    if len(name.encode("utf-8", "replace")) > 1024:
        return name, S3Error("KeyTooLongError", "your key is too long")
    if version_id and not is_version_id(version_id):
        return name, S3Error("NoSuchVersion", "there is no such version")
    return Wanted(name, version_id or "", meta.bare_etag(node.value("ETag") or ""))


def _deleted(writer: Writer, gone: Gone, version_id: str) -> None:
    writer.begin("Deleted").text("Key", gone.name)
    if version_id:
        writer.text("VersionId", version_id)
    if gone.marker:
        writer.text("DeleteMarker", True).text("DeleteMarkerVersionId", gone.version_id)
    writer.end()
