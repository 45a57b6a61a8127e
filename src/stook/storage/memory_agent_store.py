"""The agent's half in memory, for the simulator and for tests; every promise of the port but the durable ones."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from stook.contracts.announcement import SignedAnnouncement
from stook.contracts.receipt import SignedEraseReceipt, SignedStorageReceipt
from stook.errors import ConflictError, NotFoundError
from stook.ids import ContractId, NodeId, SegmentId, ShardRoot
from stook.storage.fading import Counter
from stook.storage.memory_audit_store import MemoryAuditStore
from stook.storage.memory_upkeep import MemoryUpkeepStore
from stook.storage.renter_ports import (
    AgentCounts,
    FarmerStats,
    Outcome,
    OutcomeKind,
    Placement,
    PlacementState,
    SegmentFacts,
    Wanting,
    stored_when,
)

CLAIMED, STORED, CANCELLING, ERASED, LOST = PlacementState


class MemoryAgentStore(MemoryUpkeepStore, MemoryAuditStore):
    """`renter_ports.AgentStore` in dictionaries, under one lock."""

    def __init__(self) -> None:
        super().__init__()
        self._erased_ms: dict[ContractId, int] = {}
        self._announcements: dict[NodeId, SignedAnnouncement] = {}
        self._counters: dict[tuple[NodeId, OutcomeKind], Counter] = {}

    def close(self) -> None:
        """Nothing to let go of."""

    # -- segments

    def add_segments(self, segments: Sequence[SegmentFacts]) -> None:
        """See the port."""
        fresh = {each.segment_id: each for each in segments}
        for each in segments:
            if len(each.roots) != each.total:
                raise ValueError(f"segment {each.segment_id.hex()} has {each.total} indices, {len(each.roots)} roots")
        with self._lock:
            if len(fresh) < len(segments) or fresh.keys() & self._segments.keys():
                raise ConflictError("one of these segments exists already")
            self._segments.update(fresh)

    def append_roots(self, segment_id: SegmentId, roots: Sequence[ShardRoot]) -> SegmentFacts:
        """See the port."""
        with self._lock:
            if segment_id not in self._segments:
                raise NotFoundError(f"no segment {segment_id.hex()}")
            return self._set_roots(segment_id, (*self._segments[segment_id].roots, *roots))

    def segment(self, segment_id: SegmentId) -> SegmentFacts | None:
        """See the port."""
        return self._segments.get(segment_id)

    def segments(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, SegmentFacts]:
        """See the port."""
        with self._lock:
            return {each: self._segments[each] for each in segment_ids if each in self._segments}

    def segment_ids(self, created_before_ms: int, after: bytes, limit: int) -> list[SegmentId]:
        """See the port."""
        with self._lock:
            return sorted(
                each.segment_id
                for each in self._live()
                if each.segment_id > after and each.created_ms < created_before_ms
            )[:limit]

    def segments_wanting(self, limit: int, after: Wanting | None = None) -> list[Wanting]:
        """See the port."""

        def place(each: Wanting) -> tuple[int, SegmentId]:
            return each.margin, each.facts.segment_id

        with self._lock:
            listed = [Wanting(each, self._stored(each.segment_id)) for each in self._live()]
        wanting = sorted((each for each in listed if each.stored < each.facts.policy.n), key=place)
        return [each for each in wanting if after is None or place(each) > place(after)][:limit]

    # -- placements

    def add_claims(self, placements: Sequence[Placement]) -> None:
        """See the port."""
        with self._lock:
            self._require_segments(placements)
            if any(each.segment_id in self._released for each in placements):
                raise ConflictError("one of these segments is released")
            self._add(placements)

    def record_receipts(self, receipts: Sequence[SignedStorageReceipt]) -> frozenset[ContractId]:
        """See the port."""
        with self._lock:
            self._require_contracts(each.receipt.contract_id for each in receipts)
            for each in receipts:
                held = self._placements[each.receipt.contract_id]
                state = STORED if held.state in (CLAIMED, LOST) else held.state
                again = held.state == LOST or held.stored_ms == 0
                self._placements[held.contract_id] = replace(
                    held,
                    receipt=each,
                    state=state,
                    stored_ms=stored_when(each, held.contract) if again else held.stored_ms,
                    proved_ms=0 if again else held.proved_ms,
                )
            touched = {each.receipt.contract_id for each in receipts}
            return frozenset(name for name in touched if self._placements[name].state != STORED)

    def placement(self, contract_id: ContractId) -> Placement | None:
        """See the port."""
        return self._placements.get(contract_id)

    def placements(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, tuple[Placement, ...]]:
        """See the port."""

        def place(each: Placement) -> tuple[int, int, ContractId]:
            return each.index, each.copy, each.contract_id

        with self._lock:
            return {
                each: tuple(sorted((held for held in self._of(each) if held.state != ERASED), key=place))
                for each in segment_ids
            }

    def placements_at(self, farmer: NodeId, after: bytes, limit: int) -> list[Placement]:
        """See the port."""
        return self._at(farmer, [CLAIMED, STORED, CANCELLING, LOST], after, limit)

    def stored_at(self, farmer: NodeId) -> list[Placement]:
        """See the port."""
        return self._at(farmer, [STORED], b"", len(self._placements))

    # -- the way out

    def release(self, segment_ids: Iterable[SegmentId]) -> None:
        """See the port."""
        with self._lock:
            known = [each for each in segment_ids if each in self._segments]
            self._released.update(known)
            for each in known:
                self._move(list(self._by_segment.get(each, ())), [CLAIMED, STORED, LOST], CANCELLING)

    def cancel(self, contract_ids: Iterable[ContractId]) -> None:
        """See the port."""
        with self._lock:
            self._move(contract_ids, [CLAIMED, LOST], CANCELLING)

    def mark_lost(self, contract_ids: Iterable[ContractId]) -> None:
        """See the port."""
        with self._lock:
            self._move(contract_ids, [CLAIMED, STORED], LOST)

    def claimed(self, limit: int, after: bytes = b"") -> list[Placement]:
        """See the port."""
        with self._lock:
            open_ones = [
                each for each in self._placements.values() if each.state == CLAIMED and each.contract_id > after
            ]
        return sorted(open_ones, key=lambda each: each.contract_id)[:limit]

    def farmers_to_cancel(self) -> Mapping[NodeId, int]:
        """See the port."""
        with self._lock:
            return dict(Tally(each.farmer for each in self._placements.values() if each.state == CANCELLING))

    def cancelling(self, farmer: NodeId, limit: int, after: bytes = b"") -> list[Placement]:
        """See the port."""
        return self._at(farmer, [CANCELLING], after, limit)

    def record_erased(self, erasures: Sequence[tuple[ContractId, SignedEraseReceipt | None]], at_ms: int) -> None:
        """See the port."""
        with self._lock:
            for contract_id, receipt in erasures:
                held = self._placements.get(contract_id)
                if held is not None:
                    self._placements[contract_id] = replace(held, state=ERASED, erased=held.erased or receipt)
                    self._erased_ms.setdefault(contract_id, at_ms)

    def forget(self, before_ms: int) -> list[SegmentId]:
        """See the port."""
        with self._lock:
            for each in list(self._placements.values()):
                erased = each.state == ERASED and self._erased_ms[each.contract_id] < before_ms
                ended = each.state == CANCELLING and each.contract.terms.end_ms < before_ms
                if erased or ended:
                    del self._placements[each.contract_id]
                    self._by_segment[each.segment_id].discard(each.contract_id)
                    self._erased_ms.pop(each.contract_id, None)
            for name in [name for name in self._renewals if not self._is_stored(name)]:
                del self._renewals[name]
            gone = sorted(each for each in self._released if not self._by_segment.get(each))
            for each_id in gone:
                del self._segments[each_id]
                self._released.discard(each_id)
                self._by_segment.pop(each_id, None)
            return gone

    def adopt(self, segments: Sequence[SegmentFacts], placements: Sequence[Placement]) -> int:
        """See the port."""
        with self._lock:
            known = self._segments.keys() | {each.segment_id for each in segments}
            for each in placements:
                if each.segment_id not in known:
                    raise NotFoundError(f"no segment {each.segment_id.hex()}")
            for facts in segments:
                ours = self._segments.setdefault(facts.segment_id, facts).roots
                longer, shorter = (ours, facts.roots) if len(ours) >= len(facts.roots) else (facts.roots, ours)
                heads = [mine or theirs for mine, theirs in zip(ours, facts.roots, strict=False)]
                self._set_roots(facts.segment_id, (*heads, *longer[len(shorter) :]))
            fresh = {each.contract_id: each for each in placements if each.contract_id not in self._placements}
            self.renew([each.contract for each in placements if each.contract_id in self._placements])
            self._add(list(fresh.values()))
            return len(fresh)

    # -- farmers

    def save_announcements(self, announcements: Sequence[SignedAnnouncement]) -> None:
        """See the port."""
        with self._lock:
            for each in announcements:
                held = self._announcements.get(each.announcement.contact.node_id)
                if held is None or each.announcement.issued_ms > held.announcement.issued_ms:
                    self._announcements[each.announcement.contact.node_id] = each

    def announcements(self) -> list[SignedAnnouncement]:
        """See the port."""
        with self._lock:
            return [self._announcements[farmer] for farmer in sorted(self._announcements)]

    def forget_farmers(self, issued_before_ms: int) -> frozenset[NodeId]:
        """See the port."""
        with self._lock:
            old = {key for key, each in self._announcements.items() if each.announcement.issued_ms < issued_before_ms}
            old -= {each.farmer for each in self._placements.values()}
            old -= {farmer for farmer, _ in self._counters} | {each.farmer for each in self.dossiers()}
            for farmer in old:
                del self._announcements[farmer]
            return frozenset(old)

    def note_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """See the port."""
        with self._lock:
            for each in outcomes:
                key = (each.farmer, each.kind)
                self._counters[key] = self._counters.get(key, Counter()).after(each)

    def farmer_stats(self, now_ms: int) -> list[FarmerStats]:
        """See the port."""
        with self._lock:
            return [self._counters[key].stats(*key, now_ms) for key in sorted(self._counters)]

    def counts(self) -> AgentCounts:
        """See the port."""
        with self._lock:
            live = [Wanting(each, self._stored(each.segment_id)) for each in self._live()]
            states = Tally(each.state for each in self._placements.values())
            return AgentCounts(
                segments=len(live),
                released=len(self._released),
                wanting=sum(each.stored < each.facts.policy.n for each in live),
                endangered=sum(each.stored < each.facts.policy.r for each in live),
                unreadable=sum(each.stored < each.facts.policy.k for each in live),
                placements=dict(states),
                stored_bytes=sum(
                    self._segments[each.segment_id].shard_bytes
                    for each in self._placements.values()
                    if each.state == STORED
                ),
                farmers=len(self._announcements),
            )

    # -- rules

    def _live(self) -> list[SegmentFacts]:
        return [each for each in self._segments.values() if each.segment_id not in self._released]

    def _of(self, segment_id: SegmentId) -> list[Placement]:
        return [self._placements[each] for each in self._by_segment.get(segment_id, ())]

    def _stored(self, segment_id: SegmentId) -> int:
        return len({each.index for each in self._of(segment_id) if each.state == STORED})

    def _set_roots(self, segment_id: SegmentId, roots: tuple[ShardRoot, ...]) -> SegmentFacts:
        grown = replace(self._segments[segment_id], total=len(roots), roots=roots)
        self._segments[segment_id] = grown
        return grown

    def _add(self, placements: Sequence[Placement]) -> None:
        fresh = {each.contract_id: each for each in placements}
        if len(fresh) < len(placements) or fresh.keys() & self._placements.keys():
            raise ConflictError("one of these placements exists already")
        self._placements.update(fresh)
        for each in placements:
            self._by_segment.setdefault(each.segment_id, set()).add(each.contract_id)
            if each.erased is not None:
                self._erased_ms[each.contract_id] = each.erased.receipt.erased_at_ms

    def _require_segments(self, placements: Sequence[Placement]) -> None:
        for each in placements:
            if each.segment_id not in self._segments:
                raise NotFoundError(f"no segment {each.segment_id.hex()}")

    def _require_contracts(self, contract_ids: Iterable[ContractId]) -> None:
        for each in contract_ids:
            if each not in self._placements:
                raise NotFoundError(f"no placement under contract {each.hex()}")

    def _move(self, contract_ids: Iterable[ContractId], states: Collection[PlacementState], to: PlacementState) -> None:
        for each in contract_ids:
            held = self._placements.get(each)
            if held is not None and held.state in states:
                self._placements[each] = replace(held, state=to)

    def _at(self, farmer: NodeId, states: Collection[PlacementState], after: bytes, limit: int) -> list[Placement]:
        with self._lock:
            here = [
                each
                for each in self._placements.values()
                if each.farmer == farmer and each.state in states and each.contract_id > after
            ]
        return sorted(here, key=lambda each: each.contract_id)[:limit]
