"""pandas, pyarrow, zarr and dask on ``stook://``, against a real network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from s3_demo import S3Demo
from stook.filesystem import StookFileSystem

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def fs(s3_demo: S3Demo) -> Iterator[StookFileSystem]:
    filesystem = fsspec.filesystem("stook", home=str(s3_demo.home))
    assert isinstance(filesystem, StookFileSystem)
    filesystem.mkdir("tables")
    yield filesystem
    filesystem.rm("tables", recursive=True)
    filesystem.close()


def test_files_as_fsspec_knows_them(fs: StookFileSystem, tmp_path: Path) -> None:
    fs.pipe({"tables/dir/a": b"one", "tables/dir/deep/b": b"two"})
    assert fs.cat("tables/dir/a") == b"one"
    assert fs.cat_file("tables/dir/a", 1, -1) == b"n"
    assert sorted(fs.ls("tables/dir", detail=False)) == ["tables/dir/a", "tables/dir/deep"]
    assert fs.find("tables/dir") == ["tables/dir/a", "tables/dir/deep/b"]
    assert fs.glob("tables/**/b") == ["tables/dir/deep/b"]
    assert fs.isdir("tables/dir/deep")
    assert fs.isfile("stook://tables/dir/a")
    assert not fs.exists("tables/nothing")
    with pytest.raises(FileNotFoundError):
        fs.cat_file("tables/nothing")
    with pytest.raises(FileNotFoundError):
        fs.info("tables/nothing")
    fs.cp("tables/dir/a", "tables/c")
    fs.mv("tables/c", "tables/d")
    assert fs.cat("tables/d") == b"one"
    fs.get("tables/dir", str(tmp_path / "dir"), recursive=True)
    assert (tmp_path / "dir/deep/b").read_bytes() == b"two"
    fs.put(str(tmp_path / "dir"), "tables/again", recursive=True)
    assert fs.find("tables/again") == ["tables/again/a", "tables/again/deep/b"]
    fs.rm("tables/again", recursive=True)
    assert not fs.exists("tables/again")


def test_a_file_written_in_blocks_is_visible_when_it_is_closed(fs: StookFileSystem) -> None:
    data = os.urandom(20 << 20)
    with fs.open("tables/blocks", "wb", block_size=3 << 20) as file:
        for at in range(0, len(data), 700_000):
            file.write(data[at : at + 700_000])
        assert not fs.exists("tables/blocks")
    with fs.open("tables/blocks", "rb") as file:
        file.seek(12_345_678)
        assert file.read(1000) == data[12_345_678 : 12_345_678 + 1000]
        assert file.read() == data[12_345_678 + 1000 :]


def test_what_was_written_before_an_exception_is_not_kept(fs: StookFileSystem) -> None:
    def write() -> None:
        with fs.open("tables/half", "wb", block_size=1 << 20) as file:
            file.write(os.urandom(3 << 20))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    fs.invalidate_cache()
    assert not fs.exists("tables/half")


def test_exclusive_creation(fs: StookFileSystem) -> None:
    fs.pipe_file("tables/once", b"1", mode="create")
    with pytest.raises(FileExistsError):
        fs.pipe_file("tables/once", b"2", mode="create")
    assert fs.cat("tables/once") == b"1"


def test_pandas_reads_and_writes(fs: StookFileSystem, s3_demo: S3Demo) -> None:
    pandas = pytest.importorskip("pandas")
    options = {"home": str(s3_demo.home)}
    frame = pandas.DataFrame({"n": range(1000), "word": [f"w{n}" for n in range(1000)]})
    frame.to_csv("stook://tables/words.csv", index=False, storage_options=options)
    assert pandas.read_csv("stook://tables/words.csv", storage_options=options).equals(frame)


def test_one_column_of_a_parquet_file_fetches_its_bytes_alone(
    fs: StookFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    import numpy
    import pyarrow
    import pyarrow.parquet as parquet

    rows = 400_000
    dice = numpy.random.default_rng(7)
    table = pyarrow.table({f"c{number}": dice.random(rows) for number in range(8)})
    parquet.write_table(table, "tables/wide.parquet", filesystem=fs, compression="none", use_dictionary=False)
    size = fs.info("tables/wide.parquet")["size"]
    assert size > 8 * 8 * rows

    fetched = 0
    plain = StookFileSystem._cat_file

    async def counting(self: StookFileSystem, path: str, start: Any = None, end: Any = None, **more: Any) -> bytes:
        nonlocal fetched
        data = await plain(self, path, start=start, end=end, **more)
        fetched += len(data)
        return data

    monkeypatch.setattr(StookFileSystem, "_cat_file", counting)
    column = parquet.read_table("tables/wide.parquet", columns=["c3"], filesystem=fs, pre_buffer=True)
    assert column["c3"].equals(table["c3"])
    # One column of eight, the footer, and at most a few MiB read ahead.
    assert fetched < size / 8 + (6 << 20), (fetched, size)
    assert parquet.read_table("tables/wide.parquet", filesystem=fs).equals(table)


def test_zarr_reads_and_writes(fs: StookFileSystem, s3_demo: S3Demo) -> None:
    zarr = pytest.importorskip("zarr")
    import numpy

    store = zarr.storage.FsspecStore.from_url("stook://tables/cube.zarr", storage_options={"home": str(s3_demo.home)})
    data = numpy.arange(64 * 64 * 4, dtype="i4").reshape(64, 64, 4)
    array = zarr.create_array(store, shape=data.shape, chunks=(32, 32, 4), dtype="i4")
    array[:] = data
    again = zarr.open_array(store, mode="r")
    assert (again[10:20, 30:40] == data[10:20, 30:40]).all()


def test_dask_reads_and_writes(fs: StookFileSystem, s3_demo: S3Demo) -> None:
    bag = pytest.importorskip("dask.bag")
    options = {"home": str(s3_demo.home)}
    lines = bag.from_sequence([f"line {n}" for n in range(100)], npartitions=4)
    lines.to_textfiles("stook://tables/lines/*.txt", storage_options=options, compute_kwargs={"scheduler": "threads"})
    again = bag.read_text("stook://tables/lines/*.txt", storage_options=options).compute(scheduler="threads")
    assert sorted(line.strip() for line in again) == sorted(f"line {n}" for n in range(100))
