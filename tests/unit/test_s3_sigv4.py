"""Signatures against the examples that AWS published, and what must not pass."""

from __future__ import annotations

import hashlib

import pytest

from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.framing import Deframer
from stook.gateway.s3.sigv4 import (
    EMPTY_SHA256,
    SIGNED_CHUNKS,
    UNSIGNED,
    ChunkSigner,
    Headers,
    check_signature,
    check_time,
    claim_of,
    payload_hash_of,
    signing_key,
    time_of,
)
from stook.gateway.s3.target import bucket_of_host, parse_target, uri_encode

# From the signature documentation of Amazon S3.
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SCOPE = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
HOST = "examplebucket.s3.amazonaws.com"
GET_OBJECT = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
PRESIGNED = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
CHUNKS = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
NOW_MS = time_of("20130524T000000Z")


def authorization(signed: str, signature: str) -> str:
    return f"AWS4-HMAC-SHA256 Credential={SCOPE},SignedHeaders={signed},Signature={signature}"


def get_object(signature: str = GET_OBJECT, **changed: str) -> None:
    pairs = {
        "Host": HOST,
        "Authorization": authorization("host;range;x-amz-content-sha256;x-amz-date", signature),
        "Range": "bytes=0-9",
        "x-amz-content-sha256": EMPTY_SHA256,
        "x-amz-date": "20130524T000000Z",
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    headers, target = Headers(list(pairs.items())), parse_target("/test.txt", HOST, ("s3.amazonaws.com",))
    claim = claim_of(target, headers)
    assert claim is not None
    check_signature("GET", target, headers, claim, SECRET, payload_hash_of(headers, claim))


def test_the_published_get_object() -> None:
    get_object()


@pytest.mark.parametrize(
    "change",
    [
        {"signature": GET_OBJECT[:-1] + "0"},
        {"Range": "bytes=0-8"},
        {"Host": "otherbucket.s3.amazonaws.com"},
        {"x-amz-content-sha256": hashlib.sha256(b"x").hexdigest()},
    ],
)
def test_any_change_is_seen(change: dict[str, str]) -> None:
    with pytest.raises(S3Error, match="does not match"):
        get_object(**change)


def test_every_amz_header_is_signed() -> None:
    with pytest.raises(S3Error, match="not signed"):
        get_object(x_amz_acl="private")


def test_the_published_presigned_address() -> None:
    raw = (
        f"/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={SCOPE.replace('/', '%2F')}"
        f"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature={PRESIGNED}"
    )
    headers, target = Headers([("Host", HOST)]), parse_target(raw, HOST, ("s3.amazonaws.com",))
    claim = claim_of(target, headers)
    assert claim is not None
    assert payload_hash_of(headers, claim) == UNSIGNED
    check_signature("GET", target, headers, claim, SECRET, UNSIGNED)
    with pytest.raises(S3Error, match="does not match"):
        check_signature("PUT", target, headers, claim, SECRET, UNSIGNED)
    check_time(claim, NOW_MS + 86_399_999)
    with pytest.raises(S3Error, match="expired"):
        check_time(claim, NOW_MS + 86_400_000)
    with pytest.raises(S3Error, match="not valid yet"):
        check_time(claim, NOW_MS - 16 * 60_000)


def chunked_headers() -> Headers:
    signed = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;"
    signed += "x-amz-decoded-content-length;x-amz-storage-class"
    return Headers(
        [
            ("Host", "s3.amazonaws.com"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("Authorization", authorization(signed, SEED)),
            ("x-amz-content-sha256", SIGNED_CHUNKS),
            ("Content-Encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("Content-Length", "66824"),
        ]
    )


def chunked_body() -> bytes:
    parts = (b"a" * 65536, b"a" * 1024, b"")
    frames = [
        b"%x;chunk-signature=%s\r\n%s\r\n" % (len(part), signature.encode(), part)
        for part, signature in zip(parts, CHUNKS, strict=True)
    ]
    return b"".join(frames)


def test_the_published_chunks() -> None:
    headers, target = chunked_headers(), parse_target("/examplebucket/chunkObject.txt", "s3.amazonaws.com", ())
    claim = claim_of(target, headers)
    assert claim is not None
    key = check_signature("PUT", target, headers, claim, SECRET, payload_hash_of(headers, claim))
    assert key == signing_key(SECRET, claim.scope)
    body = chunked_body()
    assert len(body) == 66824
    for size in (1, 7, 1000, len(body)):
        deframer = Deframer(signer=ChunkSigner(key, claim.amz_date, claim.scope, claim.signature), trailing=False)
        payload = b"".join(
            bytes(part) for at in range(0, len(body), size) for part in deframer.feed(body[at : at + size])
        )
        deframer.end()
        assert payload == b"a" * 66560


def test_a_changed_byte_in_a_chunk_is_seen() -> None:
    key = signing_key(SECRET, SCOPE.partition("/")[2])
    body = bytearray(chunked_body())
    body[30_000] = ord("b")
    deframer = Deframer(signer=ChunkSigner(key, "20130524T000000Z", SCOPE.partition("/")[2], SEED), trailing=False)
    with pytest.raises(S3Error, match="signature of a chunk"):
        deframer.feed(bytes(body))


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": "Basic x"}, "InvalidArgument"),
        ({"Authorization": "AWS k:s"}, "NotImplemented"),
        ({"Authorization": "AWS4-HMAC-SHA256 nothing"}, "AuthorizationHeaderMalformed"),
        ({"Authorization": authorization("host", "g" * 64), "x-amz-date": "20130524T000000Z"}, "SignatureDoesNotMatch"),
        (
            {"Authorization": authorization("range;host", GET_OBJECT), "x-amz-date": "20130524T000000Z"},
            "AuthorizationHeaderMalformed",
        ),
        ({"Authorization": authorization("host", GET_OBJECT)}, "AccessDenied"),
        (
            {"Authorization": authorization("host", GET_OBJECT), "x-amz-date": "20130525T000000Z"},
            "AuthorizationHeaderMalformed",
        ),
    ],
)
def test_malformed_claims(headers: dict[str, str], code: str) -> None:
    with pytest.raises(S3Error) as raised:
        claim_of(parse_target("/b/k", "h", ()), Headers(list(headers.items())))
    assert raised.value.code == code


@pytest.mark.parametrize("expires", ["-1", "604801", "x", "9999999999"])
def test_presigned_for_too_long(expires: str) -> None:
    raw = (
        f"/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={SCOPE}&X-Amz-Date=20130524T000000Z"
        f"&X-Amz-Expires={expires}&X-Amz-SignedHeaders=host&X-Amz-Signature={PRESIGNED}"
    )
    with pytest.raises(S3Error) as raised:
        claim_of(parse_target(raw, "h", ()), Headers([]))
    assert raised.value.code == "AuthorizationQueryParametersError"


# -- the request line


def test_paths_are_never_normalised() -> None:
    for raw, key in (
        ("/b/a//b", "a//b"),
        ("/b/./a/../b", "./a/../b"),
        ("/b//a", "/a"),
        ("/b/a/", "a/"),
        ("/b/a+b%20c%2Bd", "a+b c+d"),
        ("/b/%C3%BC", "ü"),
        ("http://h:9/b/k", "k"),
    ):
        target = parse_target(raw, "h", ())
        assert (target.bucket, target.key) == ("b", key)


def test_queries_keep_order_and_bare_names() -> None:
    target = parse_target("/b?uploads&prefix=a+b%2Fc&x=", "h", ())
    assert target.query == ((b"uploads", b""), (b"prefix", b"a b/c"), (b"x", b""))
    assert target.has("uploads")
    assert target.get("prefix") == "a b/c"


def test_key_lengths_are_bytes() -> None:
    assert len(parse_target("/b/" + "%C3%BC" * 512, "h", ()).key) == 512
    with pytest.raises(S3Error) as raised:
        parse_target("/b/" + "%C3%BC" * 512 + "a", "h", ())
    assert raised.value.code == "KeyTooLongError"
    with pytest.raises(S3Error):
        parse_target("/b/%FF", "h", ())


def test_hosts_that_name_a_bucket() -> None:
    assert bucket_of_host("photos.localhost:9000", ("localhost",)) == "photos"
    assert bucket_of_host("a.b.S3.Example", ("s3.example",)) == "a.b"
    for host in ("localhost:9000", "127.0.0.1:9000", "[::1]:9000", "notlocalhost", ".localhost", ""):
        assert bucket_of_host(host, ("localhost",)) is None, host


def test_uri_encoding() -> None:
    assert uri_encode("a b/ü~+*".encode()) == "a%20b%2F%C3%BC~%2B%2A"
    assert uri_encode(b"a/b", keep_slash=True) == "a/b"
