"""Publish and subscribe among thousands of nodes: how many subscribers a publication reaches, and what that costs.

The nodes are `stook.overlay.quasar.Quasar`, as everywhere; what is simulated is who knows whom, and time. Signatures
are real: checked once, and remembered, as all nodes share one process.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stook.contracts.topics import CAPACITY_PREFIX, CONTRACT_PREFIX
from stook.errors import RefusedError
from stook.identity.keys import NodeKey
from stook.ids import NodeId
from stook.overlay.bloom import DEPTH, Levels
from stook.overlay.publication import SignedPublication, sign_publication
from stook.overlay.quasar import Forward, Quasar, QuasarRules, choose_neighbours
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK, node_key
from stook.sim.loop import START_MS

BUCKET_SIZE = 20
"""Contacts that a routing table keeps of each distance, as in Kademlia."""
HOP_MS = (20.0, 120.0)
GIVEN_UP_MS = 5_000.0
"""After so long a copy that a dead node did not take goes to another one."""
PAUSE_MS = 1_000
"""Between two publications."""
STRANGE_TOPICS = 400
MAX_TOPICS = 162


@dataclass(frozen=True, slots=True)
class Setting:
    """One network."""

    seed: int
    nodes: int = 1_000
    topics: int = 81
    subscriptions: int = 3
    """Topics of one node, drawn by chance; three is what farmers of the first network had."""
    publications: int = 200
    dead: float = 0.0
    """Share of nodes that vanish after the filters have spread, and before anything is published."""
    entries: int = 3
    """Nodes to which a publication is handed by its originator."""
    nearest: bool = False
    """Neighbours are the nearest by XOR, as in the white paper."""
    rules: QuasarRules = field(default_factory=QuasarRules)

    def __post_init__(self) -> None:
        if not (self.nodes > 1 and 0 < self.topics <= MAX_TOPICS and 0 < self.subscriptions <= self.topics):
            raise ValueError(f"two nodes or more, 1 to {MAX_TOPICS} topics, and no more subscriptions than topics")
        if not (self.rules.links > 0 and self.publications > 0 and 0 <= self.dead < 1):
            raise ValueError("links and publications are above 0, and a share of dead nodes is below 1")


def topic_codes(count: int) -> list[bytes]:
    """The first `count` of the 81 topics of contracts and the 81 of capacity."""
    codes = itertools.product((CONTRACT_PREFIX, CAPACITY_PREFIX), *[(1, 2, 3)] * 4)
    return [bytes(code) for code in itertools.islice(codes, count)]


@dataclass(slots=True)
class Journey:
    """What became of one publication."""

    subscribers: int
    reached: set[int] = field(default_factory=set)
    hops: list[int] = field(default_factory=list)
    messages: int = 0
    duplicates: int = 0
    refused: int = 0

    @property
    def delivery(self) -> float:
        """The share of living subscribers that got it."""
        return len(self.reached) / self.subscribers if self.subscribers else 1.0


class Field:
    """Nodes with neighbours whose filters have spread."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        dice = Dice(setting.seed).child("quasar")
        self.dice = dice.child("routes")
        self.now_ms = START_MS
        self.topics = topic_codes(setting.topics)
        ids = sorted({NodeId(dice(20)) for _ in range(setting.nodes)})
        self.nodes = [Quasar(node_id, NETWORK, setting.rules) for node_id in ids]
        self.number = {node_id: number for number, node_id in enumerate(ids)}
        self.alive = [True] * len(ids)
        self._keys = dice.child("keys")
        self._draws = dice.child("draws")
        self._deaths = dice.child("deaths")
        self._asked: list[set[int]] = [set() for _ in ids]
        self._links = self._link(dice.child("links"))
        self.update_messages = 0
        subscriptions = dice.child("subscriptions")
        for node in self.nodes:
            node.subscribe(self.topics[at] for at in subscriptions.some(setting.subscriptions, setting.topics))

    # --- who knows whom ----------------------------------------------------------------------------------------------

    def _link(self, dice: Dice) -> list[tuple[int, ...]]:
        setting = self.setting
        links: list[set[int]] = [set() for _ in self.nodes]
        rules, room = setting.rules, setting.rules.max_neighbours
        for number in range(len(self.nodes)):
            if setting.nearest:
                wanted = self._nearest(number, setting.rules.links)
            else:
                table = [self.nodes[at].me for at in self._table(number, dice)]
                wanted = [self.number[name] for name in choose_neighbours(table, setting.rules.links, dice)]
            for other in wanted:
                if len(links[other]) < room - rules.links and len(links[number]) < room:
                    self._asked[number].add(other)
                    links[number].add(other)
                    links[other].add(number)
        return [tuple(sorted(one)) for one in links]

    def _table(self, number: int, dice: Dice) -> list[int]:
        """The contacts of a Kademlia routing table: of each distance at most so many, whichever."""
        found: list[int] = []
        low, high = 0, len(self.nodes)
        bit = 159
        while high - low > 1 and bit >= 0:
            split = self._split(low, high, bit)
            mine, other = ((low, split), (split, high)) if number < split else ((split, high), (low, split))
            if other[1] - other[0] <= BUCKET_SIZE:
                found.extend(range(*other))
            else:
                found.extend(other[0] + at for at in dice.some(BUCKET_SIZE, other[1] - other[0]))
            (low, high), bit = mine, bit - 1
        return found

    def _split(self, low: int, high: int, bit: int) -> int:
        """The first of these nodes, in order of id, whose `bit` is set."""
        while low < high:
            middle = (low + high) // 2
            if int.from_bytes(self.nodes[middle].me, "big") >> bit & 1:
                high = middle
            else:
                low = middle + 1
        return low

    def _nearest(self, number: int, count: int) -> list[int]:
        me = int.from_bytes(self.nodes[number].me, "big")
        # The nearest by XOR lie in the same subtree, so among those near in order.
        around = range(max(0, number - 64), min(len(self.nodes), number + 65))
        order = sorted(around, key=lambda at: int.from_bytes(self.nodes[at].me, "big") ^ me)
        return order[1 : count + 1]

    # --- filters -----------------------------------------------------------------------------------------------------

    def spread(self, rounds: int = DEPTH) -> None:
        """Every node tells its neighbours what it leads to, so often; all at once, as if messages took a round."""
        for _ in range(rounds):
            told: list[tuple[int, int, Levels]] = []
            for number, node in enumerate(self.nodes):
                if self.alive[number]:
                    for other in self._links[number]:
                        told.append((other, number, node.filters_for(self.nodes[other].me)))
            for receiver, sender, levels in told:
                if self.alive[receiver]:
                    asked = sender in self._asked[receiver]
                    self.nodes[receiver].heard(self.nodes[sender].me, levels, self.now_ms, asked=asked)
            self.update_messages += len(told)

    def kill(self, share: float) -> None:
        """Let this share of the nodes vanish; their neighbours do not know yet."""
        for number in self._deaths.some(round(share * len(self.nodes)), len(self.nodes)):
            self.alive[number] = False

    # --- publications ------------------------------------------------------------------------------------------------

    def key(self) -> NodeKey:
        """A new key."""
        return node_key(self._keys)

    def publish(self, topic: bytes, *, pause_ms: int = PAUSE_MS, max_ttl: int | None = None) -> Journey:
        """One publication of a new renter, handed to some nodes that it knows, followed to its end."""
        self.now_ms += pause_ms
        signed = sign_publication(
            self.key(),
            network=NETWORK,
            topic=topic,
            contents=b"",
            now_ms=self.now_ms,
            max_ttl=self.setting.rules.max_ttl if max_ttl is None else max_ttl,
        )
        return self.follow(signed, [self.living(self._draws) for _ in range(self.setting.entries)])

    def living(self, dice: Dice) -> int:
        """Any living node."""
        while not self.alive[number := dice.whole(0, len(self.nodes) - 1)]:
            pass
        return number

    def subscribers(self, topic: bytes) -> set[int]:
        """The living nodes that want it."""
        return {number for number, node in enumerate(self.nodes) if self.alive[number] and topic in node.topics}

    def follow(self, signed: SignedPublication, entries: Sequence[int]) -> Journey:
        """Hand it to these nodes, and let it travel until no copy is on its way."""
        publication = signed.publication
        journey = Journey(len(self.subscribers(publication.topic)))
        travels = _Travels(self, signed, journey)
        entry = Forward(tuple({self.nodes[one].me: None for one in entries}), publication.max_ttl, ())
        travels.send(entry, signed.originator, 0.0, 0)
        travels.run()
        return journey


class _Travels:
    """The copies of one publication that are on their way."""

    def __init__(self, field_: Field, signed: SignedPublication, journey: Journey) -> None:
        self._field = field_
        self._signed = signed
        self._journey = journey
        self._queue: list[tuple[float, int, int, NodeId, Forward, int]] = []
        self._count = itertools.count()

    def send(self, forward: Forward, sender: NodeId, at_ms: float, hops: int) -> None:
        """A copy to each."""
        for name in forward.to:
            self._journey.messages += 1
            arrives = at_ms + self._field.dice.between(*HOP_MS)
            event = (arrives, next(self._count), self._field.number[name], sender, forward, hops + 1)
            heapq.heappush(self._queue, event)

    def run(self) -> None:
        """Until all have arrived."""
        field_, journey = self._field, self._journey
        while self._queue:
            at_ms, _, number, sender, forward, hops = heapq.heappop(self._queue)
            node = field_.nodes[number]
            if not field_.alive[number]:
                self._try_another(forward, sender, node.me, at_ms + GIVEN_UP_MS, hops)
                continue
            try:
                received = node.receive(
                    self._signed,
                    ttl=forward.ttl,
                    publishers=forward.publishers,
                    sender=sender,
                    now_ms=field_.now_ms + int(at_ms),
                    dice=field_.dice,
                )
            except RefusedError:
                journey.refused += 1
                continue
            journey.duplicates += received.known
            if received.deliver:
                journey.reached.add(number)
                journey.hops.append(hops)
            self.send(received.forward, node.me, at_ms, hops)

    def _try_another(self, forward: Forward, sender: NodeId, dead: NodeId, at_ms: float, hops: int) -> None:
        number = self._field.number.get(sender)
        if number is None:
            return  # the renter handed it to others too
        node, topic = self._field.nodes[number], self._signed.publication.topic
        self.send(node.failed(dead, topic, forward, self._field.dice), sender, at_ms, hops - 1)


def false_positives(field_: Field) -> list[float]:
    """How often a topic that nobody is subscribed to seems to be in a level, for a few hundred nodes."""
    shape = field_.setting.rules.shape
    strange = [shape.mask(b"\xee" + number.to_bytes(4, "big")) for number in range(STRANGE_TOPICS)]
    found: Counter[int] = Counter()
    some = field_.nodes[:: max(1, len(field_.nodes) // 300)]
    for node in some:
        for depth, level in enumerate(node.filters_for(None)):
            found[depth] += sum(level & mask == mask for mask in strange)
    return [found[depth] / (len(some) * len(strange)) for depth in range(DEPTH)]


def by_hops(setting: Setting, hops: Sequence[int]) -> list[dict[str, Any]]:
    """How much of its subscribers a publication reaches in one network, by the hops that it may make."""
    field_ = Field(setting)
    field_.spread()
    topics = Dice(setting.seed).child("publications")
    return [
        {
            "nodes": setting.nodes,
            "seed": setting.seed,
            "ttl": ttl,
            "delivery": statistics.fmean(
                field_.publish(field_.topics[topics.whole(0, setting.topics - 1)], max_ttl=ttl).delivery
                for _ in range(setting.publications)
            ),
        }
        for ttl in hops
    ]


def measured(setting: Setting) -> tuple[Field, list[Journey]]:
    """The network and the journeys of its publications."""
    field_ = Field(setting)
    field_.spread()
    field_.kill(setting.dead)
    topics = Dice(setting.seed).child("publications")
    journeys = [field_.publish(field_.topics[topics.whole(0, setting.topics - 1)]) for _ in range(setting.publications)]
    return field_, journeys


def quasar(setting: Setting) -> dict[str, Any]:
    """What `stook sim quasar` shows."""
    started = time.monotonic()
    field_, journeys = measured(setting)
    fills = [node.fill() for node in field_.nodes]
    degrees = [len(node.neighbours) for node in field_.nodes]
    messages = sum(journey.messages for journey in journeys)
    reached = sum(len(journey.reached) for journey in journeys)
    hops = [hop for journey in journeys for hop in journey.hops]
    shape = setting.rules.shape
    return {
        "nodes": setting.nodes,
        "topics": setting.topics,
        "subscriptions": setting.subscriptions,
        "publications": setting.publications,
        "seed": setting.seed,
        "dead": setting.dead,
        "filter_bits": shape.bits,
        "filter_hashes": shape.hashes,
        "links": setting.rules.links,
        "nearest": setting.nearest,
        "fanout": setting.rules.fanout,
        "ttl": setting.rules.max_ttl,
        "neighbours_mean": statistics.fmean(degrees),
        "neighbours_max": max(degrees),
        "subscribers_mean": statistics.fmean(journey.subscribers for journey in journeys),
        "delivery": statistics.fmean(journey.delivery for journey in journeys),
        "delivery_worst": min(journey.delivery for journey in journeys),
        "messages_per_publication": messages / len(journeys),
        "messages_per_delivery": messages / max(1, reached),
        "duplicates": sum(journey.duplicates for journey in journeys) / messages,
        "hops_mean": statistics.fmean(hops) if hops else 0.0,
        "hops_max": max(hops, default=0),
        "filter_fill": [statistics.fmean(fill[depth] for fill in fills) for depth in range(DEPTH)],
        "false_positives": false_positives(field_),
        "update_bytes_per_neighbour": DEPTH * shape.size_bytes,
        "seconds": time.monotonic() - started,
    }
