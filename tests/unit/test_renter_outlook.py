"""The live durability number of a set of segments, and what is said with it."""

from __future__ import annotations

import pytest

from stook.ids import NodeId, SegmentId
from stook.renter.durability import Hazard, segment_yearly_loss
from stook.renter.loss_rates import PRIOR, Exposure
from stook.renter.outlook import MOST_COMPUTED, MOST_LOOKED_AT, FarmerFacts, HeldSegment, outlook
from stook.shards.geometry import Policy

POLICY = Policy(k=2, r=3, o=3, n=4)


def nid(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def sid(number: int) -> SegmentId:
    return SegmentId(number.to_bytes(16, "big"))


def held(number: int, *farmers: int, policy: Policy = POLICY, audited: int = 0) -> HeldSegment:
    return HeldSegment(
        sid(number), policy, tuple((nid(farmer), index) for index, farmer in enumerate(farmers)), audited
    )


def farmers(*numbers: int, years: float = 1.0, losses: float = 0.0, **more: object) -> dict[NodeId, FarmerFacts]:
    return {
        nid(number): FarmerFacts(nid(number), Exposure(years, losses), **more)  # type: ignore[arg-type]
        for number in numbers
    }


def look(segments: list[HeldSegment], known: dict[NodeId, FarmerFacts], *others: int, hazard: Hazard = Hazard()):  # noqa: B008
    wanted = [segment.segment_id for segment in segments] + [sid(number) for number in others]
    return outlook(wanted, {segment.segment_id: segment for segment in segments}, known, hazard)


def test_one_segment_is_what_the_exact_sum_gives() -> None:
    found = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3, 4))
    assert (found.segments, found.unknown, found.unreadable, found.farmers) == (1, 0, 0, 4)
    assert found.likely.at_least == found.likely.at_most
    assert 0 < found.likely.at_most < found.wary.at_most < 0.01
    assert found.least_margin == 2
    assert found.watched_years == 4.0
    assert found.rate == pytest.approx(0.3 / 6)


def test_more_segments_widen_the_bounds() -> None:
    known = farmers(*range(8))
    found = look([held(1, 0, 1, 2, 3), held(2, 4, 5, 6, 7), held(3, 0, 2, 4, 6)], known)
    assert found.likely.at_least < found.likely.at_most <= 3 * found.likely.at_least * 1.001


def test_a_grid_that_has_seen_nothing_says_so() -> None:
    young = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3, 4, years=0.0))
    assert young.assumed_share == 1.0
    assert young.rate == pytest.approx(PRIOR.mean)
    old = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3, 4, years=10.0))
    assert old.assumed_share < 0.05
    assert old.likely.at_most < young.likely.at_most


def test_losses_that_were_seen_make_it_worse() -> None:
    good = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3, 4))
    bad = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3, 4) | farmers(9, losses=1.0, gone=True))
    assert bad.likely.at_most > 10 * good.likely.at_most
    assert (bad.gone, bad.losses) == (1, 1.0)


def test_what_is_at_farmers_that_are_gone_is_not_held() -> None:
    found = look([held(1, 1, 2, 3, 4)], farmers(1, 2) | farmers(3, 4, gone=True))
    assert (found.unreadable, found.least_margin, found.farmers) == (0, 0, 2)
    lost = look([held(1, 1, 2, 3, 4)], farmers(1) | farmers(2, 3, 4, gone=True))
    assert (lost.unreadable, lost.likely.at_least) == (1, 1.0)
    none = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3, 4, gone=True))
    assert (none.unreadable, none.likely.at_least, none.looked_at) == (1, 1.0, 0)


def test_what_the_agent_does_not_know_is_lost() -> None:
    found = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3, 4), 7, 8)
    assert (found.segments, found.unknown, found.unreadable) == (3, 2, 2)
    assert found.likely.at_most == 1.0


def test_groups_that_fall_together_count_and_lonely_ones_do_not() -> None:
    alone = {nid(n): FarmerFacts(nid(n), Exposure(1.0), (f"operator {n}",)) for n in (1, 2, 3, 4)}
    shared = {nid(n): FarmerFacts(nid(n), Exposure(1.0), ("operator x",)) for n in (1, 2, 3, 4)}
    plain = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3, 4))
    assert look([held(1, 1, 2, 3, 4)], alone).likely == plain.likely
    together = look([held(1, 1, 2, 3, 4)], shared)
    assert together.likely.at_most == pytest.approx(0.01, rel=0.02), "the operator falls as a whole"
    assert together.breaks[0].parties == ("operator x",)
    safe = look([held(1, 1, 2, 3, 4)], shared, hazard=Hazard(group_loss_per_year=0.0))
    assert safe.likely == plain.likely


def test_what_would_break_it_is_found_in_the_weakest() -> None:
    tight = [held(number, 1, 2, policy=Policy(1, 1, 1, 2)) for number in range(MOST_LOOKED_AT + 5)]
    found = look(tight, farmers(1, 2))
    assert found.looked_at == MOST_LOOKED_AT
    (first,) = found.breaks
    assert len(first.parties) == 2
    assert len(first.segments) == MOST_LOOKED_AT
    wide = look([held(1, *range(8), policy=Policy(2, 4, 6, 8))], farmers(*range(8)))
    assert (wide.breaks, wide.least_margin) == ((), 6)


def test_of_very_many_the_rest_count_as_the_worst_of_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(first, second) for first in range(40) for second in range(first)]
    known = {nid(n): FarmerFacts(nid(n), Exposure(n / 10)) for n in range(40)}
    single = Policy(1, 1, 1, 2)
    every = [held(number, *pair, policy=single) for number, pair in enumerate(pairs)]
    assert len(every) > 2 * MOST_COMPUTED
    found = look(every, known)
    assert found.computed == MOST_COMPUTED
    monkeypatch.setattr("stook.renter.outlook.MOST_COMPUTED", 10_000)
    exact = look(every, known)
    assert exact.computed == len(every)
    assert found.likely.at_least == exact.likely.at_least
    assert found.likely.at_most >= exact.likely.at_most
    twice = look([held(number, 1, 2, policy=single) for number in range(900)], known)
    assert twice.computed == 1


def test_audited_shards_are_counted() -> None:
    found = look([held(1, 1, 2, 3, 4, audited=3)], farmers(1, 2, 3, 4))
    assert (found.shards, found.audited) == (4, 3)


def test_nothing_stored_is_never_lost() -> None:
    found = look([], {})
    assert (found.segments, found.likely.at_most, found.breaks) == (0, 0.0, ())


def test_the_figure_is_that_of_segment_yearly_loss() -> None:
    from stook.renter.durability import HOURS_PER_YEAR, Holder, SegmentHoldings
    from stook.renter.loss_rates import farmer_rate, grid_rate

    known = farmers(1, 2, 3, 4)
    rate = grid_rate(facts.exposure for facts in known.values()).mean
    lost = farmer_rate(Exposure(1.0), rate).chance_within(72.0 / HOURS_PER_YEAR)
    holders = tuple(Holder(nid(n), index, lost) for index, n in enumerate((1, 2, 3, 4)))
    assert look([held(1, 1, 2, 3, 4)], known).likely.at_most == pytest.approx(
        segment_yearly_loss(SegmentHoldings(sid(1), POLICY, holders), {})
    )
