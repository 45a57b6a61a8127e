"""The MinIO SDK: signed chunks over plain HTTP."""

from __future__ import annotations

import io
import os
from datetime import timedelta

from minio import Minio
from minio.commonconfig import ComposeSource, CopySource
from minio.deleteobjects import DeleteObject

from steps import run_steps, step

HOST = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
M = Minio(HOST, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], secure=False)
B = "minio-one"
DATA = os.urandom(13 << 20)


@step
def make_bucket() -> None:
    assert not M.bucket_exists(B)
    M.make_bucket(B)
    assert M.bucket_exists(B)


@step
def put_and_get() -> None:
    M.put_object(B, "small", io.BytesIO(b"hello"), 5, metadata={"who": "me"})
    answer = M.get_object(B, "small")
    assert answer.read() == b"hello"
    answer.close()
    assert M.stat_object(B, "small").metadata["x-amz-meta-who"] == "me"


@step
def put_in_parts() -> None:
    M.put_object(B, "large", io.BytesIO(DATA), len(DATA), part_size=5 << 20)
    answer = M.get_object(B, "large", offset=6_000_000, length=1000)
    assert answer.read() == DATA[6_000_000:6_001_000]
    answer.close()


@step
def put_of_unknown_size() -> None:
    M.put_object(B, "stream", io.BytesIO(DATA), -1, part_size=5 << 20)
    assert M.stat_object(B, "stream").size == len(DATA)


@step
def list_recursively_and_by_folder() -> None:
    M.put_object(B, "d/x", io.BytesIO(b""), 0)
    assert sorted(each.object_name for each in M.list_objects(B)) == ["d/", "large", "small", "stream"]
    assert "d/x" in [each.object_name for each in M.list_objects(B, recursive=True)]


@step
def copy_and_compose() -> None:
    M.copy_object(B, "copy", CopySource(B, "small"))
    M.compose_object(B, "both", [ComposeSource(B, "large"), ComposeSource(B, "small")])
    answer = M.get_object(B, "both")
    assert answer.read() == DATA + b"hello"
    answer.close()


@step
def presigned() -> None:
    import urllib.request

    with urllib.request.urlopen(M.presigned_get_object(B, "small", expires=timedelta(minutes=1))) as answer:
        assert answer.read() == b"hello"


@step
def remove_objects_and_bucket() -> None:
    names = [each.object_name for each in M.list_objects(B, recursive=True)]
    assert not list(M.remove_objects(B, [DeleteObject(name) for name in names]))
    M.remove_bucket(B)


run_steps()
