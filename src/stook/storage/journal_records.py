"""What a save of the catalog consists of, as it is written into segments (`docs/formats/journal.md`). Pure.

A save is a run of bytes, frame after frame, cut into *parts*; each part is the plaintext of one segment. The last part,
the *head*, says what all others are, and on which earlier saves this one builds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import CorruptionError, MalformedError
from stook.ids import NetworkIdField, SegmentIdField, U32Field, U63Field
from stook.shards.geometry import MAX_SHARDS, SegmentShape

JOURNAL_VERSION = 1
MAX_PARTS = 4096
MAX_CHAIN = 64
MAX_KEPT = 1024
MAX_FRAME_BYTES = 4 << 20
"""A row of the catalog has at most about 1 MiB, a manifest less."""
MAX_SETTINGS_CHARS = 65_536
COUNTER_BITS = 40
MAX_EPOCH = (1 << 12) - 1
MAX_COUNTER = (1 << 28) - 1
"""What lies beyond is no save's number: so the numbers of saves are told from chance."""
_LENGTH_BYTES = 4
_Version = Annotated[int, Meta(ge=1, le=255)]
_Count = Annotated[int, Meta(ge=1, le=MAX_SHARDS)]

R = TypeVar("R", bound=Record)
_CELLS = frozenset({int, str, bytes})


class PartRef(Record):
    """Where one part is: a segment. What opens it follows from its id and the phrase."""

    segment_id: SegmentIdField
    k: _Count
    total: _Count
    shard_bytes: Annotated[int, Meta(ge=1, le=4 << 20)]
    plain_bytes: Annotated[int, Meta(ge=1, le=64 << 20)]

    def __post_init__(self) -> None:
        if self.plain_bytes > self.shape.capacity:
            raise ValueError("a part is larger than its segment")

    @property
    def shape(self) -> SegmentShape:
        """The segment's shape."""
        return SegmentShape(self.k, self.total, self.shard_bytes)


class SaveRef(Record):
    """One save: everything that changed up to `generation` since the save before it, or, as a base, everything."""

    sequence: U63Field
    saved_ms: U63Field
    generation: U63Field
    base: bool
    rows: U63Field
    parts: Annotated[tuple[PartRef, ...], Meta(min_length=1, max_length=MAX_PARTS)]
    """In order of their bytes; the head is the last."""

    @property
    def head(self) -> PartRef:
        """The part that says what the others are."""
        return self.parts[-1]

    @property
    def size_bytes(self) -> int:
        """Plaintext of all parts."""
        return sum(part.plain_bytes for part in self.parts)


class Point(Record):
    """A moment that can be gone back to: the base and the saves after it, oldest first, that lead there."""

    saved_ms: U63Field
    chain: Annotated[tuple[U63Field, ...], Meta(min_length=1, max_length=MAX_CHAIN)]


class PartHead(Record):
    """The first frame of every part."""

    version: _Version
    network: NetworkIdField
    sequence: U63Field
    part: U32Field
    """From 0, in order of the bytes."""
    head: bool


class SaveHead(Record):
    """The second frame of the head: what a reader has to know."""

    schema: Annotated[str, Meta(min_length=1, max_length=64)]
    """The version of `catalog.md` whose tables the rows are of."""
    writer: Annotated[bytes, Meta(min_length=16, max_length=16)]
    saved_ms: U63Field
    generation: U63Field
    base: bool
    rows: U63Field
    parts: Annotated[tuple[PartRef, ...], Meta(max_length=MAX_PARTS)]
    """All parts but the head itself."""
    chain: Annotated[tuple[U63Field, ...], Meta(max_length=MAX_CHAIN)]
    """The saves before this one that it builds on, oldest first; none for a base."""
    saves: Annotated[tuple[SaveRef, ...], Meta(max_length=MAX_KEPT)]
    """Every earlier save that the chain or a point names."""
    points: Annotated[tuple[Point, ...], Meta(max_length=MAX_KEPT)]
    """Earlier moments that are kept, oldest first."""
    settings: Annotated[str, Meta(max_length=MAX_SETTINGS_CHARS)]
    """The renter's settings, as in `config.toml`."""


class Block(Record):
    """Rows of one table: as they are now, or, when `gone`, the keys of rows that are not there any more."""

    table: Annotated[str, Meta(min_length=1, max_length=64)]
    columns: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(min_length=1, max_length=64)]
    gone: bool
    rows: Annotated[
        tuple[Annotated[tuple[Any, ...], Meta(min_length=1, max_length=64)], ...], Meta(min_length=1, max_length=10_000)
    ]
    """Whole numbers, text or bytes, nothing else."""

    def __post_init__(self) -> None:
        width = len(self.columns)
        for row in self.rows:
            if len(row) != width or not _CELLS.issuperset(map(type, row)):
                raise ValueError("a row does not fit its columns, or holds what no column holds")


def sequence_of(epoch: int, counter: int) -> int:
    """The number of a save: later epochs come after all of earlier ones."""
    return epoch << COUNTER_BITS | counter


def is_sequence(number: int) -> bool:
    """Whether a save can have this number."""
    return 1 <= epoch_of(number) <= MAX_EPOCH and number & ((1 << COUNTER_BITS) - 1) <= MAX_COUNTER


def next_sequence(epoch: int, counter: int) -> tuple[int, int]:
    """Epoch and counter of the save after the one with these."""
    return (max(epoch, 1), counter + 1) if counter < MAX_COUNTER else (epoch + 1, 1)


def epoch_of(sequence: int) -> int:
    """The writer's epoch in a save's number."""
    return sequence >> COUNTER_BITS


def frame(value: Record) -> bytes:
    """One frame: the length in four bytes, then the value."""
    body = encode(value)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def first_frame(data: memoryview) -> tuple[memoryview, memoryview] | None:
    """The body of the first frame and what follows it; None while it is not there in full.

    Raises `CorruptionError` for a length that no frame has.
    """
    if len(data) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if not 1 <= length <= MAX_FRAME_BYTES:
        raise CorruptionError(f"a frame of {length} bytes")
    end = _LENGTH_BYTES + length
    return (data[_LENGTH_BYTES:end], data[end:]) if len(data) >= end else None


def open_frame(kind: type[R], body: memoryview) -> R:
    """The value in a frame. Raises `CorruptionError`."""
    try:
        return decode(kind, body, max_bytes=MAX_FRAME_BYTES)
    except MalformedError as error:
        raise CorruptionError(f"a saved catalog does not decode: {error}") from error


class BlockReader:
    """Blocks out of a run of bytes that comes in pieces. Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: memoryview) -> Iterator[Block]:
        """The blocks that are complete with `data`, which is only lent. Raises `CorruptionError`."""
        view = memoryview(self._rest + bytes(data)) if self._rest else data
        while (found := first_frame(view)) is not None:
            body, view = found
            yield open_frame(Block, body)
        self._rest = bytes(view)

    def finish(self) -> None:
        """No more comes. Raises `CorruptionError` when a frame is incomplete."""
        if self._rest:
            raise CorruptionError("a saved catalog ends in the middle of a frame")


# ------------------------------------------------------------------------------------------------------------ decisions

SMALL_ROWS = 64
"""A save of fewer rows costs as much as one of these, because shards have a smallest size."""
LAST_POINTS = 8
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def absorbed(sizes: Iterable[int], changed: int) -> int:
    """How many of the saves of a chain (their rows, base first) stay when `changed` more rows are to be saved.

    A new save takes in those before it that are at most twice as large as itself by then, so that sizes more than halve
    along the chain: its length, and how often a row is saved again, grow as the logarithm of what changed. 0: a new
    base.
    """
    chain = [max(size, SMALL_ROWS) for size in sizes]
    keep, taken = len(chain), max(changed, SMALL_ROWS)
    while keep and (chain[keep - 1] <= 2 * taken or keep >= MAX_CHAIN - 1):
        keep -= 1
        taken += chain[keep]
    return keep


def points_to_keep(points: Iterable[tuple[int, int]], now_ms: int, history_ms: int) -> frozenset[int]:
    """Which of `points` (sequence, when) are kept: the newest; and, up to `history_ms` back, the last few, of the last
    day the newest of each hour, further back the newest of each day.
    """
    kept: dict[tuple[str, int], int] = {}
    newest = 0
    for place, (sequence, saved_ms) in enumerate(sorted(points)):
        newest, age = sequence, now_ms - saved_ms
        if age > history_ms:
            continue
        kept["last", place % LAST_POINTS] = sequence
        kept["hour" if age < DAY_MS else "day", saved_ms // (HOUR_MS if age < DAY_MS else DAY_MS)] = sequence
    return frozenset({newest, *kept.values()})
