"""Beacons on a local link: what they say, which are heard, and who is a neighbour. Pure (`docs/formats/beacon.md`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import MalformedError
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import Address, AddressKind
from stook.identity.envelope import TIME_WINDOW_MS
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.ids import NetworkId, NetworkIdField, NodeId, PublicKeyField, SignatureField, U63Field

BEACON_VERSION = 1
MAX_BEACON_BYTES = 256
BEACON_SECONDS = 30.0
MAX_NEIGHBOURS = 64
NEIGHBOUR_LIFE_MS = 600_000
WINDOW_MS = 10_000
MAX_PER_SOURCE = 32
MAX_PER_WINDOW = 256


class Beacon(Record):
    """The signed text of a beacon."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    public_key: PublicKeyField
    port: Annotated[int, Meta(ge=0, le=65535)]
    """Where it serves, at the address that the datagram came from; 0: it does not."""
    asks: bool
    issued_ms: U63Field

    @property
    def digest(self) -> bytes:
        """What the sender signs."""
        return tagged_hash(Tag.BEACON, encode(self))


class SignedBeacon(Record):
    """A beacon with its sender's signature: one datagram."""

    beacon: Beacon
    signature: SignatureField


def sign_beacon(key: NodeKey, *, network: NetworkId, port: int, asks: bool, now_ms: int) -> bytes:
    """The datagram of a beacon."""
    beacon = Beacon(BEACON_VERSION, network, key.public_key, port, asks, now_ms)
    return encode(SignedBeacon(beacon, key.sign(beacon.digest)))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who says it serves where. To be called, never to be believed."""

    node_id: NodeId
    address: Address


@dataclass(frozen=True, slots=True)
class Heard:
    """A good beacon: who serves there, if anybody, whether it was not known before, and whether to answer."""

    neighbour: Neighbour | None
    is_new: bool
    answer: bool


class Neighbourhood:
    """Who was heard on one link. Bounded in every way; nothing in it was proved by a session yet."""

    def __init__(self, network: NetworkId, own_id: NodeId) -> None:
        self._network = network
        self._own_id = own_id
        self._neighbours: dict[NodeId, tuple[Neighbour, int]] = {}
        """With the moment each was heard last."""
        self._window_ms = 0
        self._counts: Counter[str] = Counter()

    def neighbours(self, *, now_ms: int) -> tuple[Neighbour, ...]:
        """Those heard within ten minutes, in the order they were first heard."""
        self._forget(now_ms)
        return tuple(neighbour for neighbour, _ in self._neighbours.values())

    def hear(self, data: bytes, source: str, *, now_ms: int) -> Heard | None:
        """Judge a datagram that came from host `source`; None for one to ignore."""
        if len(data) > MAX_BEACON_BYTES or not self._has_turn(source, now_ms):
            return None
        try:
            signed = decode(SignedBeacon, data, max_bytes=MAX_BEACON_BYTES)
        except MalformedError:
            return None
        beacon = signed.beacon
        node_id = node_id_of(beacon.public_key)
        if beacon.version != BEACON_VERSION or beacon.network != self._network or node_id == self._own_id:
            return None
        if abs(beacon.issued_ms - now_ms) > TIME_WINDOW_MS:
            return None
        if not verify(beacon.public_key, beacon.digest, signed.signature):
            return None
        if not beacon.port:
            return Heard(None, False, beacon.asks)
        neighbour = Neighbour(node_id, Address(AddressKind.DIRECT, source, beacon.port))
        return Heard(neighbour, self._note(neighbour, now_ms), beacon.asks)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _has_turn(self, source: str, now_ms: int) -> bool:
        if not 0 <= now_ms - self._window_ms < WINDOW_MS:
            self._window_ms = now_ms
            self._counts.clear()
        if self._counts.total() >= MAX_PER_WINDOW or self._counts[source] >= MAX_PER_SOURCE:
            return False
        self._counts[source] += 1
        return True

    def _note(self, neighbour: Neighbour, now_ms: int) -> bool:
        """Remember a neighbour; whether it, or its address, was not known."""
        known = self._neighbours.get(neighbour.node_id)
        if known is None:
            self._forget(now_ms)
            if len(self._neighbours) >= MAX_NEIGHBOURS:
                return False
        elif known[0] != neighbour and 0 <= now_ms - known[1] < WINDOW_MS:
            return False  # somebody may be saying its beacon after it, from addresses that we should call
        self._neighbours[neighbour.node_id] = neighbour, now_ms
        return known is None or known[0] != neighbour

    def _forget(self, now_ms: int) -> None:
        old = [one for one, (_, heard_ms) in self._neighbours.items() if now_ms - heard_ms >= NEIGHBOUR_LIFE_MS]
        for node_id in old:
            del self._neighbours[node_id]
