"""boto3: everything its users reach for, and the races that decide."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from steps import run_steps, step

URL = os.environ["AWS_ENDPOINT_URL"]
BUCKET = "boto-one"


def client(style: str = "path", **more):
    config = Config(s3={"addressing_style": style, **more.pop("s3", {})}, retries={"max_attempts": 1}, **more)
    return boto3.client("s3", config=config)


S3 = client()


def refused(code: str, call, *arguments, **named) -> ClientError:
    try:
        call(*arguments, **named)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return error
    raise AssertionError(f"went through, and should be {code}")


@step
def make_a_bucket() -> None:
    S3.create_bucket(Bucket=BUCKET)
    refused("BucketAlreadyOwnedByYou", S3.create_bucket, Bucket=BUCKET)
    assert BUCKET in [each["Name"] for each in S3.list_buckets()["Buckets"]]
    S3.head_bucket(Bucket=BUCKET)
    refused("404", S3.head_bucket, Bucket="boto-none")


@step
def put_and_get_with_metadata() -> None:
    S3.put_object(
        Bucket=BUCKET,
        Key="a/b c+d%20é.txt",
        Body=b"hello",
        ContentType="text/x-y",
        CacheControl="max-age=5",
        Metadata={"one": "1", "empty": ""},
        Tagging="k=v&k2=v%202",
    )
    found = S3.get_object(Bucket=BUCKET, Key="a/b c+d%20é.txt")
    assert found["Body"].read() == b"hello"
    assert found["Metadata"] == {"one": "1", "empty": ""}, found["Metadata"]
    assert (found["ContentType"], found["CacheControl"], found["TagCount"]) == ("text/x-y", "max-age=5", 2)
    assert found["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'


@step
def every_checksum_algorithm() -> None:
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        put = S3.put_object(Bucket=BUCKET, Key=f"sum-{algorithm}", Body=b"abc" * 1000, ChecksumAlgorithm=algorithm)
        got = S3.head_object(Bucket=BUCKET, Key=f"sum-{algorithm}", ChecksumMode="ENABLED")
        assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    refused(
        "BadDigest",
        S3.put_object,
        Bucket=BUCKET,
        Key="bad",
        Body=b"x",
        ChecksumCRC32=base64.b64encode(b"abcd").decode(),
    )
    refused(
        "BadDigest", S3.put_object, Bucket=BUCKET, Key="bad", Body=b"x", ContentMD5=base64.b64encode(b"a" * 16).decode()
    )
    refused("NoSuchKey", S3.get_object, Bucket=BUCKET, Key="bad")


@step
def ranges() -> None:
    data = os.urandom(3_000_000)
    S3.put_object(Bucket=BUCKET, Key="ranged", Body=data)

    def get(text: str) -> bytes:
        return S3.get_object(Bucket=BUCKET, Key="ranged", Range=text)["Body"].read()

    assert get("bytes=0-0") == data[:1]
    assert get("bytes=1000000-1999999") == data[1_000_000:2_000_000]
    assert get("bytes=-5") == data[-5:]
    assert get("bytes=2999990-9999999") == data[2_999_990:]
    refused("InvalidRange", S3.get_object, Bucket=BUCKET, Key="ranged", Range="bytes=3000000-")


@step
def multipart_with_composite_and_full_checksums() -> None:
    data = os.urandom(17 << 20)
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    S3.upload_fileobj(io.BytesIO(data), BUCKET, "parts", Config=config)
    back = io.BytesIO()
    S3.download_fileobj(BUCKET, "parts", back, Config=config)
    assert back.getvalue() == data
    head = S3.head_object(Bucket=BUCKET, Key="parts", PartNumber=1)
    assert head["PartsCount"] == 4
    assert head["ContentLength"] == 5 << 20
    begun = S3.create_multipart_upload(Bucket=BUCKET, Key="full", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    upload = {"Bucket": BUCKET, "Key": "full", "UploadId": begun["UploadId"]}
    parts = []
    for number, at in enumerate(range(0, len(data), 5 << 20), 1):
        done = S3.upload_part(**upload, PartNumber=number, Body=data[at : at + (5 << 20)], ChecksumAlgorithm="CRC32")
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC32": done["ChecksumCRC32"]})
    assert len(S3.list_parts(**upload)["Parts"]) == 4
    assert "full" in [each["Key"] for each in S3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]]
    whole = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    made = S3.complete_multipart_upload(
        **upload, MultipartUpload={"Parts": parts}, ChecksumType="FULL_OBJECT", ChecksumCRC32=whole
    )
    assert made["ChecksumCRC32"] == whole
    again = S3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert again["ETag"] == made["ETag"]


@step
def multipart_refusals() -> None:
    begun = S3.create_multipart_upload(Bucket=BUCKET, Key="small")
    upload = {"Bucket": BUCKET, "Key": "small", "UploadId": begun["UploadId"]}
    one = S3.upload_part(**upload, PartNumber=1, Body=b"a" * 1000)["ETag"]
    two = S3.upload_part(**upload, PartNumber=2, Body=b"b" * 1000)["ETag"]
    both = [{"PartNumber": 1, "ETag": one}, {"PartNumber": 2, "ETag": two}]
    complete = S3.complete_multipart_upload
    refused("EntityTooSmall", complete, **upload, MultipartUpload={"Parts": both})
    refused("InvalidPartOrder", complete, **upload, MultipartUpload={"Parts": both[::-1]})
    refused("InvalidPart", complete, **upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": two}]})
    complete(**upload, MultipartUpload={"Parts": both[:1]})
    assert S3.get_object(Bucket=BUCKET, Key="small")["Body"].read() == b"a" * 1000
    begun = S3.create_multipart_upload(Bucket=BUCKET, Key="gone")
    upload = {"Bucket": BUCKET, "Key": "gone", "UploadId": begun["UploadId"]}
    S3.upload_part(**upload, PartNumber=1, Body=b"a")
    S3.abort_multipart_upload(**upload)
    refused("NoSuchUpload", S3.upload_part, **upload, PartNumber=1, Body=b"a")


@step
def copies_whole_and_in_parts() -> None:
    source = {"Bucket": BUCKET, "Key": "a/b c+d%20é.txt"}
    S3.copy_object(Bucket=BUCKET, Key="copy", CopySource=source)
    assert S3.head_object(Bucket=BUCKET, Key="copy")["Metadata"] == {"one": "1", "empty": ""}
    S3.copy_object(Bucket=BUCKET, Key="copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"two": "2"})
    assert S3.head_object(Bucket=BUCKET, Key="copy")["Metadata"] == {"two": "2"}
    itself = {"Bucket": BUCKET, "Key": "copy"}
    refused("InvalidRequest", S3.copy_object, Bucket=BUCKET, Key="copy", CopySource=itself)
    refused("PreconditionFailed", S3.copy_object, Bucket=BUCKET, Key="c2", CopySource=source, CopySourceIfMatch="no")
    data = S3.get_object(Bucket=BUCKET, Key="parts")["Body"].read()
    begun = S3.create_multipart_upload(Bucket=BUCKET, Key="spliced")
    upload = {"Bucket": BUCKET, "Key": "spliced", "UploadId": begun["UploadId"]}
    parts = []
    for number, text in enumerate(("bytes=0-6291455", "bytes=6291456-12000000"), 1):
        done = S3.upload_part_copy(
            **upload, PartNumber=number, CopySource={"Bucket": BUCKET, "Key": "parts"}, CopySourceRange=text
        )
        parts.append({"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]})
    S3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert S3.get_object(Bucket=BUCKET, Key="spliced")["Body"].read() == data[:12_000_001]


@step
def listing_in_byte_order() -> None:
    names = ["a-", "a/x", "a0", "a/", "a", "/a", "a//b", ".", "..", "z\x01z", "ü", "𝄞", "\ufffd"]
    for name in names:
        S3.put_object(Bucket=BUCKET, Key=f"l/{name}", Body=b"")
    listed = [
        each["Key"]
        for page in S3.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix="l/", PaginationConfig={"PageSize": 3}
        )
        for each in page.get("Contents", [])
    ]
    assert listed == sorted((f"l/{name}" for name in names), key=str.encode), listed
    folded = S3.list_objects_v2(Bucket=BUCKET, Prefix="l/", Delimiter="/")
    assert [each["Prefix"] for each in folded["CommonPrefixes"]] == ["l//", "l/a/"]
    first = S3.list_objects(Bucket=BUCKET, Prefix="l/", MaxKeys=2)
    assert first["IsTruncated"]
    assert len(first["Contents"]) == 2
    assert S3.list_objects_v2(Bucket=BUCKET, MaxKeys=0)["KeyCount"] == 0


@step
def conditional_reads() -> None:
    etag = S3.head_object(Bucket=BUCKET, Key="copy")["ETag"]
    S3.get_object(Bucket=BUCKET, Key="copy", IfMatch=etag)
    refused("304", S3.get_object, Bucket=BUCKET, Key="copy", IfNoneMatch=etag)
    refused("PreconditionFailed", S3.get_object, Bucket=BUCKET, Key="copy", IfMatch='"nothing"')
    refused("304", S3.get_object, Bucket=BUCKET, Key="copy", IfModifiedSince=datetime.now(UTC) + timedelta(seconds=2))


@step
def eight_racing_puts_one_wins() -> None:
    def put(number: int) -> int:
        try:
            S3.put_object(Bucket=BUCKET, Key="race", Body=str(number).encode() * 1000, IfNoneMatch="*")
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]
        return 200

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(pool.map(put, range(8)))
        assert statuses[0] == 200, statuses
        assert set(statuses[1:]) <= {409, 412}, statuses
        S3.delete_object(Bucket=BUCKET, Key="race")


@step
def conditional_writes() -> None:
    etag = S3.put_object(Bucket=BUCKET, Key="cas", Body=b"1")["ETag"]
    after = S3.put_object(Bucket=BUCKET, Key="cas", Body=b"2", IfMatch=etag)["ETag"]
    refused("PreconditionFailed", S3.put_object, Bucket=BUCKET, Key="cas", Body=b"3", IfMatch=etag)
    refused("NoSuchKey", S3.put_object, Bucket=BUCKET, Key="nothing", Body=b"3", IfMatch=etag)
    refused("PreconditionFailed", S3.delete_object, Bucket=BUCKET, Key="cas", IfMatch=etag)
    S3.delete_object(Bucket=BUCKET, Key="cas", IfMatch=after)


@step
def delete_many() -> None:
    keys = [f"many/{number}" for number in range(30)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: S3.put_object(Bucket=BUCKET, Key=key, Body=b"m"), keys))
    done = S3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in [*keys, "missing"]]})
    assert len(done["Deleted"]) == 31
    assert S3.list_objects_v2(Bucket=BUCKET, Prefix="many/")["KeyCount"] == 0


@step
def tags() -> None:
    pairs = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    S3.put_object_tagging(Bucket=BUCKET, Key="copy", Tagging={"TagSet": pairs})
    assert S3.get_object_tagging(Bucket=BUCKET, Key="copy")["TagSet"] == pairs
    S3.delete_object_tagging(Bucket=BUCKET, Key="copy")
    assert S3.get_object_tagging(Bucket=BUCKET, Key="copy")["TagSet"] == []
    S3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": pairs})
    assert S3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == pairs
    S3.delete_bucket_tagging(Bucket=BUCKET)
    refused("NoSuchTagSet", S3.get_bucket_tagging, Bucket=BUCKET)


@step
def versions_and_markers() -> None:
    bucket = "boto-versions"
    S3.create_bucket(Bucket=bucket)
    S3.put_object(Bucket=bucket, Key="k", Body=b"before")
    S3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert S3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    one = S3.put_object(Bucket=bucket, Key="k", Body=b"one")["VersionId"]
    two = S3.put_object(Bucket=bucket, Key="k", Body=b"two")["VersionId"]
    marker = S3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"]
    refused("NoSuchKey", S3.get_object, Bucket=bucket, Key="k")
    for version, body in ((one, b"one"), (two, b"two"), ("null", b"before")):
        assert S3.get_object(Bucket=bucket, Key="k", VersionId=version)["Body"].read() == body
    listed = S3.list_object_versions(Bucket=bucket)
    assert [each["VersionId"] for each in listed["Versions"]] == [two, one, "null"]
    assert listed["DeleteMarkers"][0]["IsLatest"]
    S3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert S3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"
    S3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    S3.put_object(Bucket=bucket, Key="k", Body=b"null again")
    assert S3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"null again"
    refused("BucketNotEmpty", S3.delete_bucket, Bucket=bucket)
    for page in S3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1}):
        for each in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            S3.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
    S3.delete_bucket(Bucket=bucket)


@step
def object_lock_in_both_modes() -> None:
    bucket = "boto-locked"
    S3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    assert S3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]["ObjectLockEnabled"] == "Enabled"
    until = datetime.now(UTC) + timedelta(seconds=8)
    put = S3.put_object(Bucket=bucket, Key="c", Body=b"c", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
    refused("AccessDenied", S3.delete_object, Bucket=bucket, Key="c", VersionId=put["VersionId"])
    refused(
        "AccessDenied",
        S3.delete_object,
        Bucket=bucket,
        Key="c",
        VersionId=put["VersionId"],
        BypassGovernanceRetention=True,
    )
    far = datetime.now(UTC) + timedelta(days=1)
    governed = S3.put_object(Bucket=bucket, Key="g", Body=b"g")["VersionId"]
    S3.put_object_retention(Bucket=bucket, Key="g", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": far})
    assert S3.get_object_retention(Bucket=bucket, Key="g")["Retention"]["Mode"] == "GOVERNANCE"
    refused("AccessDenied", S3.delete_object, Bucket=bucket, Key="g", VersionId=governed)
    held = S3.put_object(Bucket=bucket, Key="h", Body=b"h", ObjectLockLegalHoldStatus="ON")["VersionId"]
    refused("AccessDenied", S3.delete_object, Bucket=bucket, Key="h", VersionId=held)
    S3.put_object_legal_hold(Bucket=bucket, Key="h", LegalHold={"Status": "OFF"})
    S3.delete_object(Bucket=bucket, Key="h", VersionId=held)
    S3.delete_object(Bucket=bucket, Key="g", VersionId=governed, BypassGovernanceRetention=True)
    refused(
        "InvalidBucketState",
        S3.put_bucket_versioning,
        Bucket=bucket,
        VersioningConfiguration={"Status": "Suspended"},
    )
    time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()) + 1)
    S3.delete_object(Bucket=bucket, Key="c", VersionId=put["VersionId"])
    S3.delete_bucket(Bucket=bucket)


@step
def lifecycle_configuration() -> None:
    rules = [
        {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}},
        {
            "ID": "b",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 9},
        },
    ]
    S3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})
    assert S3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"] == rules
    S3.delete_bucket_lifecycle(Bucket=BUCKET)
    refused("NoSuchLifecycleConfiguration", S3.get_bucket_lifecycle_configuration, Bucket=BUCKET)


@step
def cors() -> None:
    rule = {"AllowedOrigins": ["https://a.example"], "AllowedMethods": ["GET", "PUT"], "AllowedHeaders": ["*"]}
    S3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [rule]})
    assert S3.get_bucket_cors(Bucket=BUCKET)["CORSRules"] == [rule]

    def preflight(origin: str) -> tuple[int, str | None]:
        headers = {"Origin": origin, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-y"}
        request = urllib.request.Request(f"{URL}/{BUCKET}/x", method="OPTIONS", headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers["Access-Control-Allow-Origin"]
        except urllib.error.HTTPError as error:
            return error.code, None

    assert preflight("https://a.example") == (200, "https://a.example")
    assert preflight("https://b.example") == (403, None)
    S3.delete_bucket_cors(Bucket=BUCKET)


@step
def public_reading_by_policy() -> None:
    def anonymous(path: str) -> int:
        try:
            with urllib.request.urlopen(f"{URL}/{BUCKET}/{path}") as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    S3.put_object(Bucket=BUCKET, Key="public/page", Body=b"p")
    assert anonymous("public/page") == 403
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{BUCKET}/public/*"],
    }
    document = {"Version": "2012-10-17", "Statement": [statement]}
    S3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(document))
    assert json.loads(S3.get_bucket_policy(Bucket=BUCKET)["Policy"]) == document
    assert anonymous("public/page") == 200
    assert anonymous("copy") == 403
    assert anonymous("") == 403
    statement["Action"] = ["s3:PutObject"]
    refused("NotImplemented", S3.put_bucket_policy, Bucket=BUCKET, Policy=json.dumps(document))
    S3.delete_bucket_policy(Bucket=BUCKET)
    assert anonymous("public/page") == 403


@step
def presigned_get_and_put() -> None:
    url = S3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "signed"}, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=b"signed")) as answer:
        assert answer.status == 200
    params = {"Bucket": BUCKET, "Key": "signed", "ResponseContentType": "text/z"}
    url = S3.generate_presigned_url("get_object", Params=params, ExpiresIn=60)
    with urllib.request.urlopen(url) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"signed", "text/z")
    try:
        urllib.request.urlopen(url.replace("text%2Fz", "text%2Fq"))
    except urllib.error.HTTPError as error:
        assert error.code == 403
    else:
        raise AssertionError("a changed address was taken")


@step
def all_body_forms() -> None:
    data = os.urandom(200_000)
    for signed in (True, False):
        form = client(s3={"payload_signing_enabled": signed}, request_checksum_calculation="when_required")
        form.put_object(Bucket=BUCKET, Key="form", Body=data)
        assert form.get_object(Bucket=BUCKET, Key="form")["Body"].read() == data


def _resolve_localhost() -> None:
    """Names below localhost are this machine, which not every resolver knows."""
    plain = socket.getaddrinfo

    def resolve(host, *rest, **named):
        return plain("127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **named)

    socket.getaddrinfo = resolve


@step
def virtual_hosts() -> None:
    _resolve_localhost()
    host = boto3.client(
        "s3",
        endpoint_url=URL.replace("127.0.0.1", "localhost"),
        config=Config(s3={"addressing_style": "virtual"}, retries={"max_attempts": 1}),
    )
    host.put_object(Bucket=BUCKET, Key="by/host", Body=b"host")
    assert host.get_object(Bucket=BUCKET, Key="by/host")["Body"].read() == b"host"


@step
def another_key_sees_the_same_and_a_wrong_one_nothing() -> None:
    other = boto3.client(
        "s3",
        aws_access_key_id=os.environ["STOOK_ALT_ACCESS"],
        aws_secret_access_key=os.environ["STOOK_ALT_SECRET"],
    )
    assert other.head_object(Bucket=BUCKET, Key="copy")["ContentLength"] == 5
    wrong = boto3.client("s3", aws_access_key_id=os.environ["STOOK_ALT_ACCESS"], aws_secret_access_key="no")
    refused("SignatureDoesNotMatch", wrong.list_buckets)
    nobody = boto3.client("s3", aws_access_key_id="NOBODY", aws_secret_access_key="no")
    refused("InvalidAccessKeyId", nobody.list_buckets)


@step
def what_is_not_there_is_said() -> None:
    refused("NotImplemented", S3.get_bucket_website, Bucket=BUCKET)
    refused("NotImplemented", S3.get_bucket_replication, Bucket=BUCKET)
    refused("NoSuchBucket", S3.list_objects_v2, Bucket="boto-none")
    refused("NoSuchKey", S3.get_object, Bucket=BUCKET, Key="none")


@step
def empty_and_remove_the_bucket() -> None:
    S3.delete_object(Bucket=BUCKET, Key="l/z\x01z")  # no XML document can name it
    for page in S3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        S3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": each["Key"]} for each in page["Contents"]]})
    S3.delete_bucket(Bucket=BUCKET)


run_steps()
