"""The exact loss chances against the sum over every possible outcome, for few shards."""

from __future__ import annotations

import math
from itertools import chain, combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stook.ids import NodeId, SegmentId
from stook.renter import durability
from stook.renter.durability import (
    DEFAULT_HAZARD,
    Holder,
    SegmentHoldings,
    breaking_sets,
    farmer_name,
    group_names,
    grouped_loss_chance,
    loss_chance,
    loss_of_any,
    segment_loss,
    segment_yearly_loss,
    survivors,
)
from stook.shards.geometry import Policy

GROUPS = ("op:a", "op:b", "net:a", "net:b", "dom:a")
SEGMENT = SegmentId(bytes(16))


def farmer(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


@st.composite
def few_holders(draw: st.DrawFn) -> list[Holder]:
    rates: dict[int, float] = {}
    holders = []
    for _ in range(draw(st.integers(0, 6))):
        number = draw(st.integers(0, 5))
        lost = rates.setdefault(number, draw(st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.0])))
        groups = draw(st.sets(st.sampled_from(GROUPS), max_size=3))
        holders.append(Holder(farmer(number), draw(st.integers(0, 4)), lost, tuple(sorted(groups))))
    return holders


group_chances = st.dictionaries(st.sampled_from(GROUPS), st.sampled_from([0.0, 0.1, 0.4, 1.0]))


def enumerated(holders: list[Holder], group_lost: dict[str, float]) -> list[float]:
    """P(i indices left), by walking over every fate of every farmer and every group."""
    farmers = {holder.farmer: holder.lost for holder in holders}
    parties = [*farmers.items(), *group_lost.items()]
    left = [0.0] * (len({holder.index for holder in holders}) + 1)
    for fates in product((False, True), repeat=len(parties)):
        weight = math.prod(chance if gone else 1 - chance for gone, (_, chance) in zip(fates, parties, strict=True))
        gone_parties = {party for gone, (party, _) in zip(fates, parties, strict=True) if gone}
        alive = {
            holder.index
            for holder in holders
            if holder.farmer not in gone_parties and not gone_parties & set(holder.groups)
        }
        left[len(alive)] += weight
    return left


@given(few_holders(), group_chances)
@settings(max_examples=150, deadline=None)
def test_survivors_are_the_sum_over_all_outcomes(holders: list[Holder], group_lost: dict[str, float]) -> None:
    fast, slow = survivors(holders, group_lost), enumerated(holders, group_lost)
    fast += [0.0] * (len(slow) - len(fast))
    assert fast == pytest.approx(slow, rel=1e-9, abs=1e-12)
    for k in range(1, 6):
        assert segment_loss(k, holders, group_lost) == pytest.approx(sum(slow[:k]), rel=1e-9, abs=1e-12)


@given(few_holders(), group_chances)
@settings(max_examples=60, deadline=None)
def test_taking_groups_together_never_flatters(holders: list[Holder], group_lost: dict[str, float]) -> None:
    exact = [segment_loss(k, holders, group_lost) for k in range(1, 6)]
    before = durability.MOST_SHOCKS
    durability.MOST_SHOCKS = 1
    try:
        dark = [segment_loss(k, holders, group_lost) for k in range(1, 6)]
    finally:
        durability.MOST_SHOCKS = before
    assert all(bad >= good - 1e-12 for bad, good in zip(dark, exact, strict=True))


@given(st.integers(1, 8), st.floats(0, 1), st.data())
@settings(deadline=None)
def test_equal_hazards_without_groups_are_the_binomial(n: int, lost: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    holders = [Holder(farmer(number), number, lost) for number in range(n)]
    assert segment_loss(k, holders, {}) == pytest.approx(loss_chance(k, n, lost), rel=1e-9, abs=1e-15)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_disjoint_groups_are_the_grouped_model(sizes: list[int], lost: float, group_lost: float) -> None:
    holders = [
        Holder(farmer(10 * group + number), 10 * group + number, lost, (f"g{group}",))
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    chances = {f"g{group}": group_lost for group in range(len(sizes))}
    k = (sum(sizes) + 1) // 2
    expected = grouped_loss_chance(k, sizes, lost, group_lost)
    assert segment_loss(k, holders, chances) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_forty_farmers_in_three_kinds_of_groups_take_no_time() -> None:
    holders = [
        Holder(farmer(n), n, 0.001 * (1 + n % 7), (f"op{n // 3}", f"net{(n * 7) % 13}", f"dom{n % 5}", "all"))
        for n in range(40)
    ]
    chances = {group: 1e-4 for holder in holders for group in holder.groups}
    chance = segment_loss(20, holders, chances)
    assert chances["all"] <= chance < 1e-2


def breaks_by_hand(segment: SegmentHoldings, max_size: int) -> set[frozenset[str]]:
    parties = {farmer_name(holder.farmer) for holder in segment.holders}
    parties |= {group for group in GROUPS if sum(group in holder.groups for holder in segment.holders) > 1}
    found: list[frozenset[str]] = []
    for chosen in chain.from_iterable(combinations(sorted(parties), size) for size in range(1, max_size + 1)):
        lost = set(chosen)
        alive = {h.index for h in segment.holders if farmer_name(h.farmer) not in lost and not lost & set(h.groups)}
        if len(alive) < segment.policy.k and not any(smaller <= lost for smaller in found):
            found.append(frozenset(lost))
    return set(found)


@given(few_holders(), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_what_would_break_a_segment_is_found_by_trying(holders: list[Holder], k: int, max_size: int) -> None:
    segment = SegmentHoldings(SEGMENT, Policy.of(k, 6), tuple(holders))
    told = breaking_sets([segment], max_size)
    assert {frozenset(item.parties) for item in told} == (
        breaks_by_hand(segment, max_size) if segment.margin >= 0 else set()
    )
    assert [len(item.parties) for item in told] == sorted(len(item.parties) for item in told)


@given(st.lists(st.floats(0, 1), max_size=20))
@settings(deadline=None)
def test_the_figure_for_many_lies_between_the_worst_and_their_sum(chances: list[float]) -> None:
    figure = loss_of_any((SegmentId(bytes([number])), chance) for number, chance in enumerate(chances))
    assert figure.segments == len(chances)
    assert figure.at_least == max(chances, default=0.0)
    assert figure.at_least <= figure.at_most <= min(1.0, math.fsum(chances) + 1e-9)


def shared_by_two(k: int, lost: float) -> tuple[list[SegmentHoldings], dict[str, float]]:
    """Two segments on overlapping farmers, for the bounds."""
    first = tuple(Holder(farmer(n), n, lost) for n in (0, 1, 2))
    second = tuple(Holder(farmer(n), n, lost) for n in (1, 2, 3))
    return [SegmentHoldings(SegmentId(bytes([n] * 16)), Policy.of(k, 3), h) for n, h in ((1, first), (2, second))], {}


@given(st.integers(1, 3), st.floats(0.01, 0.9))
@settings(deadline=None)
def test_the_true_chance_of_segments_that_share_farmers_is_within_the_bounds(k: int, lost: float) -> None:
    segments, groups = shared_by_two(k, lost)
    figure = loss_of_any((s.segment_id, segment_loss(k, s.holders, groups)) for s in segments)
    truth = 0.0
    for fates in product((False, True), repeat=4):
        weight = math.prod(lost if gone else 1 - lost for gone in fates)
        if any(sum(not fates[h.index] for h in s.holders) < k for s in segments):
            truth += weight
    assert figure.at_least - 1e-12 <= truth <= figure.at_most + 1e-12


def holdings(count: int, *, lost: float = 0.001, policy: Policy | None = None) -> SegmentHoldings:
    return SegmentHoldings(
        SEGMENT,
        policy or Policy.of(4, 10),
        tuple(Holder(farmer(n), n, min(1.0, lost * (1 + n / 10))) for n in range(count)),
    )


def test_a_year_starts_with_what_is_held_and_goes_on_from_r() -> None:
    full, thin, broken = (segment_yearly_loss(holdings(count), {}) for count in (10, 5, 3))
    assert full < thin < broken == 1.0
    windows = DEFAULT_HAZARD.windows_per_year
    from_r = segment_loss(4, holdings(10).holders[-6:], {})
    assert full == pytest.approx(-math.expm1((windows - 1) * math.log1p(-from_r)), rel=1e-6)
    assert segment_yearly_loss(holdings(4, lost=1.0), {}) == 1.0


def test_worse_farmers_and_lost_groups_make_a_worse_year() -> None:
    assert segment_yearly_loss(holdings(10, lost=0.01), {}) > segment_yearly_loss(holdings(10), {})
    grouped = SegmentHoldings(SEGMENT, Policy.of(4, 10), tuple(Holder(farmer(n), n, 0.001, ("op",)) for n in range(10)))
    assert segment_yearly_loss(grouped, {"op": 1e-4}) == pytest.approx(1 - (1 - 1e-4) ** 121.75, rel=0.01)


def test_group_names_do_not_clash() -> None:
    assert group_names("x", ["10.0.1.0/24", "10.0.0.0/24"], "x") == (
        "operator x",
        "network 10.0.0.0/24",
        "network 10.0.1.0/24",
        "domain x",
    )
    assert group_names("", [], "") == ()


def test_k_and_chances_are_checked() -> None:
    with pytest.raises(ValueError):
        segment_loss(0, [], {})
    with pytest.raises(ValueError):
        survivors([], {"op": 1.5})
    assert segment_loss(1, [], {}) == 1.0
