"""Which segments to repair now, in what order, from what, and how far the day's bytes reach. Pure.

Redundancy is what was proved: a shard counts while its farmer is not silent, not condemned, has not declared it lost,
and passed an audit (or signed for the shard's arrival) not too long ago. Below r such shards, those under way included,
a segment is repaired up to n; otherwise it is left alone. Segments nearest to loss come first. Nothing here needs a
content key: shards are rebuilt, or copied, from ciphertext and masked again (`docs/protocol/placement.md`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stook.audits.allowance import Allowance
from stook.audits.containment import Silence
from stook.audits.schedule import LONGEST_INTERVAL_MS
from stook.ids import NodeId, SegmentId
from stook.renter.durability import Holder, segment_loss
from stook.shards.geometry import Policy

HOUR_MS = 3_600_000


class Fate(enum.Enum):
    """What is thought of one shard at one farmer, its age aside."""

    HELD = enum.auto()
    """Nothing speaks against it."""
    SILENT = enum.auto()
    """Its farmer is contained or offline."""
    LOST = enum.auto()
    """Declared lost, or its farmer is gone."""
    CONDEMNED = enum.auto()
    """Its farmer lied, about this shard or another."""


def fate_of(silence: Silence, *, lost: bool = False, condemned: bool = False) -> Fate:
    """What is thought of a shard at a farmer with this containment, that is `condemned` (`FarmerScore.crime`), or whose
    placement is marked `lost`.
    """
    if condemned or silence is Silence.CONDEMNED:
        return Fate.CONDEMNED
    if lost or silence is Silence.GONE:
        return Fate.LOST
    return Fate.HELD if silence is Silence.CLEAR else Fate.SILENT


@dataclass(frozen=True, slots=True)
class HeldShard:
    """One placement of a segment, as the repair plan sees it."""

    farmer: NodeId
    index: int
    copy: int = 0
    fate: Fate = Fate.HELD
    proved_ms: int = 0
    """The later of its storage receipt and its farmer's last passed audit; 0: neither."""
    silent_since_ms: int = 0
    """When its farmer fell silent; read for SILENT alone."""
    lapsing: bool = False
    """Its contract ends so soon that it is not relied on; until then it may be fetched."""
    lost: float = 0.0
    """The chance that this farmer loses it within a repair window (`stook.renter.loss_rates`)."""
    groups: tuple[str, ...] = ()
    """See `Holder.groups`."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A shard that is being brought to a farmer."""

    farmer: NodeId
    index: int
    copy: int = 0
    begun_ms: int = 0


@dataclass(frozen=True, slots=True)
class RepairView:
    """One segment: what it should be, who holds what, and what is on its way."""

    segment_id: SegmentId
    policy: Policy
    total: int
    """Code indices that exist: 0 up to, not including, `total`."""
    shard_bytes: int
    held: tuple[HeldShard, ...]
    flights: tuple[Flight, ...] = ()
    copies: int = 1
    """How many masked copies of each index are wanted (white paper 2.7, mirroring)."""


@dataclass(frozen=True, slots=True)
class RepairRules:
    """What counts as proved, and how patient to be."""

    fresh_ms: int = 4 * LONGEST_INTERVAL_MS
    """A proof older than this proves nothing; no round is later than 3.6 intervals after the one before."""
    patience_ms: int = 12 * HOUR_MS
    """How long to wait for farmers that fell silent, as long as more than k shards are proved: most come back."""
    flight_ms: int = 2 * HOUR_MS
    """A transfer begun longer ago is not coming any more."""


RULES = RepairRules()


@dataclass(frozen=True, slots=True)
class Health:
    """What is left of a segment. The sets are of distinct indices, each in the first that it belongs to."""

    k: int
    proved: frozenset[int]
    coming: frozenset[int]
    """In flight."""
    lately_silent: frozenset[int]
    """At farmers that fell silent within the patience."""
    doubtful: frozenset[int]
    """Silent for longer, not proved lately, or lapsing."""
    condemned: frozenset[int]
    lost: frozenset[int]
    """At nobody but farmers that say they lost it, or are gone."""

    @property
    def margin(self) -> int:
        """How many more proved shards may go before it cannot be rebuilt from proved ones; may be negative."""
        return len(self.proved) - self.k

    @property
    def within_reach(self) -> int:
        """Indices that somebody may still hand out: whatever comes is checked against its root, so even a liar's do."""
        return len(self.proved | self.lately_silent | self.doubtful | self.condemned)


def health(view: RepairView, now_ms: int, rules: RepairRules = RULES) -> Health:
    """What is left of a segment at `now_ms`."""
    seen: set[int] = set()

    def rest(indices: Iterable[int]) -> frozenset[int]:
        fresh = frozenset(indices) - seen
        seen.update(fresh)
        return fresh

    return Health(
        k=view.policy.k,
        proved=rest(shard.index for shard in view.held if _proved(shard, now_ms, rules)),
        coming=rest(flight.index for flight in _flying(view, now_ms, rules)),
        lately_silent=rest(shard.index for shard in view.held if _lately_silent(shard, now_ms, rules)),
        doubtful=rest(shard.index for shard in view.held if shard.fate in (Fate.HELD, Fate.SILENT)),
        condemned=rest(shard.index for shard in view.held if shard.fate is Fate.CONDEMNED),
        lost=rest(shard.index for shard in view.held),
    )


def _proved(shard: HeldShard, now_ms: int, rules: RepairRules) -> bool:
    fresh = shard.proved_ms > 0 and now_ms - shard.proved_ms <= rules.fresh_ms
    return shard.fate is Fate.HELD and fresh and not shard.lapsing


def _lately_silent(shard: HeldShard, now_ms: int, rules: RepairRules) -> bool:
    return (
        shard.fate is Fate.SILENT
        and not shard.lapsing
        and shard.proved_ms > 0
        and now_ms - shard.silent_since_ms < rules.patience_ms
        and now_ms - shard.proved_ms <= rules.fresh_ms
    )


def _flying(view: RepairView, now_ms: int, rules: RepairRules) -> list[Flight]:
    return [flight for flight in view.flights if now_ms - flight.begun_ms < rules.flight_ms]


class Decision(enum.Enum):
    """What to do about a segment."""

    LEAVE = enum.auto()
    """At least r shards are proved or on their way."""
    WAIT = enum.auto()
    """Below r only because farmers fell silent lately, and more than k are proved; or only what is under way helps."""
    REPAIR = enum.auto()
    GIVE_UP = enum.auto()
    """Fewer than k indices are within reach: nothing can be done unless farmers return."""


def decide(view: RepairView, found: Health) -> Decision:
    """What to do about a segment in this health."""
    have = len(found.proved | found.coming)
    if have >= view.policy.r:
        return Decision.LEAVE
    if found.within_reach < view.policy.k:
        return Decision.WAIT if found.within_reach + len(found.coming) >= view.policy.k else Decision.GIVE_UP
    if found.margin > 0 and have + len(found.lately_silent) >= view.policy.r:
        return Decision.WAIT
    return Decision.REPAIR


class Method(enum.Enum):
    """How a shard is made again."""

    ERASURE = enum.auto()
    """Unmask any k shards, rebuild, mask: the same bytes and root as before."""
    MIRROR = enum.auto()
    """From one shard: with k = 1 any one (same root as before); else another copy of the same index, unmasked and
    masked for its own copy number.
    """


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to make and place."""

    index: int
    copy: int
    method: Method


@dataclass(frozen=True, slots=True)
class RepairJob:
    """What to do for one segment: read from `sources`, in this order, make `tasks`, place them outside `excluding`."""

    segment_id: SegmentId
    tasks: tuple[Task, ...]
    sources: tuple[HeldShard, ...]
    excluding: frozenset[NodeId]
    loss_chance: float
    """That too few proved shards are left after one repair window."""
    margin: int
    moved_bytes: int
    """What it takes from the line, both ways."""


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What to do now, and what became of the rest that is below r."""

    jobs: tuple[RepairJob, ...]
    postponed: tuple[RepairJob, ...]
    """In need, but beyond today's bytes; in order."""
    waiting: tuple[SegmentId, ...]
    """Given a little time, because farmers fell silent only lately."""
    given_up: tuple[SegmentId, ...]
    """Below k within reach."""
    allowance: Allowance
    """What is left after the jobs."""


def plan(
    views: Iterable[RepairView],
    *,
    allowance: Allowance,
    now_ms: int,
    group_lost: Mapping[str, float] | None = None,
    barred: frozenset[NodeId] = frozenset(),
    rules: RepairRules = RULES,
) -> RepairPlan:
    """Plan the repairs to begin now.

    `barred` are farmers that may be given nothing (`FarmerScore.placeable`); `group_lost` as in `survivors`. Shards in
    flight count as if they had come, so nothing is repaired twice. Highest loss chance first, then smallest margin;
    those with fewer than k proved shards after all others, because they can only be tried: when a silent farmer proves
    itself they come first. Copies are made as soon as one lacks, which as a rule is after every repair. A job begins
    while the allowance is above zero and may overdraw it, so a segment larger than a day's bytes is repaired too.
    """
    wanting: list[RepairJob] = []
    waiting: list[SegmentId] = []
    given_up: list[SegmentId] = []
    for view in views:
        found = health(view, now_ms, rules)
        match decide(view, found):
            case Decision.GIVE_UP:
                given_up.append(view.segment_id)
            case Decision.WAIT:
                waiting.append(view.segment_id)
            case decision:
                rebuilt = _rebuilt(view, found) if decision is Decision.REPAIR else ()
                copied = _mirrored(view, now_ms, rules)
                if rebuilt or copied:
                    wanting.append(_job(view, found, (rebuilt, copied), group_lost or {}, barred, now_ms, rules))
    wanting.sort(key=lambda job: (job.margin < 0, -job.loss_chance, job.margin, job.segment_id))
    jobs: list[RepairJob] = []
    for job in wanting:
        if allowance.left(now_ms) <= 0:
            break
        allowance = allowance.spend(job.moved_bytes, now_ms)
        jobs.append(job)
    return RepairPlan(tuple(jobs), tuple(wanting[len(jobs) :]), tuple(waiting), tuple(given_up), allowance)


def _rebuilt(view: RepairView, found: Health) -> tuple[Task, ...]:
    """The indices to bring back, up to n: those that nobody may still have before those that somebody may."""
    have = found.proved | found.coming
    maybe = found.lately_silent | found.doubtful
    absent = sorted((index for index in range(view.total) if index not in have), key=lambda index: index in maybe)
    method = Method.MIRROR if view.policy.k == 1 else Method.ERASURE
    return tuple(Task(index, 0, method) for index in absent[: max(0, view.policy.n - len(have))])


def _mirrored(view: RepairView, now_ms: int, rules: RepairRules) -> tuple[Task, ...]:
    """The copies to make of indices that are proved, where more than one is wanted."""
    tasks: list[Task] = []
    good = {(shard.index, shard.copy) for shard in view.held if _proved(shard, now_ms, rules)}
    standing = good | {(flight.index, flight.copy) for flight in _flying(view, now_ms, rules)}
    taken = standing | {(shard.index, shard.copy) for shard in view.held if shard.fate in (Fate.HELD, Fate.SILENT)}
    for index in sorted({index for index, _ in good}) if view.copies > 1 else ():
        lacking = view.copies - sum(at == index for at, _ in standing)
        if (index, 0) not in taken:
            lacking = max(lacking, 1)  # the one that clients know the root of
        numbers = (number for number in range(256) if (index, number) not in taken)
        tasks += [Task(index, number, Method.MIRROR) for number, _ in zip(numbers, range(lacking), strict=False)]
    return tuple(tasks)


_TRUST = {Fate.HELD: 0, Fate.SILENT: 2, Fate.CONDEMNED: 3}


def _job(
    view: RepairView,
    found: Health,
    tasks: tuple[tuple[Task, ...], tuple[Task, ...]],
    group_lost: Mapping[str, float],
    barred: frozenset[NodeId],
    now_ms: int,
    rules: RepairRules,
) -> RepairJob:
    rebuilt, copied = tasks

    def doubt(shard: HeldShard) -> tuple[int, int, int]:
        stale = shard.fate is Fate.HELD and not _proved(shard, now_ms, rules)
        return _TRUST[shard.fate] + stale, shard.index, shard.copy

    proved = [shard for shard in view.held if _proved(shard, now_ms, rules)]
    holders = [Holder(shard.farmer, shard.index, shard.lost, shard.groups) for shard in proved]
    sources = sorted((shard for shard in view.held if shard.fate is not Fate.LOST), key=doubt)
    here = {shard.farmer for shard in sources} | {flight.farmer for flight in _flying(view, now_ms, rules)}
    return RepairJob(
        segment_id=view.segment_id,
        tasks=rebuilt + copied,
        sources=tuple(sources),
        excluding=barred | here,
        loss_chance=segment_loss(view.policy.k, holders, group_lost),
        margin=found.margin,
        # k shards read for all that is rebuilt, one for each index that is copied, and all of them brought.
        moved_bytes=(
            (view.policy.k if rebuilt else 0) + len({task.index for task in copied}) + len(rebuilt) + len(copied)
        )
        * view.shard_bytes,
    )
