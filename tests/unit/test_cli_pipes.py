"""Standard input and output: bytes in order, and never stuck."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stook.cli.pipes import PipeSink, PipeSource, opened_device
from stook.errors import EnvironmentFault


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    open_ends = [reader, writer]
    try:
        yield reader, writer
    finally:
        for end in open_ends:
            try:
                os.close(end)
            except OSError:
                continue


def test_a_source_fills_the_buffer_from_small_writes(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    source = PipeSource(reader, 5)
    buffer = bytearray(10)

    def write() -> None:
        for part in (b"ab", b"cdefg", b"hij", b"klm"):
            os.write(writer, part)
        os.close(writer)

    writing = threading.Thread(target=write)
    writing.start()
    assert source.read_into(memoryview(buffer)) == 10
    assert bytes(buffer) == b"abcdefghij"
    assert source.read_into(memoryview(buffer)) == 3
    assert source.read_into(memoryview(buffer)) == 0
    writing.join()
    source.close()
    source.close()
    assert (source.size_bytes, source.modified_ms) == (None, 5)


def test_closing_ends_a_read_that_waits_for_input(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    source = PipeSource(reader, 0)
    os.write(writer, b"abc")
    got: list[int] = []
    reading = threading.Thread(target=lambda: got.append(source.read_into(memoryview(bytearray(100)))))
    reading.start()
    source.close()
    reading.join(10)
    assert not reading.is_alive()
    assert got in ([0], [3])
    os.fstat(reader)  # it is the caller's


def test_a_regular_file_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    with (tmp_path / "file").open("rb") as file:
        source = PipeSource(file.fileno(), 0)
        assert source.read_into(memoryview(bytearray(200_000))) == 100_000
        source.close()


def test_an_input_that_is_a_directory_is_an_error(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    source = PipeSource(descriptor, 0)
    with pytest.raises(EnvironmentFault, match="standard input"):
        source.read_into(memoryview(bytearray(10)))
    source.close()
    os.close(descriptor)


def test_a_sink_writes_in_order_and_lets_a_broken_pipe_through(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = PipeSink(writer, "standard output")
    sink.begin(6)
    sink.write_at(0, memoryview(b"abc"))
    sink.write_at(3, memoryview(b"def"))
    sink.commit(0)
    assert os.read(reader, 100) == b"abcdef"
    assert sink.written_bytes == 6
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        sink.write_at(6, memoryview(b"x"))


def test_a_full_device_is_this_machines_fault() -> None:
    with opened_device(Path("/dev/full")) as descriptor, pytest.raises(EnvironmentFault, match="out: No space left"):
        PipeSink(descriptor, "out").write_at(0, memoryview(b"x"))


def test_a_device_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="No such file"), opened_device(tmp_path / "gone"):
        pass
