"""Whatever farmers and budgets there are: nobody is asked twice, nothing is overspent, shares are fair."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stook.audits.allowance import DAY_MS, Allowance
from stook.audits.containment import CLEAR, Containment, Silence
from stook.audits.schedule import AuditedFarmer, JobKind, due, moved_bytes
from stook.ids import NodeId

T0 = 1_700_000_000_000
containments = st.sampled_from(Silence).map(
    lambda state: CLEAR if state is Silence.CLEAR else Containment(state=state, next_due_ms=T0 - 1, attempts=1)
)


@st.composite
def crowds(draw: st.DrawFn) -> list[AuditedFarmer]:
    return [
        AuditedFarmer(
            node_id=NodeId(number.to_bytes(20, "big")),
            holding_bytes=draw(st.integers(0, 1 << 42)),
            terms_interval_ms=draw(st.integers(60_000, 30 * DAY_MS)),
            entitled_leaves=draw(st.integers(0, 5000)),
            next_due_ms=T0 + draw(st.integers(-30 * DAY_MS, DAY_MS)),
            first_due_ms=draw(st.sampled_from([0, T0 - 5, T0 + 5])),
            unaudited_shards=draw(st.integers(0, 600)),
            unaudited_bytes=draw(st.integers(0, 1 << 32)),
            uncertainty=draw(st.floats(0, 0.5)),
            containment=draw(containments),
            question_leaves=draw(st.integers(0, 300)),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


@given(crowds(), st.integers(-10, 40 << 20), st.integers(-2, 15), st.binary(min_size=8, max_size=8))
@settings(max_examples=200, deadline=None)
def test_jobs_fit_and_are_fair(crowd: list[AuditedFarmer], left: int, requests: int, randomness: bytes) -> None:
    jobs = due(crowd, bytes_left=left, requests_left=requests, now_ms=T0, randomness=randomness)
    free = due(crowd, bytes_left=1 << 60, requests_left=10**9, now_ms=T0, randomness=randomness)
    wanted = {job.node_id: job for job in free}
    assert len({job.node_id for job in jobs}) == len(jobs) <= max(0, requests)
    assert {job.node_id for job in jobs} <= wanted.keys()
    assert all(job.moved_bytes == moved_bytes(job.leaves) for job in jobs)
    rechecks = [job for job in jobs if job.kind is JobKind.RECHECK]
    assert all(job.leaves == wanted[job.node_id].leaves for job in rechecks)
    sized = [job for job in jobs if job.kind is not JobKind.RECHECK]
    spent = sum(job.moved_bytes for job in jobs)
    assert spent <= max(0, left) or (rechecks and spent - max(job.moved_bytes for job in rechecks) <= left)
    assert all(1 <= job.leaves <= wanted[job.node_id].leaves for job in sized)
    # Max-min: who got less than it wanted has no fewer leaves than anyone else, but for the one left over.
    cut = [job.leaves for job in sized if job.leaves < wanted[job.node_id].leaves]
    assert not cut or max(job.leaves for job in sized) <= min(cut) + 1


@given(st.integers(0, 1000), st.integers(0, 3000), st.lists(st.tuples(st.integers(0, 2 * DAY_MS), st.integers(0, 500))))
@settings(deadline=None)
def test_never_more_than_the_burst_and_what_ran_in(per_day: int, burst: int, spends: list[tuple[int, int]]) -> None:
    allowance, now, spent = Allowance.full(per_day, T0, burst), T0, 0
    for gap, wish in spends:
        now += gap
        if wish <= allowance.left(now):
            allowance = allowance.spend(wish, now)
            spent += wish
        assert spent * DAY_MS <= burst * DAY_MS + per_day * (now - T0)
        assert allowance.left(now) <= burst
