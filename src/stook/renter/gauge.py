"""How far a transfer under way has come, for whoever decides about it."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, replace

from stook.renter.pace import Attempt, State


@dataclass(slots=True)
class Gauge:
    """Told by the transfer how to look; asked by the race it runs in."""

    share: Callable[[], float] = lambda: 0.0
    """The share of its bytes that has moved, 0 to 1."""


def note_progress(attempts: MutableSequence[Attempt], gauges: dict[int, Gauge]) -> None:
    """Write into the running attempts how far each has come."""
    for number, gauge in gauges.items():
        if attempts[number].state is State.RUNNING:
            attempts[number] = replace(attempts[number], moved=min(1.0, gauge.share()))
