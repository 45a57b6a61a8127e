"""Whatever a client sends to the gateway's decoders, it is told in S3's own terms, and never takes long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stook.gateway.s3 import meta
from stook.gateway.s3.body import promise_of
from stook.gateway.s3.cors import parse_cors
from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.framing import Deframer
from stook.gateway.s3.lifecycle import parse_rules
from stook.gateway.s3.policy import parse_policy
from stook.gateway.s3.sigv4 import (
    UNSIGNED_CHUNKS_TRAILER,
    ChunkSigner,
    Headers,
    canonical_request,
    check_time,
    claim_of,
    payload_hash_of,
)
from stook.gateway.s3.target import parse_target
from stook.gateway.s3.xml import Writer, parse

LINE = st.text(st.characters(exclude_characters="\r\n"), max_size=60)
NAMES = st.sampled_from(
    [
        "authorization",
        "x-amz-date",
        "date",
        "x-amz-content-sha256",
        "content-length",
        "x-amz-decoded-content-length",
        "content-md5",
        "x-amz-trailer",
        "x-amz-checksum-crc32",
        "x-amz-checksum-crc64nvme",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-meta-a",
        "x-amz-tagging",
        "x-amz-object-lock-mode",
        "x-amz-object-lock-retain-until-date",
        "range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "host",
    ]
)
VALUES = st.one_of(
    LINE,
    st.sampled_from(
        [
            "AWS4-HMAC-SHA256 Credential=A/20130524/r/s3/aws4_request,SignedHeaders=host,Signature=" + "0" * 64,
            "20130524T000000Z",
            "99999999T999999Z",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "x-amz-checksum-crc32",
            "AAAAAA==",
            "=?utf-8?b?////?=",
            "=?klingon?q?x?=",
            "bytes=0-",
            "COMPLIANCE",
            "2999-01-01T00:00:00Z",
            "0000-00-00T00:00:00Z",
        ]
    ),
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(Headers)
TARGETS = st.one_of(
    LINE,
    st.lists(
        st.tuples(
            st.sampled_from(["X-Amz-Algorithm", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature", "uploads", "prefix"]),
            LINE,
        ),
        max_size=6,
    ).map(lambda pairs: "/b/k?" + "&".join(f"{name}={value}" for name, value in pairs)),
)


@given(TARGETS, HEADERS)
def test_a_request_is_a_claim_or_an_error(raw: str, headers: Headers) -> None:
    try:
        target = parse_target(raw, headers.get("host") or "", ("localhost",))
        claim = claim_of(target, headers)
        if claim is not None:
            check_time(claim, 1_369_353_600_000)
            canonical_request("GET", target, headers, claim, payload_hash_of(headers, claim))
    except S3Error:
        return
    assert len(target.key.encode()) <= 1024


@given(HEADERS, st.sampled_from(["UNSIGNED-PAYLOAD", UNSIGNED_CHUNKS_TRAILER, "0" * 64]))
def test_headers_are_a_promise_or_an_error(headers: Headers, payload_hash: str) -> None:
    for read in (
        lambda: promise_of(headers, payload_hash),
        lambda: meta.facts_of(headers),
        lambda: meta.tags_of(headers.get("x-amz-tagging")),
        lambda: meta.lock_of(headers, meta.Lock(), 0),
        lambda: meta.conditions_of(headers),
        lambda: meta.parse_range(headers.get("range"), 100),
        lambda: meta.check_ignored(headers),
    ):
        try:
            read()
        except S3Error:
            continue


FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"x-amz-checksum-crc32:AAAAAA==\r\n", b"0\r\n\r\n"]),
        st.sampled_from([b"5;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n", b"x-amz-trailer-signature:0\r\n"]),
    ),
    max_size=8,
)


@given(FRAMES, st.booleans(), st.booleans())
def test_frames_give_payload_or_an_error(frames: list[bytes], trailing: bool, signed: bool) -> None:
    signer = ChunkSigner(b"k" * 32, "20130524T000000Z", "s", "0" * 64) if signed else None
    deframer = Deframer(signer=signer, trailing=trailing)
    taken = 0
    try:
        for frame in frames:
            taken += sum(len(part) for part in deframer.feed(frame))
        deframer.end()
    except S3Error:
        return
    assert not signed, "nobody but the key's owner can sign a chunk"
    assert taken <= sum(len(frame) for frame in frames)


@given(st.binary(max_size=200), st.text(max_size=60))
def test_documents_are_read_or_refused(data: bytes, text: str) -> None:
    inside = f"<CORSConfiguration><CORSRule>{text}</CORSRule></CORSConfiguration>".encode("utf-8", "replace")
    for body in (data, inside):
        for read in (parse_cors, parse_rules, lambda body: parse_policy(body, "b"), lambda body: parse(body, "A")):
            try:
                read(body)
            except S3Error:
                continue


@given(st.text(max_size=60))
def test_every_text_can_be_written_and_read_back(text: str) -> None:
    root = parse(Writer("R").text("T", text).document(), "R")
    assert (root.value("T") or "").replace("\ufffd", "") == "".join(
        each for each in text.encode("utf-8", "replace").decode() if _plain(each)
    ).replace("\ufffd", "")


def _plain(char: str) -> bool:
    return char in "\t\n\r" or (
        ord(char) >= 0x20 and ord(char) not in (0xFFFE, 0xFFFF) and not 0xD800 <= ord(char) < 0xE000
    )
