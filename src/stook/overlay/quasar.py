"""Quasar's decisions: who is told of what one leads to, and where a publication goes next. Pure.

A node keeps, for each neighbour, the attenuated filter that this neighbour told it last. What it tells others is made
from those and its own topics alone, so whatever nobody subscribes to any more is gone from every filter after as many
rounds of updates as a filter has levels. A publication goes to neighbours whose filter holds its topic, nearest level
first; where no filter does, to one neighbour by chance (`docs/protocol/quasar.md`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from stook.errors import ReasonCode, RefusedError
from stook.identity.keys import node_id_of
from stook.ids import NetworkId, NodeId
from stook.overlay.bloom import DEPTH, STANDARD, Levels, Shape, attenuated, nearest
from stook.overlay.publication import (
    MAX_PUBLISHERS,
    MAX_TTL,
    PUBLICATION_LIFE_MS,
    SignedPublication,
    check_publication,
    verify_publication,
)

Dice = Callable[[int], bytes]
MINUTE_MS = 60_000
MAX_TOPICS = 256
"""Of one node: more than all topics there are. Whoever claims more wants everything to go through it."""


@dataclass(frozen=True, slots=True)
class PubSubTiming:
    """When neighbours are told what."""

    gossip_seconds: float = 60.0
    lonely_seconds: float = 2.0
    """Without a neighbour the next round comes so soon, then ever later."""
    settle_seconds: float = 2.0
    """So long after the first change others are told of it, together with what changed meanwhile."""
    again_ms: int = 4_000
    """A neighbour is told of changes no more often, for it would refuse more than `updates_per_minute`."""
    refresh_ms: int = 5 * 60_000
    """A neighbour is told again after so long though nothing changed; well below a filter's life."""
    deadline_seconds: float = 10.0
    entries: int = 3
    """Nodes to which a publication is handed by somebody who has no neighbours."""
    max_copies: int = 512
    """Copies on their way to neighbours at once; what is beyond is not sent: it comes by other ways."""
    copies_each: int = 16
    """Of them for one neighbour, those that wait for it included: one that does not answer keeps no others waiting."""
    calls_each: int = 2
    """Copies handed to one neighbour at once."""
    calls_at_once: int = 64
    """Copies handed over at once, and UPDATEs beside them: as many as all neighbours together may keep waiting."""


@dataclass(frozen=True, slots=True)
class QuasarRules:
    """Bounds and widths. The defaults are those of the protocol; the simulator tries others."""

    shape: Shape = STANDARD
    max_ttl: int = MAX_TTL
    fanout: int = 4
    """To so many neighbours at most one node sends it."""
    max_neighbours: int = 32
    links: int = 8
    """Of them those that a node asks by itself; no stranger takes their places."""
    filter_life_ms: int = 15 * MINUTE_MS
    """A neighbour that sent no filter for so long leads nowhere."""
    originator_per_minute: int = 20
    """Publications of one originator that a node takes in a minute, and as many at once."""
    updates_per_minute: int = 20
    """Filters that one neighbour may send, so that none can keep all others busy."""
    neighbour_per_minute: int = 600
    """Publications that one neighbour may hand on."""
    max_originators: int = 8192
    max_seen: int = 32_768
    puzzle_bits: int = 0


@dataclass(slots=True)
class Bucket:
    """A token bucket: so many a minute, and as many at once."""

    tokens: float
    at_ms: int

    def refill(self, per_minute: int, now_ms: int) -> None:
        """Let time pass."""
        self.tokens = min(float(per_minute), self.tokens + max(0, now_ms - self.at_ms) * per_minute / MINUTE_MS)
        self.at_ms = max(self.at_ms, now_ms)

    def check(self, per_minute: int, now_ms: int) -> None:
        """Raises `RefusedError` (RATE_LIMITED) when nothing is left."""
        self.refill(per_minute, now_ms)
        if self.tokens < 1:
            wait_ms = int(MINUTE_MS / per_minute)
            raise RefusedError(ReasonCode.RATE_LIMITED, f"at most {per_minute} a minute", retry_after_ms=wait_ms)

    def take(self, per_minute: int, now_ms: int) -> None:
        """Take one. Raises as `check` does."""
        self.check(per_minute, now_ms)
        self.tokens -= 1


class Buckets:
    """A bucket for each of so many names; a full one need not be kept. Refuses rather than forgets."""

    def __init__(self, per_minute: int, most: int) -> None:
        self._per_minute = per_minute
        self._most = most
        self._buckets: OrderedDict[NodeId, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def check(self, name: NodeId, now_ms: int) -> None:
        """Raises `RefusedError` (RATE_LIMITED) when there is nothing left for this name, or no room to remember it."""
        bucket = self._buckets.get(name)
        if bucket is None:
            while len(self._buckets) >= self._most and self._drop_full(now_ms):
                pass
            if len(self._buckets) >= self._most:
                raise RefusedError(ReasonCode.RATE_LIMITED, "too many different senders just now")
            return
        bucket.check(self._per_minute, now_ms)

    def charge(self, name: NodeId, now_ms: int) -> None:
        """Take one. To be called after `check`."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(float(self._per_minute), now_ms)
        bucket.tokens -= 1
        self._buckets.move_to_end(name)

    def _drop_full(self, now_ms: int) -> bool:
        name, bucket = next(iter(self._buckets.items()))
        bucket.refill(self._per_minute, now_ms)
        if bucket.tokens < self._per_minute:
            return False
        del self._buckets[name]
        return True


@dataclass(slots=True)
class _Neighbour:
    levels: Levels
    heard_ms: int
    asked: bool
    updates: Bucket


@dataclass(frozen=True, slots=True)
class Forward:
    """Send it there, with this much left to go, and these named as having it."""

    to: tuple[NodeId, ...]
    ttl: int
    publishers: tuple[NodeId, ...]


NOWHERE = Forward((), 0, ())


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a publication that was handed in."""

    known: bool
    """It came before; nothing is to be done."""
    deliver: bool
    """One of our own topics."""
    forward: Forward = NOWHERE


@dataclass(slots=True)
class Counts:
    """How often what happened, since the start."""

    published: int = 0
    received: int = 0
    duplicates: int = 0
    taken: int = 0
    """New, and nothing was wrong with them."""
    delivered: int = 0
    forwarded: int = 0
    """Copies sent on."""
    refused: int = 0


@dataclass(slots=True)
class Quasar:
    """One node's part in publish and subscribe. Time and dice are arguments; not safe for several threads."""

    me: NodeId
    network: NetworkId
    rules: QuasarRules = field(default_factory=QuasarRules)
    counts: Counts = field(default_factory=Counts)
    _topics: set[bytes] = field(default_factory=set)
    _own: int = 0
    _neighbours: dict[NodeId, _Neighbour] = field(default_factory=dict)
    _seen: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    _originators: Buckets = field(init=False)
    _senders: Buckets = field(init=False)

    def __post_init__(self) -> None:
        rules = self.rules
        self._originators = Buckets(rules.originator_per_minute, rules.max_originators)
        self._senders = Buckets(rules.neighbour_per_minute, 4 * rules.max_neighbours)

    # --- topics ------------------------------------------------------------------------------------------------------

    @property
    def topics(self) -> frozenset[bytes]:
        """What this node is subscribed to."""
        return frozenset(self._topics)

    def subscribe(self, topics: Iterable[bytes]) -> bool:
        """Subscribe to these topics and no others; whether that changed anything.

        Raises `ValueError` for more than `MAX_TOPICS`.
        """
        wanted = set(topics)
        if len(wanted) > MAX_TOPICS:
            raise ValueError(f"at most {MAX_TOPICS} topics, not {len(wanted)}")
        if wanted == self._topics:
            return False
        self._topics = wanted
        self._own = self.rules.shape.filter_of(wanted)
        return True

    # --- neighbours --------------------------------------------------------------------------------------------------

    @property
    def neighbours(self) -> tuple[NodeId, ...]:
        """Whom we know filters of, or asked to be our neighbours."""
        return tuple(self._neighbours)

    @property
    def asked(self) -> frozenset[NodeId]:
        """The neighbours that we asked by ourselves."""
        return frozenset(name for name, known in self._neighbours.items() if known.asked)

    def _has_room(self, *, asked: bool) -> bool:
        rules, mine = self.rules, len(self.asked)
        most = rules.max_neighbours if asked else rules.max_neighbours - max(0, rules.links - mine)
        return len(self._neighbours) < most

    def heard(self, neighbour: NodeId, levels: Levels, now_ms: int, *, asked: bool = False) -> bool:
        """The neighbour told us its filters, which replace those before; whether that changed anything.

        `asked` when it answered us; room for as many as a node asks by itself is kept, so that strangers cannot cut it
        off by being its only neighbours. Raises `RefusedError` (RATE_LIMITED) when there is no room.
        """
        if neighbour == self.me:
            raise RefusedError(ReasonCode.WRONG_IDENTITY, "nobody is their own neighbour")
        if levels[0].bit_count() > MAX_TOPICS * self.rules.shape.hashes:
            raise RefusedError(ReasonCode.MALFORMED, f"nobody is subscribed to more than {MAX_TOPICS} topics")
        known = self._neighbours.get(neighbour)
        if known is None:
            if not self._has_room(asked=asked):
                raise RefusedError(ReasonCode.RATE_LIMITED, "neighbours enough", retry_after_ms=MINUTE_MS)
            fresh = Bucket(float(self.rules.updates_per_minute), now_ms)
            self._neighbours[neighbour] = _Neighbour(levels, now_ms, asked, fresh)
            return True
        if not asked:
            known.updates.take(self.rules.updates_per_minute, now_ms)
        changed = known.levels != levels
        known.levels, known.heard_ms, known.asked = levels, now_ms, known.asked or asked
        return changed

    def drop(self, neighbour: NodeId) -> None:
        """It cannot be reached, or is wanted no more."""
        self._neighbours.pop(neighbour, None)

    def expire(self, now_ms: int) -> list[NodeId]:
        """Drop the neighbours that have not said anything for too long; who went."""
        since = now_ms - self.rules.filter_life_ms
        gone = [name for name, known in self._neighbours.items() if known.heard_ms < since]
        for name in gone:
            self.drop(name)
        return gone

    def filters_for(self, receiver: NodeId | None) -> Levels:
        """What to tell `receiver` that we lead to: nothing that we know from it alone."""
        return attenuated(self._own, (one.levels for name, one in self._neighbours.items() if name != receiver))

    def fill(self) -> tuple[float, ...]:
        """How full each level of what we tell is, 0 to 1."""
        return tuple(self.rules.shape.fill(level) for level in self.filters_for(None))

    # --- publications ------------------------------------------------------------------------------------------------

    def publish(self, signed: SignedPublication, *, ttl: int, now_ms: int, dice: Dice) -> Received:
        """Send out a publication of our own, at most `ttl` hops far.

        Raises `RefusedError` as for any other originator: whoever publishes too much would only be refused by others.
        """
        publication = signed.publication
        check_publication(publication, network=self.network, now_ms=now_ms, puzzle_bits_asked=self.rules.puzzle_bits)
        self._originators.check(self.me, now_ms)
        self._originators.charge(self.me, now_ms)
        self._remember(publication.digest, now_ms)
        self.counts.published += 1
        forward = self._route(
            publication.topic, min(ttl, publication.max_ttl), (), None, dice, fanout=self.rules.fanout
        )
        return Received(known=False, deliver=publication.topic in self._topics, forward=forward)

    def receive(
        self,
        signed: SignedPublication,
        *,
        ttl: int,
        publishers: Sequence[NodeId],
        sender: NodeId,
        now_ms: int,
        dice: Dice,
    ) -> Received:
        """Judge what `sender` handed in, and say where it goes.

        Raises `RefusedError` or `MisbehaviourError` for the first rule that fails (`docs/protocol/quasar.md`).
        """
        try:
            return self._receive(signed, ttl, publishers, sender, now_ms, dice)
        except RefusedError:
            self.counts.refused += 1
            raise

    def _receive(
        self,
        signed: SignedPublication,
        ttl: int,
        publishers: Sequence[NodeId],
        sender: NodeId,
        now_ms: int,
        dice: Dice,
    ) -> Received:
        publication = signed.publication
        originator = node_id_of(publication.originator_key)
        if sender != originator and sender not in self._neighbours:
            raise RefusedError(ReasonCode.NOT_A_NEIGHBOUR, "a stranger hands in its own publications only")
        if sender in self._neighbours:
            self._senders.check(sender, now_ms)
            self._senders.charge(sender, now_ms)
        if ttl > min(self.rules.max_ttl, publication.max_ttl):
            raise RefusedError(ReasonCode.TTL_TOO_HIGH, f"{ttl} hops, more than we would give it")
        self.counts.received += 1
        digest = publication.digest
        if digest in self._seen:
            self.counts.duplicates += 1
            return Received(known=True, deliver=False)
        check_publication(publication, network=self.network, now_ms=now_ms, puzzle_bits_asked=self.rules.puzzle_bits)
        self._originators.check(originator, now_ms)
        if sender == originator:
            self._originators.charge(originator, now_ms)
            verify_publication(signed)
        else:
            verify_publication(signed)  # before it is charged: else anybody could use up another's share
            self._originators.charge(originator, now_ms)
        self._remember(digest, now_ms)
        self.counts.taken += 1
        deliver = publication.topic in self._topics
        self.counts.delivered += deliver
        forward = self._route(publication.topic, ttl, publishers, sender, dice, fanout=self.rules.fanout)
        return Received(known=False, deliver=deliver, forward=forward)

    def _remember(self, digest: bytes, now_ms: int) -> None:
        seen = self._seen
        while seen and next(iter(seen.values())) < now_ms:
            seen.popitem(last=False)
        if len(seen) >= self.rules.max_seen:
            raise RefusedError(
                ReasonCode.RATE_LIMITED, "too many publications to tell old from new", retry_after_ms=MINUTE_MS
            )
        # As long as its date would pass: it lies at most one life ahead of our clock.
        seen[digest] = now_ms + 2 * PUBLICATION_LIFE_MS

    def failed(self, neighbour: NodeId, topic: bytes, forward: Forward, dice: Dice) -> Forward:
        """A copy could not be handed to this neighbour, which is dropped; to whom it goes instead, if to anybody."""
        self.drop(neighbour)
        return self._route(topic, forward.ttl + 1, forward.publishers, None, dice, fanout=1)

    def _route(
        self,
        topic: bytes,
        ttl: int,
        publishers: Sequence[NodeId],
        sender: NodeId | None,
        dice: Dice,
        *,
        fanout: int,
    ) -> Forward:
        if ttl < 1:
            return NOWHERE
        mask = self.rules.shape.mask(topic)
        excluded = {*publishers, sender, self.me}
        by_level: list[list[NodeId]] = [[] for _ in range(DEPTH)]
        others: list[NodeId] = []
        for name, known in self._neighbours.items():
            if name in excluded:
                continue
            level = nearest(known.levels, mask)
            (others if level is None else by_level[level]).append(name)
        chosen = _some(by_level[0], fanout, dice)
        if not chosen or topic in self._topics:
            # Subscribers look for others farther away; who only passes it on has done so with those nearest.
            chosen += _some(by_level[1], fanout - len(chosen), dice)
        if not chosen:
            chosen = _some(by_level[2], fanout, dice)
        if not chosen:
            chosen = _some(others, 1, dice)
        self.counts.forwarded += len(chosen)
        told = (*publishers, self.me, *chosen)[-MAX_PUBLISHERS:]
        return Forward(tuple(chosen), ttl - 1, told)


def _some(names: list[NodeId], count: int, dice: Dice) -> list[NodeId]:
    """At most `count` of them, each set as likely."""
    if len(names) <= count:
        return names
    draws = dice(8 * len(names))
    order = sorted(range(len(names)), key=lambda at: draws[8 * at : 8 * at + 8])
    return [names[at] for at in order[:count]]


def choose_neighbours(known: Sequence[NodeId], count: int, dice: Dice) -> list[NodeId]:
    """Whom to ask to be our neighbours: any, by chance.

    Not the nearest by XOR, as the white paper has it: those are each other's nearest too, so that publications stay
    among them (`docs/quasar.md` has the measurement).
    """
    return _some(list(known), count, dice)
