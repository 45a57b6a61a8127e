"""Forty days of a grid in pure values: schedule, containment, scores and repair as an agent will join them up.

Hours are the steps. Thirty farmers, of which one drops a tenth of its shards, one is mute on purpose, one leaves for
good, one loses its disk and says so, and all others are honest, on a bad line, and away now and then.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from stook.audits.allowance import Allowance
from stook.audits.containment import CLEAR, Containment, Event, Silence, apply, we_are_offline
from stook.audits.schedule import AUDIT_SHARE, MONTH_MS, AuditedFarmer, JobKind, draw_interval, due, first_due
from stook.audits.score import (
    NEWCOMER,
    Audited,
    Beat,
    Crime,
    DeclaredLoss,
    FarmerScore,
    Heartbeat,
    Muted,
    placement_weight,
    update,
)
from stook.contracts.verdict import Verdict
from stook.ids import NodeId, SegmentId
from stook.renter.planner import Candidate, Demand, choose
from stook.renter.repair_plan import Decision, Fate, HeldShard, RepairView, decide, fate_of, health, plan
from stook.shards.geometry import Policy

T0 = 1_700_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
DAYS = 40
SHARD = 1 << 20
SEGMENTS = 100
POLICY = Policy.parse("4/8/9/10")
DROPS, MUTE, LEAVES, LOSES = 0, 1, 2, 3
TROUBLE_MS = T0 + 5 * DAY_MS


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


@dataclass
class Grid:
    """The truth about farmers, and beside it all that an agent knows."""

    dice: random.Random
    now: int = T0
    really: dict[int, set[int]] = field(default_factory=dict)
    """Placement numbers whose bytes each farmer has."""
    placements: list[tuple[int, int, int, int]] = field(default_factory=list)
    """segment, index, farmer, when stored"""
    placed_at: list[list[int]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    scores: list[FarmerScore] = field(default_factory=list)
    silence: list[Containment] = field(default_factory=list)
    next_due: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    unaudited: list[int] = field(default_factory=list)
    passed_ms: list[int] = field(default_factory=list)
    questions: dict[int, list[int]] = field(default_factory=dict)
    silent_since: dict[int, int] = field(default_factory=dict)
    moved: int = 0
    repaired: int = 0

    def __post_init__(self) -> None:
        for number in range(30):
            self.really[number] = set()
            self.placed_at.append([])
            self.scores.append(NEWCOMER)
            self.silence.append(CLEAR)
            self.next_due.append(T0 + self.dice.randrange(DAY_MS))
            self.first.append(0)
            self.unaudited.append(0)
            self.passed_ms.append(0)
        for segment in range(SEGMENTS):
            for index, farmer in enumerate(self.dice.sample(range(30), POLICY.n)):
                self.store(segment, index, farmer)

    def store(self, segment: int, index: int, farmer: int) -> None:
        self.really[farmer].add(len(self.placements))
        self.placed_at[farmer].append(len(self.placements))
        self.placements.append((segment, index, farmer, self.now))
        self.unaudited[farmer] += 1
        self.first[farmer] = self.first[farmer] or first_due(self.now, self.dice.randbytes(8))

    def held_by(self, farmer: int) -> list[int]:
        return [at for at in self.placed_at[farmer] if at not in self.lost]

    def up(self, farmer: int) -> bool:
        if farmer == LEAVES and self.now >= TROUBLE_MS:
            return False
        # Each is away for half a day about every two weeks, and 5 % of messages are lost each way.
        away = (self.now // (12 * HOUR_MS) + farmer * 7) % 29 == 0
        return not away and self.dice.random() > 0.05 and self.dice.random() > 0.05

    def trouble(self) -> None:
        self.really[DROPS] = set(self.dice.sample(sorted(self.really[DROPS]), len(self.really[DROPS]) * 9 // 10))
        gone = self.held_by(LOSES)
        self.lost |= set(gone)
        self.really[LOSES].clear()
        self.scores[LOSES] = update(self.scores[LOSES], DeclaredLoss(len(gone), len(gone)), self.now)

    def hour(self) -> None:
        if self.now == TROUBLE_MS:
            self.trouble()
        heard = [self.up(farmer) for farmer in range(30)]
        assert not we_are_offline(heard)
        for farmer, there in enumerate(heard):
            beat = Beat.ANSWERED if there else Beat.MISSED
            self.scores[farmer] = update(self.scores[farmer], Heartbeat(beat), self.now)
            if there:
                self.silence[farmer] = apply(self.silence[farmer], Event.HEAR, self.now)
        self.audit()
        if self.now // HOUR_MS % 4 == 0:
            self.repair()
        self.now += HOUR_MS

    def audit(self) -> None:
        view = [
            AuditedFarmer(
                node(farmer),
                holding_bytes=len(self.held_by(farmer)) * SHARD,
                terms_interval_ms=DAY_MS,
                entitled_leaves=4 * len(self.held_by(farmer)),
                next_due_ms=self.next_due[farmer],
                first_due_ms=self.first[farmer],
                unaudited_shards=self.unaudited[farmer],
                unaudited_bytes=self.unaudited[farmer] * SHARD,
                uncertainty=self.scores[farmer].uncertainty(self.now),
                containment=self.silence[farmer],
                question_leaves=len(self.questions.get(farmer, ())),
            )
            for farmer in range(30)
        ]
        for job in due(
            view, bytes_left=1 << 40, requests_left=1000, now_ms=self.now, randomness=self.dice.randbytes(8)
        ):
            farmer = int.from_bytes(job.node_id, "big")
            if job.kind is JobKind.RECHECK:
                asked = self.questions[farmer]
            else:
                units = self.dice.choices(self.held_by(farmer), k=job.leaves)
                asked = sorted(set(units))
                if job.kind is JobKind.FIRST:
                    self.first[farmer] = self.unaudited[farmer] = 0
                self.next_due[farmer] = self.now + draw_interval(DAY_MS, self.dice.randbytes(8))
            reached = self.up(farmer)
            self.moved += job.moved_bytes if reached else 0
            self.judge(farmer, asked, reached)

    def judge(self, farmer: int, asked: list[int], reached: bool) -> None:
        mute = farmer == MUTE and self.now >= TROUBLE_MS
        if reached and not mute and self.dice.random() > 0.1:
            if set(asked) <= self.really[farmer]:
                self.scores[farmer] = update(self.scores[farmer], Audited(Verdict.PASSED), self.now)
                self.silence[farmer] = apply(self.silence[farmer], Event.PROVE, self.now)
                self.passed_ms[farmer] = self.now
            else:
                self.scores[farmer] = update(self.scores[farmer], Audited(Verdict.FAILED), self.now)
                self.silence[farmer] = apply(self.silence[farmer], Event.LIE, self.now)
            self.questions.pop(farmer, None)
            self.silent_since.pop(farmer, None)
            return
        if reached:
            self.questions[farmer] = asked
        self.silent_since.setdefault(farmer, self.now)
        self.scores[farmer] = update(self.scores[farmer], Audited(Verdict.SILENT), self.now)
        event = Event.MUTE if reached else Event.VANISH
        question = repr(asked).encode() if reached else b""
        self.silence[farmer] = apply(self.silence[farmer], event, self.now, asked_ms=self.now, question=question)
        if self.silence[farmer].state is Silence.CONDEMNED and self.scores[farmer].crime is None:
            self.scores[farmer] = update(self.scores[farmer], Muted(), self.now)

    def views(self) -> list[RepairView]:
        held: dict[int, list[HeldShard]] = {segment: [] for segment in range(SEGMENTS)}
        for at, (segment, index, farmer, stored_ms) in enumerate(self.placements):
            fate = fate_of(
                self.silence[farmer].state, lost=at in self.lost, condemned=self.scores[farmer].crime is not None
            )
            proved = max(stored_ms, self.passed_ms[farmer])
            since = self.silent_since.get(farmer, 0)
            held[segment].append(HeldShard(node(farmer), index, 0, fate, proved, since, lost=0.001))
        return [
            RepairView(SegmentId(segment.to_bytes(16, "big")), POLICY, POLICY.n, SHARD, tuple(shards))
            for segment, shards in held.items()
        ]

    def repair(self) -> None:
        barred = frozenset(node(farmer) for farmer in range(30) if not self.scores[farmer].placeable(self.now))
        result = plan(self.views(), allowance=Allowance.full(1 << 40, self.now), now_ms=self.now, barred=barred)
        assert not result.given_up
        for job in result.jobs:
            self.repaired += 1
            silent = {node(farmer) for farmer in range(30) if not self.silence[farmer].may_be_given_more}
            crowd = [
                Candidate(node(farmer), free_bytes=1 << 40, weight=placement_weight(self.scores[farmer], self.now))
                for farmer in range(30)
            ]
            chosen = choose(
                crowd,
                Demand(k=POLICY.k, count=len(job.tasks), shard_bytes=SHARD, duration_ms=DAY_MS),
                excluding=job.excluding | silent,
                at_least=1,
                now_ms=self.now,
                dice=self.dice.randbytes,
            ).chosen
            for task, farmer in zip(job.tasks, chosen, strict=False):
                self.store(int.from_bytes(job.segment_id, "big"), task.index, int.from_bytes(farmer, "big"))


@pytest.mark.parametrize("seed", [1, 2])
def test_forty_days_with_every_kind_of_farmer(seed: int) -> None:
    grid = Grid(random.Random(seed))
    stored = []
    for _ in range(DAYS * 24 // 6):
        for _ in range(6):
            grid.hour()
        stored.append(sum(len(grid.held_by(farmer)) for farmer in range(30)) * SHARD)
    crimes = {farmer: score.crime for farmer, score in enumerate(grid.scores) if score.crime}
    assert crimes == {DROPS: Crime.FALSE_PROOF, MUTE: Crime.MUTE}
    assert grid.scores[MUTE].condemned_ms - TROUBLE_MS <= 6 * DAY_MS
    assert grid.silence[LEAVES].state is Silence.GONE
    assert {grid.silence[farmer].state for farmer in range(4, 30)} <= {
        Silence.CLEAR,
        Silence.CONTAINED,
        Silence.OFFLINE,
    }
    # The honest loser kept its name, weighs less, and is given shards again.
    assert grid.scores[LOSES].placeable(grid.now)
    assert placement_weight(grid.scores[LOSES], grid.now) < placement_weight(grid.scores[10], grid.now)
    # Every segment is proved at r or more, or waits for somebody who fell silent within half a day.
    for view in grid.views():
        assert decide(view, health(view, grid.now)) in (Decision.LEAVE, Decision.WAIT)
    months = DAYS * DAY_MS / MONTH_MS
    assert grid.moved / months <= AUDIT_SHARE * sum(stored) / len(stored)
    assert 0 < grid.repaired < SEGMENTS
    assert {fate.fate for view in grid.views() for fate in view.held} >= {Fate.HELD, Fate.LOST, Fate.CONDEMNED}
