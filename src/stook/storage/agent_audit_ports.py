"""What an agent keeps of audits, as promises: farmers' scores and silence, challenges, losses, receipts, repairs.

One more part of `agent.db` (`docs/formats/agent-database.md`). Like every port of storage it blocks, is safe from
several threads and processes, and decides nothing; each writing call is one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stook.audits.allowance import Allowance
from stook.audits.challenge import SignedChallenge
from stook.audits.containment import CLEAR, Containment
from stook.audits.evidence import ReceiptFile
from stook.audits.score import NEWCOMER, Entry, FarmerScore
from stook.contracts.contract import AuditTerms
from stook.contracts.loss import NotedLoss
from stook.contracts.verdict import Verdict
from stook.ids import ContractId, NodeId, SegmentId


@dataclass(frozen=True, slots=True)
class Dossier:
    """What is thought of one farmer."""

    farmer: NodeId
    score: FarmerScore = NEWCOMER
    base: FarmerScore = NEWCOMER
    """The score before the first event of the history that is kept: what `explain` begins with."""
    silence: Containment = CLEAR
    next_due_ms: int = 0
    """When its next round falls due; 0: never drawn yet."""
    first_due_ms: int = 0
    """When the first audit of what it was given lately falls due; 0: nothing waits, or no time was drawn yet."""
    beat_ms: int = 0
    """When it was last asked a heartbeat that counted."""
    heard_ms: int = 0
    """When it last answered the auditor."""
    known_ms: int = 0
    """When the first thing about it was written down."""
    leaving_by_ms: int = 0
    """When it means to be gone, as it said last; 0: it stays."""


@dataclass(frozen=True, slots=True)
class OpenChallenge:
    """A challenge that may have been sent and is not judged yet."""

    farmer: NodeId
    signed: SignedChallenge
    first: bool = False
    """Drawn over shards that were never audited, alone."""


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    """One round that is over. `outcome` is the worst of its verdicts."""

    farmer: NodeId
    challenge: bytes
    """Digest of its challenge; names it."""
    judged_ms: int
    outcome: Verdict
    file: ReceiptFile
    sent: bool = False
    """Whether the farmer has it."""


@dataclass(frozen=True, slots=True)
class HoldingTotals:
    """Sums over what one farmer holds: placements STORED."""

    farmer: NodeId
    shards: int
    size_bytes: int
    new_shards: int
    """Those of them that were never part of a passed audit."""
    new_bytes: int
    new_since_ms: int
    """When the first of those was stored; 0: there is none."""
    terms: tuple[AuditTerms, ...]
    """What its contracts allow, those with one interval added up."""


@dataclass(frozen=True, slots=True)
class FlightRow:
    """A shard that a repair is bringing to somebody: written down before it begins, so that nobody begins it twice."""

    segment_id: SegmentId
    index: int
    copy: int
    begun_ms: int
    owner: bytes
    """Whose it is; what an agent left behind when it died is named by its own."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A passed audit: these contracts, or with None all that had passed one before, were proved at this time."""

    at_ms: int
    contract_ids: tuple[ContractId, ...] | None = None


@dataclass(frozen=True, slots=True)
class FarmerChange:
    """One step of the auditor about one farmer. What is None, empty or False leaves things as they are."""

    farmer: NodeId
    entries: tuple[Entry, ...] = ()
    """Added to its history; its score follows from them."""
    silence: Containment | None = None
    next_due_ms: int | None = None
    first_due_ms: int | None = None
    beat_ms: int | None = None
    heard_ms: int | None = None
    leaving_by_ms: int | None = None
    """0: it stays after all."""
    opened: OpenChallenge | None = None
    """Durable before it is sent."""
    closed: bool = False
    """Its open challenge is judged or given up."""
    receipt: KeptReceipt | None = None
    delivered: tuple[bytes, ...] = ()
    """Digests of challenges whose receipts it has now."""
    proved: Proof | None = None
    all_lost: bool = False
    """It is gone or condemned: its STORED placements become LOST."""
    returned: bool = False
    """It is back: LOST placements that it did not declare become STORED, unproved."""


@dataclass(frozen=True, slots=True)
class HealthCounts:
    """Segments by the number of distinct indices that are proved; released ones are left out."""

    whole: int
    """n or more."""
    below_n: int
    """r or more, fewer than n."""
    below_r: int
    """k or more, fewer than r."""
    below_k: int


class AuditStore(Protocol):
    """Scores, silence, challenges, losses, receipts, allowances, and what is on its way."""

    def dossiers(self) -> list[Dossier]:
        """All that are kept, by farmer."""
        ...

    def dossier(self, farmer: NodeId) -> Dossier:
        """One farmer's; an empty one when nothing is known of it."""
        ...

    def note_events(self, events: Sequence[tuple[NodeId, Entry]]) -> None:
        """Add to farmers' histories and scores, whatever other processes add meanwhile."""
        ...

    def history(self, farmer: NodeId) -> list[Entry]:
        """What happened since `Dossier.base`, in the order in which it was noted."""
        ...

    def fold_history(self, before_ms: int) -> int:
        """Fold events from before into the bases; how many went. Scores stay what they are."""
        ...

    def change(self, *changes: FarmerChange, allowances: Mapping[str, Allowance] | None = None) -> None:
        """Write down steps of the auditor: all of them or none.

        Raises `ConflictError` when a challenge is opened about a contract that is not STORED any more; for one that
        repeats another, LOST and CANCELLING ones may be asked about too.
        """
        ...

    def totals(self) -> list[HoldingTotals]:
        """Sums for every farmer that holds something, by farmer."""
        ...

    def open_challenges(self) -> list[OpenChallenge]:
        """Challenges without a judgement, by farmer: at most one each."""
        ...

    def note_losses(self, farmer: NodeId, losses: Sequence[NotedLoss], at_ms: int) -> list[NotedLoss]:
        """Keep declared losses; for each the one that was kept first. The caller verified them.

        Those that are new make CLAIMED and STORED placements LOST; how many of the shards STORED there they were
        becomes one event of the farmer's history, `DeclaredLoss`.
        """
        ...

    def noted_losses(self, contract_ids: Iterable[ContractId]) -> Mapping[ContractId, NotedLoss]:
        """Those of these contracts whose loss was noted."""
        ...

    def receipts(self, farmer: NodeId | None, limit: int) -> list[KeptReceipt]:
        """Of one farmer or of all, newest first."""
        ...

    def unsent_receipts(self, farmer: NodeId, limit: int) -> list[KeptReceipt]:
        """Those that it does not have yet, oldest first."""
        ...

    def forget_receipts(self, judged_before_ms: int) -> int:
        """Drop receipts of rounds that passed, or were silent, before; how many. Lies are kept for ever."""
        ...

    def rounds_since(self, since_ms: int) -> Mapping[Verdict, int]:
        """Rounds judged since, by outcome."""
        ...

    def allowance(self, name: str) -> Allowance | None:
        """As it was last written down with `change`."""
        ...

    def outages(self) -> list[tuple[int, int]]:
        """When we were offline ourselves: (begin, end), in order."""
        ...

    def note_outage(self, begin_ms: int, end_ms: int) -> None:
        """Keep or lengthen the outage that began then."""
        ...

    def begin_flights(self, flights: Sequence[FlightRow], stale_ms: int) -> bool:
        """Write down a repair that begins; False, and nothing is written, when one of its shards is on its way.

        Flights begun before `stale_ms` are not coming any more and stand in nobody's way.
        """
        ...

    def end_flights(self, flights: Sequence[FlightRow]) -> None:
        """They arrived, or will not."""
        ...

    def drop_flights(self, owner: bytes) -> int:
        """Forget what an earlier run of this owner began; how many."""
        ...

    def flights(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, tuple[FlightRow, ...]]:
        """What is on its way, by segment; segments with nothing under way are missing."""
        ...

    def segments_short(
        self,
        fresh_ms: int,
        doubtful: Collection[NodeId],
        copies: int,
        limit: int,
        after: bytes,
        lapsing_ms: int = 0,
    ) -> list[SegmentId]:
        """Segments with ids above `after`, in order, that may want repair.

        Those with fewer than r distinct indices proved since `fresh_ms` at farmers that are not `doubtful`; fewer than
        n while no n ever were stored; and, with `copies` above 1, fewer than n x copies shards, or n of copy 0. Shards
        whose contracts end by `lapsing_ms` do not count.
        """
        ...

    def health(self, fresh_ms: int, doubtful: Collection[NodeId], lapsing_ms: int = 0) -> HealthCounts:
        """Segments by what is proved of them, counted in the same way."""
        ...
