"""Which step of a contract is legal next. Renter and farmer run the same table, each over its own copy.

::

    DRAFT -offer-> OFFERED -countersign-> COUNTERSIGNED -consign-> CONSIGNED -store-> ACTIVE -end-> ENDED

A renewal is an event, not a state: it raises the revision of the terms and leaves the contract ACTIVE. The full diagram
is in `docs/protocol/contracts.md`, and a test compares it with `STEPS`.
"""

from __future__ import annotations

import enum
from types import MappingProxyType

from stook.errors import BugError


class ContractState(enum.StrEnum):
    """Where a contract stands. Values are stored by farmers and agents and never change."""

    DRAFT = "draft"
    """Terms of the renter; nobody signed."""
    OFFERED = "offered"
    """The farmer signed and keeps the space free until consign-by."""
    COUNTERSIGNED = "countersigned"
    """Both signed."""
    CONSIGNED = "consigned"
    """The farmer holds both signatures; the shard is on its way."""
    ACTIVE = "active"
    """The shard is stored and receipted."""
    ENDED = "ended"
    """Its time is over."""
    CANCELLED = "cancelled"
    """Given up before its end, by either side or by passing consign-by without data."""
    LOST = "lost"
    """The farmer declared, or was proved, not to hold the shard any more."""


class Event(enum.StrEnum):
    """What can happen to a contract."""

    OFFER = "offer"
    """The farmer's signature over the terms exists (farmer: reserved durably; renter: verified)."""
    DECLINE = "decline"
    """The farmer refused the draft."""
    COUNTERSIGN = "countersign"
    """The renter's signature over the same terms exists."""
    CONSIGN = "consign"
    """The countersigned contract was shown to the farmer and data may flow; again: the transfer is resumed."""
    STORE = "store"
    """Every unit is verified and synced, and the storage receipt is signed."""
    RENEW = "renew"
    """Both signed the next revision of the terms."""
    LAPSE = "lapse"
    """Consign-by passed before the shard was stored."""
    CANCEL = "cancel"
    """The renter gave it up."""
    LOSE = "lose"
    """The shard is gone at the farmer."""
    END = "end"
    """The end of the terms passed."""


class IllegalStepError(BugError):
    """A step the table does not have. Callers judge what a peer asks with `allows` before they apply it."""

    def __init__(self, state: ContractState, event: Event) -> None:
        super().__init__(f"a contract that is {state.value} has no step {event.value!r}")
        self.state = state
        self.event = event


STEPS = MappingProxyType(
    {
        (ContractState.DRAFT, Event.OFFER): ContractState.OFFERED,
        (ContractState.DRAFT, Event.DECLINE): ContractState.CANCELLED,
        (ContractState.DRAFT, Event.CANCEL): ContractState.CANCELLED,
        (ContractState.OFFERED, Event.COUNTERSIGN): ContractState.COUNTERSIGNED,
        (ContractState.OFFERED, Event.LAPSE): ContractState.CANCELLED,
        (ContractState.OFFERED, Event.CANCEL): ContractState.CANCELLED,
        (ContractState.COUNTERSIGNED, Event.CONSIGN): ContractState.CONSIGNED,
        (ContractState.COUNTERSIGNED, Event.LAPSE): ContractState.CANCELLED,
        (ContractState.COUNTERSIGNED, Event.CANCEL): ContractState.CANCELLED,
        (ContractState.CONSIGNED, Event.CONSIGN): ContractState.CONSIGNED,
        (ContractState.CONSIGNED, Event.STORE): ContractState.ACTIVE,
        (ContractState.CONSIGNED, Event.LAPSE): ContractState.CANCELLED,
        (ContractState.CONSIGNED, Event.CANCEL): ContractState.CANCELLED,
        (ContractState.ACTIVE, Event.RENEW): ContractState.ACTIVE,
        (ContractState.ACTIVE, Event.LOSE): ContractState.LOST,
        (ContractState.ACTIVE, Event.CANCEL): ContractState.CANCELLED,
        (ContractState.ACTIVE, Event.END): ContractState.ENDED,
        (ContractState.LOST, Event.CANCEL): ContractState.CANCELLED,
        (ContractState.LOST, Event.END): ContractState.ENDED,
    }
)
"""The whole machine: what is not here is illegal."""

RESERVING = frozenset({ContractState.OFFERED, ContractState.COUNTERSIGNED, ContractState.CONSIGNED})
"""States in which a farmer keeps space free for a shard it does not hold yet."""
OVER = frozenset({ContractState.ENDED, ContractState.CANCELLED})
"""States with no further step: what was held may be erased and the contract forgotten."""


def allows(state: ContractState, event: Event) -> bool:
    """Whether `event` is a legal step from `state`."""
    return (state, event) in STEPS


def apply(state: ContractState, event: Event) -> ContractState:
    """The state after `event`. Raises `IllegalStepError` when the table has no such step."""
    try:
        return STEPS[state, event]
    except KeyError:
        raise IllegalStepError(state, event) from None
