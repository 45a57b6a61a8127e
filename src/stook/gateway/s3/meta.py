"""Headers that belong to an object: taken from a request, given back with an answer. Pure."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import decode_header
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import parse_qsl, quote

from stook.gateway.s3.errors import S3Error, not_implemented
from stook.gateway.s3.sigv4 import Headers
from stook.gateway.s3.xml import LAST_TIME_MS, iso_time, parse_time
from stook.storage.s3_ports import Conditions, Lock, ObjectFacts, Pairs, Retention, StoredObject, Version, make_facts

MAX_METADATA_BYTES = 2048
MAX_TAGS = 10
MAX_BUCKET_TAGS = 50
KEPT = ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires")
DEFAULT_TYPE = "binary/octet-stream"
_META = "x-amz-meta-"


def check_ignored(headers: Headers) -> None:
    """Headers that ask for what we do otherwise or not at all. Raises `S3Error` where ignoring them would be a lie."""
    acl = headers.get("x-amz-acl")
    if acl not in (None, "private", "bucket-owner-full-control", "bucket-owner-read"):
        raise not_implemented(f"canned ACL {acl!r} (a bucket policy makes a bucket public)")
    for name in headers.names():
        if name.startswith("x-amz-grant-"):
            raise not_implemented("grants in ACLs")
        if name.startswith("x-amz-server-side-encryption-customer"):
            raise not_implemented("encryption with customer keys (everything is encrypted with yours already)")
    if headers.get("x-amz-server-side-encryption") not in (None, "AES256"):
        raise not_implemented("encryption with KMS (everything is encrypted with your own keys already)")
    if headers.get("x-amz-website-redirect-location") is not None:
        raise not_implemented("website redirects")


def facts_of(headers: Headers) -> ObjectFacts:
    """What a request says of the object it makes. Raises `S3Error`."""
    kept = {name: headers.get(name) for name in KEPT}
    encoding = kept["content-encoding"]
    if encoding is not None:
        # Some clients announce the framing of the body there; it is none of the object's.
        parts = [part.strip() for part in encoding.split(",")]
        kept["content-encoding"] = ", ".join(part for part in parts if part and part != "aws-chunked") or None
    kept["content-type"] = kept["content-type"] or DEFAULT_TYPE
    pairs = tuple((name, _clean(value)) for name, value in sorted(kept.items()) if value is not None)
    return make_facts(headers=pairs, metadata=metadata_of(headers))


def metadata_of(headers: Headers) -> Pairs:
    """The user's metadata. Raises `S3Error` beyond 2 KiB."""
    pairs = tuple(
        (name.removeprefix(_META), _clean(headers.joined(name) or ""))
        for name in sorted(headers.names())
        if name.startswith(_META)
    )
    size = sum(len(name.encode()) + len(value.encode()) for name, value in pairs)
    if size > MAX_METADATA_BYTES:
        raise S3Error("MetadataTooLarge", f"user metadata has at most {MAX_METADATA_BYTES} bytes")
    return pairs


def _clean(text: str) -> str:
    """Header values as text: UTF-8 where it is, RFC 2047 undone, what is neither replaced."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if text.startswith("=?") and text.endswith("?="):
        try:
            text = "".join(
                part.decode(charset or "ascii") if isinstance(part, bytes) else part
                for part, charset in decode_header(text)
            )
        except (UnicodeError, LookupError, ValueError, MessageError):
            return text
    return text.encode("utf-8", "replace").decode()  # some character sets can say half of a surrogate pair


def wire_value(text: str) -> str:
    """A value as a header may carry it: RFC 2047 for what is no printable ASCII."""
    if text.isascii() and text.isprintable():
        return text
    return f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="


def tags_of(text: str | None) -> Pairs:
    """Tags as ``x-amz-tagging`` carries them. Raises `S3Error`."""
    if not text:
        return ()
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_TAGS + 1)
    except ValueError:
        raise S3Error("InvalidArgument", "x-amz-tagging must be a list of tags encoded like a query") from None
    return checked_tags(pairs, MAX_TAGS)


def checked_tags(pairs: list[tuple[str, str]], most: int) -> Pairs:
    """Tags in order. Raises `S3Error`."""
    if len(pairs) > most:
        raise S3Error("InvalidTag", f"there are at most {most} tags")
    if len({key for key, _ in pairs}) != len(pairs):
        raise S3Error("InvalidTag", "a tag's key comes once")
    if any(not 1 <= len(key) <= 128 or len(value) > 256 or key.startswith("aws:") for key, value in pairs):
        raise S3Error("InvalidTag", "a tag has a key of 1 to 128 characters and a value of at most 256")
    if any("\ufffd" in text or any("\ud800" <= char <= "\udfff" for char in text) for pair in pairs for text in pair):
        raise S3Error("InvalidTag", "a tag is no UTF-8")
    return tuple(sorted(pairs))


def tag_header(tags: Pairs) -> str:
    """Tags as ``x-amz-tagging`` carries them."""
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in tags)


def lock_of(headers: Headers, default: Lock, now_ms: int) -> Lock:
    """The lock that a request wants for its object, or the bucket's default. Raises `S3Error`."""
    mode, until = headers.get("x-amz-object-lock-mode"), headers.get("x-amz-object-lock-retain-until-date")
    hold = headers.get("x-amz-object-lock-legal-hold")
    if hold not in (None, "ON", "OFF"):
        raise S3Error("InvalidArgument", "a legal hold is ON or OFF")
    if (mode is None) != (until is None):
        raise S3Error("InvalidArgument", "a retention needs its mode and its date")
    if mode is None or until is None:
        return Lock(default.retention, default.until_ms, hold == "ON")
    until_ms = parse_time(until)
    return Lock(retention_named(mode), future(until_ms, now_ms), hold == "ON")


def retention_named(mode: str | None) -> Retention:
    """Raises `S3Error`."""
    if mode not in ("GOVERNANCE", "COMPLIANCE"):
        raise S3Error("MalformedXML", "a retention's mode is GOVERNANCE or COMPLIANCE")
    return Retention[mode]


def future(until_ms: int | None, now_ms: int) -> int:
    """A date to come. Raises `S3Error`."""
    if until_ms is None or until_ms <= now_ms:
        raise S3Error("InvalidArgument", "the retain until date must be in the future")
    if until_ms > LAST_TIME_MS:  # in UTC it is a year later than where it was written
        raise S3Error("InvalidArgument", "the retain until date must be before the year 10000 in UTC")
    return until_ms


def conditions_of(headers: Headers) -> Conditions:
    """Conditions of a write. Raises `S3Error`."""
    match, none = headers.get("if-match"), headers.get("if-none-match")
    if none is not None and none.strip() != "*":
        raise not_implemented("If-None-Match other than * on writes")
    if match is not None and none is not None:
        raise not_implemented("If-Match and If-None-Match together on writes")
    return Conditions(bare_etag(match or ""), "*" if none is not None else "")


def bare_etag(text: str) -> str:
    """An entity tag without quotes."""
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text


def http_date(at_ms: int) -> str:
    """A time as headers say it."""
    return format_datetime(datetime.fromtimestamp(at_ms // 1000, UTC), usegmt=True)


def parse_http_date(text: str) -> int | None:
    """Seconds since 1970, or None for what is no date."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def check_read(headers: Headers, version: Version, prefix: str = "") -> bool:
    """Whether to answer with the object; False means 304. Raises `S3Error` (412).

    `prefix` is ``x-amz-copy-source-`` for the source of a copy. Entity tags win over dates.
    """
    match, none = headers.get(f"{prefix}if-match"), headers.get(f"{prefix}if-none-match")
    since, unmodified = headers.get(f"{prefix}if-modified-since"), headers.get(f"{prefix}if-unmodified-since")
    failed = S3Error("PreconditionFailed", "at least one of the preconditions you specified did not hold")
    if match is not None:
        if not _matches(match, version.etag):
            raise failed
    elif _is_later(version, unmodified):
        raise failed
    changed = True
    if none is not None:
        changed = not _matches(none, version.etag)
    elif since is not None:
        changed = _is_later(version, since, no_date=True)
    if not changed and prefix:
        raise failed
    return changed


def _is_later(version: Version, text: str | None, *, no_date: bool = False) -> bool:
    """Whether it is newer than a date in a header; what is no date restricts nothing."""
    limit = None if text is None else parse_http_date(text)
    return no_date if limit is None else version.modified_ms // 1000 > limit


def _matches(wanted: str, etag: str) -> bool:
    return any(each.strip() == "*" or bare_etag(each.strip().removeprefix("W/")) == etag for each in wanted.split(","))


def object_headers(found: StoredObject, *, versioned: bool, checksums: bool) -> dict[str, str]:
    """The headers of a GET or HEAD, but for lengths."""
    facts, version = found.facts, found.version
    headers = {name.title(): wire_value(value) for name, value in facts.headers}
    headers.setdefault("Content-Type", DEFAULT_TYPE)
    headers |= {_META + name: wire_value(value) for name, value in facts.metadata}
    headers["ETag"] = f'"{version.etag}"'
    headers["Last-Modified"] = http_date(version.modified_ms)
    headers["Accept-Ranges"] = "bytes"
    if versioned:
        headers["x-amz-version-id"] = version.version_id
    if found.tags:
        headers["x-amz-tagging-count"] = str(len(found.tags))
    headers |= lock_headers(found.lock)
    if checksums and facts.checksum is not None:
        algorithm, value, kind = facts.checksum
        headers[f"x-amz-checksum-{algorithm}"] = value
        headers["x-amz-checksum-type"] = kind
    return headers


def lock_headers(lock: Lock) -> dict[str, str]:
    """A version's lock, where it has one."""
    headers = {}
    if lock.retention is not Retention.NONE:
        headers["x-amz-object-lock-mode"] = lock.retention.name
        headers["x-amz-object-lock-retain-until-date"] = iso_time(lock.until_ms)
    if lock.legal_hold:
        headers["x-amz-object-lock-legal-hold"] = "ON"
    return headers


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Begin and end of the bytes wanted; None for all. Raises `S3Error` (416). Several ranges are ignored, as by S3."""
    if text is None or not text.startswith("bytes="):
        return None
    spec = text.removeprefix("bytes=").strip()
    first, dash, last = spec.partition("-")
    first, last = first.strip(), last.strip()
    if not dash or any(part and not (part.isascii() and part.isdigit() and len(part) < 20) for part in (first, last)):
        return None
    unsatisfiable = S3Error(
        "InvalidRange", "the requested range is not satisfiable", headers={"Content-Range": f"bytes */{size}"}
    )
    if not first:
        if not last:
            return None
        if int(last) == 0 or not size:
            raise unsatisfiable
        return max(0, size - int(last)), size
    begin = int(first)
    if last and int(last) < begin:
        return None
    if begin >= size:
        raise unsatisfiable
    return begin, min(int(last) + 1, size) if last else size
