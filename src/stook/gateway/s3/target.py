"""What a request line asks for: bucket, key, and query, taken from the raw target and never normalised. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from stook.gateway.s3.errors import S3Error

MAX_KEY_BYTES = 1024
MAX_PARAMETERS = 64

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_CODED = [chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in range(256)]


def uri_encode(data: bytes, *, keep_slash: bool = False) -> str:
    """AWS's own percent-encoding: everything but letters, digits and ``-_.~``."""
    text = "".join([_CODED[byte] for byte in data])
    return text.replace("%2F", "/") if keep_slash else text


@dataclass(frozen=True, slots=True)
class Target:
    """A request line, taken apart."""

    path: bytes
    """The path as it was sent, percent-decoded once."""
    query: tuple[tuple[bytes, bytes], ...]
    """Decoded pairs in the order they came; a bare name has an empty value."""
    bucket: str
    key: str

    def get(self, name: str) -> str | None:
        """The first value of a parameter. Raises `S3Error` when it is no text."""
        wanted = name.encode()
        for each, value in self.query:
            if each == wanted:
                return _text(value, name)
        return None

    def has(self, name: str) -> bool:
        """Whether the parameter is there at all."""
        wanted = name.encode()
        return any(each == wanted for each, _ in self.query)


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidArgument", f"{what} is no UTF-8") from None


def parse_target(raw: str, host: str, domains: tuple[str, ...]) -> Target:
    """Take ``/bucket/key?query`` apart, or ``/key?query`` where the host is ``bucket.domain``. Raises `S3Error`."""
    if not raw.startswith("/"):  # absolute form, as proxies send it
        scheme, mark, after = raw.partition("://")
        if not mark or scheme.lower() not in ("http", "https"):
            raise S3Error("InvalidURI", "the request target is no path")
        raw = "/" + after.partition("/")[2]
    raw_path, _, raw_query = raw.partition("?")
    path = unquote_to_bytes(raw_path.encode("utf-8", "surrogateescape"))
    pairs = [each for each in raw_query.split("&") if each] if raw_query else []
    if len(pairs) > MAX_PARAMETERS:
        raise S3Error("InvalidURI", "too many query parameters")
    query = []
    for each in pairs:
        name, _, value = each.partition("=")
        query.append((_decode(name), _decode(value)))
    bucket = bucket_of_host(host, domains)
    rest = path[1:]
    if bucket is None:
        first, _, rest = rest.partition(b"/")
        try:
            bucket = first.decode()
        except UnicodeDecodeError:
            raise S3Error("InvalidBucketName", "a bucket's name is no UTF-8") from None
    if len(rest) > MAX_KEY_BYTES:
        raise S3Error("KeyTooLongError", f"a key has at most {MAX_KEY_BYTES} bytes")
    try:
        key = rest.decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "a key is UTF-8") from None
    return Target(path, tuple(query), bucket, key)


def _decode(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape"))


def bucket_of_host(host: str, domains: tuple[str, ...]) -> str | None:
    """The bucket that a ``Host`` header names, or None for path style."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.lower().rstrip(".")
    for domain in domains:
        if name.endswith("." + domain) and len(name) > len(domain) + 1:
            return name[: -len(domain) - 1]
    return None
