"""What a challenge is drawn over: the shards of one renter at one farmer, and the draw itself.

The draw follows from nonce and holding alone, so anybody who has both can make it again (`docs/formats/audit.md`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise

from blake3 import blake3

from stook.errors import MalformedError
from stook.hashing import Tag, tagged_hash
from stook.ids import ROOT_BYTES, ContractId, ShardRoot
from stook.merkle import unit_count

MAX_HELD = 1 << 22
MAX_SIZE_BYTES = 1 << 46
"""2^32 units: what a unit number of four bytes and a path of 32 hashes can name."""
MAX_LEAVES = 512
"""Units in one challenge."""
MAX_LEAVES_PER_SHARD = 48
"""Units of one shard in one challenge; so one page of an answer always holds a whole shard's."""
NONCE_BYTES = 32
_ENTRY_BYTES = 2 * ROOT_BYTES + 8
_WORD_BYTES = 8
_BLOCK_BYTES = 4096
MAX_WORDS = 16_384
"""Words of the stream that one draw reads; enough for the last unit of 512, and an end where a full shard is so large
that its neighbours are hardly ever hit."""


@dataclass(frozen=True, slots=True)
class HeldShard:
    """One line of a holding."""

    contract_id: ContractId
    shard_root: ShardRoot
    size_bytes: int

    @property
    def units(self) -> int:
        """How many units it has."""
        return unit_count(self.size_bytes)


class Holding:
    """Shards in canonical order: ascending by contract id, none twice. Immutable."""

    __slots__ = ("_ends", "digest", "shards")

    def __init__(self, shards: Iterable[HeldShard]) -> None:
        """Put `shards` in order. Raises `ValueError` for none, too many, an id twice, an impossible size."""
        self.shards: tuple[HeldShard, ...] = tuple(sorted(shards, key=lambda shard: shard.contract_id))
        if not 1 <= len(self.shards) <= MAX_HELD:
            raise ValueError(f"a holding has 1 to {MAX_HELD} shards, not {len(self.shards)}")
        if any(a.contract_id == b.contract_id for a, b in pairwise(self.shards)):
            raise ValueError("a contract stands twice in a holding")
        if not all(1 <= shard.size_bytes <= MAX_SIZE_BYTES for shard in self.shards):
            raise ValueError(f"a shard has 1 to {MAX_SIZE_BYTES} bytes")
        self.digest: bytes = tagged_hash(Tag.HOLDING, self.encoded())
        self._ends = list(accumulate(shard.units for shard in self.shards))

    @classmethod
    def parse(cls, data: bytes) -> Holding:
        """The holding that `data` spells. Raises `MalformedError` unless it is exactly what `encoded` gives."""
        if len(data) % _ENTRY_BYTES or len(data) > MAX_HELD * _ENTRY_BYTES:
            raise MalformedError(f"a holding is at most {MAX_HELD} times {_ENTRY_BYTES} bytes, not {len(data)}")
        try:
            holding = cls(
                HeldShard(
                    ContractId(data[at : at + 32]),
                    ShardRoot(data[at + 32 : at + 64]),
                    int.from_bytes(data[at + 64 : at + 72], "big"),
                )
                for at in range(0, len(data), _ENTRY_BYTES)
            )
        except ValueError as error:
            raise MalformedError(f"holding: {error}") from None
        if holding.encoded() != data:
            raise MalformedError("a holding out of order")
        return holding

    def encoded(self) -> bytes:
        """72 bytes a shard: what the digest is of."""
        return b"".join(
            shard.contract_id + shard.shard_root + shard.size_bytes.to_bytes(8, "big") for shard in self.shards
        )

    @property
    def units(self) -> int:
        """Units of all shards together."""
        return self._ends[-1]

    def draw(self, nonce: bytes, wanted: int) -> list[tuple[HeldShard, tuple[int, ...]]]:
        """The shards that `nonce` draws with the numbers of their drawn units, everything ascending.

        Fewer than `wanted` units only when there are no more, or shards have `MAX_LEAVES_PER_SHARD` and others were
        not hit within `MAX_WORDS`. The work is bounded, whatever the holding. Raises `ValueError` unless `wanted` is
        1 to `MAX_LEAVES` and `nonce` 32 bytes.
        """
        if not 1 <= wanted <= MAX_LEAVES:
            raise ValueError(f"1 to {MAX_LEAVES} units are drawn, not {wanted}")
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        left = min(wanted, self._drawable(wanted))
        drawn: dict[int, set[int]] = {}
        for number in islice(uniform(nonce + self.digest, self.units), MAX_WORDS):
            at = bisect_right(self._ends, number)
            unit = number - (self._ends[at - 1] if at else 0)
            taken = drawn.setdefault(at, set())
            if unit not in taken and len(taken) < MAX_LEAVES_PER_SHARD:
                taken.add(unit)
                left -= 1
                if not left:
                    break
        return [(self.shards[at], tuple(sorted(taken))) for at, taken in sorted(drawn.items())]

    def _drawable(self, enough: int) -> int:
        total = 0
        for shard in self.shards:
            total += min(shard.units, MAX_LEAVES_PER_SHARD)
            if total >= enough:
                break
        return total


def uniform(seed: bytes, below: int) -> Iterator[int]:
    """Endless numbers from 0 to `below` - 1, each as likely as any other, made of `seed` alone."""
    stream = blake3(seed, key=Tag.DRAW.key)
    limit = (1 << 64) - (1 << 64) % below
    at = 0
    while True:
        block = stream.digest(length=_BLOCK_BYTES, seek=at)
        at += _BLOCK_BYTES
        for begin in range(0, _BLOCK_BYTES, _WORD_BYTES):
            word = int.from_bytes(block[begin : begin + _WORD_BYTES], "big")
            if word < limit:
                yield word % below
