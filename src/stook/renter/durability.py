"""How likely a segment survives, computed exactly, and which policy follows from it. Pure.

A segment dies when fewer than k of its n shards are left before repair has caught up. Losses within one repair window
are taken as independent per farmer, and, in the grouped model, also as common to everyone in a group: a building burns
with all the disks in it (`docs/protocol/placement.md` says what the numbers do and do not mean).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stook.shards.geometry import Policy

HOURS_PER_YEAR = 8766.0


@dataclass(frozen=True, slots=True)
class Hazard:
    """What may happen to farmers. Rates are per year; a window is the time from a loss to its repair."""

    farmer_loss_per_year: float = 0.15
    """Chance that a farmer leaves for good or loses its disk within a year (consumer machines, not data centres)."""
    group_loss_per_year: float = 0.01
    """Chance that everything one operator or building holds is gone within a year."""
    repair_window_hours: float = 72.0

    def __post_init__(self) -> None:
        if not 0 <= self.farmer_loss_per_year < 1 or not 0 <= self.group_loss_per_year < 1:
            raise ValueError("yearly chances are at least 0 and below 1")
        if self.repair_window_hours <= 0:
            raise ValueError("a repair window is longer than nothing")

    @property
    def windows_per_year(self) -> float:
        """How many repair windows make a year."""
        return HOURS_PER_YEAR / self.repair_window_hours

    def within_window(self, yearly: float) -> float:
        """The chance per repair window that goes with a chance per year, at a constant rate."""
        return -math.expm1(math.log1p(-yearly) / self.windows_per_year)


DEFAULT_HAZARD = Hazard()


def _at_most(count: int, trials: int, chance: float) -> float:
    """P(X <= count) for X binomial; summed from its own terms, so small tails keep their digits."""
    if count < 0:
        return 0.0
    terms = [math.comb(trials, hits) * chance**hits * (1 - chance) ** (trials - hits) for hits in range(count + 1)]
    return min(1.0, math.fsum(terms))


def loss_chance(k: int, n: int, lost: float) -> float:
    """The chance that fewer than k of n shards survive when each is lost with chance `lost`, independently."""
    if not 1 <= k <= n:
        raise ValueError("k is between 1 and n")
    if not 0 <= lost <= 1:
        raise ValueError("a chance is between 0 and 1")
    return _at_most(k - 1, n, 1 - lost)


def grouped_loss_chance(k: int, group_sizes: Sequence[int], lost: float, group_lost: float) -> float:
    """The same when the shards lie in groups of these sizes, each of which is also lost as a whole with `group_lost`.

    Exact: the distribution of survivors is the convolution over the groups.
    """
    survivors = [1.0]
    for size in group_sizes:
        if size < 1:
            raise ValueError("a group holds at least one shard")
        alone = [math.comb(size, left) * (1 - lost) ** left * lost ** (size - left) for left in range(size + 1)]
        group = [(1 - group_lost) * chance for chance in alone]
        group[0] += group_lost
        merged = [0.0] * (len(survivors) + size)
        for have, chance in enumerate(survivors):
            for more, also in enumerate(group):
                merged[have + more] += chance * also
        survivors = merged
    if not 1 <= k < len(survivors):
        raise ValueError("k is between 1 and the number of shards")
    return min(1.0, math.fsum(survivors[:k]))


def yearly(per_window: float, hazard: Hazard) -> float:
    """The chance over a year of something that may happen in every repair window."""
    if per_window >= 1.0:
        return 1.0
    return -math.expm1(hazard.windows_per_year * math.log1p(-per_window))


def nines(chance: float) -> float:
    """How many nines a chance of loss leaves: 0.001 is three. No loss at all counts as 99."""
    return 99.0 if chance <= 0 else min(99.0, -math.log10(chance))


@dataclass(frozen=True, slots=True)
class Advice:
    """A policy, what it costs, what it is worth, and why it was chosen in a sentence."""

    policy: Policy
    expansion: float
    yearly_loss: float
    explanation: str


def assess(policy: Policy, group_sizes: Iterable[int] = (), hazard: Hazard = DEFAULT_HAZARD) -> float:
    """The chance per year that one segment under `policy` is lost; without groups each shard stands alone.

    A segment lives with as few as r shards before it is repaired, so r, not n, is what the window begins with.
    """
    sizes = list(group_sizes) or [1] * policy.n
    spare = policy.n - policy.r
    # Take the missing shards from the smallest groups: what is left is then as clustered as it can be.
    for position in sorted(range(len(sizes)), key=lambda at: sizes[at]):
        taken = min(spare, sizes[position])
        sizes[position] -= taken
        spare -= taken
    left = [size for size in sizes if size]
    window = grouped_loss_chance(
        policy.k,
        left,
        hazard.within_window(hazard.farmer_loss_per_year),
        hazard.within_window(hazard.group_loss_per_year),
    )
    return yearly(window, hazard)


def advise(domains: int, hazard: Hazard = DEFAULT_HAZARD) -> Advice:
    """The default policy for so many independent failure domains, with its reasons.

    Raises `ValueError` below one.
    """
    policy = Policy.default(domains)
    loss = assess(policy, hazard=hazard)
    expansion = policy.n / policy.k
    return Advice(
        policy,
        expansion,
        loss,
        f"{domains} independent {'group' if domains == 1 else 'groups'} of farmers: any {policy.k} of {policy.n} "
        f"shards give a segment back, so {policy.n - policy.k} may be lost at once; it takes {expansion:.2f} times "
        f"the space; repair begins below {policy.r}; kept so, one segment is lost in a year with a chance of "
        f"{loss:.1g} ({nines(loss):.0f} nines) if farmers vanish at {hazard.farmer_loss_per_year:.0%} a year and "
        f"repair takes {hazard.repair_window_hours:.0f} hours.",
    )
