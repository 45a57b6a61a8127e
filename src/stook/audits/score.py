"""What a farmer's history is worth: four scores, how they came about, and its weight in placement. Pure.

Audit, availability and retrieval are the means of Beta distributions whose evidence fades: half of it is gone after a
half-life, so a farmer is judged by what it did lately, and one that nothing is known of by the prior. Speed is a
running estimate that no single transfer can move far. The same events in any order give the same three means.

Two things do not fade. A lie condemns for ever. Honest losses keep the name but are counted: who loses too much too
often is given nothing new until that count has faded below `LOSS_LIMIT` (`docs/protocol/scores.md`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from stook.contracts.verdict import Verdict

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Trait(enum.StrEnum):
    """What a score is about."""

    AUDIT = "audit"
    """Does it prove what it holds?"""
    AVAILABILITY = "availability"
    """Is it there?"""
    RETRIEVAL = "retrieval"
    """Does it give back what it was given?"""
    SPEED = "speed"
    """How fast does it send? In bytes per second."""


HALF_LIFE_MS = {
    Trait.AUDIT: 90 * DAY_MS,
    Trait.AVAILABILITY: 30 * DAY_MS,
    Trait.RETRIEVAL: 60 * DAY_MS,
    Trait.SPEED: 14 * DAY_MS,
}
"""After so long an event weighs half."""
PRIOR_GOOD = 3.0
PRIOR_BAD = 1.0
"""What a newcomer is credited with in each trait: a mean of 0.75, so a weight of 0.42 beside a proven farmer's 1."""
HEARTBEAT_MS = HOUR_MS
LONGEST_COVER_MS = 6 * HOUR_MS
"""A heartbeat speaks for no more time than this, however long ago the one before it was."""

LOSS_HALF_LIFE_MS = 180 * DAY_MS
LOSS_LIMIT = 2.0
"""Above so many faded losses nothing new is placed: the third within half a year, or one every three months."""
INCIDENT_MS = 7 * DAY_MS
"""Losses that come to light within this time of the first are one incident, which counts 1 at most."""
INCIDENT_SHARE = 0.05
"""Losing this share of a holding makes an incident count in full, a smaller one in proportion."""
LOSS_IN_RETRIEVALS = 20.0
"""A full incident tells against retrieval like so many failed ones."""

WEIGHT_FLOOR = 0.02
"""What anyone weighs who is neither condemned nor resting: without a chance nobody can be seen to have improved."""
SLOWEST_FACTOR = 0.5
"""A slow farmer's weight is at worst halved; a fast one gains nothing."""

MIN_TRANSFER_BYTES = 64 * 1024
"""Smaller transfers measure the distance, not the speed."""
_FULL_TRANSFER_BYTES = 1 << 20
_SPEED_MEMORY = 30.0
_OCTAVE = math.log(2)


class Beat(enum.Enum):
    """How a heartbeat ended."""

    ANSWERED = enum.auto()
    MISSED = enum.auto()
    EXCUSED = enum.auto()
    """Missed within an absence that a contract declares, or while we were offline ourselves: says nothing."""


class Crime(enum.StrEnum):
    """Why a farmer is condemned. Values are stored and never change."""

    FALSE_PROOF = "false proof"
    MALFORMED_PROOF = "signed bytes that are no proof"
    MUTE = "mute on purpose"


@dataclass(frozen=True, slots=True)
class Audited:
    """The verdict on `shards` of the `asked` shards of one round; a whole round weighs 1.

    A loss is set against `holding`, all the shards it holds, or against `asked` while that is 0. SILENT counts against
    availability like a missed heartbeat; what else it means is for `stook.audits.containment` to find out.
    """

    verdict: Verdict
    shards: int = 1
    asked: int = 1
    holding: int = 0


@dataclass(frozen=True, slots=True)
class DeclaredLoss:
    """The farmer said, unasked, that `shards` of the `holding` shards it held are gone."""

    shards: int
    holding: int


@dataclass(frozen=True, slots=True)
class Muted:
    """Containment ended in CONDEMNED: mute on the same leaves while it answered others."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One question whether it is there, which speaks for the `covers_ms` since the last one."""

    beat: Beat
    covers_ms: int = HEARTBEAT_MS


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A shard or range was asked for: `ok` when its bytes came and matched their leaves."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Transferred:
    """The farmer sent `size_bytes` in `seconds`."""

    size_bytes: int
    seconds: float


Event = Audited | DeclaredLoss | Muted | Heartbeat | Retrieved | Transferred


def _faded(amount: float, age_ms: int, half_life_ms: int) -> float:
    return amount * 2.0 ** (-max(0, age_ms) / half_life_ms) if amount else 0.0


@dataclass(frozen=True, slots=True)
class Belief:
    """Faded counts of good and bad as of `at_ms`; with the prior, the two parameters of a Beta distribution."""

    good: float = 0.0
    bad: float = 0.0
    at_ms: int = 0

    def at(self, now_ms: int, half_life_ms: int) -> Belief:
        """The same, faded to `now_ms`; unchanged when that lies before."""
        if now_ms <= self.at_ms:
            return self
        age = now_ms - self.at_ms
        return Belief(_faded(self.good, age, half_life_ms), _faded(self.bad, age, half_life_ms), now_ms)

    def seen(self, good: float, bad: float, now_ms: int, half_life_ms: int) -> Belief:
        """With an event of `now_ms` added; one from before `at_ms` weighs what it has faded to since."""
        if good == bad == 0:
            return self
        here = self.at(now_ms, half_life_ms)
        late = here.at_ms - now_ms
        return replace(
            here, good=here.good + _faded(good, late, half_life_ms), bad=here.bad + _faded(bad, late, half_life_ms)
        )

    @property
    def mean(self) -> float:
        """The expected chance that the next one is good, 0 to 1."""
        return (self.good + PRIOR_GOOD) / (self.good + self.bad + PRIOR_GOOD + PRIOR_BAD)

    @property
    def deviation(self) -> float:
        """The standard deviation of that chance: how little is known. 0.19 for the prior alone."""
        total = self.good + self.bad + PRIOR_GOOD + PRIOR_BAD
        return math.sqrt(self.mean * (1 - self.mean) / (total + 1))


@dataclass(frozen=True, slots=True)
class Speed:
    """A running estimate of bytes per second; 0 while nothing was measured. `weight` is the faded evidence behind it.

    It follows the logarithm and takes each transfer for at most one octave away, so it settles near the median: one
    stalled or one lucky transfer hardly counts.
    """

    bytes_per_second: float = 0.0
    weight: float = 0.0
    at_ms: int = 0

    def seen(self, transfer: Transferred, now_ms: int) -> Speed:
        """With a transfer that ended at `now_ms`. Those below `MIN_TRANSFER_BYTES` are ignored."""
        if transfer.size_bytes < MIN_TRANSFER_BYTES:
            return self
        rate = transfer.size_bytes / max(transfer.seconds, 1e-3)
        counts = min(1.0, transfer.size_bytes / _FULL_TRANSFER_BYTES)
        before = min(_faded(self.weight, now_ms - self.at_ms, HALF_LIFE_MS[Trait.SPEED]), _SPEED_MEMORY)
        if self.bytes_per_second <= 0:
            return Speed(rate, counts, now_ms)
        distance = max(-_OCTAVE, min(_OCTAVE, math.log(rate / self.bytes_per_second)))
        moved = self.bytes_per_second * math.exp(distance * counts / (before + counts))
        return Speed(moved, before + counts, max(now_ms, self.at_ms))


@dataclass(frozen=True, slots=True)
class Losses:
    """Honest losses: `mass` is the faded count of incidents as of `at_ms`, the rest is the incident under way."""

    mass: float = 0.0
    at_ms: int = 0
    incident_ms: int = 0
    incident: float = 0.0

    def at(self, now_ms: int) -> float:
        """The faded count at `now_ms`."""
        return _faded(self.mass, now_ms - self.at_ms, LOSS_HALF_LIFE_MS)

    def seen(self, share: float, now_ms: int) -> tuple[Losses, float]:
        """With a loss of this share of the holding, and by how much of an incident that grew it."""
        going_on = self.incident > 0 and now_ms - self.incident_ms < INCIDENT_MS
        incident = self.incident if going_on else 0.0
        grown = max(0.0, min(share / INCIDENT_SHARE, 1.0 - incident))
        begun = self.incident_ms if going_on else now_ms
        return Losses(self.at(now_ms) + grown, max(now_ms, self.at_ms), begun, incident + grown), grown


@dataclass(frozen=True, slots=True)
class FarmerScore:
    """Everything a farmer's history comes down to. Made by `update` alone; the default is a newcomer."""

    audit: Belief = Belief()
    availability: Belief = Belief()
    retrieval: Belief = Belief()
    speed: Speed = Speed()
    losses: Losses = Losses()
    crime: Crime | None = None
    """Why it is condemned, for ever; None while it is not."""
    condemned_ms: int = 0

    def value(self, trait: Trait, now_ms: int) -> float:
        """The score at `now_ms`: a chance between 0 and 1, or for SPEED bytes per second."""
        match trait:
            case Trait.AUDIT:
                return self.audit.at(now_ms, HALF_LIFE_MS[trait]).mean
            case Trait.AVAILABILITY:
                return self.availability.at(now_ms, HALF_LIFE_MS[trait]).mean
            case Trait.RETRIEVAL:
                return self.retrieval.at(now_ms, HALF_LIFE_MS[trait]).mean
            case Trait.SPEED:
                return self.speed.bytes_per_second

    def uncertainty(self, now_ms: int) -> float:
        """The standard deviation of the audit score at `now_ms`: who has the highest is audited first."""
        return self.audit.at(now_ms, HALF_LIFE_MS[Trait.AUDIT]).deviation

    def resting(self, now_ms: int) -> bool:
        """Whether it lost too much too often to be given anything new. It passes."""
        return self.losses.at(now_ms) > LOSS_LIMIT

    def placeable(self, now_ms: int) -> bool:
        """Whether new shards may go there at all."""
        return self.crime is None and not self.resting(now_ms)


NEWCOMER = FarmerScore()


def update(score: FarmerScore, event: Event, now_ms: int) -> FarmerScore:
    """The score after `event`, which happened at `now_ms`. Later news of earlier events is welcome."""
    match event:
        case Audited():
            return _audited(score, event, now_ms)
        case DeclaredLoss(shards, holding):
            return _lost(score, shards / max(holding, shards, 1), now_ms)
        case Muted():
            return _condemned(_bad_audit(score, 1.0, now_ms), Crime.MUTE, now_ms)
        case Heartbeat(beat, covers_ms):
            if beat is Beat.EXCUSED:
                return score
            weight = max(0, min(covers_ms, LONGEST_COVER_MS)) / DAY_MS
            return _attended(score, weight, beat is Beat.ANSWERED, now_ms)
        case Retrieved(ok):
            half_life = HALF_LIFE_MS[Trait.RETRIEVAL]
            return replace(score, retrieval=score.retrieval.seen(float(ok), float(not ok), now_ms, half_life))
        case Transferred():
            return replace(score, speed=score.speed.seen(event, now_ms))


def _audited(score: FarmerScore, event: Audited, now_ms: int) -> FarmerScore:
    share = event.shards / max(event.asked, event.shards, 1)
    match event.verdict:
        case Verdict.PASSED:
            return replace(score, audit=score.audit.seen(share, 0.0, now_ms, HALF_LIFE_MS[Trait.AUDIT]))
        case Verdict.LOST:
            return _lost(score, event.shards / max(event.holding, event.asked, event.shards, 1), now_ms)
        case Verdict.SILENT:
            return _attended(score, share * HEARTBEAT_MS / DAY_MS, False, now_ms)
        case Verdict.FAILED:
            return _condemned(_bad_audit(score, share, now_ms), Crime.FALSE_PROOF, now_ms)
        case Verdict.MALFORMED:
            return _condemned(_bad_audit(score, share, now_ms), Crime.MALFORMED_PROOF, now_ms)


def _bad_audit(score: FarmerScore, weight: float, now_ms: int) -> FarmerScore:
    return replace(score, audit=score.audit.seen(0.0, weight, now_ms, HALF_LIFE_MS[Trait.AUDIT]))


def _condemned(score: FarmerScore, crime: Crime, now_ms: int) -> FarmerScore:
    return score if score.crime is not None else replace(score, crime=crime, condemned_ms=now_ms)


def _attended(score: FarmerScore, weight: float, there: bool, now_ms: int) -> FarmerScore:
    good, bad = (weight, 0.0) if there else (0.0, weight)
    half_life = HALF_LIFE_MS[Trait.AVAILABILITY]
    return replace(score, availability=score.availability.seen(good, bad, now_ms, half_life))


def _lost(score: FarmerScore, share: float, now_ms: int) -> FarmerScore:
    losses, grown = score.losses.seen(share, now_ms)
    bad = grown * LOSS_IN_RETRIEVALS
    retrieval = score.retrieval.seen(0.0, bad, now_ms, HALF_LIFE_MS[Trait.RETRIEVAL])
    return replace(score, losses=losses, retrieval=retrieval)


def placement_weight(score: FarmerScore, now_ms: int, typical_speed: float = 0.0) -> float:
    """How much chance a farmer gets when a shard is placed: 0 to 1, for a weighted random choice.

    0 for whoever is not `placeable`; callers exclude those, because a planner may still fall back on weight 0. For
    the rest the product of the three means, at least `WEIGHT_FLOOR`. `typical_speed` is the median over the farmers
    known (0: unknown): a slower one loses weight with the fourth root, down to half, and a faster one gains nothing.
    """
    if not score.placeable(now_ms):
        return 0.0
    means = math.prod(score.value(trait, now_ms) for trait in (Trait.AUDIT, Trait.AVAILABILITY, Trait.RETRIEVAL))
    speed = score.speed.bytes_per_second
    if speed > 0 and typical_speed > 0:
        means *= max(SLOWEST_FACTOR, min(1.0, (speed / typical_speed) ** 0.25))
    return max(WEIGHT_FLOOR, means)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a farmer's history."""

    at_ms: int
    event: Event


@dataclass(frozen=True, slots=True)
class Movement:
    """A run of like events that moved one score, one after the other, from `before` to `after`.

    Where `after` differs from `before` of the next movement of the same score, forgetting did the rest.
    """

    trait: Trait
    what: str
    """In words, "round passed" say."""
    first_ms: int
    last_ms: int
    times: int
    before: float
    after: float

    @property
    def moved(self) -> float:
        """By how much, forgetting within the run included."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Explanation:
    """What moved the scores, oldest first, and where that led."""

    movements: tuple[Movement, ...]
    score: FarmerScore


_AUDIT_WORDS = {
    Verdict.PASSED: "audit passed",
    Verdict.FAILED: "audit answered with a false proof: condemned",
    Verdict.LOST: "loss declared in an audit",
    Verdict.SILENT: "audit not answered",
    Verdict.MALFORMED: "audit answered with signed bytes that are no proof: condemned",
}


def words(event: Event) -> str:
    """What happened, in words."""
    match event:
        case Audited(verdict):
            return _AUDIT_WORDS[verdict]
        case DeclaredLoss():
            return "loss declared"
        case Muted():
            return "mute on purpose: condemned"
        case Heartbeat(beat):
            return {Beat.ANSWERED: "there", Beat.MISSED: "not there", Beat.EXCUSED: "away as declared"}[beat]
        case Retrieved(ok):
            return "gave back what was asked for" if ok else "did not give back what was asked for"
        case Transferred():
            return "transfer"


def explain(history: Iterable[Entry], base: FarmerScore = NEWCOMER) -> Explanation:
    """What moved which score, when, and by how much, from a history in order of time. For `stook farmers show`.

    `base` is the score before the first event, where older ones are not kept.
    """
    score = base
    movements: list[Movement] = []
    last: dict[Trait, int] = {}
    for entry in history:
        after = update(score, entry.event, entry.at_ms)
        for trait in Trait:
            was, now = score.value(trait, entry.at_ms), after.value(trait, entry.at_ms)
            if was == now:
                continue
            what, position = words(entry.event), last.get(trait)
            if position is not None and movements[position].what == what:
                run = movements[position]
                movements[position] = replace(run, last_ms=entry.at_ms, times=run.times + 1, after=now)
            else:
                last[trait] = len(movements)
                movements.append(Movement(trait, what, entry.at_ms, entry.at_ms, 1, was, now))
        score = after
    return Explanation(tuple(movements), score)
