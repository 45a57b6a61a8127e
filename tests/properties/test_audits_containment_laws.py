"""Containment against a model that looks at the whole story each time, and against farmers on a bad line."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stook.audits.containment import (
    CLEAR,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    RULES,
    STEPS,
    Containment,
    Event,
    Silence,
    apply,
    countable_ms,
    we_are_offline,
)

T0 = 1_700_000_000_000
SILENCES = (Event.MUTE, Event.SILENCE, Event.VANISH)


@dataclass
class Story:
    """All that was reported since the farmer was last clear; the state is worked out from it anew each time."""

    events: list[tuple[Event, int]] = field(default_factory=list)

    def state(self) -> Silence:
        asked: list[tuple[Event, int]] = []
        reach = Silence.CLEAR
        ended = False
        forgiven = 0
        for event, at in self.events:
            if event is Event.LIE:
                return Silence.CONDEMNED
            if ended:
                if event is Event.HEAR:
                    reach, ended, forgiven = Silence.CONTAINED, False, len(asked) - 1
                continue
            if event is Event.HEAR:
                reach = Silence.CONTAINED if asked else Silence.CLEAR
                continue
            asked.append((event, at))
            if event is Event.VANISH:
                reach = Silence.OFFLINE
            elif event is Event.MUTE or reach is Silence.CLEAR:
                reach = Silence.CONTAINED
            pairs = list(itertools.pairwise(asked))
            span = [min(b - a, 2 * RULES.longest_gap_ms) for (_, a), (_, b) in pairs]
            mute_span = [
                length
                for length, ((first, _), (second, _)) in zip(span, pairs, strict=True)
                if first is second is Event.MUTE
            ]
            mutes = sum(what is Event.MUTE for what, _ in asked)
            if event is Event.MUTE and mutes >= RULES.mute_times and sum(mute_span) >= RULES.mute_ms:
                return Silence.CONDEMNED
            if sum(span[forgiven:]) >= RULES.gone_ms:
                reach, ended = Silence.GONE, True
        return reach


class ContainmentMachine(RuleBasedStateMachine):
    """Reports anything at any time; condemned stories are left as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = T0
        self.now = CLEAR
        self.story = Story()

    @rule(
        event=st.sampled_from([*SILENCES, Event.MUTE, Event.MUTE, Event.HEAR]),
        gap=st.integers(1, 30 * HOUR_MS),
        times=st.integers(1, 12),
    )
    def report(self, event: Event, gap: int, times: int) -> None:
        for _ in range(times):
            self.clock += gap
            self.now = apply(self.now, event, self.clock + 1000, asked_ms=self.clock, question=b"q")
            self.story.events.append((event, self.clock))

    @rule(gap=st.integers(1, DAY_MS))
    def prove(self, gap: int) -> None:
        self.clock += gap
        if self.story.state() is not Silence.CONDEMNED:
            self.story = Story()
        self.now = apply(self.now, Event.PROVE, self.clock)

    @rule()
    def lie(self) -> None:
        self.now = apply(self.now, Event.LIE, self.clock)
        self.story.events.append((Event.LIE, self.clock))

    @invariant()
    def the_story_says_the_same(self) -> None:
        assert self.now.state is self.story.state()

    @invariant()
    def questions_are_open_where_they_should_be(self) -> None:
        open_case = self.now.state in (Silence.CONTAINED, Silence.OFFLINE)
        assert (self.now.next_due_ms > 0) == open_case
        assert not open_case or self.now.attempts > 0
        assert self.now.state is not Silence.CLEAR or self.now == CLEAR


ContainmentMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestContainment = ContainmentMachine.TestCase


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=6), st.integers(0, 300))
@settings(deadline=None)
def test_countable_time_is_counted_by_hand(excused: list[tuple[int, int]], end: int) -> None:
    slow = sum(not any(start <= tick < stop for start, stop in excused) for tick in range(50, end))
    assert countable_ms(50, end, excused) == slow


@given(st.lists(st.sampled_from([Event.VANISH, Event.SILENCE, Event.HEAR, Event.PROVE]), max_size=80), st.data())
@settings(max_examples=80, deadline=None)
def test_without_a_lie_or_an_answer_beside_the_question_nobody_is_condemned(
    events: list[Event], data: st.DataObject
) -> None:
    now, at = CLEAR, T0
    for event in events:
        at += data.draw(st.integers(1, 3 * DAY_MS))
        now = apply(now, event, at, asked_ms=at)
        assert now.state is not Silence.CONDEMNED


@dataclass
class Line:
    """An agent and a farmer on a line that loses each message with a chance of its own; time runs in minutes."""

    dice: random.Random
    loss: float
    up_share: float
    answers_audits: bool
    period_hours: float = 12.0

    def up(self, at_ms: int) -> bool:
        """On for the first part of each period, at an offset of its own."""
        period = int(self.period_hours * HOUR_MS)
        return (at_ms % period) < self.up_share * period

    def answers(self, at_ms: int) -> bool:
        return self.up(at_ms) and self.dice.random() > self.loss and self.dice.random() > self.loss

    def live(self, days: int, agent_is_on: tuple[bool, ...] = (True,)) -> list[tuple[int, Silence]]:
        now, audit_at, heartbeat_at, seen = CLEAR, T0, T0 + 7 * MINUTE_MS, [(T0, Silence.CLEAR)]
        for minute in range(days * 24 * 60):
            at = T0 + minute * MINUTE_MS
            if not agent_is_on[(minute // 60) % len(agent_is_on)]:
                continue
            if at >= heartbeat_at:
                heartbeat_at = at + HOUR_MS
                if self.answers(at):
                    now = apply(now, Event.HEAR, at)
            due = now.next_due_ms if now.next_due_ms else audit_at
            if at >= due and now.state not in (Silence.CONDEMNED, Silence.GONE):
                audit_at = at + DAY_MS
                now = self._audit(now, at)
            if seen[-1][1] is not now.state:
                seen.append((at, now.state))
        return seen

    def _audit(self, now: Containment, at: int) -> Containment:
        if self.answers_audits and self.answers(at):
            return apply(now, Event.PROVE, at + MINUTE_MS)
        event = Event.MUTE if self.answers(at) else Event.VANISH
        return apply(now, event, at + MINUTE_MS, asked_ms=at, question=b"q")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("up_share", [1.0, 0.6, 0.1])
def test_an_honest_farmer_that_loses_messages_and_sleeps_is_never_condemned(seed: int, up_share: float) -> None:
    line = Line(random.Random(seed), loss=0.05, up_share=up_share, answers_audits=True, period_hours=7 + 5 * seed)
    states = {state for _, state in line.live(60)}
    assert Silence.CONDEMNED not in states
    assert Silence.GONE not in states


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_one_that_is_up_and_mute_is_condemned_within_four_days(seed: int, loss: float) -> None:
    line = Line(random.Random(seed), loss=loss, up_share=1.0, answers_audits=False)
    last_at, last = line.live(10)[-1]
    assert last is Silence.CONDEMNED
    assert last_at - T0 <= 4 * DAY_MS


@pytest.mark.parametrize("seed", range(4))
def test_one_that_is_mute_and_away_half_the_time_never_stays_clear(seed: int) -> None:
    line = Line(random.Random(seed), loss=0.05, up_share=0.5, answers_audits=False, period_hours=11)
    _, last = line.live(10)[-1]
    assert last in (Silence.CONDEMNED, Silence.GONE)


def test_one_that_left_is_gone_and_no_liar() -> None:
    at, last = Line(random.Random(1), loss=0.05, up_share=0.0, answers_audits=True).live(30)[-1]
    assert last is Silence.GONE
    assert 7 * DAY_MS <= at - T0 <= 8 * DAY_MS


@pytest.mark.parametrize("guarded", [True, False])
def test_a_fortnight_without_a_line_of_our_own_is_laid_to_nobody(guarded: bool) -> None:
    dice = random.Random(4)
    farmers, audit_at = [CLEAR] * 20, [T0 + number * HOUR_MS for number in range(20)]
    outage = range(3 * 24, 17 * 24)
    excused: list[tuple[int, int]] = []
    states = set()
    for hour in range(30 * 24):
        at = T0 + hour * HOUR_MS
        heard = [hour not in outage and dice.random() > 0.1 for _ in farmers]
        if guarded and we_are_offline(heard, sum(end - begin for begin, end in excused)):
            excused.append((at, at + HOUR_MS))
            continue
        for number, now in enumerate(farmers):
            due = now.next_due_ms or audit_at[number]
            if heard[number]:
                now = apply(now, Event.HEAR, at)
            if at >= due and now.state not in (Silence.CONDEMNED, Silence.GONE):
                audit_at[number] = at + DAY_MS
                proves = hour not in outage and dice.random() > 0.1
                event = Event.PROVE if proves else Event.MUTE if heard[number] else Event.VANISH
                now = apply(now, event, at, asked_ms=at, excused=excused)
            farmers[number] = now
            states.add(now.state)
    assert Silence.CONDEMNED not in states
    # Without the guard nobody is condemned either, but everybody counts as lost.
    assert (Silence.GONE in states) is not guarded
    if guarded:
        assert all(now.state is Silence.CLEAR or now.attempts <= 3 for now in farmers)


def test_an_agent_that_runs_two_hours_a_day_condemns_nobody_honest() -> None:
    line = Line(random.Random(2), loss=0.05, up_share=0.5, answers_audits=True, period_hours=24)
    hours = tuple(hour in (9, 20) for hour in range(24))
    assert Silence.CONDEMNED not in {state for _, state in line.live(60, hours)}


@given(st.integers(3, 60), st.floats(0, 0.05), st.integers(0, 2**32))
@settings(deadline=None)
def test_five_lost_messages_in_a_hundred_are_no_outage_of_ours(farmers: int, loss: float, seed: int) -> None:
    dice = random.Random(seed)
    lost = int(farmers * loss)
    answers = [False] * lost + [True] * (farmers - lost)
    dice.shuffle(answers)
    assert not we_are_offline(answers)


def test_every_state_is_reached_by_some_step() -> None:
    assert set(STEPS.values()) == set(Silence)
