"""What counts, what is repaired, from what, where to, in what order, and how far the bytes reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stook.audits.allowance import DAY_MS, Allowance
from stook.audits.containment import Silence
from stook.ids import NodeId, SegmentId
from stook.renter.repair_plan import (
    HOUR_MS,
    RULES,
    Decision,
    Fate,
    Flight,
    HeldShard,
    Method,
    RepairPlan,
    RepairView,
    Task,
    decide,
    fate_of,
    health,
    plan,
)
from stook.shards.geometry import Policy

NOW = 1_700_000_000_000
SHARD = 1 << 20
PLENTY = Allowance.full(1 << 50, NOW)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def held(index: int, fate: Fate = Fate.HELD, **changes: int) -> HeldShard:
    facts = {"proved_ms": NOW - DAY_MS, "silent_since_ms": NOW - 2 * DAY_MS} | changes
    return HeldShard(node(100 + index), index, fate=fate, lost=0.01, **facts)


def segment(*shards: HeldShard, policy: str = "4/6/8/10", number: int = 0, **changes: object) -> RepairView:
    return replace(
        RepairView(SegmentId(bytes([number] * 16)), Policy.parse(policy), 11, SHARD, shards),
        **changes,  # type: ignore[arg-type]
    )


def planned(*views: RepairView, **changes: object) -> RepairPlan:
    return plan(views, **({"allowance": PLENTY, "now_ms": NOW} | changes))  # type: ignore[arg-type]


def whole(count: int) -> list[HeldShard]:
    return [held(index) for index in range(count)]


def test_fates_follow_from_what_is_known_of_the_farmer() -> None:
    assert [fate_of(silence) for silence in Silence] == [
        Fate.HELD,
        Fate.SILENT,
        Fate.SILENT,
        Fate.LOST,
        Fate.CONDEMNED,
    ]
    assert fate_of(Silence.CLEAR, lost=True) is Fate.LOST
    assert fate_of(Silence.GONE, lost=True, condemned=True) is Fate.CONDEMNED


def test_nothing_is_repaired_at_or_above_r() -> None:
    for count in (6, 8, 10):
        result = planned(segment(*whole(count)))
        assert (result.jobs, result.postponed, result.waiting, result.given_up) == ((), (), (), ())


def test_below_r_it_is_filled_up_to_n_from_proved_shards() -> None:
    (job,) = planned(segment(*whole(5))).jobs
    assert job.tasks == tuple(Task(index, 0, Method.ERASURE) for index in range(5, 10))
    assert [shard.index for shard in job.sources] == [0, 1, 2, 3, 4]
    assert job.excluding == {node(100 + index) for index in range(5)}
    assert job.moved_bytes == (4 + 5) * SHARD
    assert (job.margin, 0 < job.loss_chance < 0.01) == (1, True)


@pytest.mark.parametrize(
    "spoilt",
    [
        held(5, Fate.LOST),
        held(5, Fate.CONDEMNED),
        held(5, Fate.SILENT),
        held(5, proved_ms=0),
        held(5, proved_ms=NOW - RULES.fresh_ms - 1),
    ],
    ids=["lost", "condemned", "silent", "never proved", "stale"],
)
def test_only_what_was_proved_counts(spoilt: HeldShard) -> None:
    view = segment(*whole(5), spoilt)
    found = health(view, NOW)
    assert len(found.proved) == 5
    assert found.margin == 1
    assert decide(view, found) is Decision.REPAIR
    (job,) = planned(view).jobs
    # What nobody may have comes first; the index in doubt is brought back when room is left.
    assert [task.index for task in job.tasks] == ([5, 6, 7, 8, 9] if spoilt.fate in LOST_FOR_GOOD else [6, 7, 8, 9, 10])


LOST_FOR_GOOD = (Fate.LOST, Fate.CONDEMNED)


def test_each_index_is_counted_once_in_the_best_that_is_known_of_it() -> None:
    view = segment(
        held(0),
        held(0, Fate.LOST),
        held(1, Fate.SILENT, silent_since_ms=NOW - HOUR_MS),
        held(2, Fate.SILENT),
        held(3, proved_ms=0),
        held(4, Fate.CONDEMNED),
        held(5, Fate.LOST),
        held(6, Fate.LOST),
        flights=(Flight(node(9), 6, begun_ms=NOW - HOUR_MS), Flight(node(8), 7, begun_ms=NOW - 3 * HOUR_MS)),
    )
    found = health(view, NOW)
    assert (found.proved, found.coming, found.lately_silent) == ({0}, {6}, {1})
    assert (found.doubtful, found.condemned, found.lost) == ({2, 3}, {4}, {5})
    assert (found.margin, found.within_reach) == (-3, 5)


def test_farmers_that_fell_silent_lately_are_waited_for_while_there_is_room() -> None:
    lately = [held(index, Fate.SILENT, silent_since_ms=NOW - HOUR_MS) for index in (5, 6)]
    view = segment(*whole(5), *lately)
    assert planned(view).waiting == (view.segment_id,)
    assert len(planned(view, now_ms=NOW + 12 * HOUR_MS).jobs) == 1
    # With exactly k proved there is no room to wait.
    tight = segment(*whole(4), *lately)
    assert len(planned(tight).jobs) == 1


def test_below_k_within_reach_it_is_given_up_unless_something_is_coming() -> None:
    view = segment(*whole(3), held(3, Fate.LOST))
    assert planned(view).given_up == (view.segment_id,)
    assert planned(replace(view, flights=(Flight(node(1), 3, begun_ms=NOW),))).waiting == (view.segment_id,)
    # A liar's bytes are checked like anyone's.
    tried = segment(*whole(3), held(3, Fate.CONDEMNED), held(4, Fate.SILENT))
    (job,) = planned(tried).jobs
    assert [shard.index for shard in job.sources] == [0, 1, 2, 4, 3]
    assert job.loss_chance == 1.0


def test_what_is_in_flight_is_not_repaired_again() -> None:
    flights = tuple(Flight(node(index), index, begun_ms=NOW - HOUR_MS) for index in range(5, 10))
    view = segment(*whole(5), flights=flights)
    assert planned(view).jobs == ()
    fewer = segment(*whole(4), flights=flights[:1])
    (job,) = planned(fewer).jobs
    assert [task.index for task in job.tasks] == [4, 6, 7, 8, 9]
    assert node(5) in job.excluding
    stuck = tuple(replace(flight, begun_ms=NOW - RULES.flight_ms) for flight in flights)
    (job,) = planned(segment(*whole(5), flights=stuck)).jobs
    assert [task.index for task in job.tasks] == [5, 6, 7, 8, 9]


def test_shards_go_neither_to_liars_nor_to_who_holds_one_but_to_an_honest_loser_again() -> None:
    view = segment(*whole(4), held(5, Fate.LOST), held(6, Fate.CONDEMNED), held(7, Fate.SILENT))
    (job,) = planned(view, barred=frozenset({node(1)})).jobs
    assert job.excluding == {node(1), *(node(100 + index) for index in (0, 1, 2, 3, 6, 7))}


def test_nearest_to_loss_comes_first_and_what_can_only_be_tried_last() -> None:
    five, four = segment(*whole(5), number=1), segment(*whole(4), number=2)
    shaky = segment(*(replace(shard, lost=0.2) for shard in whole(5)), number=3)
    hopeful = segment(*whole(3), held(3, Fate.SILENT), number=4)
    burning = segment(*(replace(shard, groups=("op",)) for shard in whole(5)), number=5)
    order = [job.segment_id[0] for job in planned(five, four, shaky, hopeful, burning, group_lost={"op": 0.5}).jobs]
    assert order == [5, 3, 2, 1, 4]


def test_the_allowance_is_overdrawn_once_and_the_rest_waits_for_tomorrow() -> None:
    views = [segment(*whole(5), number=number) for number in range(5)]
    each = 9 * SHARD
    result = planned(*views, allowance=Allowance.full(2 * each + 1, NOW))
    assert (len(result.jobs), len(result.postponed)) == (3, 2)
    assert result.allowance.left(NOW) < 0
    nothing = planned(*views, allowance=result.allowance)
    assert (len(nothing.jobs), len(nothing.postponed)) == (0, 5)
    huge = planned(views[0], allowance=Allowance.full(1, NOW))
    assert len(huge.jobs) == 1


def test_with_k_of_one_a_shard_is_copied_from_any_other() -> None:
    view = segment(held(1), policy="1/2/3/4", total=4)
    (job,) = planned(view).jobs
    assert job.tasks == tuple(Task(index, 0, Method.MIRROR) for index in (0, 2, 3))
    assert job.moved_bytes == 4 * SHARD


def test_wanted_copies_are_made_beside_a_healthy_segment() -> None:
    view = segment(
        *whole(7),
        replace(held(0), copy=1, farmer=node(1)),
        replace(held(1, Fate.SILENT), copy=1, farmer=node(2)),
        copies=2,
        flights=(Flight(node(3), 2, copy=1, begun_ms=NOW),),
    )
    (job,) = planned(view).jobs
    assert job.tasks == (
        Task(1, 2, Method.MIRROR),
        *(Task(index, 1, Method.MIRROR) for index in (3, 4, 5, 6)),
    )
    assert job.moved_bytes == (5 + 5) * SHARD
    assert node(3) in job.excluding


def test_a_lost_first_copy_is_made_again_from_the_second() -> None:
    view = segment(*whole(7)[1:], replace(held(0), copy=1, farmer=node(1)), held(0, Fate.LOST), copies=2)
    (job,) = planned(view).jobs
    assert job.tasks[0] == Task(0, 0, Method.MIRROR)
    assert job.moved_bytes == 2 * 7 * SHARD


def test_what_lapses_is_made_again_and_read_from_while_it_can_be() -> None:
    lasting, lapsing = whole(4), [replace(held(index), lapsing=True) for index in range(4, 10)]
    view = segment(*lasting, *lapsing)
    found = health(view, NOW)
    assert (found.proved, found.doubtful) == (frozenset(range(4)), frozenset(range(4, 10)))
    (job,) = planned(view).jobs
    assert {task.index for task in job.tasks} <= set(range(4, 11))
    assert len(job.tasks) == 6
    assert [shard.index for shard in job.sources[:4]] == [0, 1, 2, 3]
    assert {shard.index for shard in job.sources} == set(range(10))
    assert {shard.farmer for shard in view.held} <= job.excluding
    # Everything may lapse together, and then is still read.
    (job,) = planned(segment(*lapsing, *(replace(shard, lapsing=True) for shard in lasting))).jobs
    assert len(job.tasks) == 10
    silent = [replace(held(index, Fate.SILENT, silent_since_ms=NOW - 1), lapsing=True) for index in range(6, 10)]
    assert decide(segment(*whole(5), *silent), health(segment(*whole(5), *silent), NOW)) is Decision.REPAIR
