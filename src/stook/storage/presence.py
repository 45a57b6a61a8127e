"""Who else uploads from the same home: told by locks that the system lets go when their holder dies, however it dies.

Whoever arrives and finds nobody else knows that whatever uploads left behind is nobody's any more
(`docs/decisions/0093-nothing-placed-without-an-owner.md`).
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Protocol

from stook.errors import EnvironmentFault

WAIT_SECONDS = 60.0
"""How long a newcomer waits while another process clears up, which takes moments."""
_PAUSE_SECONDS = 0.02


class Stay(Protocol):
    """One upload's time in the home. Calls block shortly."""

    def enter(self) -> bool:
        """Whether nobody else is there. Who is alone stays so, newcomers waiting, until `share`.

        Raises `EnvironmentFault` when the home cannot be used, or somebody clears up for too long.
        """
        ...

    def share(self) -> None:
        """Let newcomers in."""
        ...

    def leave(self) -> None:
        """Gone. Idempotent, and harmless before `enter`."""
        ...


class Presence(Protocol):
    """The uploads of one home."""

    def stay(self) -> Stay:
        """For one more upload, which has not entered yet."""
        ...


class FilePresence:
    """Among all processes that use one home: a lock file, held shared by every upload.

    A second one is the door: only who holds it enters or begins to share. For a lock that becomes a shared one may be
    let go for a moment on the way (flock(2)), and a newcomer in that moment would take itself for alone as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def stay(self) -> Stay:
        """See the port."""
        return _FileStay(self._path)


class _FileStay:
    def __init__(self, path: Path) -> None:
        self._path = path
        # Descriptors of its own: locks belong to them, so that uploads of one process see each other as well.
        self._place: int | None = None
        self._door: int | None = None

    def enter(self) -> bool:
        try:
            self._door = _open(self._path.with_name(self._path.name + ".door"))
            self._wait_for(self._door, fcntl.LOCK_EX)
            self._place = _open(self._path)
            if _lock(self._place, fcntl.LOCK_EX):
                return True
            self.share()
        except OSError as error:
            raise EnvironmentFault(f"{self._path}: {error.strerror}") from error
        return False

    def share(self) -> None:
        if self._door is not None and self._place is not None:
            self._wait_for(self._place, fcntl.LOCK_SH)
            os.close(self._door)
            self._door = None

    def leave(self) -> None:
        for descriptor in (self._place, self._door):
            if descriptor is not None:
                os.close(descriptor)
        self._place = self._door = None

    def _wait_for(self, descriptor: int, kind: int) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not _lock(descriptor, kind):
            if time.monotonic() > deadline:
                raise EnvironmentFault(f"{self._path}: another process has held it for {WAIT_SECONDS:.0f} s")
            time.sleep(_PAUSE_SECONDS)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class MemoryPresence:
    """Among the uploads of one client, whose catalog nobody else uses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present = 0

    def stay(self) -> Stay:
        """See the port."""
        return _MemoryStay(self)

    def count(self, change: int) -> int:
        """How many are there after the change."""
        with self._lock:
            self._present += change
            return self._present


class _MemoryStay:
    def __init__(self, presence: MemoryPresence) -> None:
        self._presence = presence
        self._entered = False

    def enter(self) -> bool:
        self._entered = True
        return self._presence.count(1) == 1

    def share(self) -> None:
        """Newcomers need not be held up: a client lets them in one after the other."""

    def leave(self) -> None:
        if self._entered:
            self._entered = False
            self._presence.count(-1)
