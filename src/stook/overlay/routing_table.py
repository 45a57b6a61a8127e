"""Whom a node knows, ordered by distance: k-buckets, replacement caches and the sibling list. A value that does no I/O.

Only contacts that answered at an address of theirs come in (`seen`); the table never pings, it says whom to ping. Old
contacts stay as long as they answer, and no network owns more than a few places (`docs/protocol/overlay.md`).
"""

from __future__ import annotations

import enum
import ipaddress
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from stook.identity.contact import SignedContact
from stook.ids import NODE_ID_BYTES, NodeId
from stook.overlay.contact_book import network_group

K = 20
ID_BITS = 8 * NODE_ID_BYTES


@dataclass(frozen=True, slots=True)
class TableRules:
    """How large a table is, and how much of it one network may have. None lifts a limit, for one machine."""

    bucket_size: int = K
    cache_size: int = 8
    sibling_count: int = 3 * K
    max_per_network: int | None = 10
    max_per_network_in_bucket: int | None = 2
    max_per_network_among_siblings: int | None = 4
    trusted_ms: int = 60_000
    """A contact seen so lately need not be pinged for a newcomer."""
    failures_to_replace: int = 2
    """Failures in a row after which a contact gives way, if there is anyone to follow it; ..."""
    failures_to_forget: int = 3
    """... and if there is not."""

    def without_network_limits(self) -> TableRules:
        """The same where all nodes share one network."""
        return replace(self, max_per_network=None, max_per_network_in_bucket=None, max_per_network_among_siblings=None)


@dataclass(frozen=True, slots=True)
class Node:
    """A contact with its id as a number and its network, worked out once."""

    contact: SignedContact
    node_id: NodeId
    number: int
    network: str
    """Of its first address: where it says that it is."""

    @classmethod
    def of(cls, contact: SignedContact) -> Node:
        """The node that a contact describes."""
        node_id = contact.node_id
        addresses = contact.contact.addresses
        network = network_of(addresses[0].host, addresses[0].port) if addresses else ""
        return cls(contact, node_id, int.from_bytes(node_id, "big"), network)


def network_of(host: str, port: int) -> str:
    """Whose places a host takes: those of its /24, /48 or domain; of private and loopback addresses, its own alone.

    At such an address only our own machine or LAN can answer, and there all nodes share one network honestly.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return network_group(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return network_group(host) if address.is_global else f"{host}:{port}"


class Outcome(enum.Enum):
    """What became of a contact that was seen."""

    ADDED = "added"
    KNOWN = "known"
    CACHED = "cached"
    """Its bucket is full: it waits for somebody to fall out."""
    CROWDED = "crowded"
    """Its network has all the places that one network may have."""
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Seen:
    """The outcome, and whom to ping now, if anyone: the contact that a newcomer waits for."""

    outcome: Outcome
    ping: Node | None = None


class _Entry:
    """A contact in the table."""

    __slots__ = ("distance", "failures", "network", "node", "place", "seen_ms", "sibling")

    def __init__(self, node: Node, distance: int, network: str, seen_ms: int) -> None:
        self.node = node
        self.distance = distance
        self.network = network
        self.seen_ms = seen_ms
        self.failures = 0
        self.sibling = False
        self.place: list[_Entry] | None = None
        """The list of its bucket that it stands in: members, near or cache."""


class _Bucket:
    """`members` count; `near` are siblings beyond them; `cache` waits, the newest first."""

    __slots__ = ("cache", "members", "near")

    def __init__(self) -> None:
        self.members: list[_Entry] = []
        self.near: list[_Entry] = []
        self.cache: list[_Entry] = []


class RoutingTable:
    """The table of the node `own_id`. Not safe for use from several threads at once."""

    def __init__(self, own_id: NodeId, rules: TableRules = TableRules()) -> None:
        self.own_id = own_id
        self.rules = rules
        self._own = int.from_bytes(own_id, "big")
        self._buckets: dict[int, _Bucket] = {}
        self._entries: dict[int, _Entry] = {}
        self._siblings: list[_Entry] = []
        """Nearest first."""
        self._per_network: Counter[str] = Counter()
        """Of members and near."""
        self._looked_ms: dict[int, int] = {}

    def __len__(self) -> int:
        """Contacts that count; those in caches do not."""
        return sum(len(bucket.members) + len(bucket.near) for bucket in self._buckets.values())

    def __contains__(self, node_id: NodeId) -> bool:
        return self.get(node_id) is not None

    # --- in ----------------------------------------------------------------------------------------------------------

    def seen(self, node: Node, network: str, *, now_ms: int) -> Seen:
        """A node has just answered at an address in `network`."""
        distance = node.number ^ self._own
        if not distance:
            return Seen(Outcome.OWN)
        entry = self._entries.get(node.number)
        if entry is not None:
            if entry.network == network:
                self._refresh(entry, node, now_ms)
                return Seen(Outcome.KNOWN)
            self._remove(entry)  # it has moved: it needs a place of its new network
        entry = _Entry(node, distance, network, now_ms)
        return self._admit(entry, now_ms)

    def heard(self, node_id: NodeId, *, now_ms: int) -> bool:
        """A node has called or answered us on some session; whether it is known."""
        entry = self._entries.get(int.from_bytes(node_id, "big"))
        if entry is None:
            return False
        self._refresh(entry, entry.node, now_ms)
        return True

    def renewed(self, node: Node) -> None:
        """A known node has a newer contact with the same addresses."""
        entry = self._entries.get(node.number)
        if entry is not None and node.contact.contact.addresses == entry.node.contact.contact.addresses:
            entry.node = max(entry.node, node, key=lambda one: one.contact.contact.sequence)

    def failed(self, node_id: NodeId) -> bool:
        """A node did not answer; whether it was struck out. Somebody of the cache follows at once."""
        entry = self._entries.get(int.from_bytes(node_id, "big"))
        if entry is None:
            return False
        entry.failures += 1
        bucket = self._bucket(entry.distance)
        needed = self.rules.failures_to_replace if bucket.cache else self.rules.failures_to_forget
        if entry.failures < needed:
            return False
        self._remove(entry)
        self._fill(bucket)
        return True

    def forget(self, node_id: NodeId) -> None:
        """Strike out a node, whatever it was."""
        entry = self._entries.get(int.from_bytes(node_id, "big"))
        if entry is not None:
            self._remove(entry)
            self._fill(self._bucket(entry.distance))

    def looked_up(self, target: bytes, *, now_ms: int) -> None:
        """A lookup near `target` was made: its bucket needs no refresh for a while."""
        distance = int.from_bytes(target, "big") ^ self._own
        if distance:
            self._looked_ms[distance.bit_length() - 1] = now_ms

    # --- out ---------------------------------------------------------------------------------------------------------

    def get(self, node_id: NodeId) -> Node | None:
        """A node that counts."""
        entry = self._entries.get(int.from_bytes(node_id, "big"))
        return entry.node if entry is not None and self._counts(entry) else None

    def closest(self, target: bytes, count: int, *, without: NodeId | None = None) -> list[Node]:
        """The `count` nodes nearest `target`, nearest first."""
        aim = int.from_bytes(target, "big")
        found: list[tuple[int, Node]] = []
        for group in self._outwards(aim):
            found += sorted(
                (entry.node.number ^ aim, entry.node)
                for bucket in group
                for entries in (bucket.members, bucket.near)
                for entry in entries
                if entry.node.node_id != without
            )
            if len(found) >= count:
                break
        return [node for _, node in found[:count]]

    def nearer_than(self, target: bytes, limit: int) -> int:
        """How many known nodes are nearer to `target` than this one, counted up to `limit`."""
        aim = int.from_bytes(target, "big")
        own = self._own ^ aim
        return sum(node.number ^ aim < own for node in self.closest(target, limit))

    def neighbours(self) -> list[Node]:
        """Every node that counts, nearest to the own id first."""
        return [entry.node for entry in sorted(self._counting(), key=lambda entry: entry.distance)]

    def siblings(self) -> list[Node]:
        """The nearest nodes, nearest first."""
        return [entry.node for entry in self._siblings]

    def wants(self, node: Node) -> bool:
        """Whether it would do any good to find out that this node answers where it says that it is."""
        network = node.network
        distance = node.number ^ self._own
        if not distance:
            return False
        entry = self._entries.get(node.number)
        if entry is not None:
            text, known = node.contact.contact, entry.node.contact.contact
            return text.sequence > known.sequence and text.addresses != known.addresses
        bucket = self._buckets.get(distance.bit_length() - 1)
        if bucket is None:
            return self._has_room(network)
        if len(bucket.members) < self.rules.bucket_size or len(bucket.cache) < self.rules.cache_size:
            return self._has_room_in(bucket.members, network)
        return self._would_be_sibling(distance, network)

    def unseen_since(self, before_ms: int, limit: int) -> list[Node]:
        """Nodes not seen since then, those seen least recently first."""
        old = sorted(
            (entry for entry in self._counting() if entry.seen_ms < before_ms),
            key=lambda entry: (entry.seen_ms, entry.distance),
        )
        return [entry.node for entry in old[:limit]]

    def unrefreshed_since(self, before_ms: int) -> list[int]:
        """Numbers of buckets, from that of the nearest node outwards, near which nothing was looked up since then."""
        if not self._siblings:
            return []
        nearest = self._siblings[0].distance.bit_length() - 1
        return [index for index in range(nearest, ID_BITS) if self._looked_ms.get(index, -1) < before_ms]

    def id_in_bucket(self, index: int, dice: bytes) -> NodeId:
        """An id that belongs to a bucket, drawn with 20 random bytes."""
        below = int.from_bytes(dice, "big") & ((1 << index) - 1)
        return NodeId((self._own ^ (1 << index) ^ below).to_bytes(NODE_ID_BYTES, "big"))

    # --- inside ------------------------------------------------------------------------------------------------------

    def _bucket(self, distance: int) -> _Bucket:
        return self._buckets.setdefault(distance.bit_length() - 1, _Bucket())

    def _counting(self) -> Iterator[_Entry]:
        for index in sorted(self._buckets):
            yield from self._buckets[index].members
            yield from self._buckets[index].near

    def _counts(self, entry: _Entry) -> bool:
        return entry.place is not self._bucket(entry.distance).cache

    def _outwards(self, aim: int) -> Iterator[list[_Bucket]]:
        """Groups of buckets, every node of one nearer to `aim` than every node of the next."""
        distance = self._own ^ aim
        middle = distance.bit_length() - 1
        indices = sorted(self._buckets)
        if distance:
            yield [self._buckets[index] for index in indices if index == middle]
            yield [self._buckets[index] for index in indices if index < middle]
        # Farther out each bucket holds what differs from us, and so from the aim, at its own bit first.
        yield from ([self._buckets[index]] for index in indices if index > middle)

    def _refresh(self, entry: _Entry, node: Node, now_ms: int) -> None:
        if node.contact.contact.sequence > entry.node.contact.contact.sequence:
            entry.node = node
        entry.seen_ms = now_ms
        entry.failures = 0
        place = entry.place
        if place is not None:
            place.remove(entry)
            bucket = self._bucket(entry.distance)
            if place is bucket.cache:
                place.insert(0, entry)
            else:
                place.append(entry)

    def _admit(self, entry: _Entry, now_ms: int) -> Seen:
        bucket = self._bucket(entry.distance)
        fits = self._has_room_in(bucket.members, entry.network)
        if fits and len(bucket.members) < self.rules.bucket_size:
            self._put(entry, bucket.members)
        elif self._would_be_sibling(entry.distance, entry.network) and self._has_room(entry.network):
            self._put(entry, bucket.near)
        elif fits:
            return self._cache(entry, bucket, now_ms)
        else:
            return Seen(Outcome.CROWDED)
        self._become_sibling(entry)
        return Seen(Outcome.ADDED)

    def _cache(self, entry: _Entry, bucket: _Bucket, now_ms: int) -> Seen:
        cap = self.rules.max_per_network_in_bucket
        if cap is not None and sum(one.network == entry.network for one in bucket.cache) >= cap:
            return Seen(Outcome.CROWDED)
        bucket.cache.insert(0, entry)
        entry.place = bucket.cache
        self._entries[entry.node.number] = entry
        for dropped in bucket.cache[self.rules.cache_size :]:
            del self._entries[dropped.node.number]
        del bucket.cache[self.rules.cache_size :]
        oldest = bucket.members[0]
        return Seen(Outcome.CACHED, oldest.node if now_ms - oldest.seen_ms >= self.rules.trusted_ms else None)

    def _put(self, entry: _Entry, place: list[_Entry]) -> None:
        place.append(entry)
        entry.place = place
        self._entries[entry.node.number] = entry
        self._per_network[entry.network] += 1

    def _remove(self, entry: _Entry) -> None:
        if self._counts(entry):
            self._per_network[entry.network] -= 1
            if not self._per_network[entry.network]:
                del self._per_network[entry.network]
        if entry.place is not None:
            entry.place.remove(entry)
        del self._entries[entry.node.number]
        if entry.sibling:
            self._siblings.remove(entry)
            entry.sibling = False
            self._find_another_sibling()

    def _fill(self, bucket: _Bucket) -> None:
        """Let those who wait have the free places: siblings first, then the newest of the cache."""
        for waiting in (bucket.near, bucket.cache):
            for entry in list(waiting):
                if len(bucket.members) >= self.rules.bucket_size:
                    return
                is_near = waiting is bucket.near
                if self._has_room_in(bucket.members, entry.network, counted=is_near):
                    waiting.remove(entry)
                    bucket.members.insert(0, entry)  # it was not seen as lately as they were
                    bucket.members.sort(key=lambda one: one.seen_ms)
                    entry.place = bucket.members
                    if not is_near:
                        self._per_network[entry.network] += 1
                        self._become_sibling(entry)

    def _has_room(self, network: str) -> bool:
        cap = self.rules.max_per_network
        return cap is None or self._per_network[network] < cap

    def _has_room_in(self, members: list[_Entry], network: str, *, counted: bool = False) -> bool:
        cap = self.rules.max_per_network_in_bucket
        if not counted and not self._has_room(network):
            return False
        return cap is None or sum(one.network == network for one in members) < cap

    def _would_be_sibling(self, distance: int, network: str) -> bool:
        rules = self.rules
        cap = rules.max_per_network_among_siblings
        if cap is not None and sum(one.network == network for one in self._siblings) >= cap:
            return False
        return len(self._siblings) < rules.sibling_count or distance < self._siblings[-1].distance

    def _find_another_sibling(self) -> None:
        """Let the nearest node that is not among the siblings yet become one."""
        others = sorted((one for one in self._counting() if not one.sibling), key=lambda one: one.distance)
        for entry in others:
            if self._would_be_sibling(entry.distance, entry.network):
                self._become_sibling(entry)
                return

    def _become_sibling(self, entry: _Entry) -> None:
        if not self._would_be_sibling(entry.distance, entry.network):
            return
        at = bisect_left(self._siblings, entry.distance, key=lambda one: one.distance)
        self._siblings.insert(at, entry)
        entry.sibling = True
        if len(self._siblings) > self.rules.sibling_count:
            last = self._siblings.pop()
            last.sibling = False
            if last.place is self._bucket(last.distance).near:
                self._remove(last)  # its bucket is full, and it is not near enough any more
