"""A gateway before real farmers, and clients that mean it no good."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import zlib
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from s3_demo import ACCESS, SECRET, S3Demo
from stook.gateway.s3.operations import BUCKET, OBJECT, OPERATIONS, SERVICE

pytestmark = pytest.mark.system

ROUNDS = 400


@pytest.fixture(scope="module")
def bucket(s3_demo: S3Demo) -> str:
    s3_demo.client().create_bucket(Bucket="hostile")
    return "hostile"


class _Auth(S3SigV4Auth):  # type: ignore[misc]
    """Signs what it is told stands for the body."""

    payload_hash = ""

    def payload(self, request: Any) -> str:
        return self.payload_hash


def signed(
    demo: S3Demo,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    keys: tuple[str, str] = (ACCESS, SECRET),
) -> list[tuple[str, str]]:
    """Headers of a request that is signed as it should be; X-Amz-Content-SHA256 among `headers` is taken as it is."""
    request = AWSRequest(method, demo.url + path, headers=headers or {}, data=b"")
    auth = _Auth(Credentials(*keys), "s3", "us-east-1")
    auth.payload_hash = (headers or {}).get("X-Amz-Content-SHA256", hashlib.sha256(body).hexdigest())
    auth.add_auth(request)
    return list(request.headers.items())


def send(demo: S3Demo, head: bytes, body: bytes = b"", patience: float = 20.0) -> int:
    """The status of an answer to these very bytes; 0 when there is none, as while the gateway waits for more."""
    host, port = demo.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=patience) as connection:
        try:
            connection.sendall(head + body)
            answer = connection.recv(65536)
        except (ConnectionError, TimeoutError):
            return 0
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def head_of(method: str, path: str, headers: list[tuple[str, str]], length: int) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {length}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape")


def names(demo: S3Demo, bucket: str) -> list[str]:
    return [each["Key"] for each in demo.client().list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_mutilated_requests_are_errors_and_store_nothing(s3_demo: S3Demo, bucket: str) -> None:
    dice = random.Random(20)
    body = b"honest"
    host = s3_demo.url.removeprefix("http://")
    statuses: dict[int, int] = {}
    for number in range(ROUNDS):
        operation = dice.choice(OPERATIONS)
        where = {SERVICE: "/", BUCKET: f"/{bucket}", OBJECT: f"/{bucket}/fuzz{number}"}[operation.scope]
        path = where + (f"?{operation.marker}" if operation.marker else "")
        if operation.name in ("CreateMultipartUpload", "PutObjectAcl", "PutObject", "CopyObject"):
            path = path.replace("fuzz", "put")
        headers = [("Host", host), *signed(s3_demo, operation.method, path, body)]
        head = bytearray(head_of(operation.method, path, headers, len(body)))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(head))
            match dice.randrange(3):
                case 0:
                    head[at] = dice.randrange(256)
                case 1:
                    del head[at : at + dice.randint(1, 20)]
                case 2:
                    head[at:at] = dice.randbytes(dice.randint(1, 20))
        status = send(s3_demo, bytes(head), body, patience=0.3)
        statuses[status] = statuses.get(status, 0) + 1
        assert status not in (500, 502, 504), bytes(head)
    assert statuses.get(403, 0) > ROUNDS // 20, statuses
    # What got through was signed: a mutation hit what no signature covers. Bytes are never others than those signed.
    for name in names(s3_demo, bucket):
        assert s3_demo.client().get_object(Bucket=bucket, Key=name)["Body"].read() == body


def test_signed_requests_with_senseless_content_are_refused_in_s3s_words(s3_demo: S3Demo, bucket: str) -> None:
    dice = random.Random(21)
    host = s3_demo.url.removeprefix("http://")
    documents = [b"", b"<a/>", b"\xff" * 40, b"<Delete>" * 9, b"{}", b"<Tagging><TagSet/></Tagging>", os.urandom(999)]
    odd = ["", "0", "-1", "x" * 300, "\ufffd", "🌾", "null", "1" * 16, "a&b", "../../etc"]
    for number in range(ROUNDS // 2):
        operation = dice.choice([each for each in OPERATIONS if each.name not in ("DeleteBucket", "CreateBucket")])
        where = {SERVICE: "/", BUCKET: f"/{bucket}", OBJECT: f"/{bucket}/odd{number}"}[operation.scope]
        query = [operation.marker] if operation.marker else []
        query += [
            f"{name}={quote(dice.choice(odd))}"
            for name in (
                "versionId",
                "partNumber",
                "uploadId",
                "max-keys",
                "marker",
                "encoding-type",
                "version-id-marker",
            )
            if dice.random() < 0.2 and name != operation.marker
        ]
        path = where + ("?" + "&".join(query) if query else "")
        body = dice.choice(documents)
        extra = {
            name: dice.choice(values)
            for name, values in {
                "Range": ["bytes=9-1", "bytes=-0", "x"],
                "Content-MD5": ["x", base64.b64encode(b"0" * 16).decode()],
                "x-amz-copy-source": ["", "/", "none/none", f"{bucket}/odd1?versionId=zz", "%FF/%FF"],
                "x-amz-checksum-crc32": ["x", "AAAAAA=="],
                "x-amz-tagging": ["&&&", "a=" + "b" * 300],
                "If-Match": ['"none"'],
                "x-amz-object-lock-mode": ["COMPLIANCE", "x"],
            }.items()
            if dice.random() < 0.15
        }
        headers = [("Host", host), *signed(s3_demo, operation.method, path, body, extra)]
        status = send(s3_demo, head_of(operation.method, path, headers, len(body)), body)
        assert 200 <= status < 600, (operation.name, path, extra)
        assert status not in (500, 502, 504), (operation.name, path, extra, body[:50])


def test_bodies_that_are_not_what_was_promised_are_not_stored(s3_demo: S3Demo, bucket: str) -> None:
    host = s3_demo.url.removeprefix("http://")
    crc = base64.b64encode(zlib.crc32(b"hello").to_bytes(4, "big")).decode()
    chunked = {
        "x-amz-decoded-content-length": "5",
        "Content-Encoding": "aws-chunked",
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    unsigned = {**chunked, "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
    good = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + crc.encode() + b"\r\n\r\n"
    cases: list[tuple[str, dict[str, str], bytes, bytes, int]] = [
        ("other-bytes", {}, b"hello", b"hellO", 400),
        ("short", {}, b"hello", b"hell", 400),
        ("bad-md5", {"Content-MD5": base64.b64encode(hashlib.md5(b"x").digest()).decode()}, b"hello", b"hello", 400),
        ("bad-crc", {"x-amz-checksum-crc32": "AAAAAA=="}, b"hello", b"hello", 400),
        ("two-sums", {"x-amz-checksum-crc32": crc, "x-amz-checksum-sha1": "A" * 27 + "="}, b"hello", b"hello", 400),
        ("bad-trailer", unsigned, b"", good.replace(crc.encode(), b"AAAAAA=="), 400),
        ("no-trailer", unsigned, b"", b"5\r\nhello\r\n0\r\n\r\n", 400),
        ("long-chunks", {**unsigned, "x-amz-decoded-content-length": "4"}, b"", good, 400),
        ("cut-chunks", unsigned, b"", good[:-30], 400),
        ("no-frames", unsigned, b"", b"hello", 400),
        ("signed-frames", {**chunked, "X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, b"", good, 400),
        ("good-chunks", unsigned, b"", good, 200),
    ]
    for name, headers, promised, sent, status in cases:
        path = f"/{bucket}/{name}"
        head = [("Host", host), *signed(s3_demo, "PUT", path, promised, headers)]
        got = send(s3_demo, head_of("PUT", path, head, len(promised) if name == "short" else len(sent)), sent, 2.0)
        assert got == status or (name == "short" and got in (0, 400)), (name, got)
        assert (name in names(s3_demo, bucket)) == (status == 200), name
    assert s3_demo.client().get_object(Bucket=bucket, Key="good-chunks")["Body"].read() == b"hello"


def test_a_signed_chunk_that_is_changed_is_not_stored(s3_demo: S3Demo, bucket: str) -> None:
    data = os.urandom(150_000)
    honest = s3_demo.client(s3={"payload_signing_enabled": True})
    honest.put_object(Bucket=bucket, Key="chunks", Body=data)
    assert honest.get_object(Bucket=bucket, Key="chunks")["Body"].read() == data


def test_keys_of_odd_bytes_come_back_as_they_were(s3_demo: S3Demo, bucket: str) -> None:
    client = s3_demo.client()
    odd = [
        "é" * 512,
        "\U0001f33e" * 256,
        "/" * 1024,
        "%" * 1024,
        "a b+c&d=e?f#g;h:i@j$k,l'm\"n<o>p\\q|r^s`t{u}v~",
        "..", ".", "./..", "a/../b", "a/./b", "\x7f", "\x01\x02", "\ufffe", " ", "  lead and trail  ",
        "e\u0301", "\u00e9", "CON", "x" * 300 + "/" + "y" * 700,
    ]  # fmt: skip
    for number, key in enumerate(odd):
        client.put_object(Bucket=bucket, Key=key, Body=b"%d" % number)
    for number, key in enumerate(odd):
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"%d" % number, key
    assert set(odd) <= set(names(s3_demo, bucket))
    for key in odd:
        client.delete_object(Bucket=bucket, Key=key)
    assert not set(odd) & set(names(s3_demo, bucket))
    for key, code in (("x" * 1025, "KeyTooLongError"), ("é" * 513, "KeyTooLongError")):
        with pytest.raises(ClientError, match=code):
            client.put_object(Bucket=bucket, Key=key, Body=b"")


# -- one key's buckets are not another's


def stook(demo: S3Demo, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "stook.cli.main", "--home", str(demo.home), *arguments, "--json"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_a_key_reaches_its_own_buckets_alone(s3_demo: S3Demo, bucket: str) -> None:
    owner = s3_demo.client()
    owner.create_bucket(Bucket="theirs")
    owner.put_object(Bucket=bucket, Key="secret", Body=b"secret")
    made = stook(s3_demo, "keys", "create", "--bucket", "theirs", "--note", "a test")
    theirs = s3_demo.client(made["access_key"], made["secret_key"])
    theirs.put_object(Bucket="theirs", Key="mine", Body=b"mine")
    assert [each["Name"] for each in theirs.list_buckets()["Buckets"]] == ["theirs"]

    host = s3_demo.url.removeprefix("http://")
    for where in (bucket, "no-such-bucket"):  # the same answer, whether there is one or not
        for operation in OPERATIONS:
            if operation.scope == SERVICE or operation.handler is None:
                continue
            path = f"/{where}" + ("/secret" if operation.scope == OBJECT else "")
            path += f"?{operation.marker}" if operation.marker else ""
            extra = {operation.header: "theirs/mine"} if operation.header else {}
            keys = (made["access_key"], made["secret_key"])
            headers = [("Host", host), *signed(s3_demo, operation.method, path, b"", extra, keys)]
            assert send(s3_demo, head_of(operation.method, path, headers, 0)) == 403, (operation.name, where)
    for source in (f"{bucket}/secret", "no-such-bucket/x"):
        with pytest.raises(ClientError, match="AccessDenied"):
            theirs.copy_object(Bucket="theirs", Key="stolen", CopySource=source)
    assert owner.get_object(Bucket=bucket, Key="secret")["Body"].read() == b"secret"

    reader_key = stook(s3_demo, "keys", "create", "--bucket", "theirs", "--read")
    reader = s3_demo.client(reader_key["access_key"], reader_key["secret_key"])
    assert reader.get_object(Bucket="theirs", Key="mine")["Body"].read() == b"mine"
    for act in (
        lambda: reader.put_object(Bucket="theirs", Key="x", Body=b""),
        lambda: reader.delete_object(Bucket="theirs", Key="mine"),
        lambda: reader.create_multipart_upload(Bucket="theirs", Key="x"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            act()
    stook(s3_demo, "keys", "revoke", reader_key["access_key"])
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        reader.get_object(Bucket="theirs", Key="mine")
    shown = stook(s3_demo, "keys", "list")["keys"]
    assert {made["access_key"], reader_key["access_key"]} <= {each["access_key"] for each in shown}
    assert made["secret_key"] not in json.dumps(shown)
    assert made["secret_key"].encode() not in (s3_demo.home / "catalog.db").read_bytes()
