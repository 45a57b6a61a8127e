"""What to think of a farmer that does not answer an audit: down, or mute on purpose. A pure state machine.

::

    CLEAR -mute, silence-> CONTAINED -convict-> CONDEMNED
    CLEAR -vanish-> OFFLINE -expire-> GONE

The full diagram is in `docs/protocol/scores.md`, and a test compares it with `STEPS`. What tells the two apart is one
question: did the farmer answer anything else between the moment the challenge was sent and its deadline? A farmer that
is down never does, so nothing it fails to say can condemn it; it grows old and is GONE. One that answers others and
keeps silent on the same leaves, often enough and for long enough, is judged as having failed them.

Nothing here asks or waits: the shell asks at `next_due_ms`, reports one `Event`, and stores the value it gets back.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType

from stook.errors import BugError

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Silence(enum.StrEnum):
    """Where a farmer stands. Values are stored by agents and never change."""

    CLEAR = "clear"
    """No question is open."""
    CONTAINED = "contained"
    """Leaves are in question: the same ones are asked for again, and nothing new is placed here."""
    OFFLINE = "offline"
    """Leaves are in question and nothing at all is heard from it."""
    GONE = "gone"
    """Unproved for so long that its shards count as lost. No lie: once it is heard again it can clear itself."""
    CONDEMNED = "condemned"
    """It lied, or was mute on purpose. Final."""


class Event(enum.StrEnum):
    """What the shell reports, and (the last three) what follows from what was reported before."""

    PROVE = "prove"
    """The leaves in question were answered for: proved, or their loss declared in time; or their contracts are over.
    In CLEAR: any audit passed.
    """
    MUTE = "mute"
    """No proof by the deadline, though it answered something else in between. A signed refusal counts as this too."""
    SILENCE = "silence"
    """No proof by the deadline, and nothing else was asked of it meanwhile."""
    VANISH = "vanish"
    """No proof by the deadline, and whatever else was asked of it failed as well; or the heartbeat before a challenge
    failed, so that none was sent.
    """
    HEAR = "hear"
    """It answered something that was no audit."""
    LIE = "lie"
    """A verdict FAILED or MALFORMED."""
    CONVICT = "convict"
    """Mute often enough, for long enough."""
    EXPIRE = "expire"
    """Silent for longer than a loss may go unnoticed."""
    RETURN = "return"
    """Heard again after it was gone, and it had never been asked anything that it failed to answer."""


class IllegalStepError(BugError):
    """CONVICT, EXPIRE or RETURN reported from outside: they are derived."""


_OPEN = (Silence.CONTAINED, Silence.OFFLINE)
STEPS = MappingProxyType(
    {
        (Silence.CLEAR, Event.PROVE): Silence.CLEAR,
        (Silence.CLEAR, Event.HEAR): Silence.CLEAR,
        (Silence.CLEAR, Event.MUTE): Silence.CONTAINED,
        (Silence.CLEAR, Event.SILENCE): Silence.CONTAINED,
        (Silence.CLEAR, Event.VANISH): Silence.OFFLINE,
        **{(state, Event.PROVE): Silence.CLEAR for state in _OPEN},
        **{(state, Event.HEAR): Silence.CONTAINED for state in _OPEN},
        **{(state, Event.MUTE): Silence.CONTAINED for state in _OPEN},
        **{(state, Event.SILENCE): state for state in _OPEN},
        **{(state, Event.VANISH): Silence.OFFLINE for state in _OPEN},
        **{(state, Event.EXPIRE): Silence.GONE for state in _OPEN},
        (Silence.CONTAINED, Event.CONVICT): Silence.CONDEMNED,
        (Silence.GONE, Event.PROVE): Silence.CLEAR,
        (Silence.GONE, Event.HEAR): Silence.CONTAINED,
        (Silence.GONE, Event.RETURN): Silence.CLEAR,
        **{(state, Event.LIE): Silence.CONDEMNED for state in Silence if state is not Silence.CONDEMNED},
    }
)
"""The whole machine. What is not here changes nothing: a GONE farmer is not asked until it is heard, a CONDEMNED one is
done with.
"""
_DERIVED = (Event.CONVICT, Event.EXPIRE, Event.RETURN)


@dataclass(frozen=True, slots=True)
class Rules:
    """When silence becomes what. Times are milliseconds in which silence counts (`countable_ms`)."""

    mute_times: int = 8
    """How often it must have been mute on the same leaves ..."""
    mute_ms: int = 48 * HOUR_MS
    """... and over how long, before that is a lie."""
    gone_ms: int = 7 * DAY_MS
    """How long its leaves may stay unproved before they count as lost."""
    first_gap_ms: int = 15 * MINUTE_MS
    """From the first silence to the second question; doubled with each."""
    longest_gap_ms: int = 8 * HOUR_MS


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Containment:
    """One farmer's silence so far. All zero while CLEAR."""

    state: Silence = Silence.CLEAR
    question: bytes = b""
    """The leaves in question as the auditor stores them; opaque here, the same until they are answered for. Empty while
    it was never reached: nothing is in question then, and a loss that it declares when it is back is honest.
    """
    first_asked_ms: int = 0
    """When the challenge for `question` was first sent; 0 while there is none. A loss declared later is a lie."""
    last_asked_ms: int = 0
    attempts: int = 0
    """Challenges that stayed without proof, under fresh nonces, and attempts to send one."""
    mutes: int = 0
    """Those of them during which it answered something else."""
    last_was_mute: bool = False
    silent_ms: int = 0
    """How long it has been silent, as far as that counts."""
    mute_ms: int = 0
    """How much of that lies between two challenges on both of which it was mute."""
    next_due_ms: int = 0
    """When to ask again; 0 when there is nothing to ask."""
    since_ms: int = 0
    """When it came into this state."""

    @property
    def may_be_given_more(self) -> bool:
        """Whether new shards may be placed here."""
        return self.state is Silence.CLEAR


CLEAR = Containment()


def countable_ms(begin_ms: int, end_ms: int, excused: Iterable[tuple[int, int]] = ()) -> int:
    """How much of the time from begin to end lies outside all `excused` spans (begin, end), which may overlap.

    Excused are the absences that the farmer's contracts declare, and our own outages.
    """
    left = max(0, end_ms - begin_ms)
    reached = begin_ms
    for start, stop in sorted(excused):
        start, stop = max(start, reached), min(stop, end_ms)
        if stop > start:
            left -= stop - start
            reached = stop
    return left


def _present_from(moment_ms: int, excused: Iterable[tuple[int, int]]) -> int:
    """The first moment at or after `moment_ms` that no excused span covers."""
    for start, stop in sorted(excused):
        if start <= moment_ms < stop:
            moment_ms = stop
    return moment_ms


def apply(
    now: Containment,
    event: Event,
    now_ms: int,
    *,
    asked_ms: int = 0,
    question: bytes = b"",
    excused: Collection[tuple[int, int]] = (),
    rules: Rules = RULES,
) -> Containment:
    """The containment after `event` at `now_ms`.

    `asked_ms` is when the challenge was sent, or the heartbeat before it failed (MUTE, SILENCE, VANISH). `question` is
    what was asked, empty when it could not be; the first one stays. What was sent within an excused span counts for
    nothing. CONVICT, EXPIRE and RETURN are derived here: reporting them raises `IllegalStepError`.
    """
    if event in _DERIVED:
        raise IllegalStepError(f"{event.value} is derived and never reported")
    after = STEPS.get((now.state, event))
    if after is None:
        return now
    match event:
        case Event.PROVE:
            return CLEAR
        case Event.LIE:
            return _enter(replace(now, next_due_ms=0), after, now_ms)
        case Event.HEAR:
            return _heard(now, after, now_ms, rules)
        case _:
            if _present_from(asked_ms, excused) != asked_ms:
                return replace(now, next_due_ms=_present_from(now_ms, excused)) if now.state in _OPEN else now
            return _silent(now, event, now_ms, asked_ms, question, excused, rules)


def _enter(now: Containment, state: Silence, now_ms: int) -> Containment:
    return now if now.state is state else replace(now, state=state, since_ms=now_ms)


def _heard(now: Containment, after: Silence, now_ms: int, rules: Rules) -> Containment:
    """It is up now, so now is when to ask: nobody can dodge the question by being away whenever it falls due."""
    if now.state is Silence.CLEAR:
        return now
    soon = max(now_ms, now.last_asked_ms + rules.first_gap_ms)
    if now.state is Silence.GONE:
        if not now.question:
            return CLEAR  # RETURN
        return replace(_enter(now, after, now_ms), next_due_ms=soon, silent_ms=0)
    return replace(_enter(now, after, now_ms), next_due_ms=min(now.next_due_ms, soon))


def _silent(
    now: Containment,
    event: Event,
    now_ms: int,
    asked_ms: int,
    question: bytes,
    excused: Collection[tuple[int, int]],
    rules: Rules,
) -> Containment:
    first = now.state is Silence.CLEAR
    mute = event is Event.MUTE
    # Never more than two gaps at once: if we slept for a week ourselves, that week says nothing of the farmer.
    gained = 0 if first else min(countable_ms(now.last_asked_ms, asked_ms, excused), 2 * rules.longest_gap_ms)
    attempts = now.attempts + 1
    asked_now = bool(question) and not now.question
    gap = min(rules.first_gap_ms << min(attempts - 1, 20), rules.longest_gap_ms)
    counted = replace(
        _enter(now, STEPS[now.state, event], now_ms),
        question=now.question or question,
        first_asked_ms=asked_ms if asked_now else now.first_asked_ms,
        last_asked_ms=max(asked_ms, now.last_asked_ms),
        attempts=attempts,
        mutes=now.mutes + mute,
        last_was_mute=mute,
        silent_ms=now.silent_ms + gained,
        mute_ms=now.mute_ms + (gained if mute and now.last_was_mute else 0),
        next_due_ms=_present_from(now_ms + gap, excused),
    )
    if mute and counted.mutes >= rules.mute_times and counted.mute_ms >= rules.mute_ms:
        return _enter(replace(counted, next_due_ms=0), STEPS[counted.state, Event.CONVICT], now_ms)
    if counted.silent_ms >= rules.gone_ms:
        return _enter(replace(counted, next_due_ms=0), STEPS[counted.state, Event.EXPIRE], now_ms)
    return counted


MOST_MAY_BE_DOWN_MS = DAY_MS


def we_are_offline(answered: Collection[bool], lasting_ms: int = 0) -> bool:
    """Whether the silence of these farmers, asked within the last few minutes, tells of our own line and not of them.

    So it is when nobody answered (of three or more: for as long as it lasts), and when more than half did not, until
    that has lasted `MOST_MAY_BE_DOWN_MS`: then they are down indeed. The shell then reports no silence to `apply`, no
    missed heartbeat to the scores, and adds the time to `excused`.
    """
    heard = sum(answered)
    if heard == 0 and len(answered) >= 3:
        return True
    return 2 * heard < len(answered) and lasting_ms < MOST_MAY_BE_DOWN_MS
