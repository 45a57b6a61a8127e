from __future__ import annotations

from itertools import product

import pytest

from stook.contracts.lifecycle import OVER, RESERVING, STEPS, ContractState, Event, IllegalStepError, allows, apply


@pytest.mark.parametrize(("state", "event"), list(product(ContractState, Event)))
def test_every_pair_is_in_the_table_or_refused(state: ContractState, event: Event) -> None:
    if (state, event) in STEPS:
        assert allows(state, event)
        assert apply(state, event) is STEPS[state, event]
    else:
        assert not allows(state, event)
        with pytest.raises(IllegalStepError, match=event.value) as caught:
            apply(state, event)
        assert (caught.value.state, caught.value.event) == (state, event)


def test_the_main_road() -> None:
    state = ContractState.DRAFT
    for event in (Event.OFFER, Event.COUNTERSIGN, Event.CONSIGN, Event.CONSIGN, Event.STORE, Event.RENEW, Event.END):
        state = apply(state, event)
    assert state is ContractState.ENDED


def test_what_is_over_has_no_step_and_everything_else_can_be_given_up() -> None:
    for state in ContractState:
        assert (state in OVER) == (not any(allows(state, event) for event in Event))
        assert (state in OVER) != allows(state, Event.CANCEL)


def test_only_a_reservation_lapses_and_only_what_is_stored_is_lost_or_renewed() -> None:
    assert {state for state, event in STEPS if event is Event.LAPSE} == RESERVING
    for event in (Event.LOSE, Event.RENEW):
        assert {state for state, step in STEPS if step is event} == {ContractState.ACTIVE}


def test_every_state_can_be_reached_from_a_draft() -> None:
    reached = {ContractState.DRAFT}
    while more := {after for (state, _), after in STEPS.items() if state in reached} - reached:
        reached |= more
    assert reached == set(ContractState)


def test_stored_values_never_change() -> None:
    assert [state.value for state in ContractState] == [
        "draft",
        "offered",
        "countersigned",
        "consigned",
        "active",
        "ended",
        "cancelled",
        "lost",
    ]
