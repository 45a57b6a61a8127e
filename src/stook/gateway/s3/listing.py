"""ListObjects, ListObjectsV2, ListObjectVersions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.request import Answer, Gateway, Request, whole_number, xml_answer
from stook.gateway.s3.target import uri_encode
from stook.gateway.s3.xml import Writer, iso_time
from stook.storage.s3_ports import Page, Version, is_version_id, version_id_of, version_of_id

MAX_KEYS = 1000


def encoder_of(request: Request) -> Callable[[str], str]:
    """How names are written: percent-encoded where the client asked for it. Raises `S3Error`."""
    encoding = request.target.get("encoding-type")
    if encoding is None:
        return lambda text: text
    if encoding != "url":
        raise S3Error("InvalidArgument", "the only encoding-type is url")
    return lambda text: uri_encode(text.encode(), keep_slash=True)


async def list_objects(gateway: Gateway, request: Request) -> Answer:
    """ListObjects, version 1."""
    target, write = request.target, encoder_of(request)
    prefix, delimiter = target.get("prefix") or "", target.get("delimiter") or ""
    marker = target.get("marker") or ""
    limit = whole_number(target.get("max-keys"), MAX_KEYS, "max-keys", most=MAX_KEYS)
    page = await _page(gateway, request, prefix, delimiter, marker, limit)
    writer = Writer("ListBucketResult")
    writer.text("Name", request.bucket).text("Prefix", write(prefix)).text("Marker", write(marker))
    writer.text("MaxKeys", limit)
    if delimiter:
        writer.text("Delimiter", write(delimiter))
    writer.text("IsTruncated", page.truncated)
    if page.truncated and delimiter:
        writer.text("NextMarker", write(page.last_name))
    writer.text("EncodingType", target.get("encoding-type"))
    _contents(writer, page, write, gateway.owner_id)
    return xml_answer(writer)


async def list_objects_v2(gateway: Gateway, request: Request) -> Answer:
    """ListObjectsV2."""
    target, write = request.target, encoder_of(request)
    prefix, delimiter = target.get("prefix") or "", target.get("delimiter") or ""
    start, token = target.get("start-after"), target.get("continuation-token")
    limit = whole_number(target.get("max-keys"), MAX_KEYS, "max-keys", most=MAX_KEYS)
    after = (start or "") if token is None else _from_token(token)
    page = await _page(gateway, request, prefix, delimiter, after, limit)
    writer = Writer("ListBucketResult")
    writer.text("Name", request.bucket).text("Prefix", write(prefix)).text("MaxKeys", limit)
    if delimiter:
        writer.text("Delimiter", write(delimiter))
    writer.text("KeyCount", len(page.items) + len(page.prefixes)).text("IsTruncated", page.truncated)
    writer.text("ContinuationToken", token)
    if start is not None:
        writer.text("StartAfter", write(start))
    if page.truncated:
        writer.text("NextContinuationToken", to_token(page.last_name))
    writer.text("EncodingType", target.get("encoding-type"))
    _contents(writer, page, write, gateway.owner_id if target.get("fetch-owner") == "true" else None)
    return xml_answer(writer)


async def _page(gateway: Gateway, request: Request, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    store = gateway.objects.store
    return await gateway.objects.offload(
        lambda: store.list_names(request.bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
    )


def to_token(name: str) -> str:
    """A continuation token."""
    return base64.urlsafe_b64encode(b"1" + name.encode()).decode()


def _from_token(token: str) -> str:
    try:
        data = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        if data[:1] != b"1":
            raise ValueError
        return data[1:].decode()
    except (binascii.Error, ValueError):
        raise S3Error("InvalidArgument", "the continuation token provided is incorrect") from None


def _contents(writer: Writer, page: Page, write: Callable[[str], str], owner_id: str | None) -> None:
    for item in page.items:
        writer.begin("Contents").text("Key", write(item.name))
        _facts(writer, item)
        if owner_id is not None:
            owner(writer, owner_id)
        writer.end()
    common(writer, page.prefixes, write)


def _facts(writer: Writer, item: Version) -> None:
    writer.text("LastModified", iso_time(item.modified_ms)).text("ETag", f'"{item.etag}"')
    writer.text("Size", item.size_bytes).text("StorageClass", "STANDARD")


def owner(writer: Writer, owner_id: str, name: str = "Owner") -> None:
    """Who owns it: everything here is one person's."""
    writer.begin(name).text("ID", owner_id).text("DisplayName", "owner").end()


def common(writer: Writer, prefixes: tuple[str, ...], write: Callable[[str], str]) -> None:
    """Common prefixes."""
    for prefix in prefixes:
        writer.begin("CommonPrefixes").text("Prefix", write(prefix)).end()


async def list_versions(gateway: Gateway, request: Request) -> Answer:
    """ListObjectVersions."""
    target, write = request.target, encoder_of(request)
    prefix, delimiter = target.get("prefix") or "", target.get("delimiter") or ""
    marker, version_marker = target.get("key-marker") or "", target.get("version-id-marker") or ""
    limit = whole_number(target.get("max-keys"), MAX_KEYS, "max-keys", most=MAX_KEYS)
    after_version = 0
    if version_marker:
        if not marker:
            raise S3Error("InvalidArgument", "a version-id marker cannot be specified without a key marker")
        after_version = await _version_number(gateway, request, marker, version_marker)
    store = gateway.objects.store
    page = await gateway.objects.offload(
        lambda: store.list_versions(
            request.bucket,
            prefix=prefix,
            delimiter=delimiter,
            after=marker,
            after_version=after_version,
            limit=limit,
        )
    )
    writer = Writer("ListVersionsResult")
    writer.text("Name", request.bucket).text("Prefix", write(prefix)).text("KeyMarker", write(marker))
    writer.text("VersionIdMarker", version_marker).text("MaxKeys", limit)
    if delimiter:
        writer.text("Delimiter", write(delimiter))
    writer.text("IsTruncated", page.truncated)
    if page.truncated:
        writer.text("NextKeyMarker", write(page.last_name))
        if page.items and page.last_version:
            # The number also where clients say ``null``: the page goes on behind it though it is deleted meanwhile.
            writer.text("NextVersionIdMarker", version_id_of(page.last_version, True))
    writer.text("EncodingType", target.get("encoding-type"))
    for item in page.items:
        writer.begin("DeleteMarker" if item.marker else "Version").text("Key", write(item.name))
        writer.text("VersionId", item.version_id).text("IsLatest", item.latest)
        if item.marker:
            writer.text("LastModified", iso_time(item.modified_ms))
        else:
            _facts(writer, item)
        owner(writer, gateway.owner_id)
        writer.end()
    common(writer, page.prefixes, write)
    return xml_answer(writer)


async def _version_number(gateway: Gateway, request: Request, name: str, version_id: str) -> int:
    if not is_version_id(version_id):
        raise S3Error("InvalidArgument", "invalid version id specified")
    number = version_of_id(version_id)
    if number is not None:
        return number
    found = await gateway.objects.find(request.bucket, name, version_id)
    if found is None:
        return 0
    return found.version if isinstance(found, Version) else found.version.version
