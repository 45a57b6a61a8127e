"""What every agent store promises (`stook.storage.renter_ports.AgentStore`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stook.audits.score import Entry, Retrieved
from stook.contracts.announcement import Announcement, SignedAnnouncement
from stook.contracts.contract import AuditStrategy, AuditTerms, Contract, Settlement, Terms
from stook.contracts.receipt import EraseReceipt, SignedEraseReceipt, SignedStorageReceipt, StorageReceipt
from stook.errors import ConflictError, NotFoundError
from stook.identity.contact import Address, AddressKind, Contact, SignedContact
from stook.identity.keys import NodeKey
from stook.ids import ContractId, NetworkId, NodeId, PublicKey, SegmentId, ShardRoot, Signature
from stook.shards.geometry import Policy
from stook.storage.agent_store import SqlAgentStore
from stook.storage.fading import SAME_FAILURE_MS
from stook.storage.renter_memory import MemoryAgentStore
from stook.storage.renter_ports import (
    HALF_LIFE_MS,
    AgentStore,
    FarmerStats,
    Outcome,
    OutcomeKind,
    Placement,
    PlacementState,
    SegmentFacts,
    Wanting,
)

CLAIMED, STORED, CANCELLING, ERASED, LOST = PlacementState
POLICY = Policy(2, 3, 4, 5)
FARMERS = [NodeId(bytes([number]) * 20) for number in range(1, 9)]
SIGNATURE = Signature(b"s" * 64)
RENTER = PublicKey(b"\2" + b"r" * 32)
FARMER_KEY = PublicKey(b"\2" + b"f" * 32)

ADAPTERS: dict[str, Callable[[Path], AgentStore]] = {
    "sqlite": lambda folder: SqlAgentStore.open(folder / "agent.db"),
    "memory": lambda folder: MemoryAgentStore(),
}


@pytest.fixture(params=ADAPTERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AgentStore]:
    opened = ADAPTERS[request.param](tmp_path)
    yield opened
    opened.close()


def sid(number: int) -> SegmentId:
    return SegmentId(number.to_bytes(16, "big"))


def root(segment: int, index: int, copy: int = 0) -> ShardRoot:
    return ShardRoot(bytes([1, segment, index, copy]) * 8)


def facts(number: int, *, total: int = 6, created: int = 100, policy: Policy = POLICY) -> SegmentFacts:
    roots = tuple(root(number, index) for index in range(total))
    return SegmentFacts(sid(number), policy, total, 65536, roots, created)


def contract(
    shard: ShardRoot, *, end: int = 10_000, memo: bytes = b"", revision: int = 0, origin: bytes = b""
) -> Contract:
    terms = Terms(
        version=1,
        network=NetworkId("test"),
        renter_key=RENTER,
        renter_index=0,
        farmer_key=FARMER_KEY,
        farmer_index=0,
        shard_root=shard,
        shard_size_bytes=65536,
        begin_ms=0,
        end_ms=end,
        consign_by_ms=500,
        audit=AuditTerms(AuditStrategy.SAMPLED, 1000, 4),
        storage_price_per_gib_hour=1,
        download_price_per_gib=1,
        settlement=Settlement.LEDGER,
        payment_destination=b"",
        criteria=b"\0\0\0\0",
        absences=(),
        collateral=0,
        grace_ms=0,
        memo=memo,
        revision=revision,
        origin=origin,
    )
    return Contract(terms, SIGNATURE, SIGNATURE)


def placement(segment: int, index: int, *, farmer: int | None = None, copy: int = 0, end: int = 10_000) -> Placement:
    at = FARMERS[index if farmer is None else farmer]
    shard = root(segment, index, copy)
    return Placement(sid(segment), index, copy, shard, at, contract(shard, end=end, memo=at))


def receipt(of: Placement) -> SignedStorageReceipt:
    return SignedStorageReceipt(StorageReceipt(of.contract_id, of.root, 65536, 200, FARMER_KEY), SIGNATURE)


def erasure(of: Placement, at: int = 300) -> SignedEraseReceipt:
    return SignedEraseReceipt(EraseReceipt(of.contract_id, of.root, 65536, at, FARMER_KEY), SIGNATURE)


def place(store: AgentStore, segment: int, stored: int, claimed: int = 0, **options: int) -> list[Placement]:
    """A segment with so many placements stored and then so many claimed."""
    store.add_segments([facts(segment)])
    made = [placement(segment, index, **options) for index in range(stored + claimed)]
    store.add_claims(made)
    store.record_receipts([receipt(each) for each in made[:stored]])
    return made


def state_of(store: AgentStore, of: Placement) -> PlacementState:
    held = store.placement(of.contract_id)
    assert held is not None
    return held.state


# -- segments


def test_facts_are_kept_as_they_were_given(store: AgentStore) -> None:
    store.add_segments([facts(1), facts(2, total=5)])
    assert store.segment(sid(1)) == facts(1)
    assert store.segment(sid(3)) is None
    assert store.segments([sid(2), sid(3)]) == {sid(2): facts(2, total=5)}


def test_a_segment_is_added_once(store: AgentStore) -> None:
    store.add_segments([facts(1)])
    with pytest.raises(ConflictError):
        store.add_segments([facts(2), facts(1)])
    assert store.segment(sid(2)) is None


def test_every_index_has_a_root(store: AgentStore) -> None:
    with pytest.raises(ValueError, match="indices"):
        store.add_segments([replace(facts(1), total=7)])


def test_indices_can_be_added(store: AgentStore) -> None:
    store.add_segments([facts(1)])
    grown = store.append_roots(sid(1), [root(1, 6), root(1, 7)])
    assert grown == facts(1, total=8)
    assert store.segment(sid(1)) == grown
    with pytest.raises(NotFoundError):
        store.append_roots(sid(2), [root(2, 0)])


def test_segment_ids_are_paged_for_the_look_for_orphans(store: AgentStore) -> None:
    store.add_segments([facts(number, created=number) for number in (5, 3, 1, 4, 2)])
    store.release([sid(2)])
    assert store.segment_ids(5, b"", 2) == [sid(1), sid(3)]
    assert store.segment_ids(5, sid(3), 2) == [sid(4)]


# -- placements


def test_claims_are_kept_as_they_were_given(store: AgentStore) -> None:
    made = place(store, 1, stored=0, claimed=3)
    assert store.placement(made[0].contract_id) == made[0]
    assert store.placement(ContractId(bytes(32))) is None
    assert store.placements([sid(1), sid(2)]) == {sid(1): tuple(made), sid(2): ()}


def test_a_claim_needs_its_segment_and_comes_once(store: AgentStore) -> None:
    with pytest.raises(NotFoundError):
        store.add_claims([placement(1, 0)])
    made = place(store, 1, stored=0, claimed=1)
    with pytest.raises(ConflictError):
        store.add_claims([placement(1, 1), made[0]])
    assert store.placements([sid(1)]) == {sid(1): tuple(made)}


def test_a_released_segment_takes_no_claims(store: AgentStore) -> None:
    place(store, 1, stored=0, claimed=1)
    store.release([sid(1)])
    with pytest.raises(ConflictError):
        store.add_claims([placement(1, 1)])


def test_one_index_may_be_at_two_farmers_and_have_copies(store: AgentStore) -> None:
    store.add_segments([facts(1)])
    made = [placement(1, 0, farmer=2), placement(1, 0, farmer=1), placement(1, 0, copy=1)]
    store.add_claims(made)
    held = store.placements([sid(1)])[sid(1)]
    assert held == tuple(sorted(made, key=lambda each: (each.index, each.copy, each.contract_id)))


def test_a_receipt_makes_it_stored(store: AgentStore) -> None:
    made = place(store, 1, stored=1, claimed=1)
    expected = replace(made[0], state=STORED, receipt=receipt(made[0]), stored_ms=200)
    assert store.placement(made[0].contract_id) == expected
    assert state_of(store, made[1]) == CLAIMED
    store.mark_lost([made[0].contract_id])
    store.record_receipts([receipt(made[0])])
    assert state_of(store, made[0]) == STORED


def test_a_receipt_needs_its_contract(store: AgentStore) -> None:
    made = place(store, 1, stored=0, claimed=1)
    with pytest.raises(NotFoundError):
        store.record_receipts([receipt(made[0]), receipt(placement(1, 1))])
    assert state_of(store, made[0]) == CLAIMED


def test_claims_are_listed_until_they_are_something_else(store: AgentStore) -> None:
    made = sorted(place(store, 1, stored=1, claimed=4)[1:], key=lambda each: each.contract_id)
    assert store.claimed(2) == made[:2]
    assert store.claimed(9, made[1].contract_id) == made[2:]
    store.cancel([made[0].contract_id])
    assert store.record_receipts([receipt(made[1])]) == frozenset()
    assert store.claimed(9) == made[2:]


def test_a_claim_given_up_too_late_stays_stored(store: AgentStore) -> None:
    stale = place(store, 1, stored=0, claimed=2)
    store.record_receipts([receipt(stale[0])])
    store.cancel([each.contract_id for each in stale])
    assert [state_of(store, each) for each in stale] == [STORED, CANCELLING]
    store.cancel_stored([each.contract_id for each in stale])
    assert [state_of(store, each) for each in stale] == [CANCELLING, CANCELLING]


def test_a_late_receipt_does_not_bring_a_cancelled_shard_back(store: AgentStore) -> None:
    first, second = place(store, 1, stored=0, claimed=2)
    store.cancel([first.contract_id, second.contract_id])
    store.record_erased([(second.contract_id, erasure(second))], 300)
    assert store.record_receipts([receipt(first), receipt(second)]) == {first.contract_id, second.contract_id}
    assert state_of(store, first) == CANCELLING
    assert state_of(store, second) == ERASED


def test_a_renewal_replaces_an_earlier_revision_only(store: AgentStore) -> None:
    made = place(store, 1, stored=1)[0]
    later = contract(made.root, end=20_000, revision=2, origin=made.contract_id)
    older = contract(made.root, end=15_000, revision=1, origin=made.contract_id)
    store.renew([later])
    store.renew([older])
    held = store.placement(made.contract_id)
    assert held is not None
    assert held.contract == later
    assert store.ending(20_000, 10) == []
    assert store.ending(20_001, 10) == [held]
    with pytest.raises(NotFoundError):
        store.renew([contract(root(9, 9))])


def test_what_ends_soon_comes_soonest_first(store: AgentStore) -> None:
    late = place(store, 1, stored=1, end=900)[0]
    soon = place(store, 2, stored=1, claimed=1, end=800)[0]
    gone = place(store, 3, stored=1, end=700)[0]
    store.release([gone.segment_id])
    assert [each.contract_id for each in store.ending(901, 10)] == [soon.contract_id, late.contract_id]
    assert [each.contract_id for each in store.ending(900, 10)] == [soon.contract_id]
    assert len(store.ending(901, 1)) == 1


def test_placements_at_a_farmer_are_paged(store: AgentStore) -> None:
    for number in range(1, 6):
        place(store, number, stored=1, claimed=1)
    store.record_erased([(placement(1, 0).contract_id, None)], 1)
    here = store.placements_at(FARMERS[0], b"", 10)
    assert [each.contract_id for each in here] == sorted(placement(number, 0).contract_id for number in range(2, 6))
    assert store.placements_at(FARMERS[0], here[1].contract_id, 1) == here[2:3]


# -- what is wanting


def test_the_nearest_to_loss_comes_first(store: AgentStore) -> None:
    for number, stored in ((1, 4), (2, 5), (3, 1), (4, 0), (5, 4)):
        place(store, number, stored)
    store.add_segments([facts(6, policy=Policy(5, 5, 5, 6))])
    listed = store.segments_wanting(10)
    assert [(each.facts.segment_id, each.stored) for each in listed] == [
        (sid(6), 0),
        (sid(4), 0),
        (sid(3), 1),
        (sid(1), 4),
        (sid(5), 4),
    ]
    assert listed[0] == Wanting(facts(6, policy=Policy(5, 5, 5, 6)), 0)
    paged, after = [], None
    while page := store.segments_wanting(2, after):
        paged += page
        after = page[-1]
    assert paged == listed


def test_only_stored_distinct_indices_count(store: AgentStore) -> None:
    place(store, 1, stored=4, claimed=1)
    again = placement(1, 0, farmer=7)
    store.add_claims([again])
    store.record_receipts([receipt(again)])
    assert [each.stored for each in store.segments_wanting(10)] == [4]
    store.record_receipts([receipt(placement(1, 4))])
    assert store.segments_wanting(10) == []
    store.mark_lost([placement(1, 4).contract_id])
    assert [each.stored for each in store.segments_wanting(10)] == [4]
    store.release([sid(1)])
    assert store.segments_wanting(10) == []


# -- the way out


def test_release_is_durable_before_any_call(store: AgentStore) -> None:
    made = place(store, 1, stored=2, claimed=2)
    store.mark_lost([made[1].contract_id])
    store.record_erased([(made[3].contract_id, erasure(made[3]))], 300)
    store.release([sid(1), sid(9)])
    store.release([sid(1)])
    assert [state_of(store, each) for each in made] == [CANCELLING, CANCELLING, CANCELLING, ERASED]
    assert store.farmers_to_cancel() == dict.fromkeys(FARMERS[:3], 1)
    assert [each.contract_id for each in store.cancelling(FARMERS[0], 10)] == [made[0].contract_id]
    assert store.segment(sid(1)) is not None


def test_cancellations_are_paged_by_farmer(store: AgentStore) -> None:
    made = [place(store, number, stored=1)[0] for number in range(1, 5)]
    store.cancel_stored([*(each.contract_id for each in made), ContractId(bytes(32))])
    listed = store.cancelling(FARMERS[0], 3)
    assert [each.contract_id for each in listed] == sorted(each.contract_id for each in made)[:3]
    assert len(store.cancelling(FARMERS[0], 3, listed[-1].contract_id)) == 1
    assert store.farmers_to_cancel() == {FARMERS[0]: 4}


def test_states_only_move_as_promised(store: AgentStore) -> None:
    made = place(store, 1, stored=1)[0].contract_id
    held = placement(1, 0)
    store.mark_lost([made])
    assert state_of(store, held) == LOST
    store.mark_lost([made])
    store.cancel([made])
    assert state_of(store, held) == CANCELLING
    store.mark_lost([made])
    assert state_of(store, held) == CANCELLING
    store.record_erased([(made, None)], 5)
    store.cancel([made])
    store.mark_lost([made])
    assert state_of(store, held) == ERASED


def test_the_first_erase_receipt_stays(store: AgentStore) -> None:
    made = place(store, 1, stored=1)[0]
    store.record_erased([(made.contract_id, None), (ContractId(bytes(32)), None)], 300)
    store.record_erased([(made.contract_id, erasure(made, 300))], 400)
    store.record_erased([(made.contract_id, erasure(made, 500))], 500)
    held = store.placement(made.contract_id)
    assert held is not None
    assert held.erased == erasure(made, 300)
    assert store.forget(301) == []
    assert store.placement(made.contract_id) is None


def test_released_segments_are_forgotten_when_all_is_erased(store: AgentStore) -> None:
    first, second = place(store, 1, stored=2)
    kept = place(store, 2, stored=1)[0]
    store.release([sid(1)])
    store.record_erased([(first.contract_id, erasure(first)), (kept.contract_id, None)], 300)
    assert store.forget(400) == []
    assert store.placement(first.contract_id) is None
    assert store.segment(sid(1)) is not None
    store.record_erased([(second.contract_id, None)], 400)
    assert store.forget(400) == []
    assert store.forget(401) == [sid(1)]
    assert store.segment(sid(1)) is None
    assert store.segment(sid(2)) is not None


def test_a_dead_farmers_contract_is_forgotten_at_its_end(store: AgentStore) -> None:
    place(store, 1, stored=1, end=1000)
    store.release([sid(1)])
    assert store.forget(1000) == []
    assert store.forget(1001) == [sid(1)]
    assert store.farmers_to_cancel() == {}


def test_a_released_segment_without_placements_is_forgotten(store: AgentStore) -> None:
    store.add_segments([facts(number) for number in (3, 1, 2)])
    store.release([sid(3), sid(1)])
    assert store.forget(0) == [sid(1), sid(3)]


# -- rebuilding


def test_a_lost_database_is_rebuilt_from_what_farmers_say(store: AgentStore) -> None:
    known = replace(facts(1), roots=(root(1, 0), ShardRoot(b""), root(1, 2), *[ShardRoot(b"")] * 3))
    held = [replace(placement(1, index), state=STORED) for index in (0, 2)]
    assert store.adopt([known], held) == 2
    assert store.segment(sid(1)) == known
    more = replace(
        known, policy=Policy(1, 1, 1, 1), total=8, roots=(*facts(1).roots[:2], *[ShardRoot(b"")] * 5, root(1, 7))
    )
    assert store.adopt([more], [held[0], placement(1, 1)]) == 1
    merged = store.segment(sid(1))
    assert merged is not None
    assert merged.policy == POLICY
    assert merged.total == 8
    assert merged.roots == (root(1, 0), root(1, 1), root(1, 2), *[ShardRoot(b"")] * 4, root(1, 7))


def test_adopting_does_not_undo_what_is_known(store: AgentStore) -> None:
    made = place(store, 1, stored=2)
    store.release([sid(1)])
    later = contract(made[0].root, end=20_000, revision=1, origin=made[0].contract_id)
    assert store.adopt([facts(1)], [replace(made[0], contract=later, state=STORED), made[1]]) == 0
    held = store.placement(made[0].contract_id)
    assert held is not None
    assert held.state == CANCELLING
    assert held.contract == later
    with pytest.raises(NotFoundError):
        store.adopt([], [placement(7, 0)])
    assert store.adopt([facts(1)], [placement(1, 5)]) == 1


# -- farmers


def announcement(secret: int, issued: int) -> SignedAnnouncement:
    key = NodeKey.from_secret(bytes([secret]) * 32)
    address = Address(AddressKind.DIRECT, "127.0.0.1", 4000 + secret)
    contact = SignedContact(Contact(1, NetworkId("test"), key.public_key, 0, 1, 1, 0, (address,)), SIGNATURE)
    text = Announcement(contact, issued, 10**9, 10**8, 1, 1, 0, 10**10, 4 << 20, (0,), "", "")
    return SignedAnnouncement(text, SIGNATURE)


def test_the_newest_announcement_of_a_farmer_stays(store: AgentStore) -> None:
    store.save_announcements([announcement(1, 10), announcement(2, 10), announcement(1, 12), announcement(1, 11)])
    store.save_announcements([announcement(2, 9)])
    expected = sorted([announcement(1, 12), announcement(2, 10)], key=lambda each: each.announcement.contact.node_id)
    assert store.announcements() == expected
    assert store.forget_farmers(12) == {announcement(2, 10).node_id}
    assert store.announcements() == [announcement(1, 12)]


def test_nobody_is_forgotten_whom_we_dealt_with(store: AgentStore) -> None:
    announced = [announcement(secret, 10) for secret in range(1, 6)]
    placed, tried, thought_of, unknown, lately = (each.node_id for each in announced)
    announced[4] = announcement(5, 12)
    store.save_announcements(announced)
    store.add_segments([facts(1)])
    store.add_claims([replace(placement(1, 5), farmer=placed)])
    store.note_outcomes([Outcome(tried, OutcomeKind.REACH, ok=False, value=0.0, at_ms=5)])
    store.note_events([(thought_of, Entry(5, Retrieved(True)))])
    assert store.forget_farmers(12) == {unknown}
    assert {each.node_id for each in store.announcements()} == {placed, tried, thought_of, lately}
    assert store.forget_farmers(12) == frozenset()


def test_old_outcomes_fade(store: AgentStore) -> None:
    farmer = FARMERS[0]
    kind = OutcomeKind.CONSIGN
    store.note_outcomes([Outcome(farmer, kind, ok=True, value=100.0, at_ms=0)])
    store.note_outcomes(
        [
            Outcome(farmer, kind, ok=True, value=400.0, at_ms=HALF_LIFE_MS),
            Outcome(farmer, kind, ok=False, value=9.0, at_ms=HALF_LIFE_MS),
            Outcome(farmer, OutcomeKind.REACH, ok=True, value=0.0, at_ms=5),
        ]
    )
    reach, consign = store.farmer_stats(2 * HALF_LIFE_MS)
    assert consign == FarmerStats(
        farmer,
        kind,
        successes=pytest.approx(0.75),
        failures=pytest.approx(0.5),
        value=pytest.approx(300.0),
        failures_in_a_row=1,
        last_ok_ms=HALF_LIFE_MS,
        last_ms=HALF_LIFE_MS,
    )
    assert reach.value == 0.0
    assert reach.successes == pytest.approx(0.25, rel=1e-3)


def test_failures_in_a_row_end_with_a_success(store: AgentStore) -> None:
    bad = Outcome(FARMERS[1], OutcomeKind.CLAIM, ok=False, value=0.0, at_ms=10)
    store.note_outcomes([bad, replace(bad, at_ms=10 + SAME_FAILURE_MS)])
    assert store.farmer_stats(10)[0].failures_in_a_row == 2
    store.note_outcomes([replace(bad, ok=True, at_ms=3)])
    stats = store.farmer_stats(0)[0]
    assert (stats.failures_in_a_row, stats.successes, stats.last_ok_ms) == (0, 1.0, 3)
    assert stats.failures == pytest.approx(2.0, rel=1e-3)


def test_failures_close_together_are_one_in_a_row(store: AgentStore) -> None:
    """A farmer that restarts breaks all its transfers at once, and should not rest for hours for it."""
    bad = Outcome(FARMERS[1], OutcomeKind.CONSIGN, ok=False, value=0.0, at_ms=10)
    store.note_outcomes([replace(bad, at_ms=10 + step) for step in range(20)])
    store.note_outcomes([replace(bad, at_ms=9 + SAME_FAILURE_MS)])
    stats = store.farmer_stats(10)[0]
    assert (stats.failures_in_a_row, stats.failures) == (1, pytest.approx(21.0, rel=1e-3))


def test_counts_are_sums_over_what_is_held(store: AgentStore) -> None:
    empty = store.counts()
    assert (empty.segments, empty.wanting, empty.stored_bytes, empty.placements) == (0, 0, 0, {})
    place(store, 1, stored=5)
    place(store, 2, stored=4)
    place(store, 3, stored=2, claimed=1)
    place(store, 4, stored=1)
    place(store, 5, stored=1)
    store.release([sid(5)])
    store.save_announcements([announcement(1, 1)])
    counts = store.counts()
    assert (counts.segments, counts.released, counts.wanting) == (4, 1, 3)
    assert (counts.endangered, counts.unreadable, counts.farmers) == (2, 1, 1)
    assert counts.placements == {CLAIMED: 1, STORED: 12, CANCELLING: 1}
    assert counts.stored_bytes == 12 * 65536


def test_a_batch_larger_than_any_in_list(store: AgentStore) -> None:
    store.add_segments([facts(number) for number in range(1, 151)])
    made = [placement(number, index) for number in range(1, 151) for index in range(5)]
    store.add_claims(made)
    store.record_receipts([receipt(each) for each in made])
    assert sum(map(len, store.placements([sid(number) for number in range(1, 151)]).values())) == 750
    store.release([sid(number) for number in range(1, 151)])
    assert sum(store.farmers_to_cancel().values()) == 750
    store.record_erased([(each.contract_id, erasure(each)) for each in made], 5)
    assert len(store.forget(6)) == 150
