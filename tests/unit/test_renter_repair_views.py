"""Segments as the repair plan sees them."""

from __future__ import annotations

from msgspec import structs

from stook.audits.containment import Containment, Silence
from stook.audits.score import NEWCOMER, Audited, DeclaredLoss, update
from stook.contracts.verdict import Verdict
from stook.ids import NodeId, SegmentId, ShardRoot
from stook.renter.repair_plan import Decision, Fate, decide, health
from stook.renter.repair_views import loss_chances, view_of
from stook.shards.geometry import Policy
from stook.storage.agent_audit_ports import Dossier, FlightRow
from stook.storage.renter_ports import Placement, PlacementState, SegmentFacts
from storage_samples import sample, signed

NOW = 1_800_000_000_000
POLICY = Policy(2, 3, 4, 5)
SEGMENT = SegmentId(b"s" * 16)
FACTS = SegmentFacts(SEGMENT, POLICY, 5, 16384, (ShardRoot(b"r" * 32),) * 5, NOW)
STORED, LOST = PlacementState.STORED, PlacementState.LOST


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def placement(index: int, state: PlacementState = STORED, *, copy: int = 0, end_ms: int = 2 * NOW) -> Placement:
    contract = signed(sample(), memo=bytes([index, copy]))
    contract = structs.replace(contract, terms=structs.replace(contract.terms, end_ms=end_ms))
    at = NOW if state is STORED else 0
    return Placement(SEGMENT, index, copy, contract.terms.shard_root, node(index), contract, state, stored_ms=at)


def view(placements: list[Placement], *dossiers: Dossier, flights: tuple[FlightRow, ...] = (), copies: int = 1):  # type: ignore[no-untyped-def]
    known = {each.farmer: each for each in dossiers}
    return view_of(FACTS, placements, flights, known, loss_chances(dossiers, NOW), lambda farmer: (), copies, NOW)


def test_what_never_was_whole_is_filled_and_what_was_keeps_its_r() -> None:
    young = view([placement(index) for index in range(4)])
    assert young.policy == Policy(2, 5, 5, 5)
    assert decide(young, health(young, NOW)) is Decision.REPAIR
    old = view([*(placement(index) for index in range(4)), placement(4, LOST)])
    assert old.policy == POLICY
    assert decide(old, health(old, NOW)) is Decision.LEAVE


def test_what_is_thought_of_a_farmer_is_thought_of_its_shards() -> None:
    liar = Dossier(node(0), update(NEWCOMER, Audited(Verdict.FAILED), NOW), silence=Containment(Silence.CONDEMNED))
    silent = Dossier(node(1), silence=Containment(Silence.OFFLINE, first_asked_ms=NOW - 60, since_ms=NOW - 5))
    unreached = Dossier(node(2), silence=Containment(Silence.OFFLINE, since_ms=NOW - 7))
    seen = view(
        [placement(0, LOST), placement(1), placement(2), placement(3, LOST), placement(4)], liar, silent, unreached
    )
    assert [shard.fate for shard in seen.held] == [Fate.CONDEMNED, Fate.SILENT, Fate.SILENT, Fate.LOST, Fate.HELD]
    assert [shard.silent_since_ms for shard in seen.held] == [0, NOW - 60, NOW - 7, 0, 0]


def test_ended_contracts_hold_nothing_and_flights_count_as_come() -> None:
    flight = FlightRow(SEGMENT, 1, 0, NOW, b"me")
    seen = view([placement(0, end_ms=NOW)], flights=(flight,))
    assert seen.held == ()
    assert [(each.index, each.copy) for each in seen.flights] == [(1, 0)]


def test_who_lost_much_is_likelier_to_lose_again() -> None:
    loser = Dossier(node(0), update(NEWCOMER, DeclaredLoss(1, 1), NOW), known_ms=NOW - 86_400_000)
    steady = Dossier(node(1), known_ms=NOW - 365 * 86_400_000)
    chance = loss_chances([loser, steady], NOW)
    assert chance(node(0)) > chance(node(9)) > chance(node(1)) > 0


def test_a_contract_that_ends_within_the_time_lapses() -> None:
    placements = [placement(0, end_ms=NOW + 9), placement(1, end_ms=NOW + 10), placement(2, end_ms=NOW + 11)]
    seen = view_of(FACTS, placements, (), {}, loss_chances((), NOW), lambda farmer: (), 1, NOW, 10)
    assert [shard.lapsing for shard in seen.held] == [True, True, False]
