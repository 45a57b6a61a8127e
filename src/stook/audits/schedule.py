"""Which farmer is audited when, with how many leaves, for how many bytes. Pure.

A round draws leaves over a farmer's whole holding. How often and how many follows from three things: what its contracts
let us ask for free, what confidence we want, and that audits stay below `AUDIT_SHARE` of what is stored each month.
When a round is over the next is drawn at random (`draw_interval`), and the farmer learns nothing about it beforehand:
it has waited long or short, the chance of an audit in the next hour is the same.

The shell keeps `next_due_ms` and `first_due_ms` for each farmer and calls `due` as often as it likes.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from stook.audits.confidence import leaves_for_fraction, leaves_needed
from stook.audits.containment import CLEAR, Containment, Silence
from stook.audits.score import NEWCOMER
from stook.contracts.contract import AuditTerms
from stook.ids import NodeId
from stook.merkle import UNIT_BYTES

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
MONTH_MS = 30 * DAY_MS

AUDIT_SHARE = 0.05
"""Bytes moved by audits in a month, at most, as a share of the bytes stored."""
PLANNED_SHARE = 0.04
"""What rounds are planned for; the rest is for first audits and for asking again."""
FIRST_SHARE = 0.01
"""What the first audit of new shards may move, as a share of their bytes; one leaf at least."""
WANTED_FRACTION = 0.01
WANTED_CONFIDENCE = 0.95
"""One round of a large holding sees one hundredth missing with this chance: 299 leaves."""
LONGEST_INTERVAL_MS = 7 * DAY_MS
"""Small holdings are audited less often, but not less than this; below 2 MiB that may pass `AUDIT_SHARE`."""
_CUT = 3.0
"""Where the exponential law of the intervals is cut off, in units of its own; 3.6 times the mean that is left."""
FIRST_FROM_MS = MINUTE_MS
FIRST_WITHIN_MS = HOUR_MS
"""What was stored is audited for the first time between these two ages."""
MAX_FIRST_LEAVES = 256

LEAF_MOVED_BYTES = UNIT_BYTES + 512
"""One unit with its Merkle path, at most 9 hashes, and where it belongs."""
ROUND_MOVED_BYTES = 1024
"""Envelopes, challenge and receipt of one request."""


class JobKind(enum.IntEnum):
    """Why a farmer is audited now, most urgent first."""

    RECHECK = 1
    """It was silent: the same leaves again, all of them."""
    FIRST = 2
    """Shards that were never audited: leaves of those alone."""
    ROUND = 3
    """Leaves drawn over the whole holding."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """A round of `leaves` leaves every `interval_ms` on average."""

    interval_ms: int
    leaves: int

    @property
    def monthly_bytes(self) -> float:
        """What that moves in a month, on average."""
        return moved_bytes(self.leaves) * MONTH_MS / self.interval_ms


@dataclass(frozen=True, slots=True)
class AuditedFarmer:
    """A farmer as the schedule sees it."""

    node_id: NodeId
    holding_bytes: int
    """What it holds for us, proved or not."""
    terms_interval_ms: int
    entitled_leaves: int
    """What its contracts let us ask free within that interval; see `entitlement`."""
    next_due_ms: int
    """When its next round falls due, drawn after the last."""
    first_due_ms: int = 0
    """When the first audit of what it was given lately falls due; 0 when there is nothing unaudited."""
    unaudited_shards: int = 0
    unaudited_bytes: int = 0
    uncertainty: float = NEWCOMER.audit.deviation
    """`FarmerScore.uncertainty`: who is known least comes first."""
    containment: Containment = CLEAR
    question_leaves: int = 0
    """How many leaves are in question while it is contained or offline; 0 when it was never reached to be asked any."""
    absences: tuple[tuple[int, int], ...] = ()
    """Planned absences, from begin up to end: no audit is sent then."""


@dataclass(frozen=True, slots=True)
class AuditJob:
    """One audit to send now. `moved_bytes` is what it may cost the line, to be taken from the allowance."""

    node_id: NodeId
    kind: JobKind
    leaves: int
    moved_bytes: int


def moved_bytes(leaves: int) -> int:
    """The bytes that one request for so many leaves moves, both ways, at most."""
    return ROUND_MOVED_BYTES + leaves * LEAF_MOVED_BYTES


def wanted_leaves(holding_bytes: int, fraction: float = WANTED_FRACTION, confidence: float = WANTED_CONFIDENCE) -> int:
    """How many leaves see with `confidence` that `fraction` of a holding is missing: exact for small holdings.

    Raises `ValueError` for a fraction that is not above 0 and at most 1, or a confidence not at least 0 and below 1.
    """
    units = max(1, -(-holding_bytes // UNIT_BYTES))
    bound = leaves_for_fraction(fraction, confidence)
    # Above some thousand units the bound is within a percent of the exact number, which takes long to compute.
    return bound if units > 4096 else min(bound, leaves_needed(units, max(1, math.floor(units * fraction)), confidence))


def entitlement(terms: Iterable[AuditTerms]) -> tuple[int, int]:
    """The interval and the leaves in it that a farmer's contracts allow free together: (milliseconds, leaves).

    The interval is the shortest of them; what contracts with longer ones allow counts for its share. (a day, 0) for
    none.
    """
    asked = [audit for audit in terms if audit.leaves_per_interval]
    if not asked:
        return DAY_MS, 0
    interval = min(audit.interval_ms for audit in asked)
    return interval, int(sum(Fraction(audit.leaves_per_interval * interval, audit.interval_ms) for audit in asked))


def cadence(holding_bytes: int, terms_interval_ms: int = DAY_MS, entitled_leaves: int = 2**31) -> Cadence:
    """How often and how widely a holding is audited.

    As many leaves every interval of the terms as `PLANNED_SHARE` pays for, up to what is wanted and what the contracts
    allow free; a holding that one leaf is too dear for is audited less often, with one. Where the contracts allow none
    free it is one leaf, billed.
    """
    budget_per_ms = PLANNED_SHARE * holding_bytes / MONTH_MS
    leaves = math.floor((budget_per_ms * terms_interval_ms - ROUND_MOVED_BYTES) / LEAF_MOVED_BYTES)
    if leaves >= 1:
        return Cadence(terms_interval_ms, max(1, min(leaves, wanted_leaves(holding_bytes), entitled_leaves)))
    affordable = math.ceil(moved_bytes(1) / budget_per_ms) if budget_per_ms > 0 else LONGEST_INTERVAL_MS
    return Cadence(max(terms_interval_ms, min(affordable, LONGEST_INTERVAL_MS)), 1)


def first_leaves(shards: int, stored_bytes: int) -> int:
    """How many leaves of new shards their first audit draws: one for each, as far as `FIRST_SHARE` of them pays for."""
    return max(1, min(shards, MAX_FIRST_LEAVES, int(FIRST_SHARE * stored_bytes / LEAF_MOVED_BYTES)))


def _uniform(randomness: bytes) -> float:
    """8 random bytes as a number above 0 and below 1. Raises `ValueError` on any other length."""
    if len(randomness) != 8:
        raise ValueError("8 random bytes are drawn from")
    return (int.from_bytes(randomness, "big") + 1) / (2**64 + 2)


def draw_interval(interval_ms: int, randomness: bytes) -> int:
    """The time from one round to the next, in milliseconds: exponential with mean `interval_ms`, cut off.

    Without memory up to the cut, so having just been audited, or not for long, says nothing of the next. From 8 random
    bytes.
    """
    reach = -math.expm1(-_CUT)
    mean = 1 - _CUT * math.exp(-_CUT) / reach
    return max(1, round(-math.log1p(-_uniform(randomness) * reach) / mean * interval_ms))


def first_due(stored_ms: int, randomness: bytes) -> int:
    """When a shard stored at `stored_ms` is audited for the first time: within the hour. 8 random bytes."""
    return stored_ms + FIRST_FROM_MS + int(_uniform(randomness) * (FIRST_WITHIN_MS - FIRST_FROM_MS))


def due(
    farmers: Sequence[AuditedFarmer], *, bytes_left: int, requests_left: int, now_ms: int, randomness: bytes
) -> list[AuditJob]:
    """The audits to send now, at most one for each farmer, most urgent first.

    Farmers that are absent as declared, GONE or CONDEMNED are left in peace. Those contained or offline are asked when
    their containment says so: the question that is open, or a round if they were not reached yet. Among the rest,
    whoever is least known and longest overdue comes first, ties in random order (8 random bytes for all).

    When `requests_left` binds, rounds keep half of it. When `bytes_left` binds, rounds and first audits are all made
    smaller, the largest first, down to one leaf each, before anyone is put off; a question is never cut, and may
    overdraw what is left.
    """
    wishes = [wish for farmer in farmers if (wish := _wish(farmer, now_ms))]
    seed = int(_uniform(randomness) * 2**53)
    ranked = sorted(wishes, key=lambda wish: (-wish.urgency, _mixed(seed, wish.job.node_id)))
    jobs = _within_requests([wish.job for wish in ranked], requests_left, odd_to_rounds=bool(seed & 1))
    return _within_bytes(jobs, bytes_left)


@dataclass(frozen=True, slots=True)
class _Wish:
    job: AuditJob
    urgency: float


def _wish(farmer: AuditedFarmer, now_ms: int) -> _Wish | None:
    if any(begin <= now_ms < end for begin, end in farmer.absences):
        return None
    match farmer.containment.state:
        case Silence.GONE | Silence.CONDEMNED:
            return None
        case Silence.CONTAINED | Silence.OFFLINE:
            since, interval = farmer.containment.next_due_ms, HOUR_MS
            kind, leaves = JobKind.RECHECK, farmer.question_leaves
            if leaves <= 0:
                kind, leaves = JobKind.ROUND, _rhythm(farmer).leaves
        case Silence.CLEAR:
            if 0 < farmer.first_due_ms <= now_ms and farmer.unaudited_shards > 0:
                since, interval = farmer.first_due_ms, HOUR_MS
                kind, leaves = JobKind.FIRST, first_leaves(farmer.unaudited_shards, farmer.unaudited_bytes)
            elif farmer.holding_bytes <= 0 or farmer.next_due_ms > now_ms:
                return None
            else:
                rhythm = _rhythm(farmer)
                since, interval = farmer.next_due_ms, rhythm.interval_ms
                kind, leaves = JobKind.ROUND, rhythm.leaves
    if since > now_ms:
        return None
    urgency = (1 + (now_ms - since) / interval) * (farmer.uncertainty + 0.01)
    return _Wish(AuditJob(farmer.node_id, kind, leaves, moved_bytes(leaves)), urgency)


def _rhythm(farmer: AuditedFarmer) -> Cadence:
    return cadence(farmer.holding_bytes, farmer.terms_interval_ms, farmer.entitled_leaves)


def _mixed(seed: int, node_id: NodeId) -> int:
    """A number that orders farmers differently for each seed (splitmix64; a shuffle, nothing secret rests on it)."""
    word = (int.from_bytes(node_id, "big") % (2**64 - 59) ^ seed) + 0x9E3779B97F4A7C15
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def _within_requests(ranked: list[AuditJob], requests: int, *, odd_to_rounds: bool) -> list[AuditJob]:
    urgent = sorted((job for job in ranked if job.kind is not JobKind.ROUND), key=lambda job: job.kind)
    rounds = [job for job in ranked if job.kind is JobKind.ROUND]
    requests = max(0, requests)
    # An odd one is tossed for: where requests trickle in one by one, nobody may get them all.
    half = (requests + odd_to_rounds) // 2
    for_rounds = min(len(rounds), max(half, requests - len(urgent)))
    return urgent[: requests - for_rounds] + rounds[:for_rounds]


def _within_bytes(jobs: Sequence[AuditJob], bytes_left: int) -> list[AuditJob]:
    """Jobs that fit, each with at least one leaf, the leaves shared out so that the least served gets most."""
    taken: list[AuditJob] = []
    left = bytes_left
    for job in jobs:
        whole = job.kind is JobKind.RECHECK
        least = moved_bytes(job.leaves if whole else 1)
        if least <= left or (whole and left > 0):
            left -= least
            taken.append(job)
    extra = _shared(
        [0 if job.kind is JobKind.RECHECK else job.leaves - 1 for job in taken], max(0, left) // LEAF_MOVED_BYTES
    )
    sized = []
    for job, more in zip(taken, extra, strict=True):
        leaves = job.leaves if job.kind is JobKind.RECHECK else 1 + more
        sized.append(replace(job, leaves=leaves, moved_bytes=moved_bytes(leaves)))
    return sized


def _shared(wants: Sequence[int], supply: int) -> list[int]:
    """Max-min fair shares: nobody gets more than it wants, and who gets less than it wants gets as much as anyone."""
    shares = [0] * len(wants)
    waiting = sorted(range(len(wants)), key=lambda position: wants[position])
    for served, position in enumerate(waiting):
        shares[position] = min(wants[position], supply // (len(waiting) - served))
        supply -= shares[position]
    return shares
