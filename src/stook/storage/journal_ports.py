"""What the journal of a catalog promises: to know what changed, to read it out, and to remember what was saved where.

Calls block; callers on an event loop go through `stook.clock.Offload`. Every writing call is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from stook.ids import SegmentId
from stook.storage.journal_records import PartRef, Point, SaveRef


@dataclass(frozen=True, slots=True)
class JournalState:
    """Where the journal stands."""

    writer: bytes
    """16 random bytes, new for each catalog file: tells two devices with one phrase apart."""
    epoch: int
    """0: nothing was ever saved from this file."""
    generation: int
    """What is committed now gets this number or a later one."""
    saved: int
    """Everything that was committed under this number or an earlier one is recoverable."""
    saved_ms: int
    """When that was; 0: never."""
    alarm: str
    """Why nothing is saved any more, in words; empty while all is well."""
    record: bytes
    """The recovery record that was accepted last, encoded; empty when none was."""


@dataclass(frozen=True, slots=True)
class Unsaved:
    """What is durable, or accepted, and not recoverable yet."""

    rows: int
    """Rows of any table that changed since the last save; 0: everything is recoverable."""
    pressing: int
    """Those that would be missed: of objects and buckets, not of bookkeeping."""
    waiting: int
    """Segments that nothing refers to any more but the saved catalog: they are erased when the next one is saved."""
    objects: int
    """Objects that are new or changed."""
    size_bytes: int
    """Their content."""
    names: tuple[tuple[str, str], ...]
    """Bucket and name of the first of them."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A save that begins: its number is taken, and nobody else ever gets it."""

    sequence: int
    writer: bytes
    generation: int
    """It covers everything committed up to this one, and perhaps some of the next."""
    since: int
    """Rows changed after this generation are in it; below 0: all rows."""
    chain: tuple[int, ...]
    """The saves it builds on."""
    saves: tuple[SaveRef, ...]
    points: tuple[Point, ...]
    schema: str

    @property
    def base(self) -> bool:
        """Whether it is the whole catalog."""
        return self.since < 0


class Reading(Protocol):
    """One state of the catalog, read out frame by frame."""

    @property
    def rows(self) -> int:
        """How many rows were read so far."""
        ...

    def frames(self) -> Iterator[bytes]:
        """The blocks of the save, framed. To be used on one thread at a time."""
        ...


class Journal(Protocol):
    """The journal of one catalog."""

    def state(self) -> JournalState:
        """Where it stands."""
        ...

    def unsaved(self, limit: int) -> Unsaved:
        """What would be lost if this file were lost now; at most `limit` names."""
        ...

    def begin(self) -> Draft:
        """Take a number for a save. Raises `ConflictError` while there is an alarm."""
        ...

    def read(self, draft: Draft) -> AbstractContextManager[Reading]:
        """The rows of a save, all of one moment that is not before `begin`."""
        ...

    def add_part(self, sequence: int, part: PartRef) -> None:
        """Note where a part will be, before it is placed, so that no segment is ever without an owner."""
        ...

    def finish(self, draft: Draft, save: SaveRef, record: bytes, now_ms: int, history_ms: int) -> None:
        """The save and the record that names it were accepted: remember them, and give up what nothing needs now."""
        ...

    def to_release(self) -> Sequence[tuple[int, tuple[SegmentId, ...]]]:
        """Saves given up, with their segments, until `confirm_released`."""
        ...

    def confirm_released(self, sequences: Iterable[int]) -> None:
        """The agent has released these durably."""
        ...

    def saves(self) -> list[SaveRef]:
        """Saves that are kept, oldest first."""
        ...

    def points(self) -> list[Point]:
        """Moments that can be gone back to, oldest first; the last is the newest save."""
        ...

    def segments(self) -> frozenset[SegmentId]:
        """Every segment that saves use, used, or were going to use, until it is released."""
        ...

    def sound(self, alarm: str) -> None:
        """Stop saving, and say why. The first alarm stays."""
        ...

    def take_over(self, epoch: int) -> None:
        """Save from now on under this epoch, beginning with a new base; ends an alarm. Raises `ConflictError` unless it
        is above the present one.
        """
        ...

    def adopt(self, epoch: int, saves: Sequence[SaveRef], points: Sequence[Point], record: bytes, schema: str) -> None:
        """Go on where another device stopped: the last of `points` is what this file was just made of, in rows of
        `schema`; of another one than today's, nothing builds on it.
        """
        ...
