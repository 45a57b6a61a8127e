"""What a node keeps for others: so many records and no more, the newest of each publisher, none beyond its time.

A value without clock or disk: every call takes the time and says what was decided (`docs/protocol/overlay.md`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from stook.codec import encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.ids import NetworkId, NodeId, PublicKey
from stook.overlay.messages import MAX_RECORDS_FOUND, MAX_RECORDS_FOUND_BYTES
from stook.overlay.records import HOUR_MS, OverlayKey, RecordKind, SignedRecord, check_form, check_signatures
from stook.overlay.routing_table import K

CACHED_MS = HOUR_MS
FAR_CACHED_MS = 10 * 60_000
REPLICATE_MS = HOUR_MS


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much is kept. Half is for records whose key follows from their publisher's, half for the other kinds.

    The keys of the other kinds may be chosen at will, near whom one likes: they displace nobody but one another.
    """

    max_records: int = 4096
    max_bytes: int = 16 << 20
    max_per_key: int = MAX_RECORDS_FOUND
    max_per_publisher: int = 64


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a record that was brought. `code` 0: it is kept."""

    code: int
    detail: str = ""
    changed: bool = False
    """It was not here before, or an older one was."""
    dropped: tuple[SignedRecord, ...] = ()
    """What had to leave for it, the publisher's older one included."""


@dataclass(slots=True)
class _Held:
    signed: SignedRecord
    size_bytes: int
    until_ms: int
    brought_ms: int
    """When somebody brought it last: whoever did has brought it to the others too."""


@dataclass(slots=True)
class _Half:
    count: int = 0
    size_bytes: int = 0
    bounds: tuple[int, int] | None = None
    """Before when nothing here is past its time, and how far the farthest is; None: to be found out anew."""


_Slot = tuple[OverlayKey, PublicKey]


class RecordStore:
    """The records that the node `own_id` keeps. Not safe for use from several threads at once."""

    def __init__(
        self, own_id: NodeId, network: NetworkId, limits: StoreLimits = StoreLimits(), *, puzzle_bits: int = 0
    ) -> None:
        self._own = int.from_bytes(own_id, "big")
        self._network = network
        self._limits = limits
        self._puzzle_bits = puzzle_bits
        self._keys: dict[OverlayKey, dict[PublicKey, _Held]] = {}
        self._per_publisher: dict[PublicKey, set[OverlayKey]] = {}
        self._halves = {True: _Half(), False: _Half()}
        """By whether the subject is the publisher's own."""

    def __len__(self) -> int:
        return sum(half.count for half in self._halves.values())

    @property
    def size_bytes(self) -> int:
        """Encoded bytes of all that is kept."""
        return sum(half.size_bytes for half in self._halves.values())

    # --- in ----------------------------------------------------------------------------------------------------------

    def put(self, signed: SignedRecord, *, nearer: int, now_ms: int) -> Kept:
        """Judge a record and keep it if it is good, new, and there is room. Never raises: the answer says why not.

        `nearer` is how many contacts are known that are nearer to its key than we are.
        """
        try:
            return self._put(signed, nearer, now_ms)
        except MisbehaviourError as error:
            return Kept(int(error.code), str(error))
        except MalformedError as error:
            return Kept(int(ReasonCode.MALFORMED), str(error))

    def expire(self, *, now_ms: int) -> tuple[SignedRecord, ...]:
        """Drop what is past its time, and say what."""
        gone = [held.signed for slots in self._keys.values() for held in slots.values() if held.until_ms <= now_ms]
        for signed in gone:
            self._drop((signed.key, signed.record.publisher_key))
        return tuple(gone)

    def discard(self, signed: SignedRecord) -> None:
        """Forget this record, unless another one has taken its place."""
        held = self._keys.get(signed.key, {}).get(signed.record.publisher_key)
        if held is not None and held.signed == signed:
            self._drop((signed.key, signed.record.publisher_key))

    def shorten(self, signed: SignedRecord, *, nearer: int, now_ms: int) -> None:
        """Keep this record no longer than one that was brought now: its deadline was lost in a restart."""
        held = self._keys.get(signed.key, {}).get(signed.record.publisher_key)
        if held is not None and held.signed == signed:
            held.until_ms = min(held.until_ms, now_ms + life_ms(nearer, signed.record.expires_ms - now_ms))
            self._half(signed).bounds = None

    # --- out ---------------------------------------------------------------------------------------------------------

    def get(self, key: bytes, *, now_ms: int) -> tuple[SignedRecord, ...]:
        """What is kept under a key, the newest first, within the bounds of one answer."""
        alive = [held for held in self._keys.get(OverlayKey(key), {}).values() if held.until_ms > now_ms]
        found, room = [], MAX_RECORDS_FOUND_BYTES
        for held in sorted(alive, key=lambda one: (-one.signed.record.issued_ms, one.signed.record.publisher_key)):
            room -= held.size_bytes
            if room >= 0:
                found.append(held.signed)
        return tuple(found[:MAX_RECORDS_FOUND])

    def all(self) -> tuple[SignedRecord, ...]:
        """Everything that is here."""
        return tuple(held.signed for slots in self._keys.values() for held in slots.values())

    def due(self, limit: int, *, now_ms: int) -> tuple[SignedRecord, ...]:
        """Records that nobody brought for an hour, the longest first; they count as brought from now on."""
        waiting = sorted(
            (
                (held.brought_ms, held.signed.key, held.signed.record.publisher_key, held)
                for slots in self._keys.values()
                for held in slots.values()
                if held.brought_ms + REPLICATE_MS <= now_ms < held.until_ms
            ),
            key=lambda one: one[:3],
        )[:limit]
        for *_, held in waiting:
            held.brought_ms = now_ms
        return tuple(held.signed for *_, held in waiting)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _put(self, signed: SignedRecord, nearer: int, now_ms: int) -> Kept:
        check_form(signed, network=self._network, now_ms=now_ms, puzzle=0)
        slot = signed.key, signed.record.publisher_key
        until_ms = min(signed.record.expires_ms, now_ms + life_ms(nearer, signed.record.expires_ms - now_ms))
        known = self._keys.get(slot[0], {}).get(slot[1])
        if known is not None and known.until_ms > now_ms:
            if known.signed == signed:
                known.brought_ms = now_ms
                known.until_ms = max(known.until_ms, until_ms)
                return Kept(0)
            if known.signed.record.sequence >= signed.record.sequence:
                return Kept(int(ReasonCode.STALE), f"sequence {known.signed.record.sequence} is kept")
        check_form(signed, network=self._network, now_ms=now_ms, puzzle=self._puzzle_bits)
        # Before room is looked for, which in a full half means that all of it is put in order.
        check_signatures(signed, now_ms=now_ms)
        size_bytes = len(encode(signed))
        half = self._half(signed)
        leaving = self._who_leaves(slot, half, size_bytes, now_ms)
        if leaving is None:
            return Kept(int(ReasonCode.NO_SPACE), "no room for another record here")
        dropped = tuple(self._drop(one) for one in leaving)
        if known is not None and slot not in leaving:
            dropped += (self._drop(slot),)
        self._keys.setdefault(slot[0], {})[slot[1]] = _Held(signed, size_bytes, until_ms, now_ms)
        self._per_publisher.setdefault(slot[1], set()).add(slot[0])
        half.count += 1
        half.size_bytes += size_bytes
        half.bounds = None
        return Kept(0, changed=True, dropped=dropped)

    def _half(self, signed: SignedRecord) -> _Half:
        return self._halves[RecordKind(signed.record.kind).is_own]

    def _who_leaves(self, slot: _Slot, half: _Half, size_bytes: int, now_ms: int) -> list[_Slot] | None:
        """What to drop so that a record fits every bound; None when those who are there have the better right."""
        key, publisher = slot
        limits = self._limits
        others = self._keys.get(key, {})
        if publisher not in others:
            fresh = [one for one in others.values() if one.until_ms > now_ms]
            if len(fresh) >= limits.max_per_key:
                return None
            if len(self._per_publisher.get(publisher, ())) >= limits.max_per_publisher:
                return None
        replaced = others.get(publisher)
        count = half.count + (replaced is None)
        total = half.size_bytes + size_bytes - (replaced.size_bytes if replaced is not None else 0)
        leaving: list[_Slot] = []
        if count <= limits.max_records // 2 and total <= limits.max_bytes // 2:
            return leaving
        # Full: what is past its time leaves first, then what is farthest from us, as long as that is farther than this.
        if self._is_farther_than_all(key, half, now_ms):
            return None
        for fresh_enough, distance, held in self._worst_first(half, now_ms):
            one = held.signed.key, held.signed.record.publisher_key
            if one == slot:
                continue
            if fresh_enough and distance <= self._distance(key):
                return None
            leaving.append(one)
            count -= 1
            total -= held.size_bytes
            if count <= limits.max_records // 2 and total <= limits.max_bytes // 2:
                return leaving
        return None

    def _is_farther_than_all(self, key: OverlayKey, half: _Half, now_ms: int) -> bool:
        """Whether nothing of this half leaves for that key: the usual case in a full one, and to be told at once."""
        if half.bounds is None or half.bounds[0] <= now_ms:
            rated = self._rated(half, now_ms)
            half.bounds = (
                min((held.until_ms for _, _, held in rated), default=0),
                max((distance for _, distance, _ in rated), default=0),
            )
        over_ms, farthest = half.bounds
        return over_ms > now_ms and farthest <= self._distance(key)

    def _worst_first(self, half: _Half, now_ms: int) -> list[tuple[bool, int, _Held]]:
        return sorted(self._rated(half, now_ms), key=lambda one: (one[0], -one[1], one[2].signed.record.publisher_key))

    def _rated(self, half: _Half, now_ms: int) -> list[tuple[bool, int, _Held]]:
        return [
            (held.until_ms > now_ms, self._distance(key), held)
            for key, slots in self._keys.items()
            for held in slots.values()
            if self._half(held.signed) is half
        ]

    def _distance(self, key: OverlayKey) -> int:
        return int.from_bytes(key, "big") ^ self._own

    def _drop(self, slot: _Slot) -> SignedRecord:
        key, publisher = slot
        held = self._keys[key].pop(publisher)
        if not self._keys[key]:
            del self._keys[key]
        keys = self._per_publisher[publisher]
        keys.discard(key)
        if not keys:
            del self._per_publisher[publisher]
        half = self._half(held.signed)
        half.count -= 1
        half.size_bytes -= held.size_bytes
        half.bounds = None
        return held.signed


def life_ms(nearer: int, left_ms: int) -> int:
    """How long a record is kept by a node that knows `nearer` contacts nearer to the key than itself."""
    if nearer < K:
        return left_ms
    return min(left_ms, CACHED_MS if nearer < 2 * K else FAR_CACHED_MS)


def is_durable(signed: SignedRecord) -> bool:
    """Whether a holder must keep it over a restart: nobody may be left who could say it again."""
    return signed.record.kind == RecordKind.POINTER


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many at once, and so many a second in the long run."""

    burst: float
    per_second: float


class PeerLimits:
    """A token bucket per peer, for a bounded number of peers; the one asked by least recently is forgotten first."""

    def __init__(self, allowance: Allowance, max_peers: int = 4096) -> None:
        self._allowance = allowance
        self._max_peers = max_peers
        self._left: OrderedDict[NodeId, tuple[float, int]] = OrderedDict()

    def wait_ms(self, peer: NodeId, cost: float, *, now_ms: int) -> int:
        """Charge a request; 0 if it is allowed, else after how long to come again (nothing is charged then)."""
        tokens, since_ms = self._left.pop(peer, (self._allowance.burst, now_ms))
        tokens = min(self._allowance.burst, tokens + max(0, now_ms - since_ms) / 1000 * self._allowance.per_second)
        allowed = tokens >= cost
        self._left[peer] = (tokens - cost if allowed else tokens, now_ms)
        if len(self._left) > self._max_peers:
            self._left.popitem(last=False)
        return 0 if allowed else 1 + int((cost - tokens) / self._allowance.per_second * 1000)


FIND_ALLOWANCE = Allowance(burst=256, per_second=10)
STORE_ALLOWANCE = Allowance(burst=128, per_second=2)
