"""The outside world a pure program may ask for: time, dice, and somewhere to do heavy work.

Only the protocols live here. The system's own are made in `stook.assembly`; the simulator brings virtual ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC; may jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; for durations only."""
        ...


class Entropy(Protocol):
    """Rolls dice. A seeded one makes a whole simulation repeatable."""

    def __call__(self, size_bytes: int, /) -> bytes:
        """`size_bytes` unpredictable bytes."""
        ...


class Offload(Protocol):
    """Runs a blocking function away from the event loop (the simulator runs it in place: see `docs/decisions`)."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The result of ``work()``; exceptions pass through.

        A cancelled call raises only when the work is over, or will never begin: the buffers that it reads and writes
        are then the caller's again. A thread that went on would write into whatever they are used for next.
        """
        ...
