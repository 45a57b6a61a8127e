"""The part of the agent's half that is about audits and repair, in memory."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from stook.audits.allowance import Allowance
from stook.audits.score import DeclaredLoss, Entry, FarmerScore
from stook.audits.score import update as updated
from stook.contracts.contract import AuditStrategy, AuditTerms
from stook.contracts.loss import NotedLoss
from stook.contracts.messages import Renew
from stook.contracts.verdict import Verdict
from stook.errors import ConflictError
from stook.ids import ContractId, NodeId, SegmentId
from stook.storage.agent_audit_ports import (
    Dossier,
    FarmerChange,
    FlightRow,
    HealthCounts,
    HoldingTotals,
    KeptReceipt,
    OpenChallenge,
)
from stook.storage.dossiers import changed, joined, with_entries
from stook.storage.renter_ports import Placement, PlacementState, SegmentFacts

CLAIMED, STORED, CANCELLING, ERASED, LOST = PlacementState
_PLAIN = (Verdict.PASSED, Verdict.SILENT, Verdict.LOST)


class MemoryAuditStore:
    """`agent_audit_ports.AuditStore` in dictionaries; the placements that it speaks of are the whole store's."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._segments: dict[SegmentId, SegmentFacts] = {}
        self._released: set[SegmentId] = set()
        self._placements: dict[ContractId, Placement] = {}
        self._by_segment: dict[SegmentId, set[ContractId]] = {}
        self._dossiers: dict[NodeId, Dossier] = {}
        self._histories: dict[NodeId, list[Entry]] = defaultdict(list)
        self._open: dict[NodeId, OpenChallenge] = {}
        self._losses: dict[ContractId, tuple[NodeId, NotedLoss]] = {}
        self._kept: dict[bytes, KeptReceipt] = {}
        self._allowances: dict[str, Allowance] = {}
        self._outages: dict[int, int] = {}
        self._flights: dict[tuple[SegmentId, int, int], FlightRow] = {}
        self._renewals: dict[ContractId, Renew] = {}

    # -- farmers

    def dossiers(self) -> list[Dossier]:
        """See the port."""
        with self._lock:
            return [self._dossiers[farmer] for farmer in sorted(self._dossiers)]

    def dossier(self, farmer: NodeId) -> Dossier:
        """See the port."""
        return self._dossiers.get(farmer, Dossier(farmer))

    def note_events(self, events: Sequence[tuple[NodeId, Entry]]) -> None:
        """See the port."""
        with self._lock:
            for farmer, entry in events:
                self._enter(farmer, [entry])

    def _enter(self, farmer: NodeId, entries: Sequence[Entry]) -> None:
        self._histories[farmer] += entries
        self._dossiers[farmer] = with_entries(self.dossier(farmer), entries)

    def history(self, farmer: NodeId) -> list[Entry]:
        """See the port."""
        return list(self._histories.get(farmer, ()))

    def fold_history(self, before_ms: int) -> int:
        """See the port."""
        folded = 0
        with self._lock:
            for farmer, history in self._histories.items():
                old = [entry for entry in history if entry.at_ms < before_ms]
                if not old:
                    continue
                base: FarmerScore = self.dossier(farmer).base
                for entry in old:
                    base = updated(base, entry.event, entry.at_ms)
                self._dossiers[farmer] = replace(self.dossier(farmer), base=base)
                self._histories[farmer] = [entry for entry in history if entry.at_ms >= before_ms]
                folded += len(old)
        return folded

    # -- the auditor's steps

    def change(self, *changes: FarmerChange, allowances: Mapping[str, Allowance] | None = None) -> None:
        """See the port."""
        with self._lock:
            for each in changes:
                if each.opened is not None:
                    self._check_open(each.opened)
            for each in changes:
                self._change(each)
            self._allowances.update(allowances or {})

    def _check_open(self, opened: OpenChallenge) -> None:
        states = (STORED, LOST, CANCELLING) if opened.signed.challenge.repeats else (STORED,)
        for ask in opened.signed.challenge.asks:
            held = self._placements.get(ask.contract_id)
            if held is None or held.farmer != opened.farmer or held.state not in states:
                raise ConflictError("some of the shards to ask about are not held any more")

    def _change(self, change: FarmerChange) -> None:
        farmer = change.farmer
        if change.closed:
            self._open.pop(farmer, None)
        if change.opened is not None:
            self._open[farmer] = change.opened
        before = self.dossier(farmer)
        if change.entries:
            self._enter(farmer, change.entries)
        after = changed(self.dossier(farmer), change)
        if after != before:
            self._dossiers[farmer] = after
        if change.receipt is not None:
            self._kept[change.receipt.challenge] = change.receipt
        for digest in change.delivered:
            if digest in self._kept:
                self._kept[digest] = replace(self._kept[digest], sent=True)
        for held in [each for each in self._placements.values() if each.farmer == farmer]:
            self._touch(held, change)

    def _touch(self, held: Placement, change: FarmerChange) -> None:
        proved = change.proved
        if proved is not None and held.state == STORED and held.proved_ms < proved.at_ms:
            named = held.proved_ms > 0 if proved.contract_ids is None else held.contract_id in proved.contract_ids
            if named:
                held = replace(held, proved_ms=proved.at_ms)
        if change.all_lost and held.state == STORED:
            held = replace(held, state=LOST)
        if change.returned and held.state == LOST and held.contract_id not in self._losses:
            held = replace(held, state=STORED, stored_ms=0, proved_ms=0)
        self._placements[held.contract_id] = held

    def totals(self) -> list[HoldingTotals]:
        """See the port."""
        found: dict[NodeId, dict[int, HoldingTotals]] = defaultdict(dict)
        with self._lock:
            for each in self._placements.values():
                if each.state != STORED:
                    continue
                audit, size = each.contract.terms.audit, self._segments[each.segment_id].shard_bytes
                new = each.proved_ms == 0
                part = HoldingTotals(
                    each.farmer, 1, size, int(new), size if new else 0, each.stored_ms if new else 0, ()
                )
                here = found[each.farmer]
                before = here.get(audit.interval_ms)
                leaves = audit.leaves_per_interval + (before.terms[0].leaves_per_interval if before else 0)
                whole = part if before is None else joined(before, part)
                terms = (AuditTerms(AuditStrategy.SAMPLED, audit.interval_ms, leaves),)
                here[audit.interval_ms] = replace(whole, terms=terms)
        totals = []
        for farmer in sorted(found):
            parts = [found[farmer][interval] for interval in sorted(found[farmer])]
            whole = parts[0]
            for part in parts[1:]:
                whole = joined(whole, part)
            totals.append(whole)
        return totals

    def open_challenges(self) -> list[OpenChallenge]:
        """See the port."""
        with self._lock:
            return [self._open[farmer] for farmer in sorted(self._open)]

    def note_losses(self, farmer: NodeId, losses: Sequence[NotedLoss], at_ms: int) -> list[NotedLoss]:
        """See the port."""
        with self._lock:
            here = [each for each in self._placements.values() if each.farmer == farmer]
            holding = sum(each.state == STORED for each in here)
            fresh = {name: each for each in losses if (name := each.loss.loss.contract_id) not in self._losses}
            self._losses.update((name, (farmer, each)) for name, each in fresh.items())
            held = 0
            for each in here:
                if each.contract_id in fresh and each.state in (CLAIMED, STORED):
                    held += each.state == STORED
                    self._placements[each.contract_id] = replace(each, state=LOST)
            if held:
                self._enter(farmer, [Entry(at_ms, DeclaredLoss(held, holding))])
            return [self._losses[each.loss.loss.contract_id][1] for each in losses]

    def noted_losses(self, contract_ids: Iterable[ContractId]) -> Mapping[ContractId, NotedLoss]:
        """See the port."""
        with self._lock:
            return {name: self._losses[name][1] for name in contract_ids if name in self._losses}

    # -- receipts

    def receipts(self, farmer: NodeId | None, limit: int) -> list[KeptReceipt]:
        """See the port."""
        with self._lock:
            kept = [each for each in self._kept.values() if farmer is None or each.farmer == farmer]
        return sorted(kept, key=lambda each: (each.judged_ms, each.challenge), reverse=True)[:limit]

    def unsent_receipts(self, farmer: NodeId, limit: int) -> list[KeptReceipt]:
        """See the port."""
        with self._lock:
            kept = [each for each in self._kept.values() if each.farmer == farmer and not each.sent]
        return sorted(kept, key=lambda each: (each.judged_ms, each.challenge))[:limit]

    def forget_receipts(self, judged_before_ms: int) -> int:
        """See the port."""
        with self._lock:
            old = [
                name
                for name, each in self._kept.items()
                if each.judged_ms < judged_before_ms and each.outcome in _PLAIN
            ]
            for name in old:
                del self._kept[name]
            return len(old)

    def rounds_since(self, since_ms: int) -> Mapping[Verdict, int]:
        """See the port."""
        with self._lock:
            return dict(Tally(each.outcome for each in self._kept.values() if each.judged_ms >= since_ms))

    # -- allowances and outages

    def allowance(self, name: str) -> Allowance | None:
        """See the port."""
        return self._allowances.get(name)

    def outages(self) -> list[tuple[int, int]]:
        """See the port."""
        with self._lock:
            return sorted(self._outages.items())

    def note_outage(self, begin_ms: int, end_ms: int) -> None:
        """See the port."""
        with self._lock:
            self._outages[begin_ms] = max(end_ms, self._outages.get(begin_ms, end_ms))

    # -- repair

    def begin_flights(self, flights: Sequence[FlightRow], stale_ms: int) -> bool:
        """See the port."""
        with self._lock:
            for each in flights:
                under_way = self._flights.get((each.segment_id, each.index, each.copy))
                if under_way is not None and under_way.begun_ms >= stale_ms:
                    return False
            self._flights.update(((each.segment_id, each.index, each.copy), each) for each in flights)
            return True

    def end_flights(self, flights: Sequence[FlightRow]) -> None:
        """See the port."""
        with self._lock:
            for each in flights:
                self._flights.pop((each.segment_id, each.index, each.copy), None)

    def drop_flights(self, owner: bytes) -> int:
        """See the port."""
        with self._lock:
            old = [name for name, each in self._flights.items() if each.owner == owner]
            for name in old:
                del self._flights[name]
            return len(old)

    def flights(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, tuple[FlightRow, ...]]:
        """See the port."""
        wanted, found = set(segment_ids), defaultdict(list)
        with self._lock:
            for name in sorted(self._flights):
                if name[0] in wanted:
                    found[name[0]].append(self._flights[name])
        return {segment_id: tuple(each) for segment_id, each in found.items()}

    def segments_short(
        self,
        fresh_ms: int,
        doubtful: Collection[NodeId],
        copies: int,
        limit: int,
        after: bytes,
        lapsing_ms: int = 0,
    ) -> list[SegmentId]:
        """See the port."""

        def short(facts: SegmentFacts) -> bool:
            good, ever = self._proved(facts.segment_id, fresh_ms, doubtful, lapsing_ms)
            proved, originals = len({index for index, _ in good}), sum(copy == 0 for _, copy in good)
            policy = facts.policy
            wanting = proved < policy.r or (ever < policy.n and proved < policy.n)
            return wanting or (copies > 1 and (len(good) < policy.n * copies or originals < policy.n))

        with self._lock:
            live = sorted(each for each in self._segments if each > after and each not in self._released)
            return [each for each in live if short(self._segments[each])][:limit]

    def health(self, fresh_ms: int, doubtful: Collection[NodeId], lapsing_ms: int = 0) -> HealthCounts:
        """See the port."""
        counts = [0, 0, 0, 0]
        with self._lock:
            for name, facts in self._segments.items():
                if name not in self._released:
                    good, policy = self._proved(name, fresh_ms, doubtful, lapsing_ms)[0], facts.policy
                    proved = len({index for index, _ in good})
                    counts[(proved < policy.n) + (proved < policy.r) + (proved < policy.k)] += 1
        return HealthCounts(*counts)

    def _proved(
        self, segment_id: SegmentId, fresh_ms: int, doubtful: Collection[NodeId], lapsing_ms: int
    ) -> tuple[set[tuple[int, int]], int]:
        """Indices and copies that are proved, and how many indices ever were stored."""
        good: set[tuple[int, int]] = set()
        ever: set[int] = set()
        for name in self._by_segment.get(segment_id, ()):
            each = self._placements[name]
            if each.receipt is not None or each.state in (STORED, LOST):
                ever.add(each.index)
            proved_ms = max(each.stored_ms, each.proved_ms)
            lasting = each.state == STORED and each.contract.terms.end_ms > lapsing_ms
            if lasting and proved_ms > 0 and proved_ms >= fresh_ms and each.farmer not in doubtful:
                good.add((each.index, each.copy))
        return good, len(ever)
