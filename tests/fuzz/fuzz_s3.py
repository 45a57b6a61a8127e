"""Targets: what a client of the S3 gateway can send before anybody knows who it is, and after."""

from __future__ import annotations

from fuzz_base import target
from stook.gateway.s3 import meta
from stook.gateway.s3.body import promise_of
from stook.gateway.s3.buckets import check_bucket_name
from stook.gateway.s3.checksums import check_type
from stook.gateway.s3.cors import parse_cors
from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.framing import Deframer
from stook.gateway.s3.lifecycle import parse_rules
from stook.gateway.s3.objects import check_key
from stook.gateway.s3.policy import parse_policy
from stook.gateway.s3.sigv4 import (
    UNSIGNED_CHUNKS_TRAILER,
    ChunkSigner,
    Headers,
    check_signature,
    check_time,
    claim_of,
    payload_hash_of,
)
from stook.gateway.s3.target import parse_target
from stook.gateway.s3.xml import Writer, parse
from stook.storage.s3_ports import Standing, Version

VERSION = Version("k", 1, "null", Standing.CURRENT, True, 5, 1_369_353_600_000, bytes(32), "e")
HEAD = (
    b"/photos/a%20b?prefix=x\nhost: photos.localhost\nx-amz-date: 20130524T000000Z\n"
    b"x-amz-content-sha256: UNSIGNED-PAYLOAD\n"
    b"authorization: AWS4-HMAC-SHA256 Credential=AK/20130524/r/s3/aws4_request,SignedHeaders=host,Signature="
    + b"0"
    * 64
)
PRESIGNED = (
    b"/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20130524%2Fr%2Fs3%2Faws4_request"
    b"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature="
    + b"0" * 64
    + b"\nhost: b"
)
BODY = (
    b"/b/k\ncontent-length: 5\nx-amz-decoded-content-length: 5\nx-amz-trailer: x-amz-checksum-crc32\nrange: bytes=1-2\n"
    b'content-md5: AAAAAAAAAAAAAAAAAAAAAA==\nx-amz-tagging: a=1\nx-amz-object-lock-mode: COMPLIANCE\nif-match: "e"\n'
    b"x-amz-object-lock-retain-until-date: 2030-01-01T00:00:00Z\nx-amz-meta-a: =?utf-8?b?YQ==?="
)


@target(
    "s3.request",
    seeds=lambda: [HEAD, PRESIGNED, BODY],
    covers=(
        "stook.gateway.s3.target.parse_target",
        "stook.gateway.s3.sigv4.claim_of",
        "stook.gateway.s3.sigv4.check_time",
        "stook.gateway.s3.sigv4.check_signature",
        "stook.gateway.s3.meta.check_ignored",
        "stook.gateway.s3.meta.check_read",
        "stook.gateway.s3.meta.parse_http_date",
        "stook.gateway.s3.meta.parse_range",
        "stook.gateway.s3.xml.parse_time",
        "stook.gateway.s3.buckets.check_bucket_name",
        "stook.gateway.s3.objects.check_key",
        "stook.gateway.s3.checksums.check_type",
    ),
    weight=4,
)
def requests(data: bytes) -> None:
    """A request line and headers, a line each: a claim and a promise, or an error in S3's words."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:40])]
    headers = Headers(pairs)
    try:
        asked = parse_target(lines[0], headers.get("host") or "", ("localhost",))
        assert len(asked.key.encode()) <= 1024
        claim = claim_of(asked, headers)
        if claim is not None:
            check_time(claim, 1_369_353_600_000)
            check_signature("GET", asked, headers, claim, "secret", payload_hash_of(headers, claim))
    except S3Error:
        pass
    for read in (
        lambda: promise_of(headers, UNSIGNED_CHUNKS_TRAILER),
        lambda: meta.facts_of(headers),
        lambda: meta.tags_of(headers.get("x-amz-tagging")),
        lambda: meta.lock_of(headers, meta.Lock(), 0),
        lambda: meta.parse_range(headers.get("range"), 100),
        lambda: meta.conditions_of(headers),
        lambda: meta.check_ignored(headers),
        lambda: meta.check_read(headers, VERSION),
        lambda: check_bucket_name(lines[0]),
        lambda: check_key(lines[0]),
        lambda: check_type(headers.get("range") or "crc32", headers.get("host") or ""),
    ):
        try:
            read()
        except S3Error:
            continue


@target(
    "s3.frames",
    seeds=lambda: [
        b"\x00\x035\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        b"\x01\x405;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n",
        b"\x02\x010\r\n\r\n",
    ],
    covers=("stook.gateway.s3.framing.Deframer.feed", "stook.gateway.s3.framing.Deframer.end"),
    weight=4,
)
def frames(data: bytes) -> None:
    """A body in chunks, cut anywhere: the same payload however it is cut, and none beyond what came."""
    if len(data) < 2:
        return
    kind, size, body = data[0], data[1] % 64 + 1, data[2:]

    def take(cut: int) -> bytes | None:
        signer = ChunkSigner(b"k" * 32, "20130524T000000Z", "s", "0" * 64) if kind & 1 else None
        deframer = Deframer(signer=signer, trailing=not kind & 2)
        payload = b""
        try:
            for at in range(0, len(body), cut):
                payload += b"".join(bytes(part) for part in deframer.feed(body[at : at + cut]))
            deframer.end()
        except S3Error:
            return None
        return payload

    pieces, whole = take(size), take(max(len(body), 1))
    assert pieces == whole
    assert whole is None or len(whole) <= len(body)


@target(
    "s3.documents",
    seeds=lambda: [
        b"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule>"
        b"</CORSConfiguration>",
        b"<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter><Prefix>a</Prefix></Filter><Expiration><Days>1</Days>"
        b"</Expiration></Rule></LifecycleConfiguration>",
        b'{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:GetObject",'
        b'"Resource":"arn:aws:s3:::b/*"}}',
    ],
    covers=(
        "stook.gateway.s3.xml.parse",
        "stook.gateway.s3.policy.parse_policy",
        "stook.gateway.s3.cors.parse_cors",
        "stook.gateway.s3.lifecycle.parse_rules",
    ),
    weight=3,
)
def documents(data: bytes) -> None:
    """A document: read, or refused; what we write of it can be read again."""
    for read in (parse_cors, parse_rules, lambda body: parse_policy(body, "b")):
        try:
            read(data)
        except S3Error:
            continue
    text = data.decode("utf-8", "replace")
    assert parse(Writer("R").text("T", text).document(), "R").value("T") is not None
