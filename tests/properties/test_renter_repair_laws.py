"""Repairs over many rounds: every segment that can be is whole in the end, and no index is ever made twice."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from stook.audits.allowance import Allowance
from stook.ids import NodeId, SegmentId
from stook.renter.repair_plan import RULES, Decision, Fate, Flight, HeldShard, RepairView, decide, health, plan
from stook.shards.geometry import Policy

NOW = 1_700_000_000_000
SHARD = 1 << 14


@st.composite
def views(draw: st.DrawFn) -> list[RepairView]:
    made = []
    for number in range(draw(st.integers(1, 4))):
        k = draw(st.integers(1, 4))
        n = draw(st.integers(k, 8))
        total = n + draw(st.integers(0, 2))
        shards = [
            HeldShard(
                NodeId(bytes([number]) + bytes(18) + bytes([position])),
                draw(st.integers(0, total - 1)),
                fate=draw(st.sampled_from(Fate)),
                proved_ms=draw(st.sampled_from([0, NOW - RULES.fresh_ms - 1, NOW - RULES.fresh_ms, NOW - 1])),
                silent_since_ms=NOW - draw(st.sampled_from([RULES.patience_ms, RULES.patience_ms - 1])),
                lost=draw(st.floats(0, 1)),
            )
            for position in range(draw(st.integers(0, 10)))
        ]
        flights = [
            Flight(
                NodeId(bytes([number]) + bytes(18) + bytes([100 + position])),
                draw(st.integers(0, total - 1)),
                begun_ms=NOW - draw(st.sampled_from([0, RULES.flight_ms])),
            )
            for position in range(draw(st.integers(0, 3)))
        ]
        made.append(
            RepairView(SegmentId(bytes([number] * 16)), Policy.of(k, n), total, SHARD, tuple(shards), tuple(flights))
        )
    return made


@given(views(), st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_every_segment_is_in_one_place_and_every_job_is_sound(crowd: list[RepairView], shards_a_day: int) -> None:
    result = plan(crowd, allowance=Allowance.full(shards_a_day * SHARD, NOW), now_ms=NOW)
    named = [job.segment_id for job in (*result.jobs, *result.postponed)] + [*result.waiting, *result.given_up]
    assert len(named) == len(set(named))
    by_id = {view.segment_id: view for view in crowd}
    for job in (*result.jobs, *result.postponed):
        view = by_id[job.segment_id]
        found = health(view, NOW)
        assert len(found.proved | found.coming) < view.policy.r
        made = [task.index for task in job.tasks]
        assert len(made) == len(set(made))
        assert not set(made) & (found.proved | found.coming)
        # Up to n, or every index there is.
        assert len(found.proved | found.coming | set(made)) == view.policy.n
        assert len({shard.index for shard in job.sources}) >= view.policy.k
        assert all(shard.fate is not Fate.LOST for shard in job.sources)
    for view in crowd:
        groups = health(view, NOW)
        parts = [groups.proved, groups.coming, groups.lately_silent, groups.doubtful, groups.condemned, groups.lost]
        assert sum(map(len, parts)) == len(frozenset().union(*parts))
        if view.segment_id not in named:
            assert decide(view, groups) is Decision.LEAVE
    spent = sum(job.moved_bytes for job in result.jobs)
    last = result.jobs[-1].moved_bytes if result.jobs else 0
    assert spent - last <= shards_a_day * SHARD
    if result.postponed:
        assert spent >= shards_a_day * SHARD


@given(views(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_rounds_end_with_whole_segments_and_make_nothing_twice(crowd: list[RepairView], shards_a_day: int) -> None:
    allowance, now = Allowance.full(shards_a_day * SHARD, NOW), NOW
    made: dict[SegmentId, list[int]] = {view.segment_id: [] for view in crowd}
    farmer = 0
    crowd = [replace(view, flights=()) for view in crowd]
    for _ in range(200):
        result = plan(crowd, allowance=allowance, now_ms=now)
        again = plan(
            [
                replace(
                    view,
                    flights=tuple(
                        Flight(NodeId(bytes(20)), task.index, begun_ms=now)
                        for job in result.jobs
                        if job.segment_id == view.segment_id
                        for task in job.tasks
                    ),
                )
                for view in crowd
            ],
            allowance=Allowance.full(1 << 40, now),
            now_ms=now,
        )
        begun = {job.segment_id for job in result.jobs}
        assert not begun & {job.segment_id for job in again.jobs}
        allowance = result.allowance
        by_id = {view.segment_id: view for view in crowd}
        for job in result.jobs:
            view = by_id[job.segment_id]
            made[job.segment_id] += [task.index for task in job.tasks]
            new = []
            for task in job.tasks:
                farmer += 1
                new.append(HeldShard(NodeId(farmer.to_bytes(20, "little")), task.index, proved_ms=now))
            by_id[job.segment_id] = replace(view, held=view.held + tuple(new))
        crowd = [by_id[view.segment_id] for view in crowd]
        if not result.jobs and not result.postponed and not result.waiting:
            break
        now += 24 * 3_600_000
        # Everybody who was proved goes on being proved.
        crowd = [
            replace(
                view,
                held=tuple(
                    replace(shard, proved_ms=now) if NOW - shard.proved_ms <= RULES.fresh_ms else shard
                    for shard in view.held
                ),
            )
            for view in crowd
        ]
    else:
        raise AssertionError("it never ends")
    for view in crowd:
        indices = made[view.segment_id]
        assert len(indices) == len(set(indices))
        found = health(view, now)
        if found.within_reach >= view.policy.k:
            assert len(found.proved) >= view.policy.r
