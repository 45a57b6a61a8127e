"""A few small named files, each written whole and durably or not at all; and the same in memory."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from stook.storage.durable import faults, opened, sync_directory, sync_file

MAX_BLOB_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}\Z")
_PARTIAL = ".partial"


def _check(name: str) -> None:
    if not _NAME.match(name) or name.endswith(_PARTIAL):
        raise ValueError(f"{name!r} is no name of a blob")


class FileBlobs:
    """Files in one folder, made when first needed. Raises `EnvironmentFault` when the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> tuple[str, ...]:
        """What is there, in order."""
        with faults(f"reading {self._folder}"):
            try:
                found = os.listdir(self._folder)
            except FileNotFoundError:
                return ()
        return tuple(sorted(name for name in found if _NAME.match(name) and not name.endswith(_PARTIAL)))

    def read(self, name: str) -> bytes | None:
        """A blob, or None when there is none, or one larger than was ever written."""
        _check(name)
        with faults(f"reading {self._folder / name}"):
            try:
                with open(self._folder / name, "rb") as file:
                    data = file.read(MAX_BLOB_BYTES + 1)
            except FileNotFoundError:
                return None
        return data if len(data) <= MAX_BLOB_BYTES else None

    def write(self, name: str, data: bytes) -> None:
        """Put a blob in the place of what was there; on disk when this returns. Raises `ValueError` above 1 MiB."""
        _check(name)
        if len(data) > MAX_BLOB_BYTES:
            raise ValueError(f"a blob of {len(data)} bytes; at most {MAX_BLOB_BYTES} are kept")
        path = self._folder / name
        partial = path.with_name(name + _PARTIAL)
        with faults(f"writing {path}"):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with opened(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                sync_file(descriptor)
            os.replace(partial, path)
            sync_directory(self._folder)

    def remove(self, name: str) -> None:
        """Forget a blob, if it is there."""
        _check(name)
        with faults(f"removing {self._folder / name}"), suppress(FileNotFoundError):
            os.unlink(self._folder / name)


class MemoryBlobs:
    """The same, gone with the process."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def names(self) -> tuple[str, ...]:
        """What is there, in order."""
        return tuple(sorted(self._blobs))

    def read(self, name: str) -> bytes | None:
        """A blob, or None."""
        _check(name)
        return self._blobs.get(name)

    def write(self, name: str, data: bytes) -> None:
        """Put a blob in the place of what was there. Raises `ValueError` above 1 MiB."""
        _check(name)
        if len(data) > MAX_BLOB_BYTES:
            raise ValueError(f"a blob of {len(data)} bytes; at most {MAX_BLOB_BYTES} are kept")
        self._blobs[name] = bytes(data)

    def remove(self, name: str) -> None:
        """Forget a blob, if it is there."""
        _check(name)
        self._blobs.pop(name, None)
