"""A disk that forgets: what may stand on it after a power cut at any moment, by the promises of POSIX and no more.

`Recorder` watches the system calls of a program. `after_cut` gives one of the states that a cut behind the first calls
may leave: bytes not synced with their file are there or not, sector by sector; a new length is there or not; a name not
synced with its directory is there or not; a rename may leave both names.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECTOR = 512
Event = tuple[Any, ...]


@dataclass
class Recorder:
    """The calls that changed files under `root`, in order; `note` adds marks of the test between them."""

    root: Path
    events: list[Event] = field(default_factory=list)
    _files: dict[int, int] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _made: int = 0

    def note(self, *mark: Any) -> None:
        """Add a mark."""
        self.events.append(("note", *mark))

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Begin."""
        for name in (
            "open",
            "close",
            "pwrite",
            "ftruncate",
            "posix_fallocate",
            "fdatasync",
            "fsync",
            "rename",
            "unlink",
        ):
            patch.setattr(os, name, self._around(name, getattr(os, name)))

    def _around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        before = getattr(self, f"_{name}")

        def call(*arguments: Any, **named: Any) -> Any:
            finish = before(*arguments)
            result = real(*arguments, **named)
            if finish is not None:
                finish(result)
            return result

        return call

    def _open(self, path: Any, flags: int, *_: Any) -> Callable[[int], None] | None:
        path = str(path)
        if not path.startswith(str(self.root)) or os.path.basename(path) == "lock":
            return None
        if os.path.isdir(path):
            return lambda descriptor: self._files.__setitem__(descriptor, path)  # type: ignore[arg-type]
        new = flags & os.O_CREAT and not os.path.exists(path)

        def finish(descriptor: int) -> None:
            if new:
                self._made += 1
                self._names[path] = self._made
                self.events.append(("link", path, self._made))
            self._files[descriptor] = self._names[path]

        return finish

    def _close(self, descriptor: int) -> None:
        self._files.pop(descriptor, None)

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> Callable[[int], None] | None:
        if descriptor not in self._files:
            return None
        content = bytes(data)
        return lambda count: self.events.append(("write", self._files[descriptor], offset, content[:count]))

    def _ftruncate(self, descriptor: int, length: int) -> None:
        self.events.append(("length", self._files[descriptor], length))

    def _posix_fallocate(self, descriptor: int, offset: int, length: int) -> None:
        self.events.append(("reserve", self._files[descriptor], offset + length))

    def _fdatasync(self, descriptor: int) -> None:
        self.events.append(("sync", self._files[descriptor]))

    def _fsync(self, descriptor: int) -> None:
        if descriptor in self._files:
            self.events.append(("sync", self._files[descriptor]))

    def _rename(self, source: Any, target: Any) -> None:
        self._names[str(target)] = self._names.pop(str(source))
        self.events.append(("rename", str(source), str(target), self._names[str(target)]))

    def _unlink(self, path: Any) -> Callable[[None], None]:
        return lambda _: (self._names.pop(str(path)), self.events.append(("unlink", str(path))))[1]


def _changed(content: bytes, event: Event) -> bytes:
    match event:
        case ("write", _, offset, data):
            return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]
        case ("length", _, length):
            return content[:length].ljust(length, b"\0")
        case ("reserve", _, length):
            return content.ljust(length, b"\0")
    raise AssertionError(event)


def _torn(durable: bytes, volatile: bytes, dice: random.Random) -> bytes:
    """Every sector as it was or as it should become; mostly all old or all new, as such cuts go."""
    likely = dice.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    length = len(volatile) if dice.random() < likely else len(durable)
    sectors = (
        (volatile if dice.random() < likely else durable)[at : at + SECTOR].ljust(SECTOR, b"\0")
        for at in range(0, length, SECTOR)
    )
    return b"".join(sectors)[:length]


def after_cut(events: list[Event], dice: random.Random) -> dict[str, bytes]:
    """Path to content of one state that the disk may be in when the power goes after `events`."""
    durable: dict[int, bytes] = {}
    volatile: dict[int, bytes] = {}
    names: list[tuple[str, int | None, bool]] = []  # path, what it names (None: nothing), whether synced
    for event in events:
        match event:
            case ("link", path, file):
                durable[file] = volatile[file] = b""
                names.append((path, file, False))
            case ("rename", source, target, file):
                names += [(target, file, False), (source, None, False)]
            case ("unlink", path):
                names.append((path, None, False))
            case ("sync", str() as directory):
                names = [(path, file, synced or os.path.dirname(path) == directory) for path, file, synced in names]
            case ("sync", file):
                durable[file] = volatile[file]
            case ("write" | "length" | "reserve", file, *_):
                volatile[file] = _changed(volatile[file], event)
    there: dict[str, int] = {}
    likely = dice.choice((0.0, 0.5, 1.0))
    for path, named, synced in names:
        if synced or dice.random() < likely:
            there.pop(path, None)
            if named is not None:
                there[path] = named
    contents = {file: _torn(durable[file], volatile[file], dice) for file in durable}
    return {path: contents[file] for path, file in there.items()}
