"""Pipes and devices as a source and a sink: bytes that come once, in order, with a size nobody knows before."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stook.errors import EnvironmentFault


class PipeSource:
    """Reads a descriptor to its end. `close` ends a read that is waiting for input, so that Ctrl-C is never stuck.

    The descriptor itself stays open: it is the caller's.
    """

    size_bytes: int | None = None

    def __init__(self, descriptor: int, modified_ms: int) -> None:
        self._descriptor = descriptor
        self.modified_ms = modified_ms
        self._wake, self._waker = os.pipe()
        self._reading = threading.Lock()
        self._closed = False

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer`; fewer bytes than its length only at the end, or after `close`. Raises `EnvironmentFault`."""
        filled = 0
        with self._reading:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            poll.register(self._wake, select.POLLIN)
            try:
                while filled < len(buffer) and not self._closed:
                    if any(ready == self._wake for ready, _ in poll.poll()):
                        break
                    got = os.readv(self._descriptor, [buffer[filled:]])
                    if got == 0:
                        break
                    filled += got
            except OSError as error:
                raise EnvironmentFault(f"standard input: {error.strerror}") from error
        return filled

    def close(self) -> None:
        """Read no more."""
        if self._closed:
            return
        self._closed = True
        os.write(self._waker, b".")
        with self._reading:
            os.close(self._wake)
            os.close(self._waker)


class PipeSink:
    """Writes to a descriptor in order; for `Client.stream` only. `BrokenPipeError` is let through."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self.written_bytes = 0

    def begin(self, size_bytes: int) -> None:
        """Nothing to prepare."""

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write `data`, which follows what was written. Raises `EnvironmentFault`, `BrokenPipeError`."""
        try:
            while data:
                written = os.write(self._descriptor, data)
                self.written_bytes += written
                data = data[written:]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise EnvironmentFault(f"{self._name}: {error.strerror}") from error

    def commit(self, modified_ms: int) -> None:
        """All is written."""

    def abort(self) -> None:
        """What was written stays written."""


@contextmanager
def opened_device(path: Path) -> Iterator[int]:
    """A descriptor to write to something that is no regular file: a pipe, a terminal, `/dev/null`.

    Raises `EnvironmentFault`.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EnvironmentFault(f"{path}: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
