"""AWS's signature, version 4: who signed this request, and is it this request. Pure.

Every comparison of signatures takes the same time whatever differs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from stook.gateway.s3.errors import S3Error, not_implemented
from stook.gateway.s3.target import Target, uri_encode

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW_MS = 15 * 60_000
MAX_EXPIRES_SECONDS = 604_800
UNSIGNED = "UNSIGNED-PAYLOAD"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_CHUNKS_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
MAX_SIGNED_HEADERS = 64

_DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SPACES = re.compile(r" {2,}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of its own signature."""

    key_id: str
    scope: str
    """``date/region/s3/aws4_request``"""
    signed_headers: tuple[str, ...]
    signature: str
    amz_date: str
    presigned: bool
    expires_seconds: int = 0

    @property
    def day(self) -> str:
        """The date in its scope."""
        return self.scope.partition("/")[0]


class Headers:
    """A request's headers as they were sent: several of one name stay several."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def get(self, name: str) -> str | None:
        """The first value, or None."""
        values = self._values.get(name)
        return None if values is None else values[0]

    def joined(self, name: str) -> str | None:
        """As it is signed: trimmed, spaces in a row as one, several values with commas."""
        values = self._values.get(name)
        if values is None:
            return None
        return ",".join(_SPACES.sub(" ", value.strip()) for value in values)

    def names(self) -> list[str]:
        """All names in lower case."""
        return list(self._values)


def claim_of(target: Target, headers: Headers) -> Claim | None:
    """What the request says of its signature; None for an anonymous one. Raises `S3Error`."""
    authorization = headers.get("authorization")
    in_query = target.has("X-Amz-Algorithm") or target.has("X-Amz-Signature")
    if authorization is not None:
        if in_query:
            raise S3Error("InvalidArgument", "a request is signed in a header or in its query, not in both")
        return _from_header(authorization, headers)
    if in_query:
        return _from_query(target)
    if target.has("Signature") and target.has("AWSAccessKeyId"):
        raise not_implemented("signature version 2")
    return None


def _from_header(text: str, headers: Headers) -> Claim:
    word, _, rest = text.partition(" ")
    if word != ALGORITHM:
        if word.startswith("AWS4-ECDSA"):
            raise not_implemented("signature version 4A")
        if word == "AWS":
            raise not_implemented("signature version 2")
        raise S3Error("InvalidArgument", "unsupported authorization type")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        if name in fields:
            raise S3Error("AuthorizationHeaderMalformed", f"{name} comes twice")
        fields[name] = value.strip()
    if not {"Credential", "SignedHeaders", "Signature"} <= fields.keys():
        raise S3Error("AuthorizationHeaderMalformed", "Credential, SignedHeaders and Signature are needed")
    amz_date = headers.get("x-amz-date") or _from_http_date(headers.get("date"))
    if amz_date is None or not _DATE.fullmatch(amz_date):
        raise S3Error("AccessDenied", "a signed request needs a valid x-amz-date or Date header")
    return _claim(fields["Credential"], fields["SignedHeaders"], fields["Signature"], amz_date, malformed=_IN_HEADER)


def _from_query(target: Target) -> Claim:
    if target.get("X-Amz-Algorithm") != ALGORITHM:
        if (target.get("X-Amz-Algorithm") or "").startswith("AWS4-ECDSA"):
            raise not_implemented("signature version 4A")
        raise S3Error(_IN_QUERY, f"X-Amz-Algorithm must be {ALGORITHM}")
    names = ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date", "X-Amz-Expires")
    values = [target.get(name) for name in names]
    if any(value is None for value in values) or len({n for n, _ in target.query}) != len(target.query):
        raise S3Error(_IN_QUERY, "a presigned URL has each of its X-Amz parameters once")
    credential, signed, signature, amz_date, expires = (value or "" for value in values)
    if not _DATE.fullmatch(amz_date):
        raise S3Error(_IN_QUERY, "X-Amz-Date must be in the ISO 8601 basic format")
    if not re.fullmatch(r"\d{1,7}", expires, re.ASCII) or int(expires) > MAX_EXPIRES_SECONDS:
        raise S3Error(_IN_QUERY, f"X-Amz-Expires must be between 0 and {MAX_EXPIRES_SECONDS}")
    return _claim(credential, signed, signature, amz_date, malformed=_IN_QUERY, expires=int(expires))


_IN_HEADER = "AuthorizationHeaderMalformed"
_IN_QUERY = "AuthorizationQueryParametersError"


def _claim(
    credential: str, signed: str, signature: str, amz_date: str, *, malformed: str, expires: int | None = None
) -> Claim:
    key_id, _, scope = credential.partition("/")
    parts = scope.split("/")
    if len(parts) != 4 or parts[2] != "s3" or parts[3] != "aws4_request" or parts[0] != amz_date[:8]:
        raise S3Error(malformed, "the credential must be KEY/DATE/REGION/s3/aws4_request, of the date of the request")
    names = tuple(signed.split(";"))
    if list(names) != sorted(set(names)) or len(names) > MAX_SIGNED_HEADERS or "host" not in names:
        raise S3Error(malformed, "SignedHeaders must be in order, each once, host among them")
    if not _HEX64.fullmatch(signature):
        raise S3Error("SignatureDoesNotMatch", "a signature has 64 hexadecimal digits")
    if not 1 <= len(key_id) <= 128:
        raise S3Error("InvalidAccessKeyId", "there is no such access key")
    return Claim(key_id, scope, names, signature, amz_date, expires is not None, expires or 0)


def _from_http_date(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        when = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT")
    except ValueError:
        return text
    return when.strftime("%Y%m%dT%H%M%SZ")


def time_of(amz_date: str) -> int:
    """Milliseconds since 1970. Raises `S3Error` for a day that never was."""
    try:
        return int(datetime.strptime(amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise S3Error("AccessDenied", "the date of the request is none") from None


def check_time(claim: Claim, now_ms: int) -> None:
    """Raises `S3Error` unless the request is of now, or its presigned URL has begun and not expired."""
    signed_ms = time_of(claim.amz_date)
    if not claim.presigned:
        if abs(now_ms - signed_ms) > MAX_SKEW_MS:
            raise S3Error("RequestTimeTooSkewed", "the request's time and the gateway's differ by more than 15 minutes")
        return
    if signed_ms - now_ms > MAX_SKEW_MS:
        raise S3Error("AccessDenied", "the request is not valid yet")
    if now_ms >= signed_ms + claim.expires_seconds * 1000:
        raise S3Error("AccessDenied", "the request has expired")


def signing_key(secret: str, scope: str) -> bytes:
    """The key for one day, region and service."""
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode("utf-8", "surrogateescape"), "sha256")
    return key


def canonical_request(method: str, target: Target, headers: Headers, claim: Claim, payload_hash: str) -> bytes:
    """The text that is signed. Raises `S3Error` when a signed header is missing."""
    pairs = sorted(
        (uri_encode(name), uri_encode(value))
        for name, value in target.query
        if not (claim.presigned and name == b"X-Amz-Signature")
    )
    lines = []
    for name in claim.signed_headers:
        value = headers.joined(name)
        if value is None:
            raise S3Error("AccessDenied", f"the signed header {name} is missing")
        lines.append(f"{name}:{value}\n")
    text = "\n".join(
        (
            method,
            uri_encode(target.path, keep_slash=True),
            "&".join(f"{name}={value}" for name, value in pairs),
            "".join(lines),
            ";".join(claim.signed_headers),
            payload_hash,
        )
    )
    return text.encode("utf-8", "surrogateescape")


def string_to_sign(claim: Claim, canonical: bytes) -> bytes:
    """What the signing key signs."""
    text = f"{ALGORITHM}\n{claim.amz_date}\n{claim.scope}\n{hashlib.sha256(canonical).hexdigest()}"
    return text.encode("utf-8", "surrogateescape")


def sign(key: bytes, text: bytes) -> str:
    """A signature in hex."""
    return hmac.digest(key, text, "sha256").hex()


def check_signature(
    method: str, target: Target, headers: Headers, claim: Claim, secret: str, payload_hash: str
) -> bytes:
    """The signing key. Raises `S3Error` when the signature is not of this request and this secret."""
    unsigned = [name for name in headers.names() if name.startswith("x-amz-") and name not in claim.signed_headers]
    if unsigned and not claim.presigned:
        raise S3Error("AccessDenied", f"there were headers which were not signed: {', '.join(sorted(unsigned)[:5])}")
    if claim.presigned and not _HARMLESS.issuperset(unsigned):
        raise S3Error("AccessDenied", f"there were headers which were not signed: {', '.join(sorted(unsigned)[:5])}")
    key = signing_key(secret, claim.scope)
    wanted = sign(key, string_to_sign(claim, canonical_request(method, target, headers, claim, payload_hash)))
    if not hmac.compare_digest(wanted, claim.signature):
        raise S3Error(
            "SignatureDoesNotMatch",
            "the signature we calculated does not match the one you sent: check key, secret and signing method",
        )
    return key


_HARMLESS = frozenset({"x-amz-content-sha256", "x-amz-date", "x-amz-user-agent"})


@dataclass(slots=True)
class ChunkSigner:
    """The chain of signatures over a body in signed chunks."""

    key: bytes
    amz_date: str
    scope: str
    previous: str

    def check_chunk(self, digest: str, signature: str) -> None:
        """Raises `S3Error` unless `signature` is of the next chunk, whose SHA-256 is `digest`."""
        text = f"{ALGORITHM}-PAYLOAD\n{self.amz_date}\n{self.scope}\n{self.previous}\n{EMPTY_SHA256}\n{digest}"
        self._check(text, signature)

    def check_trailer(self, trailer: bytes, signature: str) -> None:
        """Raises `S3Error` unless `signature` is of the trailing headers."""
        digest = hashlib.sha256(trailer).hexdigest()
        self._check(f"{ALGORITHM}-TRAILER\n{self.amz_date}\n{self.scope}\n{self.previous}\n{digest}", signature)

    def _check(self, text: str, signature: str) -> None:
        wanted = sign(self.key, text.encode("utf-8", "surrogateescape"))
        if not hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "surrogateescape")):
            raise S3Error("SignatureDoesNotMatch", "the signature of a chunk is not what it should be")
        self.previous = wanted


def payload_hash_of(headers: Headers, claim: Claim) -> str:
    """What stands for the body in the signed text. Raises `S3Error` for what nobody knows."""
    value = headers.get("x-amz-content-sha256")
    if value is None:
        if claim.presigned:
            return UNSIGNED
        raise S3Error("InvalidRequest", "a signed request needs the header x-amz-content-sha256")
    if claim.presigned and "x-amz-content-sha256" not in claim.signed_headers and value == EMPTY_SHA256:
        return UNSIGNED
    if value in (UNSIGNED, SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_CHUNKS_TRAILER) or _HEX64.fullmatch(value):
        return value
    if value.startswith("STREAMING-AWS4-ECDSA"):
        raise not_implemented("signature version 4A")
    raise S3Error("InvalidArgument", "x-amz-content-sha256 must be a SHA-256 in hex or one of the names of body forms")
