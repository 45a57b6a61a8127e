"""What a fuzz target is, the tape it reads its decisions from, and ways to spoil good bytes.

A target takes any bytes. It returns, or raises a `StookError`, or one of the exceptions it lists as documented;
anything else is a finding. The same function runs under atheris, under Hypothesis and on a file by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from stook.codec import Record
from stook.errors import BugError, PeerError, StookError

T = TypeVar("T")
MAX_ERROR_CHARS = 1000

BOMBS = (
    b"\xdd\xff\xff\xff\xff",  # an array of 2**32 - 1 items
    b"\xdc\xff\xff",
    b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
    b"\xc5\xff\xff",
    b"\xdb\xff\xff\xff\xff",  # 4 GiB of text
    b"\xdf\xff\xff\xff\xff",  # a map
    b"\xc9\xff\xff\xff\xff\x01",  # an extension type
    b"\x91" * 2000,  # lists in lists
    b"\x81" * 2000,
    b"\xdd\x00\x00\x40\x00",  # 16,384 items, a bound that is really used
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xa2\xed\xa0",  # half a surrogate
    b"\xc0",
)
"""What a decoder must not believe."""


@dataclass(frozen=True)
class Memory:
    """The most that `n` bytes of input may make a target allocate at any moment: ``per_byte * n + constant``."""

    per_byte: int = 32
    constant: int = 160 << 10
    """Room for a tuple of 16,384 items, the most that any record allows, before they are seen to be missing."""


@dataclass(frozen=True)
class Target:
    """One thing that takes bytes from strangers, or from a disk that may have changed them."""

    name: str
    body: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    covers: tuple[str, ...]
    documented: tuple[type[Exception], ...] = ()
    max_bytes: int = 4096
    memory: Memory | None = Memory()
    """None: not measured, because what is read is this machine's own and measuring takes too long."""
    weight: int = 1
    """How many times slower than a plain decoder one run is; it gets so many times fewer."""

    def run(self, data: bytes) -> None:
        """Feed `data`. Raises only for a finding."""
        try:
            self.body(data)
        except BugError:
            raise
        except StookError as error:
            check_text(error)
        except self.documented:
            pass


def check_text(error: StookError) -> None:
    """A peer chooses part of what an error says: it must neither flood a log nor steer a terminal."""
    if isinstance(error, PeerError):
        text = str(error)
        assert len(text) <= MAX_ERROR_CHARS, f"{type(error).__name__} says {len(text)} characters"
        assert text.isprintable(), f"{type(error).__name__} with control characters: {text!a}"


TARGETS: dict[str, Target] = {}


def target(
    name: str, *, seeds: Callable[[], Sequence[bytes]], covers: Sequence[str], **more: Any
) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
    """Enter the function below into the registry. `covers` are the dotted names of what it feeds."""

    def enter(body: Callable[[bytes], object]) -> Callable[[bytes], object]:
        assert name not in TARGETS, name
        TARGETS[name] = Target(name, body, seeds, tuple(covers), **more)
        return body

    return enter


class Edit(Enum):
    """How good bytes are spoiled."""

    SET = 0
    INSERT = 1
    DELETE = 2
    REPEAT = 3
    CUT = 4
    BOMB = 5
    FLIP = 6


def spoil(data: bytes, edit: Edit, at: int, patch: bytes) -> bytes:
    """`data` with one edit at `at` (taken modulo its length)."""
    at %= len(data) + 1
    head, tail = data[:at], data[at:]
    match edit:
        case Edit.SET:
            return head + patch + tail[len(patch) :]
        case Edit.INSERT:
            return head + patch + tail
        case Edit.DELETE:
            return head + tail[1 + sum(patch) % 40 :]
        case Edit.REPEAT:
            return head + tail[: 1 + len(patch) * 4] * 2 + tail
        case Edit.CUT:
            return head
        case Edit.BOMB:
            return head + BOMBS[sum(patch) % len(BOMBS)] + tail[1:]
        case Edit.FLIP:
            return head + bytes([tail[0] ^ (1 << sum(patch) % 8)]) + tail[1:] if tail else head


class Tape:
    """Reads decisions from fuzz input. At its end every number is 0 and every string empty, so a play always ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        """Whether all of it was read."""
        return self._at >= len(self._data)

    def take(self, size: int) -> bytes:
        """At most `size` bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def number(self, most: int) -> int:
        """0 to `most`."""
        size = (most.bit_length() + 7) // 8
        return int.from_bytes(self.take(size), "big") % (most + 1)

    def pick(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.number(len(options) - 1)]

    def chunk(self, most: int = 255) -> bytes:
        """A string with its length before it."""
        return self.take(self.number(most))

    def rest(self) -> bytes:
        """Everything left."""
        return self.take(len(self._data))

    def spoiled(self, data: bytes, most: int = 3) -> bytes:
        """`data` with up to `most` edits."""
        for _ in range(self.number(most)):
            data = spoil(data, self.pick(list(Edit)), self.number(65535), self.chunk(7))
        return data


NUMBERS = (0, 1, 2, 255, 256, 16384, 2**32 - 1, 2**32, 2**63 - 1)


def vary(value: Any, tape: Tape) -> Any:
    """A value with some of its fields changed, as deep as the tape says. It need not be one that decodes."""
    match value:
        case Record():
            for _ in range(1 + tape.number(2)):
                names = value.__struct_fields__
                if not names:
                    break
                name = tape.pick(names)
                try:
                    value = structs.replace(value, **{name: vary(getattr(value, name), tape)})
                except (ValueError, msgspec.ValidationError):
                    continue
            return value
        case tuple():
            if not value or tape.number(3) == 0:
                return ()
            at = tape.number(len(value) - 1)
            changed = vary(value[at], tape)
            return (*value[:at], *((changed,) * tape.number(3)), *value[at + 1 :])
        case bool():
            return not value
        case Enum() if isinstance(value, int):
            return tape.pick(list(type(value)))
        case int():
            near = (value + 1, value - 1, value * 2, value // 2)
            return tape.pick((*NUMBERS, *(number for number in near if 0 <= number < 2**63)))
        case bytes():
            return tape.spoiled(value, 2)
        case str():
            return tape.pick(("", value + value, value[:-1], "other.net", "x" * 64, "\x1b[2J"))
    return value
