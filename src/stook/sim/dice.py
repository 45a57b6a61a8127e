"""Seeded randomness: every part of a simulation draws from a stream of its own."""

from __future__ import annotations

import random


class Dice:
    """A seeded `stook.clock.Entropy`, and the other draws a simulation makes. Never for keys that guard anything.

    `child` gives a stream that depends on this one's seed and a name only, so that one more farmer, or one more draw
    of one of them, changes nobody else's luck.
    """

    def __init__(self, seed: int, name: str = "") -> None:
        self.seed = seed
        self._name = name
        # A string seeds the generator through SHA-512, the same in every process, whatever PYTHONHASHSEED is.
        self._random = random.Random(f"{seed}/{name}")

    def child(self, name: str) -> Dice:
        """An independent stream."""
        return Dice(self.seed, f"{self._name}/{name}")

    def __call__(self, size_bytes: int, /) -> bytes:
        """`size_bytes` random bytes."""
        return self._random.randbytes(size_bytes)

    def chance(self, probability: float) -> bool:
        """True with this probability. Draws even when the answer is certain, so that streams stay in step."""
        return self._random.random() < probability

    def between(self, low: float, high: float) -> float:
        """A number from `low` to `high`, each as likely."""
        return self._random.uniform(low, high)

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return self._random.randint(low, high)

    def wait(self, mean: float) -> float:
        """How long until something comes that comes without memory, every `mean` on average."""
        return self._random.expovariate(1 / mean)

    def some(self, count: int, below: int) -> list[int]:
        """`count` different numbers from 0 to `below` - 1, ascending, each set as likely. Raises `ValueError`."""
        return sorted(self._random.sample(range(below), count))
