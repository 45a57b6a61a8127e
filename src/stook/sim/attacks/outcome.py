"""What an attack is, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stook.sim.signatures import Signatures


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run showed."""

    caught: bool
    """The goal was not reached within the bound."""
    gain: float
    """What the attacker had of it, in the attack's own unit."""
    detail: str
    """One or two sentences with the figures of this run."""
    honest_condemned: int = 0
    """Honest nodes that were taken for liars; anything but 0 is our failure, caught or not."""
    signatures: Signatures = Signatures.REAL


@dataclass(frozen=True, slots=True)
class Attack:
    """A program that attacks."""

    name: str
    paper: str
    """Its section in the white paper; empty for those that the paper does not have."""
    goal: str
    bound: str
    """What it must stay within to count as caught."""
    gain_unit: str
    stops: str
    """What stops it, or why it can only be bounded."""
    run: Callable[[int], Outcome]
    """By seed."""

    def report(self, seed: int) -> dict[str, Any]:
        """Run it; everything that is to be said of it, for programs and for the page."""
        outcome = self.run(seed)
        return {
            "attack": self.name,
            "paper": self.paper,
            "seed": seed,
            "goal": self.goal,
            "bound": self.bound,
            "caught": outcome.caught,
            "gain": outcome.gain,
            "gain_unit": self.gain_unit,
            "honest_condemned": outcome.honest_condemned,
            "stops": self.stops,
            "detail": outcome.detail,
            "signatures": outcome.signatures.value,
        }
