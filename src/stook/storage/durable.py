"""Files that survive a power cut: the few calls that make it so, and the same errors from all of them.

Nothing here knows what a shard is. `docs/formats/shard-file.md` says which call is used when, and why.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stook.errors import EnvironmentFault

DIRECT_BYTES = 128 * 1024
"""Below this a direct write costs more than the cache does."""
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


@contextmanager
def faults(doing: str) -> Iterator[None]:
    """Turn `OSError` into `EnvironmentFault` that says what was being done and what to do."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(f"{doing}: {_explain(error)}") from error


def _explain(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{text}; free some space or lower the allocation"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{text}; this user must be able to write there"
    return text


@contextmanager
def opened(path: str | Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    """A file descriptor for the length of a block. Raises `OSError`."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_data(descriptor: int) -> None:
    """Let a file's bytes, and its length if it grew, reach the disk. Raises `OSError`."""
    if sys.platform == "darwin":
        sync_file(descriptor)
    else:
        os.fdatasync(descriptor)


def sync_file(descriptor: int) -> None:
    """Let a file's bytes and its length, shrunk ones too, reach the disk. Raises `OSError`."""
    if sys.platform == "darwin":  # fsync there stops at the drive's cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_directory(path: str | Path) -> None:
    """Let the names in a directory reach the disk. Raises `OSError`."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def reserve(descriptor: int, size_bytes: int) -> None:
    """Make a file at least `size_bytes` long with its room on the disk taken. Raises `OSError` (ENOSPC) without room.

    Where the file system cannot reserve, the file is only made long.
    """
    if sys.platform != "darwin":
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    if os.fstat(descriptor).st_size < size_bytes:
        os.ftruncate(descriptor, size_bytes)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, however the system cuts it. Raises `OSError`."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def write_past_cache(descriptor: int, data: memoryview, offset: int) -> None:
    """As `write_at`, but without leaving the bytes in the system's cache where that can be helped.

    It can when memory, offset and length are whole pages and the file system writes directly; else nothing is lost
    (`docs/decisions/0053-past-the-page-cache.md`). Raises `OSError`.
    """
    written = _write_direct(descriptor, data, offset) if len(data) >= DIRECT_BYTES else 0
    write_at(descriptor, data[written:], offset + written)


def _write_direct(descriptor: int, data: memoryview, offset: int) -> int:
    """Bytes written directly, 0 when the system will not."""
    if sys.platform != "linux":
        return 0
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        try:
            return os.pwrite(descriptor, data, offset)
        finally:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return 0


def read_at(descriptor: int, into: memoryview, offset: int) -> int:
    """Fill `into` from `offset` on; the number of bytes, short only at the end of the file. Raises `OSError`."""
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def disk_bytes(status: os.stat_result) -> int:
    """What a file takes on its disk (512-byte blocks of POSIX; the length where blocks are not told)."""
    return status.st_blocks * 512 or status.st_size


def remove(path: str | Path) -> int:
    """Unlink a file; the disk bytes it took, 0 when there was none. Raises `OSError`."""
    with suppress(FileNotFoundError):
        freed = disk_bytes(os.stat(path))
        os.unlink(path)
        return freed
    return 0
