"""Thousands of overlay nodes in one process: the table and the lookup that real nodes run, without sessions.

Every node joins through another as real ones do, then some die or turn hostile at once, and lookups are made and
compared with the truth. A message is a function call that takes its time on a virtual clock of its own
(`docs/overlay.md`). What sessions add (signatures, addresses, limits of peers) is left out here and tested with them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stook.audits.confidence import eclipse_chance
from stook.identity.contact import Address, AddressKind, Contact, SignedContact, sign_contact
from stook.ids import NODE_ID_BYTES, NodeId, PublicKey, Signature
from stook.overlay.lookup import Lookup, LookupRules
from stook.overlay.messages import MAX_CONTACTS
from stook.overlay.routing_table import ID_BITS, Node, RoutingTable
from stook.overlay.searcher import PATIENCE_SECONDS
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK, node_key
from stook.sim.loop import START_MS
from stook.sim.overlay_net import PORT, address_of

_NO_KEY = PublicKey(bytes(33))
QUICK = replace(LookupRules(), k=LookupRules().k // 2, paths=1)
"""As a real node refreshes its buckets."""
TRIP_SECONDS = (0.02, 0.2)
"""The time of a request and its answer, drawn between these."""
GROUND_PER_NODE = 4
"""How many keys a liar has ground for each node of the network, to name addresses near the target where nobody is."""


KINDS = ("mixed", "drop", "lie", "friends")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated."""

    seed: int
    nodes: int = 1000
    dead: float = 0.2
    """Share of nodes that is gone when the lookups are made, all at once and noticed by nobody."""
    hostile: float = 0.0
    """Share of the living nodes that turns hostile then."""
    kind: str = "mixed"
    """What they do: `drop` requests, `lie` (name addresses where nobody is), name their `friends`; or a third each."""
    paths: int = LookupRules().paths
    lookups: int = 1000

    def __post_init__(self) -> None:
        if self.nodes < 2 or self.lookups < 1 or not 1 <= self.paths <= 16:
            raise ValueError("at least 2 nodes, 1 lookup, and 1 to 16 paths")
        if self.kind not in KINDS:
            raise ValueError(f"hostile nodes are of a kind: {', '.join(KINDS)}")
        if not (0 <= self.dead < 1 and 0 <= self.hostile < 1):
            raise ValueError("shares are at least 0 and below 1")
        living = round(self.nodes * (1 - self.dead))
        if living - round(living * self.hostile) < 2:
            raise ValueError("nobody is left to look for anybody")


class Citizen:
    """One simulated node."""

    __slots__ = ("alive", "answer", "node", "table")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.table = RoutingTable(node.node_id)
        self.alive = True
        self.answer: Deed = honest
        """What it makes of a request: contacts, or None for no answer."""


Deed = Callable[[Citizen, bytes], list[Node] | None]
"""What a node makes of a request for the nodes near a number."""


def honest(citizen: Citizen, target: bytes) -> list[Node]:
    """The nearest that it knows."""
    return citizen.table.closest(target, MAX_CONTACTS)


def drops(_citizen: Citizen, _target: bytes) -> None:
    """No answer."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What one lookup came to."""

    found: bool
    exact: bool
    hops: int
    requests: int
    seconds: float


class City:
    """All nodes, and what passes between them."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.dice = Dice(seed).child("city")
        self.citizens = [self._settle(number) for number in range(nodes)]
        self._by_number = {citizen.node.number: citizen for citizen in self.citizens}
        for place, citizen in enumerate(self.citizens[1:], start=1):
            self._join(citizen, self.citizens[self.dice.whole(0, place - 1)])
        for citizen in self.citizens:
            # As after a while of life: later neighbours were not there yet when the first ones joined.
            self._look(citizen, citizen.node.node_id, LookupRules())

    def strike(self, setting: Setting) -> None:
        """Let the dead die and the hostile turn; whoever was dead or hostile before is not any more."""
        for citizen in self.citizens:
            citizen.alive, citizen.answer = True, honest
        fate = self.dice.child("fate")
        for place in fate.some(round(setting.nodes * setting.dead), setting.nodes):
            self.citizens[place].alive = False
        living = [citizen for citizen in self.citizens if citizen.alive]
        hostile = [living[place] for place in fate.some(round(len(living) * setting.hostile), len(living))]
        friends = Friends([citizen.node for citizen in hostile])
        liar = Liar(setting.nodes, fate.child("lies"))
        deeds: dict[str, Deed] = {"drop": drops, "lie": liar, "friends": friends}
        for citizen in hostile:
            drawn = fate.whole(1, 3)
            citizen.answer = deeds[KINDS[drawn] if setting.kind == "mixed" else setting.kind]

    def walks(self, setting: Setting) -> list[Walk]:
        """Lookups of living honest nodes by living honest nodes, as many as the setting says."""
        rules = replace(LookupRules(), paths=setting.paths)
        good = [citizen for citizen in self.citizens if citizen.alive and citizen.answer is honest]
        there = [citizen.node for citizen in self.citizens if citizen.alive and citizen.answer is not drops]
        dice = self.dice.child("walks")
        walks = []
        for _ in range(setting.lookups):
            searcher, wanted = (good[place] for place in dice.some(2, len(good)))
            target = wanted.node.node_id
            lookup, seconds = self._look(searcher, target, rules, dice)
            result = lookup.result()
            truth = heapq.nsmallest(
                rules.k + 1,
                there,
                key=lambda node, aim=wanted.node.number: node.number ^ aim,  # type: ignore[misc]
            )
            truth = [node for node in truth if node is not searcher.node][: rules.k]
            exact = [node.number for node in result] == [node.number for node in truth]
            walks.append(Walk(wanted.node in result, exact, lookup.hops, lookup.asked, seconds))
        return walks

    def add(self, nodes: Sequence[Node], answer: Deed) -> None:
        """Nodes that nobody joined with, all of whom answer alike."""
        for node in nodes:
            citizen = self._by_number[node.number] = Citizen(node)
            citizen.answer = answer

    def look(self, searcher: Citizen, target: bytes) -> list[Node]:
        """What one lookup gives."""
        return self._look(searcher, target, LookupRules(), self.dice)[0].result()

    def _settle(self, number: int) -> Citizen:
        key = node_key(self.dice.child(f"key {number}"))
        address = Address(AddressKind.DIRECT, address_of(number), PORT)
        contact = sign_contact(key, network=NETWORK, addresses=[address], sequence=START_MS, issued_ms=START_MS)
        return Citizen(Node.of(contact))

    def _join(self, citizen: Citizen, entry: Citizen) -> None:
        self._meet(citizen, entry)
        self._look(citizen, citizen.node.node_id, LookupRules())
        for index in citizen.table.unrefreshed_since(START_MS):
            self._look(citizen, citizen.table.id_in_bucket(index, self.dice(NODE_ID_BYTES)), QUICK)

    def _meet(self, caller: Citizen, called: Citizen) -> None:
        """Both know now that the other is there; the called one has called back."""
        caller.table.seen(called.node, called.node.network, now_ms=START_MS)
        if called.table.wants(caller.node):
            called.table.seen(caller.node, caller.node.network, now_ms=START_MS)

    def _look(
        self, searcher: Citizen, target: bytes, rules: LookupRules, dice: Dice | None = None
    ) -> tuple[Lookup, float]:
        """One lookup, and how long it took. Without dice every answer comes at once, and people meet."""
        start = searcher.table.closest(target, max(rules.k, rules.alpha * rules.paths))
        lookup = Lookup(target, searcher.node.node_id, start, rules)
        coming: list[tuple[float, int, Node, list[Node] | None]] = []
        now, sent = 0.0, 0
        while True:
            for node in lookup.next_nodes():
                called = self._by_number.get(node.number)
                answer = called.answer(called, target) if called is not None and called.alive else None
                took = PATIENCE_SECONDS
                if answer is not None:
                    took = 0.0 if dice is None else dice.between(*TRIP_SECONDS)
                    if dice is None and called is not None:
                        self._meet(searcher, called)
                sent += 1
                heapq.heappush(coming, (now + took, sent, node, answer))
            if not coming:
                searcher.table.looked_up(target, now_ms=START_MS)
                return lookup, now
            now, _, node, answer = heapq.heappop(coming)
            if answer is None:
                lookup.failed(node)
            else:
                lookup.answered(node, answer, network=node.network)


class Friends:
    """Names only hostile nodes, those nearest the target; together they know one another."""

    def __init__(self, friends: Sequence[Node]) -> None:
        self._friends = friends

    def __call__(self, _citizen: Citizen, target: bytes) -> list[Node]:
        """The friends nearest the target."""
        aim = int.from_bytes(target, "big")
        return heapq.nsmallest(MAX_CONTACTS, self._friends, key=lambda node: node.number ^ aim)


class Liar:
    """Names ids nearer to the target than almost everyone's, at addresses where nobody is."""

    def __init__(self, nodes: int, dice: Dice) -> None:
        self._spacing = (1 << ID_BITS) // (GROUND_PER_NODE * nodes)
        self._dice = dice

    def __call__(self, _citizen: Citizen, target: bytes) -> list[Node]:
        """Ids that nobody has."""
        aim = int.from_bytes(target, "big")
        return [
            self._nobody(aim ^ (self._spacing * place + self._dice.whole(1, self._spacing - 1)), place)
            for place in range(MAX_CONTACTS)
        ]

    def _nobody(self, number: int, place: int) -> Node:
        address = Address(AddressKind.DIRECT, address_of(self._dice.whole(0, 65535)), PORT)
        contact = SignedContact(
            Contact(1, NETWORK, _NO_KEY, 0, START_MS, START_MS, place, (address,)), Signature(bytes(64))
        )
        return Node(contact, NodeId(number.to_bytes(NODE_ID_BYTES, "big")), number, address.host)


def overlay(setting: Setting, city: City | None = None) -> dict[str, Any]:
    """Build, unless there is a city of this seed and size, strike, look, and add it up."""
    if city is None:
        city = City(setting.seed, setting.nodes)
    tables = sum(len(citizen.table) for citizen in city.citizens) / len(city.citizens)
    city.strike(setting)
    walks = city.walks(setting)

    def mean(what: Callable[[Walk], float]) -> float:
        return sum(map(what, walks)) / len(walks)

    return {
        **asdict(setting),
        "success": mean(lambda walk: walk.found),
        "exact_k": mean(lambda walk: walk.exact),
        "hops_mean": mean(lambda walk: walk.hops),
        "hops_max": max(walk.hops for walk in walks),
        "messages_mean": mean(lambda walk: walk.requests),
        "lookup_seconds_mean": mean(lambda walk: walk.seconds),
        "contacts_mean": tables,
    }


GROWTH = (100, 300, 1_000, 3_000, 10_000)
HOSTILE_NODES = 1_000
HOSTILE = (0.1, 0.3, 0.5)
PATHS = (1, 2, 4)


def figures(seed: int, growth: Sequence[int] = GROWTH, lookups: int = 1_000) -> dict[str, Any]:
    """Everything that `docs/overlay.md` shows: growth with a fifth dead, and hostile shares by paths. Takes minutes."""
    grown, hostile = [], []
    for nodes in growth:
        city = City(seed, nodes)
        grown.append(overlay(Setting(seed, nodes=nodes, dead=0.2, lookups=lookups), city))
        if nodes == HOSTILE_NODES:
            hostile = [
                overlay(
                    Setting(seed, nodes=nodes, dead=0.0, hostile=share, kind=kind, paths=paths, lookups=lookups), city
                )
                for kind in KINDS
                for share in HOSTILE
                for paths in PATHS
            ]
    return {"growth": grown, "hostile": hostile, "eclipse": [eclipse(seed, nodes) for nodes in ECLIPSE_NODES]}


ECLIPSE_NODES = (100, 500, 900)
ECLIPSE_TRIALS = 2_000
ECLIPSE_KEYS = (100, 500, 900)


def eclipse(seed: int, nodes: int, trials: int = ECLIPSE_TRIALS) -> dict[str, Any]:
    """How often somebody who makes so many keys has three ids nearer to a victim than its nearest honest node.

    Counted in two ways: with the nearest honest node exactly a `nodes`-th of the space away, as the white paper's
    formula (section 6.2) has it, and with all ids drawn, as they are. For the latter the chance is that the three
    nearest of all are the attacker's.
    """
    dice = Dice(seed).child(f"eclipse {nodes}")
    even, drawn = dict.fromkeys(ECLIPSE_KEYS, 0), dict.fromkeys(ECLIPSE_KEYS, 0)
    spacing = (1 << ID_BITS) // nodes
    for _ in range(trials):
        nearest = min(int.from_bytes(dice(NODE_ID_BYTES), "big") for _ in range(nodes))
        under_spacing = under_nearest = 0
        for made in range(1, max(ECLIPSE_KEYS) + 1):
            number = int.from_bytes(dice(NODE_ID_BYTES), "big")
            under_spacing += number < spacing
            under_nearest += number < nearest
            if made in even:
                even[made] += under_spacing >= 3
                drawn[made] += under_nearest >= 3
    return {
        "nodes": nodes,
        "trials": trials,
        "keys": [
            {
                "keys": keys,
                "formula": eclipse_chance(keys, nodes),
                "counted_as_the_formula_has_it": even[keys] / trials,
                "exact_for_drawn_ids": math.comb(keys, 3) / math.comb(keys + nodes, 3),
                "counted_for_drawn_ids": drawn[keys] / trials,
            }
            for keys in ECLIPSE_KEYS
        ],
    }
