"""The SQL agent store against the one in dictionaries: whatever is done to both, they say the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from audit_store_samples import loss, opened
from stook.audits.score import Entry, Retrieved
from stook.contracts.contract import AuditStrategy, AuditTerms, Contract, Settlement, Terms
from stook.contracts.messages import Renew
from stook.contracts.receipt import EraseReceipt, SignedEraseReceipt, SignedStorageReceipt, StorageReceipt
from stook.errors import StookError
from stook.ids import NetworkId, NodeId, PublicKey, SegmentId, ShardRoot, Signature
from stook.shards.geometry import Policy
from stook.storage.agent_audit_ports import FarmerChange, FlightRow, Proof
from stook.storage.agent_store import SqlAgentStore
from stook.storage.renter_memory import MemoryAgentStore
from stook.storage.renter_ports import AgentStore, Outcome, OutcomeKind, Placement, PlacementState, SegmentFacts

SEGMENTS = [SegmentId(bytes([number]) * 16) for number in range(4)]
FARMERS = [NodeId(bytes([number]) * 20) for number in range(3)]
KEY = PublicKey(b"\2" * 33)
SIGNATURE = Signature(b"s" * 64)
TERMS = Terms(
    version=1,
    network=NetworkId("test"),
    renter_key=KEY,
    renter_index=0,
    farmer_key=KEY,
    farmer_index=0,
    shard_root=ShardRoot(bytes(32)),
    shard_size_bytes=16384,
    begin_ms=0,
    end_ms=50,
    consign_by_ms=5,
    audit=AuditTerms(AuditStrategy.SAMPLED, 1000, 4),
    storage_price_per_gib_hour=1,
    download_price_per_gib=1,
    settlement=Settlement.LEDGER,
    payment_destination=b"",
    criteria=b"\0\0\0\0",
    absences=(),
    collateral=0,
    grace_ms=0,
    memo=b"",
    revision=0,
    origin=b"",
)


def root(segment: int, index: int) -> ShardRoot:
    return ShardRoot(bytes([1, segment, index, 0]) * 8)


def build(segment: int, index: int, farmer: int) -> Placement:
    shard = root(segment, index)
    terms = msgspec.structs.replace(TERMS, shard_root=shard, memo=bytes([farmer]), end_ms=40 + 10 * farmer)
    return Placement(SEGMENTS[segment], index, 0, shard, FARMERS[farmer], Contract(terms, SIGNATURE, SIGNATURE))


PLACEMENTS = st.builds(build, st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
SOME = st.lists(PLACEMENTS, max_size=4)
WHEN = st.integers(0, 70)


def facts(segment: int, known: set[int]) -> SegmentFacts:
    roots = tuple(root(segment, index) if index in known else ShardRoot(b"") for index in range(3))
    return SegmentFacts(SEGMENTS[segment], Policy(1, 2, 2, 3), 3, 16384, roots, segment)


FACTS = st.builds(facts, st.integers(0, 3), st.sets(st.integers(0, 2)))


class AgentMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "agent.db"
        self.stores: list[AgentStore] = [SqlAgentStore.open(self.path), MemoryAgentStore()]

    def teardown(self) -> None:
        if hasattr(self, "stores"):
            self.stores[0].close()
            self.folder.cleanup()

    def both(self, ask: Callable[[AgentStore], object]) -> None:
        def answer(store: AgentStore) -> object:
            try:
                return ask(store)
            except StookError as error:
                return type(error)

        ours, theirs = map(answer, self.stores)
        assert ours == theirs

    @rule(listed=st.lists(FACTS, max_size=2))
    def add_segments(self, listed: list[SegmentFacts]) -> None:
        self.both(lambda store: store.add_segments(listed))

    @rule(listed=SOME)
    def add_claims(self, listed: list[Placement]) -> None:
        self.both(lambda store: store.add_claims(listed))

    @rule(listed=SOME)
    def receipts(self, listed: list[Placement]) -> None:
        signed = [
            SignedStorageReceipt(StorageReceipt(each.contract_id, each.root, 16384, 9, KEY), SIGNATURE)
            for each in listed
        ]
        self.both(lambda store: store.record_receipts(signed))

    @rule(of=PLACEMENTS, revision=st.integers(1, 3))
    def renew(self, of: Placement, revision: int) -> None:
        terms = msgspec.structs.replace(
            of.contract.terms, revision=revision, origin=of.contract_id, end_ms=of.contract.terms.end_ms + revision
        )
        self.both(lambda store: store.renew([Contract(terms, SIGNATURE, SIGNATURE)]))

    @rule(of=PLACEMENTS, revision=st.integers(1, 2), drop=st.booleans(), end=st.integers(60, 62))
    def ask_renewal(self, of: Placement, revision: int, drop: bool, end: int) -> None:
        terms = msgspec.structs.replace(of.contract.terms, revision=revision, origin=of.contract_id, end_ms=end)
        request = Renew(terms, SIGNATURE, Signature(b""))
        self.both(lambda store: store.drop_renewal(request) if drop else store.ask_renewal(request))

    @rule(farmer=st.sampled_from(FARMERS), by=st.integers(0, 1))
    def leaving(self, farmer: NodeId, by: int) -> None:
        self.both(lambda store: store.change(FarmerChange(farmer, leaving_by_ms=by)))

    @rule(lapsing=st.sampled_from([0, 40, 50]))
    def cancel_surplus(self, lapsing: int) -> None:
        self.both(lambda store: store.cancel_surplus(lapsing, 2))

    @rule(listed=SOME, lapsing=st.sampled_from([0, 40, 50]))
    def cancel_moved(self, listed: list[Placement], lapsing: int) -> None:
        names = list({each.contract_id for each in listed})
        self.both(lambda store: store.cancel_moved(names, lapsing))

    @rule()
    def cancel_replaced(self) -> None:
        self.both(lambda store: store.cancel_replaced(2))

    @rule(before=st.integers(40, 52))
    def expire(self, before: int) -> None:
        self.both(lambda store: store.expire(before))

    @rule(which=st.lists(st.sampled_from(SEGMENTS), max_size=2))
    def release(self, which: list[SegmentId]) -> None:
        self.both(lambda store: store.release(which))

    @rule(listed=SOME, way=st.sampled_from(["mark_lost", "cancel", "cancel_stored"]))
    def give_up(self, listed: list[Placement], way: str) -> None:
        names = [each.contract_id for each in listed]
        self.both(lambda store: getattr(store, way)(names))

    @rule(listed=SOME, signed=st.booleans(), at=WHEN)
    def erased(self, listed: list[Placement], signed: bool, at: int) -> None:
        receipts = [
            SignedEraseReceipt(EraseReceipt(each.contract_id, each.root, 1, at, KEY), SIGNATURE) for each in listed
        ]
        said = [(each.contract_id, receipts[at] if signed else None) for at, each in enumerate(listed)]
        self.both(lambda store: store.record_erased(said, at))

    @rule(before=WHEN)
    def forget(self, before: int) -> None:
        self.both(lambda store: store.forget(before))

    @rule(listed=st.lists(FACTS, max_size=2), found=SOME, stored=st.booleans())
    def adopt(self, listed: list[SegmentFacts], found: list[Placement], stored: bool) -> None:
        state = PlacementState.STORED if stored else PlacementState.CLAIMED
        self.both(lambda store: store.adopt(listed, [replace(each, state=state) for each in found]))

    @rule(kind=st.sampled_from(OutcomeKind), farmer=st.sampled_from(FARMERS), ok=st.booleans(), value=WHEN, at=WHEN)
    def outcome(self, kind: OutcomeKind, farmer: NodeId, ok: bool, value: int, at: int) -> None:
        self.both(lambda store: store.note_outcomes([Outcome(farmer, kind, ok, float(value), at)]))

    @rule(farmer=st.sampled_from(FARMERS), ok=st.booleans(), at=WHEN)
    def event(self, farmer: NodeId, ok: bool, at: int) -> None:
        self.both(lambda store: store.note_events([(farmer, Entry(at, Retrieved(ok)))]))

    @rule(before=WHEN)
    def fold(self, before: int) -> None:
        self.both(lambda store: store.fold_history(before))

    @rule(farmer=st.sampled_from(FARMERS), listed=SOME, at=WHEN)
    def proved(self, farmer: NodeId, listed: list[Placement], at: int) -> None:
        names = tuple(each.contract_id for each in listed) or None
        self.both(lambda store: store.change(FarmerChange(farmer, proved=Proof(at, names), heard_ms=at)))

    @rule(farmer=st.sampled_from(FARMERS), gone=st.booleans())
    def gone_or_back(self, farmer: NodeId, gone: bool) -> None:
        self.both(lambda store: store.change(FarmerChange(farmer, all_lost=gone, returned=not gone)))

    @rule(listed=SOME, at=WHEN)
    def losses(self, listed: list[Placement], at: int) -> None:
        of = {each.contract_id: each for each in listed}.values()
        self.both(lambda store: store.note_losses(FARMERS[0], [loss(each, at + 1) for each in of], at))

    @rule(listed=SOME, nonce=st.integers(1, 9), first=st.booleans())
    def open_challenge(self, listed: list[Placement], nonce: int, first: bool) -> None:
        of = list({each.contract_id: each for each in listed}.values())
        if of:
            change = FarmerChange(of[0].farmer, opened=opened(of[0].farmer, of, nonce, first=first))
            self.both(lambda store: store.change(change))

    @rule(farmer=st.sampled_from(FARMERS))
    def close_challenge(self, farmer: NodeId) -> None:
        self.both(lambda store: store.change(FarmerChange(farmer, closed=True)))

    @rule(segment=st.sampled_from(SEGMENTS), index=st.integers(0, 2), at=WHEN, stale=WHEN, end=st.booleans())
    def flight(self, segment: SegmentId, index: int, at: int, stale: int, end: bool) -> None:
        flights = [FlightRow(segment, index, 0, at, b"me")]
        self.both(lambda store: store.end_flights(flights) if end else store.begin_flights(flights, stale))

    @rule()
    def reopen(self) -> None:
        self.stores[0].close()
        self.stores[0] = SqlAgentStore.open(self.path)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "stores"):
            return
        self.both(lambda store: store.segments(SEGMENTS))
        self.both(lambda store: store.placements(SEGMENTS))
        self.both(lambda store: store.segments_wanting(3))
        self.both(lambda store: store.segment_ids(3, b"", 3))
        self.both(lambda store: store.farmers_to_cancel())
        self.both(lambda store: [store.cancelling(farmer, 3) for farmer in FARMERS])
        self.both(lambda store: store.claimed(3))
        self.both(lambda store: store.placements_at(FARMERS[0], b"", 9))
        self.both(lambda store: store.ending(51, 9))
        self.both(lambda store: store.ending(99, 9, next(iter(store.ending(99, 1)), None)))
        self.both(
            lambda store: store.renewals(
                build(s, i, f).contract_id for s in range(4) for i in range(3) for f in range(3)
            )
        )
        self.both(lambda store: store.counts())
        self.both(lambda store: store.farmer_stats(80))
        self.both(lambda store: store.totals())
        self.both(lambda store: store.dossiers())
        self.both(lambda store: [store.history(farmer) for farmer in FARMERS])
        self.both(lambda store: store.stored_at(FARMERS[0]))
        self.both(lambda store: store.open_challenges())
        self.both(lambda store: store.flights(SEGMENTS))
        self.both(lambda store: store.lost_and_replaced(9))
        self.both(lambda store: store.surplus(FARMERS[:1], 9))
        self.both(lambda store: store.surplus((), 9))
        self.both(lambda store: store.surplus((), 9, 45))
        self.both(lambda store: store.surplus((), 9, 0, 9))
        for copies in (1, 2):
            self.both(lambda store, copies=copies: store.segments_short(5, FARMERS[:1], copies, 3, b""))  # type: ignore[misc]
        self.both(lambda store: store.health(5, FARMERS[:1]))
        self.both(lambda store: store.health(5, (), 45))


AgentMachine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAgentMachine = AgentMachine.TestCase
