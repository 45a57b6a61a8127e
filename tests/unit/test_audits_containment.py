"""Down is never a lie, mute on purpose always is: single steps, and lives played out hour by hour."""

from __future__ import annotations

import pytest

from stook.audits.containment import (
    CLEAR,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    RULES,
    Containment,
    Event,
    IllegalStepError,
    Silence,
    apply,
    countable_ms,
    we_are_offline,
)

T0 = 1_700_000_000_000


def play(event: Event, until_ms: int, *, excused: tuple[tuple[int, int], ...] = (), start: Containment = CLEAR) -> list:
    """Every question, asked when due, ends in `event`; the states after each."""
    now, asked, states = start, T0, []
    while asked < T0 + until_ms:
        now = apply(now, event, asked + 30_000, asked_ms=asked, question=b"leaves", excused=excused)
        states.append(now)
        if now.next_due_ms == 0:
            break
        asked = now.next_due_ms
    return states


def test_a_silent_farmer_is_asked_the_same_again_with_longer_gaps() -> None:
    states = play(Event.SILENCE, 3 * DAY_MS)
    assert {state.question for state in states} == {b"leaves"}
    assert {state.first_asked_ms for state in states} == {T0}
    gaps = [state.next_due_ms - state.last_asked_ms - 30_000 for state in states]
    assert [gap // MINUTE_MS for gap in gaps[:7]] == [15, 30, 60, 120, 240, 480, 480]
    assert [state.attempts for state in states] == list(range(1, len(states) + 1))


def test_down_ages_into_gone_after_a_week_and_never_into_a_lie() -> None:
    last = play(Event.VANISH, 30 * DAY_MS)[-1]
    assert last.state is Silence.GONE
    assert RULES.gone_ms <= last.silent_ms <= RULES.gone_ms + RULES.longest_gap_ms
    assert last.mutes == 0


def test_mute_while_answering_others_is_condemned_within_three_days() -> None:
    last = play(Event.MUTE, 30 * DAY_MS)[-1]
    assert last.state is Silence.CONDEMNED
    assert last.mutes >= RULES.mute_times
    assert RULES.mute_ms <= last.since_ms - T0 <= 3 * DAY_MS


def test_silence_that_nothing_else_explains_is_contained_and_grows_old() -> None:
    states = play(Event.SILENCE, 30 * DAY_MS)
    assert states[0].state is Silence.CONTAINED
    assert states[-1].state is Silence.GONE


def test_eight_times_within_an_hour_is_not_enough() -> None:
    now = CLEAR
    for attempt in range(30):
        at = T0 + attempt * 2 * MINUTE_MS
        now = apply(now, Event.MUTE, at, asked_ms=at)
    assert now.mutes == 30
    assert now.state is Silence.CONTAINED


def test_a_proof_clears_everything_and_a_lie_condemns_from_anywhere() -> None:
    for event, times in ((Event.MUTE, 3), (Event.VANISH, 3), (Event.VANISH, 60)):
        state = play(event, times * DAY_MS)[-1]
        if state.state is not Silence.CONDEMNED:
            assert apply(state, Event.PROVE, T0 + 90 * DAY_MS) == CLEAR
            lied = apply(state, Event.LIE, T0 + 90 * DAY_MS)
            assert (lied.state, lied.since_ms, lied.next_due_ms) == (Silence.CONDEMNED, T0 + 90 * DAY_MS, 0)


def test_condemned_is_final() -> None:
    condemned = play(Event.MUTE, 30 * DAY_MS)[-1]
    for event in (Event.PROVE, Event.MUTE, Event.SILENCE, Event.VANISH, Event.HEAR, Event.LIE):
        assert apply(condemned, event, T0 + 99 * DAY_MS, asked_ms=T0 + 99 * DAY_MS) == condemned


def test_whoever_is_heard_is_asked_at_once() -> None:
    away = play(Event.VANISH, 2 * DAY_MS)[-1]
    assert away.state is Silence.OFFLINE
    back = apply(away, Event.HEAR, away.last_asked_ms + HOUR_MS)
    assert back.state is Silence.CONTAINED
    assert back.next_due_ms == away.last_asked_ms + HOUR_MS < away.next_due_ms
    again = apply(back, Event.HEAR, away.last_asked_ms + HOUR_MS + 1)
    assert again.next_due_ms == back.next_due_ms


def test_who_is_heard_right_after_a_question_gets_the_shortest_gap() -> None:
    now = play(Event.VANISH, 2 * DAY_MS)[-1]
    heard = apply(now, Event.HEAR, now.last_asked_ms + 1)
    assert heard.next_due_ms == now.last_asked_ms + RULES.first_gap_ms


def test_a_dodger_that_is_dark_at_every_other_question_gains_nothing_but_age() -> None:
    now, at, dark = CLEAR, T0, False
    while now.state in (Silence.CLEAR, Silence.CONTAINED, Silence.OFFLINE):
        now = apply(now, Event.VANISH if dark else Event.MUTE, at, asked_ms=at)
        dark, at = not dark, now.next_due_ms
    assert now.state is Silence.GONE
    assert now.since_ms - T0 < RULES.gone_ms + RULES.longest_gap_ms


def test_who_could_not_be_reached_was_not_asked_and_may_still_declare_a_loss() -> None:
    now = apply(CLEAR, Event.VANISH, T0, asked_ms=T0)
    assert (now.state, now.question, now.first_asked_ms) == (Silence.OFFLINE, b"", 0)
    now = apply(now, Event.SILENCE, T0 + HOUR_MS, asked_ms=T0 + HOUR_MS, question=b"first")
    now = apply(now, Event.MUTE, T0 + 2 * HOUR_MS, asked_ms=T0 + 2 * HOUR_MS, question=b"second")
    now = apply(now, Event.VANISH, T0 + 3 * HOUR_MS, asked_ms=T0 + 3 * HOUR_MS)
    assert (now.question, now.first_asked_ms, now.attempts) == (b"first", T0 + HOUR_MS, 4)


def test_who_comes_back_after_it_was_gone_is_clear_unless_a_question_was_open() -> None:
    at = T0
    away = CLEAR
    while away.state is not Silence.GONE:
        away = apply(away, Event.VANISH, at, asked_ms=at)
        at = away.next_due_ms
    assert apply(away, Event.HEAR, T0 + 30 * DAY_MS) == CLEAR
    asked = play(Event.VANISH, 30 * DAY_MS)[-1]
    assert asked.state is Silence.GONE
    back = apply(asked, Event.HEAR, T0 + 30 * DAY_MS)
    assert (back.state, back.next_due_ms, back.question) == (Silence.CONTAINED, T0 + 30 * DAY_MS, b"leaves")
    assert apply(back, Event.PROVE, T0 + 30 * DAY_MS) == CLEAR
    # It does not fall back at the next silence, and mutes go on counting.
    again = apply(back, Event.MUTE, T0 + 31 * DAY_MS, asked_ms=T0 + 31 * DAY_MS)
    assert (again.state, again.mutes) == (Silence.CONTAINED, 1)


def test_planned_absence_stops_the_clock() -> None:
    absence = (T0 + HOUR_MS, T0 + 10 * DAY_MS)
    states = play(Event.VANISH, 9 * DAY_MS, excused=(absence,))
    assert states[-1].state is Silence.OFFLINE
    assert states[-1].next_due_ms == absence[1]
    late = play(Event.VANISH, 30 * DAY_MS, excused=(absence,))[-1]
    assert late.state is Silence.GONE
    assert late.since_ms >= absence[1] + RULES.gone_ms - HOUR_MS


def test_a_question_sent_into_an_absence_counts_for_nothing() -> None:
    absence = (T0, T0 + DAY_MS)
    assert apply(CLEAR, Event.MUTE, T0 + 30_000, asked_ms=T0, excused=(absence,)) == CLEAR
    open_case = apply(CLEAR, Event.MUTE, T0 - HOUR_MS, asked_ms=T0 - HOUR_MS)
    unchanged = apply(open_case, Event.MUTE, T0 + 30_000, asked_ms=T0, excused=(absence,))
    assert (unchanged.mutes, unchanged.attempts, unchanged.next_due_ms) == (1, 1, absence[1])


def test_our_own_sleep_says_nothing_of_the_farmer() -> None:
    before = play(Event.VANISH, 4 * DAY_MS)[-1]
    asleep_until = before.last_asked_ms + 60 * DAY_MS
    after = apply(before, Event.VANISH, asleep_until, asked_ms=asleep_until)
    assert after.state is Silence.OFFLINE
    assert after.silent_ms <= before.silent_ms + 2 * RULES.longest_gap_ms


def test_who_was_down_for_days_and_then_overloaded_has_two_days_to_recover() -> None:
    now = play(Event.VANISH, 5 * DAY_MS)[-1]
    at = now.last_asked_ms + HOUR_MS
    for _ in range(12):
        now = apply(now, Event.MUTE, at, asked_ms=at)
        at += RULES.first_gap_ms
    assert now.mutes >= RULES.mute_times
    assert now.state is Silence.CONTAINED
    assert apply(now, Event.PROVE, at) == CLEAR


def test_counted_events_cannot_be_reported() -> None:
    for event in (Event.CONVICT, Event.EXPIRE, Event.RETURN):
        with pytest.raises(IllegalStepError):
            apply(CLEAR, event, T0)


def test_only_a_clear_farmer_is_given_more() -> None:
    assert CLEAR.may_be_given_more
    assert not any(state.may_be_given_more for state in play(Event.VANISH, 30 * DAY_MS))


def test_countable_time_is_the_union_of_what_is_not_excused() -> None:
    assert countable_ms(0, 100) == 100
    assert countable_ms(0, 100, [(10, 20), (15, 30), (90, 200), (-5, 3)]) == 100 - 20 - 10 - 3
    assert countable_ms(50, 40) == 0
    assert countable_ms(0, 100, [(-1, 500)]) == 0


def test_we_are_offline_when_nobody_answers() -> None:
    assert we_are_offline([False] * 3, 365 * DAY_MS)
    assert we_are_offline([False] * 40)
    assert we_are_offline([False] * 20 + [True] * 19)
    assert not we_are_offline([False] * 20 + [True] * 19, DAY_MS)
    assert not we_are_offline([False] * 20 + [True] * 20)
    assert not we_are_offline([True])
    assert not we_are_offline([])


def test_one_lone_silent_farmer_is_doubted_for_a_day_only() -> None:
    assert we_are_offline([False])
    assert not we_are_offline([False], DAY_MS)
