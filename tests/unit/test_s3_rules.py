"""The gateway's pure rules: ranges, conditions, checksums, policies, CORS, lifecycle, XML."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib

import pytest

from stook.codec import encode
from stook.gateway.s3 import checksums
from stook.gateway.s3.configuration import _parse_lock
from stook.gateway.s3.cors import cors_headers, parse_cors
from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.framing import Deframer
from stook.gateway.s3.lifecycle import DAY_MS, Rule, expired, parse_rules
from stook.gateway.s3.meta import (
    check_read,
    checked_tags,
    conditions_of,
    facts_of,
    lock_headers,
    lock_of,
    parse_range,
    tags_of,
    wire_value,
)
from stook.gateway.s3.objects import _part_of
from stook.gateway.s3.policy import GET, LIST, parse_policy
from stook.gateway.s3.sigv4 import Headers
from stook.gateway.s3.xml import Writer, parse
from stook.storage.renter_ports import ObjectEntry
from stook.storage.s3_ports import Lock, Retention, Standing, StoredObject, Version, make_facts


def headers(**pairs: str) -> Headers:
    return Headers([(name.replace("_", "-"), value) for name, value in pairs.items()])


def version(name: str = "k", number: int = 1, *, at_ms: int = 0, marker: bool = False, size: int = 5) -> Version:
    standing = Standing.MARKER if marker else Standing.OLD
    return Version(name, number, f"{number:016x}", standing, False, size, at_ms, bytes(32), "etag")


# -- ranges and conditions


@pytest.mark.parametrize(
    ("text", "size", "span"),
    [
        (None, 10, None),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=2-", 10, (2, 10)),
        ("bytes=2-99", 10, (2, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-99", 10, (0, 10)),
        ("bytes=5-4", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("lines=0-1", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=-", 10, None),
    ],
)
def test_ranges(text: str | None, size: int, span: tuple[int, int] | None) -> None:
    assert parse_range(text, size) == span


@pytest.mark.parametrize(("text", "size"), [("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-0", 5), ("bytes=-1", 0)])
def test_ranges_outside(text: str, size: int) -> None:
    with pytest.raises(S3Error) as raised:
        parse_range(text, size)
    assert (raised.value.code, raised.value.headers) == ("InvalidRange", {"Content-Range": f"bytes */{size}"})


def test_entity_tags_win_over_dates() -> None:
    old, new = "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 02 Jan 1970 00:00:00 GMT"
    at = version(at_ms=3_600_000)
    assert check_read(headers(if_match='"etag"', if_unmodified_since=old), at)
    with pytest.raises(S3Error):
        check_read(headers(if_unmodified_since=old), at)
    assert check_read(headers(if_none_match='"other"', if_modified_since=new), at)
    assert not check_read(headers(if_modified_since=new), at)
    assert not check_read(headers(if_none_match='W/"etag", "x"'), at)
    assert check_read(headers(if_modified_since="no date"), at)
    with pytest.raises(S3Error):
        check_read(Headers([("x-amz-copy-source-if-none-match", "etag")]), at, "x-amz-copy-source-")


def test_conditions_of_writes() -> None:
    assert conditions_of(headers(if_none_match="*")).if_none_match == "*"
    assert conditions_of(headers(if_match='"e"')).if_match == "e"
    for wrong in ({"if_none_match": '"e"'}, {"if_none_match": "*", "if_match": "e"}):
        with pytest.raises(S3Error):
            conditions_of(headers(**wrong))


# -- headers and tags


def test_what_is_kept_of_a_request() -> None:
    facts = facts_of(
        Headers(
            [("Content-Encoding", "aws-chunked, gzip"), ("x-amz-meta-B", "2"), ("x-amz-meta-a", ""), ("Expires", "0")]
        )
    )
    assert facts.metadata == (("a", ""), ("b", "2"))
    kept = (("content-encoding", "gzip"), ("content-type", "binary/octet-stream"), ("expires", "0"))
    assert facts.headers == kept
    assert dict(facts_of(Headers([("Content-Encoding", "aws-chunked")])).headers).keys() == {"content-type"}
    with pytest.raises(S3Error, match="2048"):
        facts_of(Headers([("x-amz-meta-a", "v" * 2048)]))


def test_metadata_that_is_no_ascii_travels_as_rfc_2047() -> None:
    sent = wire_value("grün")
    assert sent.isascii()
    assert facts_of(Headers([("x-amz-meta-c", sent)])).metadata == (("c", "grün"),)


@pytest.mark.parametrize("value", ["=?utf-8?b?a?=", "=?utf-7?q?+2AA-?=", "=?unicode_escape?q?=5Cud800?=", "\udcff"])
def test_headers_that_are_no_text_can_be_written_down_all_the_same(value: str) -> None:
    encode(facts_of(Headers([("content-type", value), ("x-amz-meta-a", value)])))


def test_tags_that_are_no_text_are_refused() -> None:
    with pytest.raises(S3Error):
        tags_of("a=\udcff")
    with pytest.raises(S3Error):
        checked_tags([("\ud800", "")], 10)


def test_tags() -> None:
    assert tags_of("a=1&b=&c=%20") == (("a", "1"), ("b", ""), ("c", " "))
    for wrong in ("a", "a=1&a=2", "=x", "&".join(f"t{n}=1" for n in range(11)), "aws:x=1", "k=" + "v" * 257):
        with pytest.raises(S3Error):
            tags_of(wrong)
    assert len(checked_tags([(str(n), "") for n in range(50)], 50)) == 50


def test_a_lock_ends_in_a_year_that_can_be_written() -> None:
    def locked(until: str) -> Lock:
        sent = [("x-amz-object-lock-mode", "COMPLIANCE"), ("x-amz-object-lock-retain-until-date", until)]
        return lock_of(Headers(sent), Lock(), 0)

    until = "9999-12-31T23:59:59.999Z"
    assert lock_headers(locked(until))["x-amz-object-lock-retain-until-date"] == until
    with pytest.raises(S3Error, match="10000"):
        locked("9999-12-31T23:59:59-01:00")
    kept = lock_headers(Lock(Retention.COMPLIANCE, 253_402_300_800_000))  # by an earlier version
    assert kept["x-amz-object-lock-retain-until-date"] == until


@pytest.mark.parametrize("days", ["\xb2", "--5", "5" * 5000, "", "1 2", "\u0665"])
def test_a_default_retention_is_a_number_of_days(days: str) -> None:
    def document(days: str) -> bytes:
        rule = f"<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention></Rule>"
        root = "ObjectLockConfiguration"
        return f"<{root}><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</{root}>".encode()

    assert _parse_lock(document(" 5 ")) == (Retention.COMPLIANCE, 5 * 86_400_000)
    with pytest.raises(S3Error):
        _parse_lock(document(days))
    with pytest.raises(S3Error, match="hundred years"):
        _parse_lock(document("-5"))


@pytest.mark.parametrize("text", ["000001" + "9" * 5000, "0", "10001", "\xb2", "-1", ""])
def test_part_numbers_are_bounded(text: str) -> None:
    entry = ObjectEntry("b", "k", 1, 5, 7, bytes(32), b"", ())
    found = StoredObject(version(), entry, make_facts(), (), Lock())
    assert _part_of(found, "1") == (0, 5, 0)
    with pytest.raises(S3Error):
        _part_of(found, text)


def test_locks() -> None:
    assert not Lock().forbids(5, bypass=False)
    assert Lock(legal_hold=True).forbids(5, bypass=True)
    assert Lock(Retention.COMPLIANCE, 6).forbids(5, bypass=True)
    assert not Lock(Retention.COMPLIANCE, 5).forbids(5, bypass=False)
    assert Lock(Retention.GOVERNANCE, 6).forbids(5, bypass=False)
    assert not Lock(Retention.GOVERNANCE, 6).forbids(5, bypass=True)


# -- checksums


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("crc32", "y/Q5Jg=="),
        ("crc32c", "4waSgw=="),
        ("crc64nvme", "rosUhgp5mIg="),
        ("sha1", base64.b64encode(hashlib.sha1(b"123456789").digest()).decode()),
        ("sha256", base64.b64encode(hashlib.sha256(b"123456789").digest()).decode()),
    ],
)
def test_check_values(algorithm: str, value: str) -> None:
    running = checksums.running(algorithm)
    running.update(memoryview(b"1234"))
    running.update(bytearray(b"56789"))
    assert checksums.encoded(running.digest()) == value


def test_checksums_of_parts_make_the_whole() -> None:
    parts = [b"a" * 1000, b"", b"bc" * 77]
    for algorithm in ("crc32", "crc32c", "crc64nvme"):
        whole = checksums.running(algorithm)
        whole.update(b"".join(parts))
        digests = []
        for part in parts:
            one = checksums.running(algorithm)
            one.update(part)
            digests.append((one.digest(), len(part)))
        assert checksums.combined(algorithm, checksums.FULL_OBJECT, digests) == checksums.encoded(whole.digest())
    crc = [zlib.crc32(part).to_bytes(4, "big") for part in parts]
    composite = base64.b64encode(zlib.crc32(b"".join(crc)).to_bytes(4, "big")).decode() + "-3"
    assert checksums.combined("crc32", checksums.COMPOSITE, [(each, 9) for each in crc]) == composite
    for algorithm, kind in (("crc64nvme", "COMPOSITE"), ("sha256", "FULL_OBJECT"), ("crc32", "OTHER")):
        with pytest.raises(S3Error):
            checksums.check_type(algorithm, kind)


# -- chunk framing without signatures


def unframe(body: bytes, *, trailing: bool = True) -> tuple[bytes, dict[str, str]]:
    deframer = Deframer(signer=None, trailing=trailing)
    payload = b"".join(bytes(part) for part in deframer.feed(body))
    deframer.end()
    return payload, deframer.trailers


def test_a_trailer_behind_the_chunks() -> None:
    body = b"5\r\nhello\r\n3\r\nyou\r\n0\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\n"
    assert unframe(body) == (b"helloyou", {"x-amz-checksum-crc32": "AAAAAA=="})
    assert unframe(b"0\r\n\r\n", trailing=False) == (b"", {})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"5\r\nhell",
        b"5\r\nhello\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"zz\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n0\r\n\r\n",
        b"ffffffffff\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\na:1\r\na:2\r\n\r\n",
        b"0\r\nx-amz-trailer-signature:00\r\n\r\n",
        b"0\r\n\r\nmore",
        b"1" * 5000,
        b"0\r\n" + b"a:" + b"b" * 4090,
    ],
)
def test_broken_framing(body: bytes) -> None:
    with pytest.raises(S3Error):
        unframe(body)


# -- documents


def test_xml_is_bounded_and_has_no_entities() -> None:
    assert parse(b'<a xmlns="http://x/"><b>1</b></a>', "a").value("b") == "1"
    bomb = b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'
    deep = b"<a>" * 50 + b"</a>" * 50
    wide = b"<a>" + b"<b/>" * 100_001 + b"</a>"
    for wrong in (
        bomb,
        deep,
        wide,
        b"",
        b"<a>",
        b"<b/>",
        b"\xff\xfe",
        b"<a/><a/>",
        b'<?xml version="1.0" encoding="klingon"?><a/>',
    ):
        with pytest.raises(S3Error):
            parse(wrong, "a")


def test_written_xml_can_be_read() -> None:
    name = "a<&>\"'\r\n\t\x01\ufffe𝄞"
    root = parse(Writer("R").begin("C").text("Key", name).end().document(), "R")
    child = root.one("C")
    assert child is not None
    assert child.value("Key") == name.replace("\x01", "\ufffd").replace("\ufffe", "\ufffd")


def policy(**changed: object) -> bytes:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/p/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement | changed]}).encode()


def test_policies_let_everybody_read_what_they_say() -> None:
    allowed = parse_policy(policy(), "b")
    assert allowed.allows(GET, "p/x")
    assert not allowed.allows(GET, "q")
    assert not allowed.allows(LIST, "")
    listed = parse_policy(policy(Action=["s3:ListBucket"], Resource=["arn:aws:s3:::b"]), "b")
    assert listed.allows(LIST, "")
    assert not listed.allows(GET, "p/x")
    exact = parse_policy(policy(Resource="arn:aws:s3:::b/one"), "b")
    assert exact.allows(GET, "one")
    assert not exact.allows(GET, "one more")


@pytest.mark.parametrize(
    "data",
    [
        policy(Effect="Deny"),
        policy(Principal={"AWS": "123"}),
        policy(Action="s3:*"),
        policy(Action="s3:PutObject"),
        policy(Resource="arn:aws:s3:::bb/*"),
        policy(Resource="arn:aws:s3:::other/*"),
        policy(Resource="arn:aws:s3:::b/*/x"),
        policy(Condition={}),
        policy(NotAction="x"),
        b"[]",
        b"{",
        b'{"Version": "1"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_policies_that_are_not_wholly_understood_are_refused(data: bytes) -> None:
    with pytest.raises(S3Error):
        parse_policy(data, "b")


def test_cors_rules() -> None:
    rules = parse_cors(
        b"<CORSConfiguration><CORSRule><AllowedOrigin>https://*.example</AllowedOrigin><AllowedMethod>PUT</AllowedMethod>"
        b"<AllowedHeader>x-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>9</MaxAgeSeconds></CORSRule>"
        b"</CORSConfiguration>"
    )
    said = cors_headers(rules, "https://a.example", "PUT", ("X-Y",))
    assert said is not None
    assert said["Access-Control-Allow-Origin"] == "https://a.example"
    assert (said["Access-Control-Max-Age"], said["Access-Control-Expose-Headers"]) == ("9", "ETag")
    for origin, method, asked in (
        ("https://a.example.org", "PUT", ()),
        ("https://a.example", "GET", ()),
        ("https://a.example", "PUT", ("Y",)),
    ):
        assert cors_headers(rules, origin, method, asked) is None
    for wrong in (b"<CORSConfiguration/>", b"<CORSConfiguration><CORSRule/></CORSConfiguration>"):
        with pytest.raises(S3Error):
            parse_cors(wrong)


# -- lifecycle


def rules_of(inside: str) -> tuple[Rule, ...]:
    text = f"<LifecycleConfiguration><Rule><Status>Enabled</Status>{inside}</Rule></LifecycleConfiguration>"
    return parse_rules(text.encode())


def test_days_are_counted_to_the_next_midnight() -> None:
    rules = rules_of("<Filter><Prefix>k</Prefix></Filter><Expiration><Days>1</Days></Expiration>")
    stored = version(at_ms=DAY_MS // 2)
    assert list(expired(rules, [stored], (), 2 * DAY_MS - 1)) == []
    (wanted,) = expired(rules, [stored], (), 2 * DAY_MS)
    assert (wanted.name, wanted.version_id, wanted.if_match) == ("k", "", "etag")
    assert list(expired(rules, [version("other")], (), 9 * DAY_MS)) == []


def test_filters_by_tag_and_size() -> None:
    tagged = rules_of("<Filter><Tag><Key>a</Key><Value>1</Value></Tag></Filter><Expiration><Days>1</Days></Expiration>")
    assert list(expired(tagged, [version()], (), 9 * DAY_MS)) == []
    assert len(list(expired(tagged, [version()], (("a", "1"),), 9 * DAY_MS))) == 1
    sized = rules_of(
        "<Filter><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></Filter><Expiration><Days>1</Days></Expiration>"
    )
    assert list(expired(sized, [version(size=5)], (), 9 * DAY_MS)) == []
    assert len(list(expired(sized, [version(size=6)], (), 9 * DAY_MS))) == 1


def test_old_versions_and_lonely_markers() -> None:
    rules = rules_of(
        "<Filter/><NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays>"
        "<NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration>"
        "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
    )
    history = [version(number=4, at_ms=3 * DAY_MS), version(number=3), version(number=2), version(number=1)]
    assert [each.version_id[-1] for each in expired(rules, history, (), 9 * DAY_MS)] == ["2", "1"]
    assert list(expired(rules, history[:2], (), 9 * DAY_MS)) == []
    marker = version(number=5, marker=True)
    assert [each.version_id[-1] for each in expired(rules, [marker], (), 1)] == ["5"]
    assert list(expired(rules, [marker, version()], (), 1)) == []


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "<Expiration><Days>0</Days></Expiration>",
        "<Expiration><Days>x</Days></Expiration>",
        "<Expiration/>",
        "<Expiration><Days>1</Days><Date>2030-01-01T00:00:00Z</Date></Expiration>",
        "<Expiration><Date>2030-01-01T00:00:01Z</Date></Expiration>",
        "<Transition/>",
        "<NoncurrentVersionExpiration/>",
        "<Filter><Tag><Key>a</Key></Tag></Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>1"
        "</DaysAfterInitiation></AbortIncompleteMultipartUpload>",
    ],
)
def test_rules_that_are_none(inside: str) -> None:
    with pytest.raises(S3Error):
        rules_of(inside)
