"""How many bytes go where: policies, the ladder of shard sizes, segments, stripes and units.

Pure arithmetic. Sizes are bytes. The layout it describes is `docs/formats/segment.md`: a segment's ciphertext is cut
into stripes of `k` units of 16 KiB; unit `i` of stripe `s` lies at offset ``s * 16 KiB`` of shard `i`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stook.errors import UserError
from stook.merkle import UNIT_BYTES

LADDER = tuple(UNIT_BYTES << step for step in range(10))
"""The only shard sizes there are, 16 KiB to 8 MiB, so that a shard's size says little about what it is part of."""
MAX_SHARDS = 255
"""Rows of the code, GF(2^8) less one."""
SEGMENT_BUDGET_BYTES = 128 << 20
"""All shards of one segment together; what bounds a sealer's memory whatever the policy and the file."""
SMALL_OBJECT_BYTES = 1 << 20
"""Objects up to this size live whole in a shared segment."""
PADDING_SHARE = 8
"""Above `SMALL_OBJECT_BYTES`, padding is less than one part in this many (12.5 %)."""
PADDED_SHARD_BYTES = 2 << 20
"""And at most so many bytes in each shard: a further segment costs less than more of it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How widely an object is spread: any `k` shards rebuild it, repair begins below `r`, it is durable at `o`
    receipts, and the agent fills up to `n`.

    Raises `UserError` unless 1 <= k <= r <= o <= n <= 255.
    """

    k: int
    r: int
    o: int
    n: int

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.r <= self.o <= self.n <= MAX_SHARDS:
            raise UserError(f"a policy needs 1 <= k <= r <= o <= n <= {MAX_SHARDS}, not {self}")

    def __str__(self) -> str:
        return f"{self.k}/{self.r}/{self.o}/{self.n}"

    @classmethod
    def of(cls, k: int, n: int) -> Policy:
        """The policy for `k` of `n` with `r` at one third and `o` at two thirds of the surplus, rounded up.

        Raises `UserError` when out of bounds.
        """
        surplus = max(n - k, 0)
        return cls(k=k, r=k + -(-surplus // 3), o=k + -(-surplus * 2 // 3), n=n)

    @classmethod
    def parse(cls, text: str) -> Policy:
        """The policy written ``K/N`` or ``K/R/O/N``. Raises `UserError`."""
        parts = text.split("/")
        if len(parts) not in (2, 4) or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
            raise UserError(f"write a code as K/N or K/R/O/N, for example 4/10, not {text!r}")
        numbers = [int(part) for part in parts]
        return cls.of(*numbers) if len(numbers) == 2 else cls(*numbers)

    @classmethod
    def default(cls, domains: int) -> Policy:
        """A policy for `domains` independent places, one shard in each, a fifth of them left free for replacements.

        Narrow codes get more surplus than wide ones, because few places fail less independently of chance: k is 0.4 n
        below 20 shards, half of n from there on, and n stops at 40. Raises `UserError` below one place.
        """
        if domains < 1:
            raise UserError("no farmer is known yet: name one with --farmer, or a seed")
        n = min(40, domains - domains // 5)
        return cls.of(max(1, n // 2 if n >= 20 else n * 2 // 5), n)


@dataclass(frozen=True, slots=True)
class SegmentShape:
    """One segment: `k` data shards among `total` shards of `shard_bytes` each, a step of the ladder.

    `total` counts every code row made at sealing; further rows (up to 255) can be made later from any `k`, because
    row `i` of the code does not depend on how many there are. Raises `ValueError` outside the format's bounds.
    """

    k: int
    total: int
    shard_bytes: int

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.total <= MAX_SHARDS:
            raise ValueError(f"a segment has 1 <= k <= total <= {MAX_SHARDS} shards, not {self.k} of {self.total}")
        if self.shard_bytes not in LADDER:
            raise ValueError(f"{self.shard_bytes} bytes is no step of the ladder")
        if self.total * self.shard_bytes > SEGMENT_BUDGET_BYTES:
            raise ValueError(f"{self.total} shards of {self.shard_bytes} bytes pass the segment budget")

    @property
    def capacity(self) -> int:
        """The bytes of plaintext, padding included."""
        return self.k * self.shard_bytes

    @property
    def coded_bytes(self) -> int:
        """The bytes of all shards."""
        return self.total * self.shard_bytes

    @property
    def stripes(self) -> int:
        """How many stripes: units per shard."""
        return self.shard_bytes // UNIT_BYTES

    @property
    def stripe_bytes(self) -> int:
        """The plaintext in one stripe."""
        return self.k * UNIT_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes of an object from `offset` on that fill (with padding) a segment of `shape` alone."""

    offset: int
    length: int
    shape: SegmentShape

    @property
    def padding(self) -> int:
        """Zero bytes sealed behind the data."""
        return self.shape.capacity - self.length


@dataclass(frozen=True, slots=True)
class Plan:
    """How an object is cut: `pieces` that are segments of their own, in order, then `tail_bytes` for a shared one."""

    pieces: tuple[Piece, ...]
    tail_offset: int
    tail_bytes: int

    @property
    def padding(self) -> int:
        """Zero bytes sealed behind the pieces."""
        return sum(piece.padding for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class UnitRange:
    """The same run of units, `first` up to not including `end`, of several shards."""

    first: int
    end: int
    data_indices: tuple[int, ...]
    """The data shards that hold the range itself; fetch these alone, or any `k` shards."""

    @property
    def run_bytes(self) -> int:
        """The bytes of the run in each shard."""
        return (self.end - self.first) * UNIT_BYTES


def max_shard_bytes(total: int, segment_bytes: int = SEGMENT_BUDGET_BYTES) -> int:
    """The largest step of the ladder with which `total` shards stay within `segment_bytes` and the segment budget.

    The smallest step when none does. Raises `ValueError` unless 1 <= total <= 255.
    """
    if not 1 <= total <= MAX_SHARDS:
        raise ValueError(f"a segment has 1 to {MAX_SHARDS} shards, not {total}")
    most = min(segment_bytes, SEGMENT_BUDGET_BYTES)
    return max((step for step in LADDER if total * step <= most), default=LADDER[0])


def largest_shape(k: int, total: int, segment_bytes: int = SEGMENT_BUDGET_BYTES) -> SegmentShape:
    """The shape with the largest capacity for `k` of `total`. Raises `ValueError` as `SegmentShape` does."""
    return SegmentShape(k, total, max_shard_bytes(total, segment_bytes))


def smallest_shape(length: int, k: int, total: int) -> SegmentShape:
    """The smallest shape that holds `length` bytes. Raises `ValueError` below one byte or above the largest shape."""
    if length < 1:
        raise ValueError("a segment holds at least one byte")
    for step in LADDER:
        if k * step >= length:
            return SegmentShape(k, total, step)
    raise ValueError(f"{length} bytes are too many for one segment of {k} of {total} shards")


def plan(size: int, largest: SegmentShape) -> Plan:
    """Cut an object of `size` bytes into segments of the `largest` shape, then down the ladder.

    Small objects, and what would need more padding than `PADDING_SHARE` allows, are left as a tail to be bundled. The
    cut is greedy, so a stream of unknown size may be sealed in largest shapes while it comes and the rest be planned
    by `plan_rest`: the pieces are the same. Raises `ValueError` when `size` is negative.
    """
    if size < 0:
        raise ValueError("a size is never negative")
    if size <= SMALL_OBJECT_BYTES:
        return Plan((), 0, size)
    whole = size // largest.capacity
    pieces = tuple(Piece(at * largest.capacity, largest.capacity, largest) for at in range(whole))
    rest = plan_rest(size, whole * largest.capacity, largest)
    return Plan(pieces + rest.pieces, rest.tail_offset, rest.tail_bytes)


def plan_rest(size: int, offset: int, largest: SegmentShape) -> Plan:
    """Cut the last bytes, from `offset` on, of an object of `size` bytes; fewer than the `largest` shape holds.

    Raises `ValueError` when more are left, or when `offset` is not within the object.
    """
    k, total = largest.k, largest.total
    if not 0 <= size - offset < max(largest.capacity, SMALL_OBJECT_BYTES + 1):
        raise ValueError(f"{size - offset} bytes are no rest")
    if size <= SMALL_OBJECT_BYTES:
        return Plan((), offset, size - offset)
    pieces: list[Piece] = []
    while offset < size:
        left = size - offset
        if left < largest.capacity:
            shape = smallest_shape(left, k, total)
            padding = shape.capacity - left
            if padding * PADDING_SHARE < size and padding <= k * PADDED_SHARD_BYTES:
                pieces.append(Piece(offset, left, shape))
                return Plan(tuple(pieces), size, 0)
        fitting = [step for step in LADDER if k * step <= left and step <= largest.shard_bytes]
        if not fitting:
            break
        shape = SegmentShape(k, total, fitting[-1])
        pieces.append(Piece(offset, shape.capacity, shape))
        offset += shape.capacity
    return Plan(tuple(pieces), offset, size - offset)


def units_of(shape: SegmentShape, begin: int, length: int) -> UnitRange:
    """The units that hold `length` bytes of a segment's plaintext from `begin` on.

    Raises `ValueError` when the range is empty or leaves the segment.
    """
    if begin < 0 or length < 1 or begin + length > shape.capacity:
        raise ValueError(f"{length} bytes from {begin} are not within {shape.capacity}")
    first, last = begin // UNIT_BYTES, (begin + length - 1) // UNIT_BYTES
    touched = range(first, last + 1) if last - first < shape.k else range(shape.k)
    return UnitRange(
        first=first // shape.k,
        end=last // shape.k + 1,
        data_indices=tuple(sorted(unit % shape.k for unit in touched)),
    )


def stripe_groups(stripes: int, group: int) -> Iterator[tuple[int, int]]:
    """Cut `stripes` into runs of at most `group`: pairs (first, end)."""
    for first in range(0, stripes, group):
        yield first, min(first + group, stripes)
