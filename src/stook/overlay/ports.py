"""What other parts may ask of the overlay, and what the overlay asks of its own node (`docs/protocol/overlay.md`).

`Overlay` is fulfilled by `stook.overlay.service.OverlayNode`. Everything it returns was verified: contacts answered
over a session that we opened, records are signed by their publishers and not expired.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from stook.chore import Chore
from stook.identity.contact import SignedContact
from stook.ids import NodeId
from stook.overlay.records import OverlayKey, SignedRecord
from stook.wire.endpoint import Peer

RecordSource = Callable[[], Awaitable[Sequence[SignedRecord]]]
"""Gives a node's own records as they are now, for example its contact and its announcement."""


class Overlay(Protocol):
    """One node's door to the network. Use it on one event loop."""

    @property
    def node_id(self) -> NodeId:
        """Whose it is."""
        ...

    @property
    def chores(self) -> Mapping[str, Chore]:
        """The background loops by name, to pause and to step: check, refresh, rejoin, replicate, publish, remember."""
        ...

    async def start(self) -> None:
        """Serve (a member), load what was remembered, let the chores run. A member joins in the background, at once."""
        ...

    async def stop(self) -> None:
        """End chores and lookups and write the contacts file. The endpoint stays open."""
        ...

    async def join(self, seeds: Sequence[Peer] = ()) -> int:
        """Enter the network through these seeds, the node's own seeds, and remembered contacts.

        Returns how many contacts are in the table afterwards; 0 means that nobody answered. Never raises for peers.
        """
        ...

    async def find_node(self, target: NodeId) -> tuple[SignedContact, ...]:
        """The contacts nearest `target`, nearest first, at most 20, each of which has just answered."""
        ...

    async def find_value(self, key: OverlayKey) -> tuple[SignedRecord, ...]:
        """The newest record of each publisher under `key`, newest first; two of one only where equal sequences differ.

        Empty when there is none. Withdrawn ones (empty body) are left out.
        """
        ...

    async def store(self, record: SignedRecord) -> int:
        """Bring a record to the nodes nearest its key; how many keep it. Raises `MisbehaviourError` for a bad one."""
        ...

    def add_source(self, source: RecordSource) -> None:
        """Let the `publish` chore bring these records now, when they change, and again before they expire."""
        ...

    def neighbours(self) -> tuple[SignedContact, ...]:
        """Verified contacts of the table, nearest to the node's own id first: whom to gossip with."""
        ...

    def closest(self, target: bytes, count: int) -> tuple[SignedContact, ...]:
        """What the table alone knows near `target`, without asking anybody."""
        ...

    async def sample(self, count: int) -> tuple[SignedContact, ...]:
        """Contacts from all over the network, by lookups of random ids, so that no region is preferred."""
        ...


class OverlayMemory(Protocol):
    """What a node's overlay remembers over a restart. Calls block; the service makes them off the loop."""

    def contacts(self) -> tuple[SignedContact, ...]:
        """The contacts saved last; empty when none were, or when the file is damaged."""
        ...

    def save_contacts(self, contacts: Sequence[SignedContact]) -> None:
        """Put these in the place of those saved before, whole or not at all."""
        ...

    def records(self) -> tuple[SignedRecord, ...]:
        """Every record that was saved and not dropped; damaged ones are left out."""
        ...

    def save_record(self, record: SignedRecord) -> None:
        """Keep a record durably, in the place of one of the same key and publisher."""
        ...

    def drop_record(self, record: SignedRecord) -> None:
        """Forget a record of this key and publisher; nothing happens when there is none."""
        ...
