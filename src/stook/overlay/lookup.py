"""One search for the nodes nearest a number, as a machine: it says whom to ask next and hears what they answered.

Disjoint paths as in S/Kademlia: no node is asked by two paths, and what it answers is known to one path alone, so a
liar spoils one. At the end the paths' knowledge is put together, and only who answered itself is in the result
(`docs/protocol/overlay.md`). No I/O, no time, no dice.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stook.ids import NodeId
from stook.overlay.routing_table import K, Node

ALPHA = 3
PATHS = 4


@dataclass(frozen=True, slots=True)
class LookupRules:
    """How wide a lookup searches."""

    k: int = K
    alpha: int = ALPHA
    """Nodes a path asks at a time."""
    paths: int = PATHS
    max_asked: int = 160
    max_per_network: int | None = 3
    """Nodes of one network that count among the nearest; None where all share one."""
    distrust_after: int = 5
    """Contacts that an answer named and that were not there, after which the rest of what it named is passed over."""

    @property
    def width(self) -> int:
        """How many of the nearest must have answered for a path to end."""
        return max(self.alpha, -(-self.k // self.paths))


class _State(enum.Enum):
    ASKED = 0
    ANSWERED = 1
    FAILED = 2


class _Known:
    """A node that somebody named."""

    __slots__ = ("distance", "hop", "namers", "network", "node", "path", "state")

    def __init__(self, node: Node, distance: int, hop: int) -> None:
        self.node = node
        self.distance = distance
        self.hop = hop
        """How many answers led to it."""
        self.network = node.network
        """Where it says that it is; once it answered, where it is."""
        self.namers: list[_Known] = []
        self.state: _State | None = None
        self.path = -1
        """Which path asked it."""

    def __lt__(self, other: _Known) -> bool:
        return self.distance < other.distance


class Lookup:
    """A search for `target`, from `start`, the nearest that the own table has.

    Call `next_nodes` after every change and ask those that it gives; tell what came of each by `answered` or `failed`.
    When `done`, `result` has the nearest that answered.
    """

    def __init__(
        self, target: bytes, own_id: NodeId, start: Sequence[Node], rules: LookupRules = LookupRules()
    ) -> None:
        self.target = target
        self.rules = rules
        self.asked = 0
        self._aim = int.from_bytes(target, "big")
        self._own = int.from_bytes(own_id, "big")
        self._known: dict[int, _Known] = {}
        self._shortlists: list[list[_Known]] = [[] for _ in range(rules.paths)]
        self._listed: list[set[int]] = [set() for _ in range(rules.paths)]
        self._waiting = [0] * (rules.paths + 1)
        """Nodes that each path has asked and that did not answer yet; the last place is the end's, for all together."""
        self._pool: list[_Known] | None = None
        """All that is known, once the paths have ended."""
        self._credit: dict[int, Counter[bool]] = {}
        """Of those that each answerer named: how many answered, how many failed."""
        for place, node in enumerate(start):
            self._learn(node, None, place % rules.paths)

    @property
    def done(self) -> bool:
        """Whether nothing is left to ask or to wait for. True only after `next_nodes` gave nothing."""
        return self._pool is not None and not any(self._waiting) and not self._to_ask(self.rules.paths)

    def next_nodes(self) -> list[Node]:
        """Whom to ask now; each node is given once."""
        asked: list[Node] = []
        if self._pool is None:
            for path in range(self.rules.paths):
                asked += self._ask(path, self.rules.alpha)
            if not asked and not any(self._waiting):
                self._pool = sorted(self._known.values())
        if self._pool is not None:
            asked += self._ask(self.rules.paths, self.rules.alpha * self.rules.paths)
        return asked

    def answered(self, node: Node, contacts: Iterable[Node], *, network: str = "") -> None:
        """A node named these contacts. `network` is where it was reached, if that is known."""
        known = self._settle(node, _State.ANSWERED)
        if known is None:
            return
        if network:
            known.network = network
        for contact in contacts:
            self._learn(contact, known, known.path)

    def failed(self, node: Node) -> None:
        """A node did not answer, or not yet, or not as it should. Should it answer later, that counts all the same."""
        self._settle(node, _State.FAILED)

    def result(self) -> list[Node]:
        """The nearest k that answered, nearest first."""
        return [known.node for known in self._nearest_answered()]

    @property
    def hops(self) -> int:
        """How many answers one after another led to the nearest node found; 0 when none was."""
        return next((known.hop for known in self._nearest_answered()), 0)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _learn(self, node: Node, namer: _Known | None, path: int) -> None:
        if node.number == self._own:
            return
        known = self._known.get(node.number)
        if known is None:
            hop = 1 if namer is None else namer.hop + 1
            known = self._known[node.number] = _Known(node, node.number ^ self._aim, hop)
            if self._pool is not None:
                insort(self._pool, known)
        elif known.node is not node:
            self._update(known, node)
        if namer is not None and (not known.namers or known.namers[-1] is not namer):
            known.namers.append(namer)
        if path < self.rules.paths and node.number not in self._listed[path]:
            self._listed[path].add(node.number)
            insort(self._shortlists[path], known)

    def _update(self, known: _Known, node: Node) -> None:
        """Somebody has a newer contact of a node."""
        newer = node.contact.contact.sequence > known.node.contact.contact.sequence
        if newer and known.state in (None, _State.FAILED):
            known.node, known.network = node, node.network
            known.state = None  # if it was asked, it was asked where it is no more

    def _settle(self, node: Node, state: _State) -> _Known | None:
        known = self._known.get(node.number)
        if known is None or known.path < 0 or known.state in (state, _State.ANSWERED):
            return None
        if known.state is _State.ASKED:
            self._waiting[known.path] -= 1
        known.state = state
        for namer in known.namers:
            self._credit.setdefault(namer.node.number, Counter())[state is _State.ANSWERED] += 1
        return known

    def _ask(self, path: int, at_once: int) -> list[Node]:
        asked = []
        for known in self._to_ask(path):
            if self._waiting[path] >= at_once or self.asked >= self.rules.max_asked:
                break
            known.state, known.path = _State.ASKED, path
            self._waiting[path] += 1
            self.asked += 1
            asked.append(known.node)
        return asked

    def _to_ask(self, path: int) -> list[_Known]:
        """The nearest that a path may still ask; path number `paths` is the end."""
        if self.asked >= self.rules.max_asked:
            return []
        if path == self.rules.paths:
            return [known for known in self._nearest(self._pool or [], self.rules.k) if known.state is None]
        mine = (known for known in self._shortlists[path] if known.path in (-1, path))
        return [known for known in self._nearest(mine, self.rules.width) if known.state is None]

    def _nearest(self, among: Iterable[_Known], count: int) -> Iterator[_Known]:
        """The nearest `count` that may be there, no network too often, nobody whom only liars named."""
        cap = self.rules.max_per_network
        networks: Counter[str] = Counter()
        for known in among:
            if known.state is _State.FAILED or (known.state is None and self._is_doubtful(known)):
                continue
            if cap is not None:
                if networks[known.network] >= cap:
                    continue
                networks[known.network] += 1
            yield known
            count -= 1
            if not count:
                return

    def _is_doubtful(self, known: _Known) -> bool:
        return bool(known.namers) and all(self._is_distrusted(namer) for namer in known.namers)

    def _is_distrusted(self, namer: _Known) -> bool:
        credit = self._credit.get(namer.node.number)
        return credit is not None and credit[False] >= self.rules.distrust_after and credit[False] > 2 * credit[True]

    def _nearest_answered(self) -> Iterator[_Known]:
        answered = sorted(known for known in self._known.values() if known.state is _State.ANSWERED)
        return self._nearest(answered, self.rules.k)
