"""s3fs: files through fsspec."""

from __future__ import annotations

import os

import s3fs

from steps import run_steps, step

FS = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
B = "s3fs-one"
DATA = os.urandom(14 << 20)


@step
def make_bucket() -> None:
    FS.mkdir(B)


@step
def write_and_read_in_blocks() -> None:
    with FS.open(f"{B}/f", "wb", block_size=5 << 20) as file:
        file.write(DATA)
    with FS.open(f"{B}/f", "rb") as file:
        file.seek(7_000_000)
        assert file.read(5000) == DATA[7_000_000:7_005_000]
    assert FS.cat(f"{B}/f") == DATA


@step
def pipe_and_list() -> None:
    FS.pipe({f"{B}/dir/a": b"1", f"{B}/dir/b c": b"2"})
    FS.invalidate_cache()
    assert FS.ls(f"{B}/dir", detail=False) == [f"{B}/dir/a", f"{B}/dir/b c"]
    assert FS.find(B) == [f"{B}/dir/a", f"{B}/dir/b c", f"{B}/f"]


@step
def copy_and_move() -> None:
    FS.copy(f"{B}/f", f"{B}/g")
    FS.mv(f"{B}/dir/a", f"{B}/dir/z")
    FS.invalidate_cache()
    assert FS.cat(f"{B}/dir/z") == b"1"
    assert FS.info(f"{B}/g")["size"] == len(DATA)


@step
def append() -> None:
    with FS.open(f"{B}/g", "ab") as file:
        file.write(b"tail")
    FS.invalidate_cache()
    assert FS.cat(f"{B}/g") == DATA + b"tail"


@step
def exclusive_creation() -> None:
    FS.pipe_file(f"{B}/once", b"1", mode="create")
    try:
        FS.pipe_file(f"{B}/once", b"2", mode="create")
    except FileExistsError:
        return
    raise AssertionError("created twice")


@step
def remove() -> None:
    FS.rm(B, recursive=True)
    FS.invalidate_cache()
    assert not FS.exists(B)


run_steps()
