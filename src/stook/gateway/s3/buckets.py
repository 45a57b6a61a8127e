"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation."""

from __future__ import annotations

import re

from stook.errors import ConflictError
from stook.gateway.s3 import meta
from stook.gateway.s3.errors import S3Error
from stook.gateway.s3.listing import owner
from stook.gateway.s3.request import Answer, Gateway, Request, xml_answer
from stook.gateway.s3.xml import Writer, iso_time, parse
from stook.storage.renter_ports import Bucket

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}", re.ASCII)


def check_bucket_name(name: str) -> None:
    """Raises `S3Error` for a name that S3 does not let a new bucket have."""
    if not _NAME.fullmatch(name) or ".." in name or _ADDRESS.fullmatch(name):
        raise S3Error("InvalidBucketName", "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")


async def list_buckets(gateway: Gateway, request: Request) -> Answer:
    """ListBuckets: those that the key may read."""
    found = await gateway.objects.offload(gateway.objects.store.buckets)
    writer = Writer("ListAllMyBucketsResult")
    owner(writer, gateway.owner_id)
    writer.begin("Buckets")
    for each in found:
        bucket = each.bucket
        if request.key is not None and request.key.may(bucket.name, write=False):
            writer.begin("Bucket").text("Name", bucket.name).text("CreationDate", iso_time(bucket.created_ms)).end()
    return xml_answer(writer.end())


async def create_bucket(gateway: Gateway, request: Request) -> Answer:
    """CreateBucket, in any region."""
    meta.check_ignored(request.headers)
    body = request.body(1 << 16)
    if body.promise.size is None or body.promise.size:
        data = await body.whole(1 << 16)
        if data.strip():
            parse(data, "CreateBucketConfiguration")
    check_bucket_name(request.bucket)
    lockable = (request.headers.get("x-amz-bucket-object-lock-enabled") or "").lower() == "true"
    objects = gateway.objects
    bucket = Bucket(request.bucket, objects.entropy(16), objects.entropy(32), request.now_ms)
    try:
        await objects.offload(lambda: objects.store.make_bucket(bucket, lockable=lockable))
    except ConflictError:
        raise S3Error("BucketAlreadyOwnedByYou", "you own a bucket of this name already") from None
    return Answer(headers={"Location": f"/{request.bucket}"})


async def head_bucket(gateway: Gateway, request: Request) -> Answer:
    """HeadBucket."""
    await gateway.bucket(request)
    return Answer(headers={"x-amz-bucket-region": gateway.region})


async def delete_bucket(gateway: Gateway, request: Request) -> Answer:
    """DeleteBucket: an empty one, old versions and delete markers counted."""
    try:
        await gateway.objects.remove_bucket(request.bucket)
    except ConflictError as error:
        raise S3Error("BucketNotEmpty", str(error)) from error
    return Answer(204)


async def get_location(gateway: Gateway, request: Request) -> Answer:
    """GetBucketLocation: everywhere and nowhere, which S3 calls by no name."""
    await gateway.bucket(request)
    return xml_answer(Writer("LocationConstraint"))
