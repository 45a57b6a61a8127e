"""How likely a segment survives, computed exactly, and which policy follows from it. Pure.

A segment dies when fewer than k of its n shards are left before repair has caught up. Losses within one repair window
are taken as independent per farmer, and, in the grouped model, also as common to everyone in a group: a building burns
with all the disks in it (`docs/protocol/placement.md` says what the numbers do and do not mean).

The first half plans: what is a policy worth? The second half, from `Holder` on, measures: what are these shards worth,
at these farmers, each with its own hazard (`stook.renter.loss_rates`), and whose loss would break which segment?
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from stook.ids import NodeId, SegmentId
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


# ------------------------------------------------------------------------------------------------------ the live number


@dataclass(frozen=True, slots=True)
class Holder:
    """One proved shard at one farmer. Two holders of one index are copies: the index lives while either does."""

    farmer: NodeId
    index: int
    lost: float
    """The chance that this farmer loses what it holds within one repair window, groups aside."""
    groups: tuple[str, ...] = ()
    """Its operator, networks and failure domain, under names that do not clash."""


def group_names(operator: str, networks: Iterable[str], failure_domain: str) -> tuple[str, ...]:
    """`Holder.groups` of a farmer: names that say which kind of group they are; empty declarations make none."""
    return (
        *((f"operator {operator}",) if operator else ()),
        *(f"network {network}" for network in sorted(networks)),
        *((f"domain {failure_domain}",) if failure_domain else ()),
    )


@dataclass(frozen=True, slots=True)
class _Shock:
    """Something that takes all its members at once. Members are positions in the list of holders."""

    chance: float
    members: frozenset[int]


MOST_SHOCKS = 10
"""Overlapping groups that are told apart exactly; of more the smallest are taken together, which errs to the dark side
(a union that falls whenever either part would have loses no less).
"""


def survivors(holders: Sequence[Holder], group_lost: Mapping[str, float]) -> list[float]:
    """The distribution of how many distinct indices are left after one repair window: entry i is P(i are left).

    Exact for hazards that differ, copies, farmers with several shards, and groups that overlap as long as no more than
    `MOST_SHOCKS` do so without one holding them all. A group that `group_lost` does not name is never lost as a whole.
    """
    for chance in (*group_lost.values(), *(holder.lost for holder in holders)):
        if not 0 <= chance <= 1:
            raise ValueError("a chance is between 0 and 1")
    members: dict[str, set[int]] = defaultdict(set)
    at_farmer: dict[NodeId, set[int]] = defaultdict(set)
    for position, holder in enumerate(holders):
        at_farmer[holder.farmer].add(position)
        for group in holder.groups:
            members[group].add(position)
    shocks = [_Shock(group_lost.get(group, 0.0), frozenset(inside)) for group, inside in members.items()]
    alone = {position: holder.lost for position, holder in enumerate(holders)}
    for together in at_farmer.values():
        if len(together) > 1:
            shocks.append(_Shock(max(alone[position] for position in together), frozenset(together)))
            alone.update(dict.fromkeys(together, 0.0))
    indices = {position: holder.index for position, holder in enumerate(holders)}
    return _left(alone, [shock for shock in shocks if shock.chance > 0], indices)


def _left(alone: Mapping[int, float], shocks: Sequence[_Shock], indices: Mapping[int, int]) -> list[float]:
    """`survivors` of the positions in `alone`: independent parts are convolved, a shock is taken both ways."""
    lost = dict(alone)
    wide: list[_Shock] = []
    for shock in shocks:
        hit = shock.members & lost.keys()
        if len(hit) > 1:
            wide.append(_Shock(shock.chance, hit))
        for position in hit if len(hit) == 1 else ():
            lost[position] = _either(lost[position], shock.chance)
    distribution = [1.0]
    for part, own in _parts(lost, wide, indices):
        distribution = _convolved(distribution, _part_left(part, own, indices))
    return distribution


def _part_left(lost: Mapping[int, float], shocks: Sequence[_Shock], indices: Mapping[int, int]) -> list[float]:
    if not shocks:
        gone: dict[int, float] = {}
        for position, chance in lost.items():
            gone[indices[position]] = gone.get(indices[position], 1.0) * chance
        distribution = [1.0]
        for chance in gone.values():
            distribution = _convolved(distribution, [chance, 1 - chance])
        return distribution
    ranked = sorted(shocks, key=lambda shock: len(shock.members))
    widest = ranked[-1]
    if len(widest.members) < len(lost) and len(ranked) > MOST_SHOCKS:
        first, second, *others = ranked
        both = _Shock(_either(first.chance, second.chance), first.members | second.members)
        return _left(lost, [both, *others], indices)
    spared = {position: chance for position, chance in lost.items() if position not in widest.members}
    hit = _left(spared, ranked[:-1], indices)
    missed = _left(lost, ranked[:-1], indices)
    hit += [0.0] * (len(missed) - len(hit))
    return [widest.chance * a + (1 - widest.chance) * b for a, b in zip(hit, missed, strict=True)]


def _either(first: float, second: float) -> float:
    """The chance of one or both, in a form that keeps the digits of small ones."""
    return first + second - first * second


def _parts(
    lost: Mapping[int, float], shocks: Sequence[_Shock], indices: Mapping[int, int]
) -> list[tuple[dict[int, float], list[_Shock]]]:
    """Positions that share a shock or an index, directly or through others, with their shocks."""
    parent = {position: position for position in lost}

    def find(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    first_with: dict[int, int] = {}
    for position in lost:
        parent[find(position)] = find(first_with.setdefault(indices[position], position))
    for shock in shocks:
        one, *others = shock.members
        for other in others:
            parent[find(other)] = find(one)
    parts: dict[int, tuple[dict[int, float], list[_Shock]]] = {}
    for position, chance in lost.items():
        parts.setdefault(find(position), ({}, []))[0][position] = chance
    for shock in shocks:
        parts[find(next(iter(shock.members)))][1].append(shock)
    return list(parts.values())


def _convolved(first: Sequence[float], second: Sequence[float]) -> list[float]:
    merged = [0.0] * (len(first) + len(second) - 1)
    for have, chance in enumerate(first):
        for more, also in enumerate(second):
            merged[have + more] += chance * also
    return merged


def segment_loss(k: int, holders: Sequence[Holder], group_lost: Mapping[str, float]) -> float:
    """The chance that fewer than k distinct indices are left after one repair window; 1 when there are fewer now."""
    if k < 1:
        raise ValueError("k is at least 1")
    left = survivors(holders, group_lost)
    return min(1.0, math.fsum(left[:k])) if k < len(left) else 1.0


@dataclass(frozen=True, slots=True)
class SegmentHoldings:
    """Where the proved shards of one segment are."""

    segment_id: SegmentId
    policy: Policy
    holders: tuple[Holder, ...]

    @property
    def margin(self) -> int:
        """How many more indices may go before it cannot be rebuilt; negative when it cannot be now."""
        return len({holder.index for holder in self.holders}) - self.policy.k


def segment_yearly_loss(
    segment: SegmentHoldings, group_lost: Mapping[str, float], hazard: Hazard = DEFAULT_HAZARD
) -> float:
    """The chance that this segment is lost within a year; `group_lost` and the holders' chances are per window.

    The first window begins with the shards that are proved now. Every later one begins with the r of them that are
    likeliest to go, because repair lets a segment shrink so far; so it is an upper figure while repair works.
    """
    now = segment_loss(segment.policy.k, segment.holders, group_lost)
    if now >= 1.0:
        return 1.0
    later = segment_loss(segment.policy.k, _worst(segment), group_lost)
    if later >= 1.0:
        return 1.0
    return -math.expm1(math.log1p(-now) + (hazard.windows_per_year - 1) * math.log1p(-later))


def _worst(segment: SegmentHoldings) -> list[Holder]:
    """One holder for each of r indices, those likeliest to go; where fewer are held now, repair adds their like."""
    by_chance = sorted(segment.holders, key=lambda holder: -holder.lost)
    chosen = list({holder.index: holder for holder in reversed(by_chance)}.values())
    chosen.sort(key=lambda holder: -holder.lost)
    chosen = chosen[: segment.policy.r]
    for number in range(len(chosen), segment.policy.r):
        chosen.append(replace(chosen[0], farmer=NodeId(number.to_bytes(20, "big")), index=-1 - number, groups=()))
    return chosen


@dataclass(frozen=True, slots=True)
class LossFigure:
    """The chance that any of some segments is lost. They share farmers, so it lies between two bounds.

    At least that of the worst alone; at most as if they were independent, because what spares one tends to spare the
    others too (Harris' inequality).
    """

    segments: int
    at_least: float
    at_most: float
    worst: SegmentId | None


def loss_of_any(chances: Iterable[tuple[SegmentId, float]]) -> LossFigure:
    """The figure for a bucket, or everything, from each segment's own chance over the same time."""
    count, worst, highest, kept = 0, None, 0.0, 0.0
    for segment_id, chance in chances:
        count += 1
        kept += math.log1p(-chance) if chance < 1 else -math.inf
        if worst is None or chance > highest:
            worst, highest = segment_id, chance
    return LossFigure(count, highest, max(highest, -math.expm1(kept)), worst)


@dataclass(frozen=True, slots=True)
class Break:
    """If all of `parties` were lost at once, these segments could not be rebuilt. No smaller set would do it."""

    parties: tuple[str, ...]
    """Groups by their names, farmers as ``farmer <hex>``."""
    segments: tuple[SegmentId, ...]


def farmer_name(farmer: NodeId) -> str:
    """How a single farmer is called in a `Break`."""
    return f"farmer {farmer.hex()}"


def breaking_sets(segments: Iterable[SegmentHoldings], max_size: int = 2) -> list[Break]:
    """The smallest sets of farmers and groups whose loss would break segments, up to `max_size` of them together.

    Fewest parties first, then those that break most. Segments that are below k now are in no set. Exhaustive, so with
    a hundred parties to a segment keep `max_size` at 2.
    """
    broken: dict[tuple[str, ...], list[SegmentId]] = defaultdict(list)
    for segment in segments:
        if segment.margin >= 0:
            for parties in _breaks_of(segment, max_size):
                broken[parties].append(segment.segment_id)
    found = [Break(parties, tuple(hit)) for parties, hit in broken.items()]
    return sorted(found, key=lambda item: (len(item.parties), -len(item.segments), item.parties))


def _breaks_of(segment: SegmentHoldings, max_size: int) -> list[tuple[str, ...]]:
    held: dict[str, set[int]] = defaultdict(set)
    copies = Counter(holder.index for holder in segment.holders)
    for position, holder in enumerate(segment.holders):
        for party in (farmer_name(holder.farmer), *holder.groups):
            held[party].add(position)
    # A group with one shard here is no other party than its farmer.
    farmers = {farmer_name(holder.farmer) for holder in segment.holders}
    parties = [party for party, inside in held.items() if party in farmers or len(inside) > 1]
    parties.sort(key=lambda party: (-len(held[party]), party))
    found: list[tuple[str, ...]] = []
    for size in range(1, max_size + 1):
        for chosen in combinations(parties, size):
            if sum(len(held[party]) for party in chosen) <= segment.margin:
                continue
            gone = Counter(segment.holders[at].index for at in set().union(*(held[party] for party in chosen)))
            if sum(copies[index] == count for index, count in gone.items()) <= segment.margin:
                continue
            if not any(set(smaller) <= set(chosen) for smaller in found):
                found.append(tuple(sorted(chosen)))
    return found
