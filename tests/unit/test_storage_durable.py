"""Writing past the page cache: the same bytes, whichever way the system lets them go."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from stook.storage import durable
from stook.storage.durable import DIRECT_BYTES, read_at, write_past_cache


@pytest.fixture
def descriptor(tmp_path):
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield opened
    os.close(opened)


def pages(size_bytes):
    """Random bytes in memory that begins on a page."""
    memory = mmap.mmap(-1, size_bytes)
    memory.write(os.urandom(size_bytes))
    return memoryview(memory)


@pytest.mark.parametrize("offset", [0, 4096, 8256])
@pytest.mark.parametrize("size", [4096, DIRECT_BYTES, 2 * DIRECT_BYTES, DIRECT_BYTES + 1000])
@pytest.mark.parametrize("skew", [0, 16])
def test_every_byte_arrives_aligned_or_not(descriptor, offset, size, skew):
    data = pages(size + skew)[skew:]
    write_past_cache(descriptor, data, offset)
    os.fdatasync(descriptor)
    back = bytearray(size)
    assert read_at(descriptor, memoryview(back), offset) == size
    assert back == data
    write_past_cache(descriptor, memoryview(b"tail"), offset + size)  # the descriptor is as it was before


def test_a_system_that_does_not_write_directly_still_writes(descriptor, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(durable.fcntl, "fcntl", refuse)
    with pytest.raises(OSError, match="Invalid"):
        durable.fcntl.fcntl(descriptor, 0)
    monkeypatch.setattr(durable.fcntl, "fcntl", lambda _, command, *flags: 0 if not flags else refuse())
    data = pages(DIRECT_BYTES)
    write_past_cache(descriptor, data, 0)
    assert os.pread(descriptor, DIRECT_BYTES, 0) == data


def test_a_full_disk_is_told(descriptor, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        write_past_cache(descriptor, pages(DIRECT_BYTES), 0)
