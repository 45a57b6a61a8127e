"""Directories on this machine as a source and a destination of recursive copies.

Reading follows no symbolic link inside the tree. Writing stays inside the destination: every part of a name is opened
in the directory before it, and neither a name with ``..`` in it nor a symbolic link lying there leads out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from stook.errors import EnvironmentFault, NotFoundError
from stook.storage.renter_ports import MAX_NAME_BYTES

MODE_BITS = 0o777
"""What is kept of a file's mode: never set-user-id and its like."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EROFS})
"""Errors that the next file would meet as well."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file; `name` is its path below the root, with slashes."""

    name: str
    path: str
    size_bytes: int
    modified_ms: int
    mode: int


@dataclass(slots=True)
class Passed:
    """What a walk or a copy passed over: counts of what was to be expected, and the names of what was not."""

    symlinks: int = 0
    special: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Names, printable, each with the reason."""
    unread_directories: int = 0

    def fail(self, name: str, why: str) -> None:
        """Note one that ought to have been copied and was not."""
        self.failed.append((shown(name), why))


def shown(name: str) -> str:
    """The name as it can be printed on one line: control characters and bytes that are no text come escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


def regular_file(path: str, name: str, status: os.stat_result) -> LocalFile:
    """A file as copies see it."""
    return LocalFile(name, path, status.st_size, status.st_mtime_ns // 1_000_000, status.st_mode & MODE_BITS)


def refusal(name: str) -> str:
    """Why this path cannot be an object's name, or nothing when it can. Names that are no UTF-8 are refused, not
    rewritten: a rewritten one could not come back as it was.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "its name is no UTF-8"
    return f"its name has more than {MAX_NAME_BYTES} bytes" if size > MAX_NAME_BYTES else ""


def walk(root: Path, passed: Passed, *, prefix: str = "") -> Iterator[LocalFile]:
    """Every regular file below `root`, in order of names within each directory. Blocks.

    Symbolic links and special files are counted; what cannot be read or named is noted, and the walk goes on. `prefix`
    is what goes before the names, for the length limit. Raises `EnvironmentFault` when `root` itself cannot be read.
    """
    pending: list[tuple[str, str]] = [(os.fspath(root), "")]
    while pending:
        directory, below = pending.pop()
        try:
            with os.scandir(directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not below:
                raise EnvironmentFault(f"{directory}: {error.strerror}") from error
            passed.unread_directories += 1
            passed.fail(below, error.strerror or "cannot be read")
            continue
        deeper = []
        for entry in found:
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                deeper.append((entry.path, name + "/"))
            elif (file := _looked_at(entry, name, passed, prefix)) is not None:
                yield file
        pending += reversed(deeper)


def _looked_at(entry: os.DirEntry[str], name: str, passed: Passed, prefix: str) -> LocalFile | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # gone since the directory was read
    if stat.S_ISLNK(status.st_mode):
        passed.symlinks += 1
    elif not stat.S_ISREG(status.st_mode):
        passed.special += 1
    elif why := refusal(prefix + name):
        passed.fail(name, why)
    elif not os.access(entry.path, os.R_OK):
        passed.fail(name, "permission denied")
    else:
        return regular_file(entry.path, name, status)
    return None


def unsafe(name: str) -> str:
    """Why an object of this name cannot become a file below a directory, or nothing when it can. Pure."""
    parts = name.split("/")
    if name.startswith("/"):
        return "its name is absolute"
    if ".." in parts:
        return "its name leads out of the directory"
    if "" in parts or "." in parts:
        return "its name has an empty part"
    if "\0" in name:
        return "its name holds a NUL character"
    if os.name == "nt" and any(char in name for char in '\\:*?"<>|'):
        return "its name holds a character that this system forbids"
    return ""


class TreeSink:
    """Writes one object to a file, never through a symbolic link, never half under its own name.

    Errors that concern this file alone are noted in `passed` and the object's bytes dropped, so that one bad name does
    not stop a thousand good ones; a full disk raises `EnvironmentFault`.
    """

    def __init__(self, directory: Path, name: str, mode: int, passed: Passed) -> None:
        self._directory = directory
        self._name = name
        self._mode = mode & MODE_BITS
        self._passed = passed
        self._folder = -1
        self._descriptor = -1
        self._last = name.rpartition("/")[2]
        self._temporary = ""
        self.size_bytes = 0
        self.written = False
        """Whether the file is complete, under its name."""
        self.failed = False

    @property
    def settled(self) -> bool:
        """Whether trying again would change nothing."""
        return self.written or self.failed

    def begin(self, size_bytes: int) -> None:
        """Make the directories and a temporary file in the last one."""
        self.size_bytes = size_bytes
        with self._noting():
            self._folder = open_folder(self._directory, self._name.split("/")[:-1])
            self._temporary = f".{os.urandom(9).hex()}.stook-partial"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._temporary, flags, 0o600, dir_fd=self._folder)
            if size_bytes:
                os.ftruncate(self._descriptor, size_bytes)

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write `data` at `offset`."""
        if self.failed:
            return
        with self._noting():
            while data:
                written = os.pwrite(self._descriptor, data, offset)
                data, offset = data[written:], offset + written

    def commit(self, modified_ms: int) -> None:
        """Give the file its mode, its time and its name."""
        if self.failed:
            return
        with self._noting():
            os.fchmod(self._descriptor, self._mode)
            os.utime(self._descriptor, ns=(modified_ms * 1_000_000, modified_ms * 1_000_000))
            os.replace(self._temporary, self._last, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._temporary = ""
            self.written = True
        self._let_go()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._let_go()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._let_go()
            if error.errno in _NO_ROOM:
                raise EnvironmentFault(f"{self._directory / self._name}: {error.strerror}") from error
            self.failed = True
            self._passed.fail(self._name, _why(error))
        except UnicodeEncodeError:
            self._let_go()
            self.failed = True
            self._passed.fail(self._name, "file names on this system cannot hold these characters")

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._temporary:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._folder)
            self._temporary = ""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def _why(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "a symbolic link or a file stands where a directory has to be"
    return error.strerror or "cannot be written"


def open_folder(root: Path, parts: list[str], *, make: bool = True) -> int:
    """A descriptor of the directory ``root/parts``, made if missing; no part of it may be a symbolic link.

    `root` itself may be one. Raises `OSError`.
    """
    if make:
        root.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(root, flags)
    try:
        for part in parts:
            try:
                deeper = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
            except FileNotFoundError:
                if not make:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
                deeper = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = deeper
    except BaseException:
        os.close(folder)
        raise
    return folder


def look(root: Path, name: str) -> LocalFile | None:
    """The regular file ``root/name``, reached without a symbolic link; None when there is none."""
    *parts, last = name.split("/")
    try:
        folder = open_folder(root, parts, make=False)
    except (OSError, UnicodeEncodeError):
        return None
    try:
        status = os.stat(last, dir_fd=folder, follow_symlinks=False)
    except (OSError, UnicodeEncodeError):
        return None
    finally:
        os.close(folder)
    return regular_file(os.fspath(root / name), name, status) if stat.S_ISREG(status.st_mode) else None


def single_file(path: Path) -> LocalFile:
    """The file a person named; a symbolic link given by name is followed.

    Raises `NotFoundError`, or `EnvironmentFault` when it is no regular file.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"no such file: {shown(os.fspath(path))}") from None
    except OSError as error:
        raise EnvironmentFault(f"{shown(os.fspath(path))}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise EnvironmentFault(f"{shown(os.fspath(path))} is no regular file")
    return regular_file(os.fspath(path), path.name, status)
