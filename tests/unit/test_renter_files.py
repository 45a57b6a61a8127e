"""Local files as sources and sinks: never half a file under a real name, never a leftover beside it."""

import os
from pathlib import Path

import pytest

from stook.errors import EnvironmentFault, NotFoundError
from stook.renter.files import FileSink, FileSource


def test_a_file_appears_whole_with_its_time(tmp_path: Path):
    sink = FileSink(tmp_path / "deep" / "name")
    sink.begin(6)
    sink.write_at(3, memoryview(b"def"))
    sink.write_at(0, memoryview(b"abc"))
    assert not (tmp_path / "deep" / "name").exists()
    sink.commit(1_234_567)
    sink.abort()
    assert (tmp_path / "deep" / "name").read_bytes() == b"abcdef"
    assert (tmp_path / "deep" / "name").stat().st_mtime_ns == 1_234_567_000_000
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_an_aborted_file_leaves_nothing_and_spares_what_was_there(tmp_path: Path):
    (tmp_path / "name").write_bytes(b"old")
    sink = FileSink(tmp_path / "name")
    sink.begin(1 << 20)
    sink.write_at(0, memoryview(b"new"))
    sink.abort()
    sink.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert (tmp_path / "name").read_bytes() == b"old"


def test_a_commit_that_fails_can_still_be_aborted(tmp_path: Path):
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "inside").touch()
    sink = FileSink(tmp_path / "name")
    sink.begin(0)
    with pytest.raises(EnvironmentFault):
        sink.commit(0)
    sink.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_a_sink_that_was_never_begun_aborts_quietly_and_takes_nothing(tmp_path: Path):
    sink = FileSink(tmp_path / "name")
    sink.abort()
    with pytest.raises(EnvironmentFault, match="not open"):
        sink.write_at(0, memoryview(b"x"))
    with pytest.raises(EnvironmentFault, match="not open"):
        sink.commit(0)


def test_only_a_regular_file_says_its_size(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"12345")
    regular = FileSource(tmp_path / "file")
    assert regular.size_bytes == 5
    regular.close()
    regular.close()
    device = FileSource(Path("/dev/zero"))
    assert device.size_bytes is None
    device.close()


def test_what_cannot_be_opened_is_told(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no such file"):
        FileSource(tmp_path / "none")
    folder = FileSource(tmp_path)
    with pytest.raises(EnvironmentFault, match="directory"):
        folder.read_into(memoryview(bytearray(5)))
    folder.close()


def test_reading_stops_at_the_end(tmp_path: Path):
    (tmp_path / "file").write_bytes(os.urandom(10))
    source, buffer = FileSource(tmp_path / "file"), bytearray(16)
    assert [source.read_into(memoryview(buffer)[:7]) for _ in range(3)] == [7, 3, 0]
    source.close()
