"""How likely stored things are lost within a year, from what was seen of the farmers that hold them. Pure.

`durability` computes, `loss_rates` learns; here both are put to one set of segments, with everything a person needs to
judge the figure: what it was made of, what it assumes, how much was only assumed, and what would break it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stook.ids import NodeId, SegmentId
from stook.renter.durability import (
    DEFAULT_HAZARD,
    HOURS_PER_YEAR,
    Break,
    Hazard,
    Holder,
    LossFigure,
    SegmentHoldings,
    breaking_sets,
    loss_of_any,
    segment_yearly_loss,
)
from stook.renter.loss_rates import PRIOR, Exposure, farmer_rate, grid_rate
from stook.shards.geometry import Policy

WARY = 0.95
"""The quantile of the grid's loss rate that stands for its mean in the wary figure."""
MOST_LOOKED_AT = 200
"""Segments, those with the smallest margin, that breaking sets are looked for in."""
MOST_COMPUTED = 300
"""Different sets of holders that are computed exactly, smallest margin first; a wide code takes a tenth of a second."""
MOST_COMPUTED_OF_A_KIND = 10
"""Of each policy and margin that comes after those so many are computed, and the worst stands for the others."""
BREAK_SIZE = 2
"""How many parties may be lost at once in what would break it."""


@dataclass(frozen=True, slots=True)
class FarmerFacts:
    """What was seen of one farmer, as far as it says how safe its shards are."""

    farmer: NodeId
    exposure: Exposure
    """How long it held something of ours while it was watched, and what it lost."""
    groups: tuple[str, ...] = ()
    """Its operator, networks and failure domain (`durability.group_names`)."""
    heard_ms: int = 0
    """When it last answered."""
    gone: bool = False
    """Not heard for so long that its shards count as lost."""


@dataclass(frozen=True, slots=True)
class HeldSegment:
    """Who holds a segment: a farmer and an index for each shard that counts as held."""

    segment_id: SegmentId
    policy: Policy
    shards: tuple[tuple[NodeId, int], ...]
    audited: int = 0
    """Of them: proved by an audit. The others count because their farmers signed that they hold them."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The live number of some segments, and what stands behind it."""

    segments: int
    unknown: int
    """Segments that the agent knows nothing of: they count as lost."""
    unreadable: int
    """Segments with fewer than k shards now, the unknown ones included."""
    likely: LossFigure
    """The chance that any of it is lost within a year, at the rates to be expected."""
    wary: LossFigure
    """The same, with the grid's loss rate at its 95 % quantile."""
    computed: int
    """Different sets of holders that were computed; when there are more the rest count as the worst of their kind."""
    farmers: int
    """Farmers that hold some of it."""
    gone: int
    """Farmers that held something of ours and are silent for so long that they count as gone."""
    watched_years: float
    """Farmer-years that all farmers were watched for, of this bucket or not."""
    losses: float
    """Holdings lost in them."""
    rate: float
    """Losses a farmer and year, expected; the assumption and what was seen together."""
    wary_rate: float
    shards: int
    audited: int
    """Of the shards: proved by an audit, not only signed for."""
    least_margin: int
    """Shards that the weakest readable segment can lose."""
    breaks: tuple[Break, ...]
    """Smallest first."""
    looked_at: int
    """Segments that were searched for them."""
    hazard: Hazard

    @property
    def assumed_share(self) -> float:
        """How much of the loss rate's weight is assumption and not observation, 0 to 1."""
        return PRIOR.years / (PRIOR.years + self.watched_years)


def outlook(
    wanted: Sequence[SegmentId],
    held: Mapping[SegmentId, HeldSegment],
    farmers: Mapping[NodeId, FarmerFacts],
    hazard: Hazard = DEFAULT_HAZARD,
) -> Outlook:
    """Everything about the segments `wanted`. Farmers that are gone hold nothing; unknown segments are lost."""
    exposures = [facts.exposure for facts in farmers.values()]
    grid = grid_rate(exposures)
    wary_rate = grid.quantile(WARY)
    known = [held[segment_id] for segment_id in wanted if segment_id in held]
    likely_holdings = _holdings(known, farmers, grid.mean, hazard)
    wary_holdings = _holdings(known, farmers, wary_rate, hazard)
    unknown = [segment_id for segment_id in wanted if segment_id not in held]
    by_margin = sorted(
        (segment for segment in likely_holdings if segment.margin >= 0), key=lambda segment: segment.margin
    )
    looked_at = by_margin[:MOST_LOOKED_AT]
    (likely, computed), (wary, _) = (_figure(each, unknown, hazard) for each in (likely_holdings, wary_holdings))
    return Outlook(
        segments=len(wanted),
        unknown=len(unknown),
        unreadable=len(wanted) - len(by_margin),
        likely=likely,
        wary=wary,
        computed=computed,
        farmers=len({holder.farmer for segment in likely_holdings for holder in segment.holders}),
        gone=sum(facts.gone for facts in farmers.values()),
        watched_years=sum(exposure.years for exposure in exposures),
        losses=sum(exposure.losses for exposure in exposures),
        rate=grid.mean,
        wary_rate=wary_rate,
        shards=sum(len(segment.shards) for segment in known),
        audited=sum(segment.audited for segment in known),
        least_margin=by_margin[0].margin if by_margin else 0,
        breaks=tuple(breaking_sets(looked_at, BREAK_SIZE)),
        looked_at=len(looked_at),
        hazard=hazard,
    )


def _holdings(
    held: Sequence[HeldSegment], farmers: Mapping[NodeId, FarmerFacts], rate: float, hazard: Hazard
) -> list[SegmentHoldings]:
    """The segments with each holder's own chance of loss within a repair window."""
    window_years = hazard.repair_window_hours / HOURS_PER_YEAR
    # A group of one farmer is that farmer, whose own rate has it already.
    sizes = Counter(group for facts in farmers.values() if not facts.gone for group in facts.groups)
    chances: dict[NodeId, float] = {}
    groups: dict[NodeId, tuple[str, ...]] = {}
    for facts in farmers.values():
        if not facts.gone:
            chances[facts.farmer] = farmer_rate(facts.exposure, rate).chance_within(window_years)
            groups[facts.farmer] = tuple(group for group in facts.groups if sizes[group] > 1)
    return [
        SegmentHoldings(
            segment.segment_id,
            segment.policy,
            tuple(
                Holder(farmer, index, chances[farmer], groups[farmer])
                for farmer, index in segment.shards
                if farmer in chances
            ),
        )
        for segment in held
    ]


def _figure(
    holdings: Sequence[SegmentHoldings], unknown: Sequence[SegmentId], hazard: Hazard
) -> tuple[LossFigure, int]:
    """The figure, and how many different cases were computed for it."""
    whole = hazard.within_window(hazard.group_loss_per_year)
    group_lost = {group: whole for segment in holdings for holder in segment.holders for group in holder.groups}
    # Objects stored together lie at the same farmers, and each distinct case is computed once.
    known: dict[object, float] = {}
    kinds: defaultdict[tuple[Policy, int], list[float]] = defaultdict(list)
    chances = [(segment_id, 1.0) for segment_id in unknown]
    for segment in sorted(holdings, key=lambda segment: segment.margin):
        case = segment.policy, frozenset((holder.farmer, holder.index) for holder in segment.holders)
        kind = kinds[segment.policy, segment.margin]
        if case in known:
            chance = known[case]
        elif len(known) >= MOST_COMPUTED and len(kind) >= MOST_COMPUTED_OF_A_KIND:
            chance = max(kind)
        else:
            chance = segment_yearly_loss(segment, group_lost, hazard) if segment.holders else 1.0
            known[case] = chance
            kind.append(chance)
        chances.append((segment.segment_id, chance))
    return loss_of_any(chances), len(known)
