"""Bloom filters over topics, and attenuated ones: what is subscribed here, one hop away, two hops away. Pure.

A filter is a whole number whose set bits are its bits, so that union and membership are one operation each
(`docs/protocol/quasar.md`). `PAPER` is the white paper's filter, kept to be measured beside ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from stook.hashing import Tag, tagged_hash

DEPTH = 3
"""Levels of an attenuated filter: own topics, those one hop away, those two hops away."""
_FNV_OFFSET, _FNV_PRIME, _WORD = 0x811C9DC5, 0x01000193, 0xFFFFFFFF
_PAPER_SEEDS = (83, 87)

Levels = tuple[int, ...]
"""An attenuated filter: `DEPTH` filters, nearest first."""
NOTHING: Levels = (0,) * DEPTH


@dataclass(frozen=True, slots=True)
class Shape:
    """How wide a filter is, and how many of its bits a topic sets."""

    bits: int
    hashes: int
    fnv: bool = False
    """Place bits as the white paper's code did; else by a tagged hash."""

    def __post_init__(self) -> None:
        if self.bits < 8 or self.bits % 8 or not 1 <= self.hashes <= 16:
            raise ValueError("a filter has whole bytes, and a topic sets 1 to 16 of its bits")

    @property
    def size_bytes(self) -> int:
        """Bytes of one level on the wire."""
        return self.bits // 8

    def mask(self, topic: bytes) -> int:
        """The filter that holds this topic alone."""
        return _mask(self, topic)

    def indices(self, topic: bytes) -> tuple[int, ...]:
        """Which bits a topic sets, in the order in which they are computed; some may be equal."""
        if self.fnv:
            first, step = (_fnv(seed, topic.hex().encode()) for seed in _PAPER_SEEDS)
            return tuple((first + turn * step) % self.bits for turn in range(self.hashes))
        digest = tagged_hash(Tag.TOPIC, topic)
        return tuple(int.from_bytes(digest[at : at + 2], "big") % self.bits for at in range(0, 2 * self.hashes, 2))

    def filter_of(self, topics: Iterable[bytes]) -> int:
        """The filter that holds these topics."""
        found = 0
        for topic in topics:
            found |= self.mask(topic)
        return found

    def fill(self, bloom: int) -> float:
        """The share of bits that are set."""
        return bloom.bit_count() / self.bits

    def to_bytes(self, bloom: int) -> bytes:
        """Bit i is bit i mod 8, counted from the lowest, of byte i div 8."""
        return bloom.to_bytes(self.size_bytes, "little")

    def from_bytes(self, data: bytes) -> int:
        """The filter that was written so. Raises `ValueError` for another length."""
        if len(data) != self.size_bytes:
            raise ValueError(f"a filter has {self.size_bytes} bytes, not {len(data)}")
        return int.from_bytes(data, "little")


STANDARD = Shape(bits=2048, hashes=5)
"""What nodes use; chosen from the figures of `docs/quasar.md`."""
PAPER = Shape(bits=160, hashes=2, fnv=True)
"""The white paper's: with all 81 topic codes in it, a quarter of all strange topics seem to be there too."""


@lru_cache(maxsize=8192)
def _mask(shape: Shape, topic: bytes) -> int:
    found = 0
    for index in shape.indices(topic):
        found |= 1 << index
    return found


def _fnv(seed: int, data: bytes) -> int:
    """FNV-1a, 32 bits, over one seed byte and the data."""
    value = ((_FNV_OFFSET ^ seed) * _FNV_PRIME) & _WORD
    for byte in data:
        value = ((value ^ byte) * _FNV_PRIME) & _WORD
    return value


def attenuated(own: int, neighbours: Iterable[Levels]) -> Levels:
    """What a node says that it leads to: its own topics, and each neighbour's levels one level farther away."""
    levels = [own] + [0] * (DEPTH - 1)
    for one in neighbours:
        for depth in range(1, DEPTH):
            levels[depth] |= one[depth - 1]
    return tuple(levels)


def nearest(levels: Levels, mask: int) -> int | None:
    """The first level that holds the topic of this mask; None when none does. Never later than the truth."""
    return next((depth for depth, bloom in enumerate(levels) if bloom & mask == mask), None)
