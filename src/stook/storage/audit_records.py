"""How scores, silence and events are stored: versioned records with one encoding each. Pure.

The values are those of `stook.audits`; what a field means is written there. Golden bytes are in `tests/vectors`.
"""

from __future__ import annotations

import enum
import math
from typing import Annotated, Final

from msgspec import Meta

from stook.audits.challenge import SignedChallenge
from stook.audits.containment import Containment, Silence
from stook.audits.score import (
    Audited,
    Beat,
    Belief,
    Crime,
    DeclaredLoss,
    Event,
    FarmerScore,
    Heartbeat,
    Losses,
    Muted,
    Retrieved,
    Speed,
    Transferred,
)
from stook.codec import Record, decode, encode
from stook.contracts.verdict import Verdict
from stook.errors import CorruptionError, MalformedError
from stook.ids import U63Field

SCORE_VERSION: Final = 1
SILENCE_VERSION: Final = 1
EVENT_VERSION: Final = 1
QUESTION_VERSION: Final = 1
MAX_QUESTION_BYTES = 256 * 1024

Version = Annotated[int, Meta(ge=1, le=255)]
Amount = Annotated[float, Meta(ge=0.0, le=1e15)]
"""A faded count, a share, or bytes per second."""


class BeliefRecord(Record):
    """`stook.audits.score.Belief`."""

    good: Amount
    bad: Amount
    at_ms: U63Field


class ScoreRecord(Record):
    """`stook.audits.score.FarmerScore`."""

    version: Version
    audit: BeliefRecord
    availability: BeliefRecord
    retrieval: BeliefRecord
    bytes_per_second: Amount
    speed_weight: Amount
    speed_ms: U63Field
    losses: Amount
    losses_ms: U63Field
    incident_ms: U63Field
    incident: Amount
    crime: Crime | None
    condemned_ms: U63Field


class SilenceRecord(Record):
    """`stook.audits.containment.Containment`."""

    version: Version
    state: Silence
    question: Annotated[bytes, Meta(max_length=MAX_QUESTION_BYTES)]
    """Empty, or a `QuestionRecord` of the agent's."""
    first_asked_ms: U63Field
    last_asked_ms: U63Field
    attempts: U63Field
    mutes: U63Field
    last_was_mute: bool
    silent_ms: U63Field
    mute_ms: U63Field
    next_due_ms: U63Field
    since_ms: U63Field


class QuestionRecord(Record):
    """What `Containment.question` holds: the challenge that was not answered."""

    version: Version
    first: bool
    """Drawn over shards that were never audited."""
    signed: SignedChallenge


class EventKind(enum.IntEnum):
    """Which event of `stook.audits.score`. The numbers are the stored format."""

    AUDITED = 1
    DECLARED_LOSS = 2
    MUTED = 3
    HEARTBEAT = 4
    RETRIEVED = 5
    TRANSFERRED = 6


class EventRecord(Record):
    """One event; what its kind does not name is 0 or empty."""

    version: Version
    kind: EventKind
    code: Annotated[int, Meta(ge=0, le=255)]
    """AUDITED: the verdict. HEARTBEAT: 1 answered, 2 missed, 3 excused. RETRIEVED: 1 when it came."""
    numbers: Annotated[tuple[U63Field, ...], Meta(max_length=3)]
    """AUDITED: shards, asked, holding. DECLARED_LOSS: shards, holding. HEARTBEAT: milliseconds covered. TRANSFERRED:
    bytes."""
    seconds: Amount
    """TRANSFERRED."""


_BEATS = {Beat.ANSWERED: 1, Beat.MISSED: 2, Beat.EXCUSED: 3}
_BEAT_OF = {number: beat for beat, number in _BEATS.items()}


def _belief(belief: Belief) -> BeliefRecord:
    return BeliefRecord(belief.good, belief.bad, belief.at_ms)


def write_score(score: FarmerScore) -> bytes:
    """The stored form of a score."""
    return encode(
        ScoreRecord(
            SCORE_VERSION,
            _belief(score.audit),
            _belief(score.availability),
            _belief(score.retrieval),
            score.speed.bytes_per_second,
            score.speed.weight,
            score.speed.at_ms,
            score.losses.mass,
            score.losses.at_ms,
            score.losses.incident_ms,
            score.losses.incident,
            score.crime,
            score.condemned_ms,
        )
    )


def read_score(data: bytes) -> FarmerScore:
    """A score from its stored form. Raises `CorruptionError`."""
    try:
        stored = decode(ScoreRecord, data)
    except MalformedError as error:
        raise CorruptionError(f"a farmer's score is damaged: {error}") from error
    _known(stored.version, SCORE_VERSION, "score")
    return FarmerScore(
        audit=_to_belief(stored.audit),
        availability=_to_belief(stored.availability),
        retrieval=_to_belief(stored.retrieval),
        speed=Speed(_finite(stored.bytes_per_second), _finite(stored.speed_weight), stored.speed_ms),
        losses=Losses(_finite(stored.losses), stored.losses_ms, stored.incident_ms, _finite(stored.incident)),
        crime=stored.crime,
        condemned_ms=stored.condemned_ms,
    )


def _to_belief(stored: BeliefRecord) -> Belief:
    return Belief(_finite(stored.good), _finite(stored.bad), stored.at_ms)


def write_silence(silence: Containment) -> bytes:
    """The stored form of a containment."""
    return encode(
        SilenceRecord(
            SILENCE_VERSION,
            silence.state,
            silence.question,
            silence.first_asked_ms,
            silence.last_asked_ms,
            silence.attempts,
            silence.mutes,
            silence.last_was_mute,
            silence.silent_ms,
            silence.mute_ms,
            silence.next_due_ms,
            silence.since_ms,
        )
    )


def read_silence(data: bytes) -> Containment:
    """A containment from its stored form. Raises `CorruptionError`."""
    try:
        stored = decode(SilenceRecord, data)
    except MalformedError as error:
        raise CorruptionError(f"a farmer's containment is damaged: {error}") from error
    _known(stored.version, SILENCE_VERSION, "containment")
    return Containment(
        state=stored.state,
        question=stored.question,
        first_asked_ms=stored.first_asked_ms,
        last_asked_ms=stored.last_asked_ms,
        attempts=stored.attempts,
        mutes=stored.mutes,
        last_was_mute=stored.last_was_mute,
        silent_ms=stored.silent_ms,
        mute_ms=stored.mute_ms,
        next_due_ms=stored.next_due_ms,
        since_ms=stored.since_ms,
    )


def write_question(signed: SignedChallenge, *, first: bool) -> bytes:
    """The stored form of a question."""
    return encode(QuestionRecord(QUESTION_VERSION, first, signed))


def read_question(data: bytes) -> QuestionRecord:
    """A question from its stored form. Raises `CorruptionError`."""
    try:
        stored = decode(QuestionRecord, data)
    except MalformedError as error:
        raise CorruptionError(f"the question to a silent farmer is damaged: {error}") from error
    _known(stored.version, QUESTION_VERSION, "question")
    return stored


def write_event(event: Event) -> bytes:
    """The stored form of an event."""
    match event:
        case Audited(verdict, shards, asked, holding):
            record = _event(EventKind.AUDITED, verdict, shards, asked, holding)
        case DeclaredLoss(shards, holding):
            record = _event(EventKind.DECLARED_LOSS, 0, shards, holding)
        case Muted():
            record = _event(EventKind.MUTED, 0)
        case Heartbeat(beat, covers_ms):
            record = _event(EventKind.HEARTBEAT, _BEATS[beat], max(0, covers_ms))
        case Retrieved(ok):
            record = _event(EventKind.RETRIEVED, int(ok))
        case Transferred(size_bytes, seconds):
            record = _event(EventKind.TRANSFERRED, 0, size_bytes, seconds=float(seconds))
    return encode(record)


def _event(kind: EventKind, code: int, *numbers: int, seconds: float = 0.0) -> EventRecord:
    return EventRecord(EVENT_VERSION, kind, code, numbers, seconds)


def read_event(data: bytes) -> Event:
    """An event from its stored form. Raises `CorruptionError`."""
    try:
        stored = decode(EventRecord, data)
        _known(stored.version, EVENT_VERSION, "event")
        match stored.kind, stored.numbers:
            case EventKind.AUDITED, (shards, asked, holding):
                return Audited(Verdict(stored.code), shards, asked, holding)
            case EventKind.DECLARED_LOSS, (shards, holding):
                return DeclaredLoss(shards, holding)
            case EventKind.MUTED, ():
                return Muted()
            case EventKind.HEARTBEAT, (covers_ms,):
                return Heartbeat(_BEAT_OF[stored.code], covers_ms)
            case EventKind.RETRIEVED, ():
                return Retrieved(bool(stored.code))
            case EventKind.TRANSFERRED, (size_bytes,):
                return Transferred(size_bytes, _finite(stored.seconds))
    except (MalformedError, ValueError, KeyError) as error:
        raise CorruptionError(f"an event of a farmer's history is damaged: {error}") from error
    raise CorruptionError(f"an event of a farmer's history is damaged: {stored.kind.name} with other numbers")


def _known(version: int, ours: int, what: str) -> None:
    if version != ours:
        raise CorruptionError(f"a {what} of version {version} is stored, this program knows {ours}")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise CorruptionError("a farmer's score is damaged: it is no number")
    return value
