"""Uploads in parts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator

from stook.errors import ConflictError
from stook.gateway.s3 import checksums, meta
from stook.gateway.s3.configuration import default_lock
from stook.gateway.s3.errors import S3Error, s3_error
from stook.gateway.s3.listing import common, encoder_of, owner
from stook.gateway.s3.objects import check_key, copy_range, source_of
from stook.gateway.s3.request import Answer, Gateway, Request, whole_number, xml_answer
from stook.gateway.s3.xml import Node, Writer, iso_time, malformed
from stook.renter.objects import NewObject
from stook.shards.pointer import ObjectRecord
from stook.storage.renter_ports import Bucket
from stook.storage.s3_ports import (
    MAX_PARTS,
    Lock,
    MissingError,
    Multipart,
    MultipartPlan,
    ObjectFacts,
    Part,
    Retention,
    StoredObject,
    Version,
    Versioning,
    make_facts,
)

MIN_PART_BYTES = 5 << 20
MAX_COMPLETE_BYTES = 4 << 20
MAX_UPLOADS = 1000
_PLAIN_ETAG = re.compile(r"[0-9a-f]{32}", re.ASCII)
_COPY_TRIES = 5


def upload_id_of(request: Request) -> bytes:
    """The upload named. Raises `S3Error`."""
    text = request.target.get("uploadId") or ""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 16:
        raise S3Error("NoSuchUpload", "the specified upload does not exist")
    return data


async def _upload(gateway: Gateway, request: Request) -> Multipart:
    multipart_id = upload_id_of(request)
    try:
        return await gateway.objects.offload(
            lambda: gateway.objects.store.multipart(request.bucket, request.name, multipart_id)
        )
    except MissingError as error:
        raise S3Error("NoSuchUpload", str(error)) from error


async def create_multipart(gateway: Gateway, request: Request) -> Answer:
    """CreateMultipartUpload."""
    check_key(request.name)
    meta.check_ignored(request.headers)
    of = await gateway.bucket(request)
    named = request.headers.get("x-amz-checksum-algorithm")
    algorithm = "" if named is None else checksums.algorithm_named(named)
    kind = request.headers.get("x-amz-checksum-type") or (checksums.default_type(algorithm) if algorithm else "")
    if algorithm:
        checksums.check_type(algorithm, kind)
    elif kind:
        raise S3Error("InvalidRequest", "a checksum type needs its algorithm")
    lock = meta.lock_of(request.headers, await default_lock(gateway, of, request.now_ms), request.now_ms)
    plan = MultipartPlan(
        facts=meta.facts_of(request.headers),
        tags=meta.tags_of(request.headers.get("x-amz-tagging")),
        algorithm=algorithm,
        checksum_type=kind,
        retention=lock.retention,
        retain_until_ms=lock.until_ms,
        legal_hold=lock.legal_hold,
        owner="" if request.key is None else request.key.key_id,
    )
    upload = Multipart(gateway.objects.entropy(16), request.bucket, request.name, request.now_ms, plan)
    await gateway.objects.offload(lambda: gateway.objects.store.begin_multipart(upload))
    writer = Writer("InitiateMultipartUploadResult")
    writer.text("Bucket", request.bucket).text("Key", request.name).text("UploadId", upload.multipart_id.hex())
    headers = {}
    if algorithm:
        headers = {"x-amz-checksum-algorithm": algorithm.upper(), "x-amz-checksum-type": kind}
    return xml_answer(writer, headers=headers)


def _part_number(request: Request) -> int:
    text = request.target.get("partNumber") or ""
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= MAX_PARTS):
        raise S3Error("InvalidArgument", f"part number must be an integer between 1 and {MAX_PARTS}, inclusive")
    return int(text)


async def upload_part(gateway: Gateway, request: Request) -> Answer:
    """UploadPart."""
    number = _part_number(request)
    upload = await _upload(gateway, request)
    bucket = (await gateway.bucket(request)).bucket
    body = request.body()
    algorithm = upload.plan.algorithm
    if body.promise.algorithm and algorithm and body.promise.algorithm != algorithm:
        raise S3Error("InvalidRequest", f"the upload was begun with checksums of {algorithm.upper()}")
    if algorithm:
        body.also(algorithm)
    objects = gateway.objects
    async with objects.land(bucket, request.name, body, body.promise.size) as landed:
        came = await body.finish()
        try:
            await objects.commit_part(upload.multipart_id, number, landed, came.md5, came.checksum)
        except MissingError as error:
            raise S3Error("NoSuchUpload", str(error)) from error
    headers = {"ETag": f'"{came.md5}"'}
    if came.checksum is not None:
        headers[f"x-amz-checksum-{came.checksum[0]}"] = came.checksum[1]
    return Answer(headers=headers)


class _Copied:
    """The body of a part that comes from another object."""

    def __init__(self, stream: AsyncIterator[memoryview], algorithm: str) -> None:
        self._stream = stream
        self._rest = memoryview(b"")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._algorithm = algorithm
        self._running = checksums.running(algorithm) if algorithm else None

    async def fill(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            if not self._rest:
                try:
                    self._rest = await anext(self._stream)
                except StopAsyncIteration:
                    break
                self._md5.update(self._rest)
                if self._running is not None:
                    self._running.update(self._rest)
            part, self._rest = self._rest[: len(buffer) - filled], self._rest[len(buffer) - filled :]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def result(self) -> tuple[str, tuple[str, str] | None]:
        checksum = None
        if self._running is not None:
            checksum = (self._algorithm, checksums.encoded(self._running.digest()))
        return self._md5.hexdigest(), checksum


async def upload_part_copy(gateway: Gateway, request: Request) -> Answer:
    """UploadPartCopy: a whole object becomes a part without moving; of a range, the bytes come and go."""
    number = _part_number(request)
    upload = await _upload(gateway, request)
    bucket = (await gateway.bucket(request)).bucket
    for left in reversed(range(_COPY_TRIES)):
        source_bucket, source = await source_of(gateway, request)
        record = gateway.objects.open_record(source_bucket, source)
        begin, end = copy_range(request, record)
        try:
            if isinstance(record, ObjectRecord) and _shareable(source, upload) and (begin, end) == (0, record.size):
                part = await gateway.objects.share_part(upload.multipart_id, number, source, record)
            else:
                part = await _copy_range(gateway, upload, number, (bucket, source_bucket), source, (begin, end))
            break
        except MissingError as error:
            raise S3Error("NoSuchUpload", str(error)) from error
        except ConflictError as error:
            if not left or s3_error(error).code != "ConditionalRequestConflict":
                raise
    writer = Writer("CopyPartResult").text("LastModified", iso_time(part.modified_ms)).text("ETag", f'"{part.etag}"')
    if part.facts.checksum is not None:
        writer.text(f"Checksum{part.facts.checksum[0].upper()}", part.facts.checksum[1])
    headers = {}
    if source.version.version_id != "null":
        headers["x-amz-copy-source-version-id"] = source.version.version_id
    return xml_answer(writer, headers=headers)


def _shareable(source: StoredObject, upload: Multipart) -> bool:
    """Whether the source's entity tag is the MD5 of its bytes, as a part's is, and no other checksum is asked for."""
    return _PLAIN_ETAG.fullmatch(source.version.etag) is not None and not upload.plan.algorithm


async def _copy_range(
    gateway: Gateway,
    upload: Multipart,
    number: int,
    buckets: tuple[Bucket, Bucket],
    source: StoredObject,
    span: tuple[int, int],
) -> Part:
    bucket, source_bucket = buckets
    begin, end = span
    objects = gateway.objects
    async with objects.read(source_bucket, source, begin, end) as stream:
        body = _Copied(stream, upload.plan.algorithm)
        async with objects.land(bucket, upload.name, body, end - begin) as landed:
            etag, checksum = body.result()
            return await objects.commit_part(upload.multipart_id, number, landed, etag, checksum)


# ----------------------------------------------------------------------------------------------------------- complete


async def complete_multipart(gateway: Gateway, request: Request) -> Answer:
    """CompleteMultipartUpload: one transaction. The same again is answered the same."""
    root, _ = await request.document("CompleteMultipartUpload", MAX_COMPLETE_BYTES, summed=False)
    asked = [_asked(node) for node in root.all("Part")]
    if not asked:
        raise malformed()
    multipart_id = upload_id_of(request)
    of = await gateway.bucket(request)
    versioned = of.versioning is not Versioning.NEVER
    conditions = meta.conditions_of(request.headers)
    try:
        upload = await _upload(gateway, request)
    except S3Error:
        done = await gateway.objects.find(request.bucket, request.name)
        if isinstance(done, StoredObject) and done.facts.multipart_id == multipart_id:
            return _completed(request, done.version, done.facts, versioned=versioned)
        raise
    kept = await gateway.objects.offload(lambda: gateway.objects.store.parts(multipart_id))
    parts = _chosen(asked, {part.number: part for part in kept})
    etag = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False).hexdigest()
    facts = _facts(request, upload, parts)
    plan = upload.plan
    new = NewObject(
        of.bucket,
        request.name,
        f"{etag}-{len(parts)}",
        facts,
        plan.tags,
        Lock(Retention(plan.retention), plan.retain_until_ms, plan.legal_hold),
        conditions,
    )
    try:
        version = await gateway.objects.complete(new, multipart_id, parts)
    except MissingError as error:
        raise S3Error("NoSuchKey" if conditions.if_match else "NoSuchUpload", str(error)) from error
    return _completed(request, version, facts, versioned=versioned)


def _asked(node: Node) -> tuple[int, str, tuple[str, str] | None]:
    number, etag = node.value("PartNumber"), node.value("ETag")
    if number is None or etag is None or not (number.strip().isascii() and number.strip().isdigit()):
        raise malformed()
    if len(number) > 8 or not 1 <= int(number) <= MAX_PARTS:
        raise S3Error("InvalidPart" if len(number) > 8 or int(number) else "InvalidArgument", "no such part number")
    checksum = None
    for algorithm in checksums.SIZES:
        value = node.value(f"Checksum{algorithm.upper()}")
        if value is not None:
            checksum = (algorithm, value)
    return int(number), meta.bare_etag(etag), checksum


def _chosen(asked: list[tuple[int, str, tuple[str, str] | None]], kept: dict[int, Part]) -> list[Part]:
    numbers = [number for number, _, _ in asked]
    if numbers != sorted(set(numbers)):
        raise S3Error("InvalidPartOrder", "the list of parts was not in ascending order")
    parts = []
    for number, etag, checksum in asked:
        part = kept.get(number)
        if part is None or part.etag != etag:
            raise S3Error("InvalidPart", f"part {number} could not be found, or its entity tag did not match")
        known = part.facts.checksum
        if checksum is not None and known is not None and checksum[0] == known[0] and checksum[1] != known[1]:
            raise S3Error("InvalidPart", f"the checksum of part {number} did not match")
        parts.append(part)
    if any(part.size_bytes < MIN_PART_BYTES for part in parts[:-1]):
        raise S3Error("EntityTooSmall", "every part but the last has at least 5 MiB")
    return parts


def _facts(request: Request, upload: Multipart, parts: list[Part]) -> ObjectFacts:
    plan, checksum = upload.plan, None
    values: list[tuple[bytes, int]] = []
    for part in parts:
        known = part.facts.checksum
        if plan.algorithm and known is not None and known[0] == plan.algorithm:
            digest = checksums.decoded(known[1], checksums.SIZES[plan.algorithm])
            values.append((digest or b"", part.size_bytes))
    if plan.algorithm and len(values) == len(parts):
        value = checksums.combined(plan.algorithm, plan.checksum_type, values)
        checksum = (plan.algorithm, value, plan.checksum_type)
        claimed = request.headers.get(f"x-amz-checksum-{plan.algorithm}")
        if claimed is not None and claimed.partition("-")[0] != value.partition("-")[0]:
            raise S3Error("BadDigest", f"the {plan.algorithm.upper()} you specified did not match what we calculated")
    size = request.headers.get("x-amz-mp-object-size")
    if size is not None and size != str(sum(part.size_bytes for part in parts)):
        raise S3Error("InvalidRequest", "the provided x-amz-mp-object-size does not match the parts")
    return make_facts(
        headers=plan.facts.headers,
        metadata=plan.facts.metadata,
        checksum=checksum,
        part_bytes=tuple(part.size_bytes for part in parts),
        multipart_id=upload.multipart_id,
    )


def _completed(request: Request, version: Version, facts: ObjectFacts, *, versioned: bool) -> Answer:
    writer = Writer("CompleteMultipartUploadResult")
    writer.text("Location", f"/{request.bucket}/{request.name}").text("Bucket", request.bucket)
    writer.text("Key", request.name).text("ETag", f'"{version.etag}"')
    if facts.checksum is not None:
        writer.text(f"Checksum{facts.checksum[0].upper()}", facts.checksum[1])
        writer.text("ChecksumType", facts.checksum[2])
    return xml_answer(writer, headers={"x-amz-version-id": version.version_id} if versioned else None)


async def abort_multipart(gateway: Gateway, request: Request) -> Answer:
    """AbortMultipartUpload."""
    multipart_id, store = upload_id_of(request), gateway.objects.store
    try:
        await gateway.objects.offload(lambda: store.abort_multipart(request.bucket, request.name, multipart_id))
    except MissingError as error:
        raise S3Error("NoSuchUpload", str(error)) from error
    return Answer(204)


# --------------------------------------------------------------------------------------------------------------- lists


async def list_parts(gateway: Gateway, request: Request) -> Answer:
    """ListParts."""
    upload, target = await _upload(gateway, request), request.target
    limit = whole_number(target.get("max-parts"), 1000, "max-parts", most=1000)
    after = whole_number(target.get("part-number-marker"), 0, "part-number-marker", most=MAX_PARTS)
    parts = await gateway.objects.offload(
        lambda: gateway.objects.store.parts(upload.multipart_id, after=after, limit=limit + 1)
    )
    shown = parts[:limit]
    writer = Writer("ListPartsResult").text("Bucket", request.bucket).text("Key", encoder_of(request)(request.name))
    writer.text("UploadId", upload.multipart_id.hex())
    owner(writer, gateway.owner_id, "Initiator")
    owner(writer, gateway.owner_id)
    writer.text("StorageClass", "STANDARD").text("PartNumberMarker", after)
    writer.text("NextPartNumberMarker", shown[-1].number if shown else 0).text("MaxParts", limit)
    writer.text("IsTruncated", bool(limit) and len(parts) > limit)
    if upload.plan.algorithm:
        writer.text("ChecksumAlgorithm", upload.plan.algorithm.upper()).text("ChecksumType", upload.plan.checksum_type)
    for part in shown:
        writer.begin("Part").text("PartNumber", part.number).text("LastModified", iso_time(part.modified_ms))
        writer.text("ETag", f'"{part.etag}"').text("Size", part.size_bytes)
        if part.facts.checksum is not None:
            writer.text(f"Checksum{part.facts.checksum[0].upper()}", part.facts.checksum[1])
        writer.end()
    return xml_answer(writer)


async def list_multiparts(gateway: Gateway, request: Request) -> Answer:
    """ListMultipartUploads."""
    target, write = request.target, encoder_of(request)
    prefix, delimiter = target.get("prefix") or "", target.get("delimiter") or ""
    limit = whole_number(target.get("max-uploads"), MAX_UPLOADS, "max-uploads", most=MAX_UPLOADS)
    marker, id_marker = target.get("key-marker") or "", target.get("upload-id-marker") or ""
    try:
        after_id = bytes.fromhex(id_marker) if marker else b""
    except ValueError:
        raise S3Error("InvalidArgument", "invalid upload-id-marker") from None
    items, prefixes, truncated = await _uploads(gateway, request, prefix, delimiter, marker, after_id, limit)
    writer = Writer("ListMultipartUploadsResult").text("Bucket", request.bucket).text("KeyMarker", write(marker))
    writer.text("UploadIdMarker", id_marker).text("Prefix", write(prefix))
    if delimiter:
        writer.text("Delimiter", write(delimiter))
    writer.text("MaxUploads", limit).text("IsTruncated", truncated)
    if truncated and items and (not prefixes or items[-1].name > prefixes[-1]):
        writer.text("NextKeyMarker", write(items[-1].name)).text("NextUploadIdMarker", items[-1].multipart_id.hex())
    elif truncated and prefixes:
        writer.text("NextKeyMarker", write(prefixes[-1]))
    writer.text("EncodingType", target.get("encoding-type"))
    for item in items:
        writer.begin("Upload").text("Key", write(item.name)).text("UploadId", item.multipart_id.hex())
        owner(writer, gateway.owner_id, "Initiator")
        owner(writer, gateway.owner_id)
        writer.text("StorageClass", "STANDARD").text("Initiated", iso_time(item.started_ms)).end()
    common(writer, tuple(prefixes), write)
    return xml_answer(writer)


async def _uploads(
    gateway: Gateway, request: Request, prefix: str, delimiter: str, marker: str, after_id: bytes, limit: int
) -> tuple[list[Multipart], list[str], bool]:
    store, begun_after = gateway.objects.store, marker
    items: list[Multipart] = []
    prefixes: list[str] = []
    while True:
        page = await gateway.objects.offload(
            lambda marker=marker, after_id=after_id: store.multiparts(  # type: ignore[misc]
                request.bucket, prefix=prefix, after=marker, after_id=after_id, limit=MAX_UPLOADS + 1
            )
        )
        for item in page:
            at = item.name.find(delimiter, len(prefix)) if delimiter else -1
            shared = item.name[: at + len(delimiter)] if at >= 0 else None
            if shared is not None and (shared in prefixes or begun_after.startswith(shared)):
                continue
            if len(items) + len(prefixes) >= limit:
                return items, prefixes, bool(limit)
            if shared is None:
                items.append(item)
            else:
                prefixes.append(shared)
        if len(page) <= MAX_UPLOADS:
            return items, prefixes, False
        marker, after_id = page[-1].name, page[-1].multipart_id
