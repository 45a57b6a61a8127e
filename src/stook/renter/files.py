"""Local files and memory as sources and sinks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from stook.errors import EnvironmentFault, NotFoundError


def _short(name: str) -> str:
    # A name of its own for every file, within the 255 bytes a file system allows.
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]


class FileSource:
    """Reads one file from its beginning. Raises `NotFoundError` or `EnvironmentFault` when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise NotFoundError(f"no such file: {path}") from None
        except OSError as error:
            raise EnvironmentFault(f"{path}: {error.strerror}") from error
        self._path = path
        self._open = True
        status = os.fstat(self._descriptor)
        # Only a regular file's size is the number of bytes it will give.
        self.size_bytes: int | None = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.modified_ms = status.st_mtime_ns // 1_000_000

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` from where the last call stopped. Raises `EnvironmentFault`."""
        filled = 0
        try:
            while filled < len(buffer):
                got = os.readv(self._descriptor, [buffer[filled:]])
                if got == 0:
                    break
                filled += got
        except OSError as error:
            raise EnvironmentFault(f"{self._path}: {error.strerror}") from error
        return filled

    def close(self) -> None:
        """Close the file."""
        if self._open:
            self._open = False
            os.close(self._descriptor)


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes | memoryview, modified_ms: int = 0) -> None:
        self._data = memoryview(data)
        self._at = 0
        self.size_bytes: int | None = len(self._data)
        self.modified_ms = modified_ms

    def read_into(self, buffer: memoryview) -> int:
        """Copy the next bytes."""
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        """Nothing to let go of."""


class FileSink:
    """Writes beside `path` under a temporary name and renames at `commit`: never half a file under the real name."""

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self._path = path
        self._temporary = path.with_name(f".{_short(path.name)}.stook-partial")
        self._sync = sync
        self._descriptor: int | None = None
        self._begun = False

    def begin(self, size_bytes: int) -> None:
        """Create the temporary file. Raises `EnvironmentFault`."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self._temporary, flags, 0o666)
            self._begun = True
            if size_bytes:
                os.ftruncate(self._descriptor, size_bytes)
        except OSError as error:
            raise EnvironmentFault(f"{self._path}: {error.strerror}") from error

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`. Raises `EnvironmentFault`."""
        if self._descriptor is None:
            raise EnvironmentFault(f"{self._path}: not open for writing")
        try:
            while data:
                written = os.pwrite(self._descriptor, data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise EnvironmentFault(f"{self._path}: {error.strerror}") from error

    def commit(self, modified_ms: int) -> None:
        """Give the file its time and its name; synced to disk first when asked for. Raises `EnvironmentFault`."""
        if self._descriptor is None:
            raise EnvironmentFault(f"{self._path}: not open for writing")
        try:
            if self._sync:
                os.fsync(self._descriptor)
            os.utime(self._temporary, ns=(modified_ms * 1_000_000, modified_ms * 1_000_000))
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
            self._temporary.replace(self._path)
            self._begun = False
        except OSError as error:
            raise EnvironmentFault(f"{self._path}: {error.strerror}") from error

    def abort(self) -> None:
        """Remove the temporary file."""
        descriptor, self._descriptor = self._descriptor, None
        with contextlib.suppress(OSError):
            if descriptor is not None:
                os.close(descriptor)
        if self._begun:
            self._begun = False
            with contextlib.suppress(OSError):
                self._temporary.unlink()


class BytesSink:
    """Collects an object in memory; `data` is complete after `commit`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.data: bytes | None = None

    def begin(self, size_bytes: int) -> None:
        """Make room."""
        self._buffer = bytearray(size_bytes)

    def write_at(self, offset: int, data: memoryview) -> None:
        """Copy `data` to its place."""
        self._buffer[offset : offset + len(data)] = data

    def commit(self, modified_ms: int) -> None:
        """Show the bytes."""
        self.data = bytes(self._buffer)

    def abort(self) -> None:
        """Forget the bytes."""
        self._buffer = bytearray()
