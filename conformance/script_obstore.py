"""obstore: object_store from Rust."""

from __future__ import annotations

import os

import obstore
from obstore.store import S3Store

from steps import run_steps, step

B = "obstore-one"
DATA = os.urandom(13 << 20)


def store() -> S3Store:
    return S3Store(
        B,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


@step
def make_bucket() -> None:
    import boto3

    boto3.client("s3").create_bucket(Bucket=B)


@step
def put_and_get() -> None:
    obstore.put(store(), "a/small", b"hello")
    assert bytes(obstore.get(store(), "a/small").bytes()) == b"hello"
    obstore.put(store(), "large", DATA, use_multipart=True, chunk_size=5 << 20)
    assert bytes(obstore.get_range(store(), "large", start=6_000_000, length=500)) == DATA[6_000_000:6_000_500]
    assert bytes(obstore.get(store(), "large").bytes()) == DATA


@step
def create_only_once() -> None:
    obstore.put(store(), "lock", b"1", mode="create", use_multipart=False)
    try:
        obstore.put(store(), "lock", b"2", mode="create", use_multipart=False)
    except obstore.exceptions.AlreadyExistsError:
        return
    raise AssertionError("created twice")


@step
def update_with_etag() -> None:
    first = obstore.put(store(), "cas", b"1")
    obstore.put(store(), "cas", b"2", mode={"e_tag": first["e_tag"]}, use_multipart=False)
    try:
        obstore.put(store(), "cas", b"3", mode={"e_tag": first["e_tag"]}, use_multipart=False)
    except obstore.exceptions.PreconditionError:
        return
    raise AssertionError("updated over another")


@step
def list_copy_rename_delete() -> None:
    paths = [each["path"] for page in obstore.list(store()) for each in page]
    assert paths == ["a/small", "cas", "large", "lock"], paths
    obstore.copy(store(), "large", "copy")
    obstore.rename(store(), "copy", "moved")
    assert obstore.head(store(), "moved")["size"] == len(DATA)
    paths = [each["path"] for page in obstore.list(store()) for each in page]
    obstore.delete(store(), paths)
    assert not [each for page in obstore.list(store()) for each in page]


run_steps()
