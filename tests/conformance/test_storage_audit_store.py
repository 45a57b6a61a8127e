"""What every store promises of audits and repair (`stook.storage.agent_audit_ports.AuditStore`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from test_storage_agent_store import FARMERS, contract, facts, place, placement, receipt, sid, store

import audit_store_samples as samples
from stook.audits.allowance import Allowance
from stook.audits.containment import Containment, Silence
from stook.audits.score import NEWCOMER, Audited, DeclaredLoss, Entry, Heartbeat, Retrieved, explain, update
from stook.audits.score import Beat as Came
from stook.contracts.contract import Contract
from stook.contracts.messages import Renew
from stook.contracts.verdict import Verdict
from stook.errors import ConflictError
from stook.ids import Signature
from stook.storage.agent_audit_ports import (
    Dossier,
    FarmerChange,
    FlightRow,
    HealthCounts,
    OpenChallenge,
    Proof,
)
from stook.storage.agent_store import SqlAgentStore
from stook.storage.renter_ports import AgentStore, Placement, PlacementState

__all__ = ["store"]

CLAIMED, STORED, CANCELLING, ERASED, LOST = PlacementState
ME = FARMERS[0]
PASSED = Entry(100, Audited(Verdict.PASSED))
THERE = Entry(200, Heartbeat(Came.ANSWERED))


def states(store: AgentStore, segment: int) -> list[PlacementState]:
    return [each.state for each in store.placements([sid(segment)])[sid(segment)]]


def test_events_move_a_score_and_can_be_told_again(store: AgentStore) -> None:
    assert store.dossier(ME) == Dossier(ME)
    store.note_events([(ME, PASSED), (FARMERS[1], THERE)])
    store.note_events([(ME, Entry(300, Retrieved(False)))])
    assert store.history(ME) == [PASSED, Entry(300, Retrieved(False))]
    assert store.dossier(ME).score == explain(store.history(ME)).score
    assert store.dossier(ME).known_ms == 100
    assert [each.farmer for each in store.dossiers()] == FARMERS[:2]


def test_folding_history_leaves_the_score(store: AgentStore) -> None:
    store.note_events([(ME, PASSED), (ME, THERE)])
    before = store.dossier(ME).score
    assert store.fold_history(200) == 1
    dossier = store.dossier(ME)
    assert (dossier.score, dossier.base) == (before, update(NEWCOMER, PASSED.event, 100))
    assert store.history(ME) == [THERE]
    assert store.fold_history(200) == 0


def test_a_change_is_kept_and_touches_nothing_else(store: AgentStore) -> None:
    silence = Containment(Silence.CONTAINED, b"what", 1, 2, 3, 1, True, 4, 5, 6, 7)
    store.change(FarmerChange(ME, entries=(THERE,), silence=silence, next_due_ms=9, beat_ms=200))
    store.change(FarmerChange(ME, first_due_ms=8, heard_ms=200))
    score = update(NEWCOMER, THERE.event, 200)
    assert store.dossier(ME) == Dossier(ME, score, NEWCOMER, silence, 9, 8, 200, 200, 200)


def test_a_challenge_is_open_until_it_is_closed(store: AgentStore) -> None:
    held = place(store, 1, 2, farmer=0)
    asked = samples.opened(ME, held, first=True)
    store.change(FarmerChange(ME, opened=asked))
    assert store.open_challenges() == [asked]
    store.change(FarmerChange(ME, opened=samples.opened(ME, held, 2)))
    assert [each.signed.challenge.nonce[0] for each in store.open_challenges()] == [2]
    store.change(FarmerChange(ME, closed=True))
    assert store.open_challenges() == []


def test_nobody_is_asked_about_what_was_given_up(store: AgentStore) -> None:
    held = place(store, 1, 2, farmer=0)
    store.cancel_stored([held[0].contract_id])
    with pytest.raises(ConflictError):
        store.change(FarmerChange(ME, opened=samples.opened(ME, held), next_due_ms=5))
    assert store.open_challenges() == []
    assert store.dossier(ME) == Dossier(ME)
    with pytest.raises(ConflictError):
        store.change(FarmerChange(FARMERS[1], opened=samples.opened(FARMERS[1], held[1:])))


def test_a_repeat_may_ask_about_what_is_lost_or_to_be_cancelled(store: AgentStore) -> None:
    from stook.audits.challenge import repeat_challenge

    held = place(store, 1, 3, farmer=0)
    earlier = samples.challenge(held).challenge
    again = repeat_challenge(
        earlier,
        {each.contract_id for each in held},
        samples.RENTER,
        nonce=b"n" * 32,
        now_ms=900,
        answer_within_ms=10,
    )
    store.cancel_stored([held[0].contract_id])
    store.mark_lost([held[1].contract_id])
    store.change(FarmerChange(ME, opened=OpenChallenge(ME, again)))
    store.record_erased([(held[2].contract_id, None)], 5)
    with pytest.raises(ConflictError):
        store.change(FarmerChange(ME, opened=OpenChallenge(ME, again)))


def test_a_first_audit_proves_what_it_names_and_a_round_what_was_proved_before(store: AgentStore) -> None:
    held = place(store, 1, 3, farmer=0)
    (before,) = store.totals()
    assert (before.shards, before.new_shards, before.size_bytes, before.new_bytes) == (3, 3, 3 * 65536, 3 * 65536)
    assert (before.new_since_ms, before.terms[0].interval_ms, before.terms[0].leaves_per_interval) == (200, 1000, 12)
    store.change(FarmerChange(ME, proved=Proof(700, (held[0].contract_id, held[1].contract_id))))
    (after,) = store.totals()
    assert (after.new_shards, after.new_bytes, after.new_since_ms) == (1, 65536, 200)
    store.change(FarmerChange(ME, proved=Proof(800)))
    store.change(FarmerChange(ME, proved=Proof(600)))
    assert sorted(each.proved_ms for each in store.stored_at(ME)) == [0, 800, 800]
    assert {each.stored_ms for each in store.stored_at(ME)} == {200}


def test_a_declared_loss_is_noted_once_and_counted_once(store: AgentStore) -> None:
    held = place(store, 1, 3, 1, farmer=0)
    first = [samples.loss(each) for each in held[2:]]
    assert store.note_losses(ME, first, 650) == first
    assert store.history(ME) == [Entry(650, DeclaredLoss(1, 3))]
    assert states(store, 1) == [STORED, STORED, LOST, LOST]
    again = [samples.loss(held[2], 900), samples.loss(held[1], 900)]
    assert store.note_losses(ME, again, 910) == [first[0], again[1]]
    assert store.history(ME)[1:] == [Entry(910, DeclaredLoss(1, 2))]
    assert store.noted_losses([held[0].contract_id, held[1].contract_id]) == {held[1].contract_id: again[1]}


def test_gone_and_back_again(store: AgentStore) -> None:
    held = place(store, 1, 2, 1, farmer=0)
    store.note_losses(ME, [samples.loss(held[0])], 650)
    store.change(FarmerChange(ME, proved=Proof(700, (held[1].contract_id,))))
    store.change(FarmerChange(ME, all_lost=True))
    assert states(store, 1) == [LOST, LOST, CLAIMED]
    store.change(FarmerChange(ME, returned=True))
    assert states(store, 1) == [LOST, STORED, CLAIMED]
    (back,) = store.stored_at(ME)
    assert (back.stored_ms, back.proved_ms) == (0, 0)
    assert store.health(1, ()) == HealthCounts(0, 0, 0, 1)


def test_receipts_are_kept_told_and_forgotten(store: AgentStore) -> None:
    held = place(store, 1, 1, farmer=0)
    rounds = [
        samples.kept(samples.opened(ME, held, number), 700 + number, outcome)
        for number, outcome in ((1, Verdict.PASSED), (2, Verdict.FAILED), (3, Verdict.SILENT))
    ]
    for each in rounds:
        store.change(FarmerChange(ME, receipt=each))
    assert store.receipts(ME, 2) == [rounds[2], rounds[1]]
    assert store.receipts(FARMERS[1], 9) == []
    assert store.unsent_receipts(ME, 9) == rounds
    store.change(FarmerChange(ME, delivered=(rounds[0].challenge,)))
    assert store.unsent_receipts(ME, 1) == [rounds[1]]
    assert store.receipts(None, 9)[-1] == samples.delivered(rounds[0])
    assert store.rounds_since(702) == {Verdict.FAILED: 1, Verdict.SILENT: 1}
    assert store.forget_receipts(10_000) == 2
    assert store.receipts(None, 9) == [rounds[1]]


def test_allowances_and_outages_are_kept(store: AgentStore) -> None:
    assert store.allowance("repair") is None
    spent = Allowance.full(64 << 30, 5).spend(2**40, 9)
    store.change(allowances={"repair": spent})
    assert store.allowance("repair") == spent
    store.note_outage(10, 20)
    store.note_outage(10, 30)
    store.note_outage(10, 25)
    store.note_outage(5, 6)
    assert store.outages() == [(5, 6), (10, 30)]


def test_no_shard_is_brought_twice_at_once(store: AgentStore) -> None:
    one, two = (FlightRow(sid(1), index, 0, 100, b"a") for index in (0, 1))
    assert store.begin_flights([one], 0)
    assert not store.begin_flights([two, one], 50)
    assert store.flights([sid(1), sid(2)]) == {sid(1): (one,)}
    assert store.begin_flights([two, one], 101)
    store.end_flights([one])
    assert store.flights([sid(1)]) == {sid(1): (two,)}
    assert store.drop_flights(b"b") == 0
    assert store.drop_flights(b"a") == 1
    assert store.flights([sid(1)]) == {}


def test_what_is_short_is_found_by_what_is_proved(store: AgentStore) -> None:
    place(store, 1, 5)
    place(store, 2, 4)
    assert store.segments_short(100, (), 1, 9, b"") == [sid(2)]
    assert store.health(100, ()) == HealthCounts(1, 1, 0, 0)
    # Segment 1 was whole once: it is left alone until it is below r.
    assert store.segments_short(100, FARMERS[:2], 1, 9, b"") == [sid(2)]
    assert store.segments_short(100, FARMERS[:3], 1, 9, b"") == [sid(1), sid(2)]
    assert store.segments_short(100, FARMERS[:3], 1, 9, sid(1)) == [sid(2)]
    assert store.health(100, FARMERS[:3]) == HealthCounts(0, 0, 1, 1)
    assert store.segments_short(201, (), 1, 1, b"") == [sid(1)]
    store.change(*(FarmerChange(farmer, proved=Proof(300, ids)) for farmer, ids in by_farmer(store, 1).items()))
    assert store.segments_short(201, (), 1, 9, b"") == [sid(2)]
    assert store.segments_short(201, (), 2, 9, b"") == [sid(1), sid(2)]
    store.release([sid(2)])
    assert store.segments_short(201, (), 1, 9, b"") == []


def by_farmer(store: AgentStore, segment: int) -> dict:  # type: ignore[type-arg]
    return {each.farmer: (each.contract_id,) for each in store.placements([sid(segment)])[sid(segment)]}


def test_what_is_lost_goes_when_it_is_replaced(store: AgentStore) -> None:
    held = place(store, 1, 2)
    store.mark_lost([held[0].contract_id])
    assert store.lost_and_replaced(9) == []
    other = placement(1, 0, farmer=4)
    store.add_claims([other])
    assert store.lost_and_replaced(9) == []
    store.record_receipts([receipt(other)])
    assert store.lost_and_replaced(9) == [held[0].contract_id]
    store.cancel([held[0].contract_id])
    assert store.lost_and_replaced(9) == []


def test_the_later_of_two_is_surplus_once_the_earlier_is_proved_again(store: AgentStore) -> None:
    (first,) = place(store, 1, 1, farmer=0)
    later = placement(1, 0, farmer=4)
    store.add_claims([later])
    signed = receipt(later)
    store.record_receipts([structs.replace(signed, receipt=structs.replace(signed.receipt, stored_at_ms=300))])
    assert store.surplus((), 9) == []
    store.change(FarmerChange(ME, proved=Proof(300, (first.contract_id,))))
    assert store.surplus((), 9) == []
    store.change(FarmerChange(ME, proved=Proof(301, (first.contract_id,))))
    assert store.surplus((), 9) == [later.contract_id]
    assert store.surplus([FARMERS[4]], 9) == store.surplus([ME], 9) == []
    store.change(FarmerChange(FARMERS[4], proved=Proof(999, (later.contract_id,))))
    store.cancel_stored(store.surplus((), 9))
    assert store.placement(first.contract_id).state is STORED  # type: ignore[union-attr]
    assert store.placement(later.contract_id).state is CANCELLING  # type: ignore[union-attr]
    assert store.surplus((), 9) == []


def test_a_new_receipt_of_a_lost_shard_starts_anew(store: AgentStore) -> None:
    (held,) = place(store, 1, 1, farmer=0)
    store.change(FarmerChange(ME, proved=Proof(700, (held.contract_id,))))
    store.mark_lost([held.contract_id])
    store.record_receipts([receipt(held)])
    (again,) = store.stored_at(ME)
    assert (again.stored_ms, again.proved_ms) == (200, 0)


def test_all_of_it_outlives_the_process(tmp_path: Path) -> None:
    store = SqlAgentStore.open(tmp_path / "agent.db")
    held = place(store, 1, 2, farmer=0)
    asked = samples.opened(ME, held)
    store.change(FarmerChange(ME, entries=(PASSED,), opened=asked, receipt=samples.kept(asked, 800)))
    store.begin_flights([FlightRow(sid(1), 3, 0, 5, b"me")], 0)
    store.close()
    store = SqlAgentStore.open(tmp_path / "agent.db")
    assert store.open_challenges() == [asked]
    assert store.receipts(ME, 1) == [samples.kept(asked, 800)]
    assert store.history(ME) == [PASSED]
    assert store.flights([sid(1)])[sid(1)][0].owner == b"me"
    assert facts(1) == store.segment(sid(1))
    store.close()


# -- renewing and giving up: `stook.storage.agent_upkeep_ports.UpkeepStore`


def renewal(of: Placement, revision: int = 1, end: int = 20_000) -> Renew:
    terms = contract(of.root, end=end, revision=revision, origin=of.contract_id).terms
    return Renew(terms, Signature(b"s" * 64), Signature(b""))


def test_the_request_that_was_kept_first_is_asked(store: AgentStore) -> None:
    held, other = place(store, 1, 2)
    first, second = renewal(held), renewal(held, end=30_000)
    assert store.ask_renewal(first) == first
    assert store.ask_renewal(second) == first
    assert store.renewals([held.contract_id, other.contract_id]) == {held.contract_id: first}
    store.drop_renewal(second)
    assert store.ask_renewal(second) == first
    store.drop_renewal(first)
    assert store.ask_renewal(second) == second
    store.renew([Contract(second.terms, Signature(b"f" * 64), second.renter_signature)])
    assert store.renewals([held.contract_id]) == {}
    assert store.ask_renewal(first) is None
    third = renewal(held, revision=2)
    assert store.ask_renewal(third) == third


def test_nobody_asks_about_what_is_not_stored(store: AgentStore) -> None:
    claimed = place(store, 1, stored=0, claimed=1)[0]
    held = place(store, 2, 1)[0]
    asked = renewal(held)
    assert store.ask_renewal(renewal(claimed)) is None
    assert store.ask_renewal(renewal(held, revision=2)) is None
    assert store.ask_renewal(asked) == asked
    store.cancel_stored([held.contract_id])
    assert store.ask_renewal(asked) is None
    store.forget(0)
    assert store.renewals([held.contract_id]) == {}


def test_a_renewal_that_farmers_told_of_is_answered(store: AgentStore) -> None:
    held = place(store, 1, 1)[0]
    asked = renewal(held)
    store.ask_renewal(asked)
    told = Contract(asked.terms, Signature(b"f" * 64), asked.renter_signature)
    store.adopt([], [replace(held, contract=told)])
    assert store.renewals([held.contract_id]) == {}


def test_what_ends_is_paged_through_though_some_is_renewed(store: AgentStore) -> None:
    made = [place(store, number, 1, end=900 + number % 2)[0] for number in range(1, 6)]
    first = store.ending(1000, 2)
    terms = contract(first[1].root, end=20_000, revision=1, origin=first[1].contract_id)
    store.renew([terms])
    rest = store.ending(1000, 9, first[1])
    assert sorted(each.contract_id for each in first + rest) == sorted(each.contract_id for each in made)
    assert store.ending(1000, 9, rest[-1]) == []


def twice(store: AgentStore, end: int = 10_000) -> tuple[Placement, Placement]:
    """One shard at two farmers; the first was proved after the second had it."""
    (first,) = place(store, 1, 1, farmer=0, end=end)
    later = placement(1, 0, farmer=4)
    store.add_claims([later])
    signed = receipt(later)
    store.record_receipts([structs.replace(signed, receipt=structs.replace(signed.receipt, stored_at_ms=300))])
    store.change(FarmerChange(ME, proved=Proof(400, (first.contract_id,))))
    return first, later


def state(store: AgentStore, of: Placement) -> PlacementState:
    found = store.placement(of.contract_id)
    assert found is not None
    return found.state


def test_surplus_is_given_up_by_what_is_true_when_it_is_written(store: AgentStore) -> None:
    first, later = twice(store)
    mute = Containment(Silence.CONTAINED, b"what", 1, 2, 3, 1, True, 4, 5, 6, 7)
    store.change(FarmerChange(ME, silence=mute))
    assert store.surplus((), 9) == [later.contract_id]
    assert store.cancel_surplus(0, 9) == []
    store.change(FarmerChange(ME, silence=Containment(), leaving_by_ms=5))
    assert store.dossier(ME).leaving_by_ms == 5
    assert store.cancel_surplus(0, 9) == []
    store.change(FarmerChange(ME, leaving_by_ms=0))
    assert store.cancel_surplus(10_000, 9) == [], "the first lapses"
    assert store.cancel_surplus(0, 9, 300) == [], "the later is too young"
    assert store.cancel_surplus(9_999, 9) == [later.contract_id]
    assert (state(store, first), state(store, later)) == (STORED, CANCELLING)
    assert store.cancel_surplus(0, 9) == []


def test_what_was_moved_is_given_up_where_farmers_leave(store: AgentStore) -> None:
    first, later = twice(store)
    names = [first.contract_id, later.contract_id]
    store.change(FarmerChange(FARMERS[4], proved=Proof(500, (later.contract_id,))))
    assert store.cancel_moved(names, 0) == [], "nobody leaves"
    store.change(FarmerChange(ME, leaving_by_ms=5), FarmerChange(FARMERS[4], leaving_by_ms=5))
    assert store.cancel_moved(names, 0) == [], "both do"
    store.change(FarmerChange(FARMERS[4], leaving_by_ms=0))
    assert store.cancel_moved(names, 10_000) == [], "it ends there soon"
    assert store.cancel_moved(names, 0) == [first.contract_id]
    assert store.cancel_moved(names, 0) == store.cancel_moved([], 0) == []
    assert (state(store, first), state(store, later)) == (CANCELLING, STORED)


def test_nothing_is_moved_to_where_it_was_not_proved(store: AgentStore) -> None:
    first, later = twice(store)
    store.change(FarmerChange(ME, leaving_by_ms=5))
    assert store.cancel_moved([first.contract_id, later.contract_id], 0) == []


def test_what_is_replaced_is_given_up_while_it_is_replaced(store: AgentStore) -> None:
    first, later = twice(store)
    assert store.cancel_replaced(9) == []
    store.mark_lost([first.contract_id])
    assert store.cancel_replaced(9) == [first.contract_id]
    assert (state(store, first), state(store, later)) == (CANCELLING, STORED)
    store.mark_lost([later.contract_id])
    assert store.cancel_replaced(9) == []


def test_what_ended_goes(store: AgentStore) -> None:
    held = place(store, 1, 2, claimed=1, end=800)
    lasting = place(store, 2, 1, end=801)[0]
    store.mark_lost([held[1].contract_id])
    store.record_erased([(held[0].contract_id, None)], 1)
    assert store.expire(800) == 0
    assert store.expire(801) == 2
    assert states(store, 1) == [CANCELLING, CANCELLING]
    assert state(store, lasting) is STORED


def test_what_lapses_does_not_count(store: AgentStore) -> None:
    place(store, 1, 5, end=900)
    assert store.segments_short(0, (), 1, 9, b"", 899) == []
    assert store.health(0, (), 899) == HealthCounts(1, 0, 0, 0)
    assert store.segments_short(0, (), 1, 9, b"", 900) == [sid(1)]
    assert store.health(0, (), 900) == HealthCounts(0, 0, 0, 1)
