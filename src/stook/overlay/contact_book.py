"""Whom a node knows: the newest signed announcement of each farmer, so many and no more, none of them older than a day.

A value without sockets or clocks: every call takes the time and returns what was decided and why. Nothing enters
unverified, and no one network (/24, /48, domain) can fill it (`docs/protocol/directory.md`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from stook.codec import encode
from stook.contracts.announcement import (
    ANNOUNCEMENT_LIFE_MS,
    MAX_CLOCK_SKEW_MS,
    SignedAnnouncement,
    verify_announcement,
)
from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.identity.contact import Address, AddressKind, ip_network_of
from stook.identity.envelope import MAX_PAYLOAD_BYTES
from stook.identity.pow import puzzle_bits
from stook.ids import NetworkId, NodeId

MAX_ANNOUNCEMENT_BYTES = 8192
MAX_LIST_BYTES = MAX_PAYLOAD_BYTES - 2 * MAX_ANNOUNCEMENT_BYTES
"""What `some` returns at most in encoded bytes; leaves room in one message for the answering node's own."""


@dataclass(frozen=True, slots=True)
class BookLimits:
    """How much a book holds, and what it asks of an entry."""

    max_nodes: int = 4096
    max_per_network: int | None = 32
    """Nodes of one /24, /48 or registered domain; None where all share one, as on one machine."""
    max_age_ms: int = ANNOUNCEMENT_LIFE_MS
    puzzle_bits: int = 0

    def __post_init__(self) -> None:
        if self.max_nodes < 1 or self.max_age_ms < 1 or (self.max_per_network is not None and self.max_per_network < 1):
            raise ValueError("a contact book holds at least one node, of each network, for at least a millisecond")


class Outcome(enum.Enum):
    """What became of an announcement that was offered."""

    ADDED = "added"
    UPDATED = "updated"
    KNOWN = "known"
    """The same or a newer one is in the book already; nothing changed."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome; for REFUSED the code and a sentence; and who had to leave to make room."""

    outcome: Outcome
    code: ReasonCode | None = None
    reason: str = ""
    evicted: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    node_id: NodeId
    signed: SignedAnnouncement
    size_bytes: int
    networks: frozenset[str]
    reached: str
    """The network of the address at which the node was reached; empty: never."""

    @property
    def rank(self) -> tuple[int, int]:
        """Of two announcements of one node the one with the higher rank is newer."""
        announcement = self.signed.announcement
        return announcement.contact.contact.sequence, announcement.issued_ms

    @property
    def issued_ms(self) -> int:
        return self.signed.announcement.issued_ms

    def is_proven(self, network: str | None) -> bool:
        """Whether the node was reached in `network`; anywhere, when None."""
        return self.reached != "" if network is None else self.reached == network


def network_group(host: str) -> str:
    """The network a host belongs to: its IPv4 /24, IPv6 /48, or the last two labels of its name.

    Whoever owns a domain has as many names in it as he likes, so a whole domain counts as one.
    """
    return ip_network_of(host) or ".".join(host.lower().rstrip(".").split(".")[-2:])


def _networks(addresses: Iterable[Address]) -> frozenset[str]:
    return frozenset(network_group(address.host) for address in addresses)


class ContactBook:
    """The announcements one node knows. Not safe for use from several threads at once."""

    def __init__(self, network: NetworkId, limits: BookLimits = BookLimits()) -> None:
        self._network = network
        self._limits = limits
        self._entries: dict[NodeId, _Entry] = {}
        self._per_network: dict[str, set[NodeId]] = {}
        self._full_until_ms = 0

    def __len__(self) -> int:
        return len(self._entries)

    # --- in ----------------------------------------------------------------------------------------------------------

    def offer(self, signed: SignedAnnouncement, *, now_ms: int, reached_at: Address | None = None) -> Decision:
        """Judge an announcement and keep it if it is good, newer than what is known, and there is room.

        `reached_at` is the one of its addresses at which the caller has just spoken with this node. Anybody can name
        addresses in a stranger's network, so only in the network where it was reached does a node have a right to its
        place: there it displaces nodes that were not, and is displaced by nobody, except by age.
        """
        contact = signed.announcement.contact.contact
        node_id = signed.node_id
        size_bytes = len(encode(signed))
        refusal = self._judge(signed, size_bytes, now_ms)
        if refusal is not None:
            return Decision(Outcome.REFUSED, *refusal)
        known = self._entries.get(node_id)
        proven = network_group(reached_at.host) if reached_at is not None and reached_at in contact.addresses else ""
        entry = _Entry(node_id, signed, size_bytes, _networks(contact.addresses), proven)
        if known is not None and entry.rank <= known.rank:
            if proven and known.signed == signed:
                self._entries[node_id] = replace(known, reached=proven)
            return Decision(Outcome.KNOWN)
        try:
            verify_announcement(signed, network=self._network, now_ms=now_ms)
        except MisbehaviourError as error:
            return Decision(Outcome.REFUSED, error.code, str(error))
        return self._admit(entry, known, now_ms)

    def add(self, announcement: SignedAnnouncement, *, now_ms: int) -> bool:
        """`offer` for callers that answer a peer: True when the book changed, False when nothing newer was said.

        Raises `RefusedError` (RATE_LIMITED) when there is no room, `MisbehaviourError` for every other refusal.
        """
        decision = self.offer(announcement, now_ms=now_ms)
        if decision.code is None:
            return decision.outcome is not Outcome.KNOWN
        peer = announcement.node_id.hex()
        if decision.code is ReasonCode.RATE_LIMITED:
            raise RefusedError(decision.code, decision.reason, peer=peer)
        raise MisbehaviourError(decision.code, decision.reason, peer=peer)

    def forget(self, node_id: NodeId) -> bool:
        """Strike out a node; whether it was there."""
        entry = self._entries.pop(node_id, None)
        if entry is None:
            return False
        for network in entry.networks:
            members = self._per_network[network]
            members.discard(node_id)
            if not members:
                del self._per_network[network]
        return True

    def expire(self, *, now_ms: int) -> tuple[NodeId, ...]:
        """Strike out what is too old, and say whom."""
        gone = tuple(node_id for node_id, entry in self._entries.items() if not self._is_fresh(entry, now_ms))
        for node_id in gone:
            self.forget(node_id)
        return gone

    # --- out ---------------------------------------------------------------------------------------------------------

    def get(self, node_id: NodeId, *, now_ms: int) -> SignedAnnouncement | None:
        """The newest announcement of a node, unless it is too old."""
        entry = self._entries.get(node_id)
        return entry.signed if entry is not None and self._is_fresh(entry, now_ms) else None

    def some(self, limit: int, *, now_ms: int, skip: int = 0) -> tuple[SignedAnnouncement, ...]:
        """At most `limit` fresh announcements, at most `MAX_LIST_BYTES` of them, no node twice.

        Nodes that were reached come first; then one of each network in turn, so that no network fills the list. A
        caller with dice gives a random `skip`, and the list begins there, so that in the long run all are named.
        """
        ordered = list(self._in_turn(now_ms))
        begin = skip % len(ordered) if ordered else 0
        chosen: list[SignedAnnouncement] = []
        room = MAX_LIST_BYTES
        for entry in (ordered[begin:] + ordered[:begin])[: max(0, limit)]:
            room -= entry.size_bytes
            if room < 0:
                break
            chosen.append(entry.signed)
        return tuple(chosen)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _judge(self, signed: SignedAnnouncement, size_bytes: int, now_ms: int) -> tuple[ReasonCode, str] | None:
        """What a book asks beyond `verify_announcement`, all of it cheaper than a signature."""
        announcement = signed.announcement
        contact = announcement.contact.contact
        age_ms = now_ms - announcement.issued_ms
        if size_bytes > MAX_ANNOUNCEMENT_BYTES:
            return ReasonCode.TOO_LARGE, f"{size_bytes} bytes, at most {MAX_ANNOUNCEMENT_BYTES} are allowed"
        if age_ms >= self._limits.max_age_ms:
            return ReasonCode.STALE, f"issued {age_ms} ms ago"
        if contact.issued_ms > now_ms + MAX_CLOCK_SKEW_MS:
            return ReasonCode.CLOCK_SKEW, "the contact is dated in the future"
        if not any(address.kind is AddressKind.DIRECT for address in contact.addresses):
            return ReasonCode.MALFORMED, "the contact has no address to call"
        if puzzle_bits(contact.public_key, contact.puzzle_nonce) < self._limits.puzzle_bits:
            return ReasonCode.PUZZLE_UNSOLVED, f"the puzzle needs {self._limits.puzzle_bits} bits here"
        return None

    def _is_fresh(self, entry: _Entry, now_ms: int) -> bool:
        return now_ms - entry.issued_ms < self._limits.max_age_ms

    def _admit(self, entry: _Entry, known: _Entry | None, now_ms: int) -> Decision:
        """Find room for a verified entry and write it down; the book is unchanged when there is none."""
        if known is not None and not entry.reached and known.reached in entry.networks:
            entry = replace(entry, reached=known.reached)
        leaving = self._who_leaves(entry, now_ms)
        if leaving is None:
            return Decision(Outcome.REFUSED, ReasonCode.RATE_LIMITED, "no room for another node of this network")
        for other in leaving:
            self.forget(other)
        self.forget(entry.node_id)
        self._entries[entry.node_id] = entry
        for network in entry.networks:
            self._per_network.setdefault(network, set()).add(entry.node_id)
        return Decision(Outcome.ADDED if known is None else Outcome.UPDATED, evicted=leaving)

    def _who_leaves(self, entry: _Entry, now_ms: int) -> tuple[NodeId, ...] | None:
        """Whom to strike out so that `entry` fits every cap; None when those who are there have the better right."""
        leaving: set[NodeId] = set()
        cap = self._limits.max_per_network
        for network in sorted(entry.networks) if cap is not None else ():
            present = self._per_network.get(network, set()) - leaving - {entry.node_id}
            if cap is not None and len(present) >= cap:
                victim = self._victim(present, entry, network, now_ms)
                if victim is None:
                    return None
                leaving.add(victim)
        if len(self._entries) - (entry.node_id in self._entries) - len(leaving) >= self._limits.max_nodes:
            if not entry.reached and now_ms < self._full_until_ms:
                return None
            victim = self._victim(self._entries.keys() - leaving - {entry.node_id}, entry, None, now_ms)
            if victim is None:
                # Until somebody grows too old, strangers need not make us look through the whole book again.
                self._full_until_ms = min(one.issued_ms for one in self._entries.values()) + self._limits.max_age_ms
                return None
            leaving.add(victim)
        return tuple(sorted(leaving))

    def _victim(self, among: set[NodeId], newcomer: _Entry, network: str | None, now_ms: int) -> NodeId | None:
        """Who gives way: the most outdated, else the oldest unproven one if the newcomer is proven, else nobody."""

        def right(node_id: NodeId) -> tuple[bool, bool, int, NodeId]:
            entry = self._entries[node_id]
            return self._is_fresh(entry, now_ms), entry.is_proven(network), entry.issued_ms, node_id

        weakest = min(among, key=right)
        is_fresh, is_proven, _, _ = right(weakest)
        return None if is_fresh and (is_proven or not newcomer.is_proven(network)) else weakest

    def _in_turn(self, now_ms: int) -> Iterator[_Entry]:
        """Fresh entries: the reached ones first; within each half one of every network, newest first, and again."""
        for reached in (True, False):
            by_network: dict[str, list[_Entry]] = {}
            for entry in self._entries.values():
                if bool(entry.reached) is reached and self._is_fresh(entry, now_ms):
                    by_network.setdefault(min(entry.networks), []).append(entry)
            queues = [
                sorted(by_network[name], key=lambda entry: (entry.rank, entry.node_id)) for name in sorted(by_network)
            ]
            while queues:
                yield from (queue.pop() for queue in queues)
                queues = [queue for queue in queues if queue]
