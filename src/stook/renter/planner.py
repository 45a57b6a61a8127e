"""Who gets which shard: weighted random over farmers that qualify, under hard caps. Pure.

A farmer's chance grows with its free space and its standing, never "fastest first": a placement that always took the
best would hand every shard of a segment to the same few. The caps hold whatever the weights say: one shard of a segment
per farmer, and fewer than k per operator, per network (/24 or /48) and per failure domain, so that no one of them can
lose, or hold hostage, a whole segment (`docs/protocol/placement.md`).
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from stook.errors import NotEnoughError
from stook.identity.contact import ip_network_of
from stook.ids import NodeId
from stook.shards.geometry import LADDER

Dice = Callable[[int], bytes]
"""Random bytes of the given length."""


class Spread(enum.Enum):
    """Which caps are in force."""

    STRICT = "strict"
    """One shard per farmer; fewer than k per operator, network and failure domain."""
    DOMAINS = "domains"
    """The same without the networks: for a private grid, whose members may sit on one line and know their buildings."""
    FARMERS = "farmers"
    """Distinct farmers only: for many farmers on one machine or one desk. Correlated loss is then not guarded."""


class Reason(enum.Enum):
    """Why a candidate could not take a shard; the value ends the sentence "N farmers …"."""

    EXCLUDED = "were tried already or hold a shard of this segment"
    CONDEMNED = "lied in an audit"
    SILENT = "do not prove what they hold just now"
    LOSES_TOO_MUCH = "lost too much too often and rest until that has faded"
    AVOIDED = "failed lately and rest until later"
    FULL = "have too little free space"
    SHARD_TOO_LARGE = "take no shards of this size"
    TOO_SHORT = "want a longer contract"
    TOO_LONG = "want a shorter contract"
    TOO_DEAR = "ask more than the price limit"
    SETTLEMENT = "do not settle the way we pay"
    OPERATOR_CAP = "belong to an operator that has its share"
    NETWORK_CAP = "are in a network that has its share"
    DOMAIN_CAP = "are in a failure domain that has its share"


_USUAL_SHARD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A farmer as placement sees it. `weight` is its standing, 0 to 1; `networks` come from `network_groups`."""

    node_id: NodeId
    free_bytes: int
    max_shard_bytes: int = LADDER[-1]
    min_duration_ms: int = 0
    max_duration_ms: int = 2**63 - 1
    storage_price_per_gib_hour: int = 0
    download_price_per_gib: int = 0
    settlements: tuple[int, ...] = (0,)
    networks: frozenset[str] = frozenset()
    operator: str = ""
    failure_domain: str = ""
    weight: float = 1.0
    avoid_until_ms: int = 0
    barred: Reason | None = None
    """Why it is given nothing, whatever it weighs (`standing.barred`)."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What has to be placed: `count` shards of one segment that k rebuild, and what we will accept for them."""

    k: int
    count: int
    shard_bytes: int
    duration_ms: int
    settlement: int = 0
    max_storage_price_per_gib_hour: int = 2**63 - 1
    max_download_price_per_gib: int = 2**63 - 1
    spread: Spread = Spread.STRICT


@dataclass(frozen=True, slots=True)
class Rejection:
    """A candidate that was passed over, and why."""

    node_id: NodeId
    reason: Reason


@dataclass(frozen=True, slots=True)
class Choice:
    """The farmers chosen, in random order, and everyone who was passed over for a reason."""

    chosen: tuple[NodeId, ...]
    rejected: tuple[Rejection, ...]
    shortage: str = ""
    """Empty, or the sentence that says why fewer were chosen than asked for."""


def network_groups(hosts: Iterable[str]) -> frozenset[str]:
    """The /24 (IPv4) or /48 (IPv6) of each address literal; a DNS name counts as a network of its own."""
    return frozenset(_network_group(host) for host in hosts)


@lru_cache(maxsize=4096)
def _network_group(host: str) -> str:
    return ip_network_of(host) or host.lower().rstrip(".")


def group_cap(k: int) -> int:
    """How many shards of one segment an operator, a network or a failure domain may hold: below k, at least one."""
    return max(1, k - 1)


def _unfit(candidate: Candidate, demand: Demand, excluding: frozenset[NodeId], now_ms: int) -> Reason | None:
    judgements = (
        (candidate.node_id in excluding, Reason.EXCLUDED),
        (candidate.max_shard_bytes < demand.shard_bytes, Reason.SHARD_TOO_LARGE),
        (candidate.free_bytes < demand.shard_bytes, Reason.FULL),
        (candidate.min_duration_ms > demand.duration_ms, Reason.TOO_SHORT),
        (candidate.max_duration_ms < demand.duration_ms, Reason.TOO_LONG),
        (
            candidate.storage_price_per_gib_hour > demand.max_storage_price_per_gib_hour
            or candidate.download_price_per_gib > demand.max_download_price_per_gib,
            Reason.TOO_DEAR,
        ),
        (demand.settlement not in candidate.settlements, Reason.SETTLEMENT),
        (candidate.avoid_until_ms > now_ms, Reason.AVOIDED),
    )
    found = next((reason for bad, reason in judgements if bad), None)
    # Before those that pass: a farmer that only rests is asked after all when the others are too few.
    return found if candidate.barred is None or found is Reason.EXCLUDED else candidate.barred


def _groups(candidate: Candidate, spread: Spread) -> Iterator[tuple[Reason, str]]:
    """What a farmer shares with others that may fail together with it."""
    if candidate.operator:
        yield Reason.OPERATOR_CAP, candidate.operator
    for network in candidate.networks if spread is not Spread.DOMAINS else ():
        yield Reason.NETWORK_CAP, network
    if candidate.failure_domain:
        yield Reason.DOMAIN_CAP, candidate.failure_domain


class _Caps:
    """Shards of one segment counted per group while they are handed out."""

    def __init__(self, demand: Demand, holders: Iterable[Candidate]) -> None:
        self._cap = group_cap(demand.k)
        self._spread = demand.spread
        self._held: Counter[tuple[Reason, str]] = Counter()
        for holder in holders:
            self.take(holder)

    def groups(self, candidate: Candidate) -> Iterator[tuple[Reason, str]]:
        return _groups(candidate, self._spread)

    def full(self, candidate: Candidate) -> Reason | None:
        if self._spread is Spread.FARMERS:
            return None
        return next((group[0] for group in self.groups(candidate) if self._held[group] >= self._cap), None)

    def take(self, candidate: Candidate) -> None:
        self._held.update(self.groups(candidate))

    def crowding(self, candidate: Candidate, population: Counter[tuple[Reason, str]]) -> int:
        return max((population[group] for group in self.groups(candidate)), default=0)


def _shuffled(candidates: Sequence[Candidate], dice: Dice) -> list[Candidate]:
    """Weighted random order: each draws an exponential waiting time at a rate of its weight (Efraimidis, Spirakis)."""
    draws = dice(8 * len(candidates))

    def waiting_time(position: int) -> float:
        uniform = (int.from_bytes(draws[8 * position : 8 * position + 8], "big") + 1) / (2**64 + 1)
        candidate = candidates[position]
        return -math.log(uniform) / max(candidate.weight * candidate.free_bytes, 1e-9)

    return [candidates[position] for position in sorted(range(len(candidates)), key=waiting_time)]


def _hand_out(
    order: Sequence[Candidate], demand: Demand, holders: Sequence[Candidate]
) -> tuple[list[Candidate], list[Rejection]]:
    caps = _Caps(demand, holders)
    chosen: list[Candidate] = []
    capped: list[Rejection] = []
    for candidate in order:
        if len(chosen) == demand.count:
            break
        reason = caps.full(candidate)
        if reason is None:
            caps.take(candidate)
            chosen.append(candidate)
        else:
            capped.append(Rejection(candidate.node_id, reason))
    return chosen, capped


def choose(
    candidates: Sequence[Candidate],
    demand: Demand,
    *,
    holders: Sequence[Candidate] = (),
    excluding: frozenset[NodeId] = frozenset(),
    at_least: int | None = None,
    now_ms: int,
    dice: Dice,
) -> Choice:
    """Choose `demand.count` distinct farmers. `holders` have shards of the segment already and count for the caps.

    Those that rest after a failure are taken only when the others are too few.

    Raises `NotEnoughError` below `at_least` (default: all), with a sentence that counts who was passed over and why.
    """
    barred = excluding | {holder.node_id for holder in holders}
    rejected: list[Rejection] = []
    fit: list[Candidate] = []
    for candidate in candidates:
        reason = _unfit(candidate, demand, barred, now_ms)
        if reason is None:
            fit.append(candidate)
        else:
            rejected.append(Rejection(candidate.node_id, reason))
    order = _shuffled(fit, dice)
    chosen, capped = _hand_out(order, demand, holders)
    if len(chosen) < demand.count:
        # Random order can use up a cap that two groups share; taking the least crowded groups first wastes none.
        caps = _Caps(demand, ())
        population: Counter[tuple[Reason, str]] = Counter()
        for candidate in fit:
            population.update(caps.groups(candidate))
        again, capped_again = _hand_out(
            sorted(order, key=lambda candidate: caps.crowding(candidate, population)), demand, holders
        )
        if len(again) > len(chosen):
            chosen, capped = again, capped_again
    if len(chosen) < demand.count:
        chosen += _rested(candidates, rejected, demand, (*holders, *chosen), demand.count - len(chosen))
        taken = {candidate.node_id for candidate in chosen}
        rejected = [rejection for rejection in rejected if rejection.node_id not in taken]
    rejected += capped
    lack = shortage(len(candidates), len(chosen), demand, rejected) if len(chosen) < demand.count else ""
    if len(chosen) < (demand.count if at_least is None else at_least):
        raise NotEnoughError(lack)
    return Choice(tuple(candidate.node_id for candidate in chosen), tuple(rejected), lack)


def _rested(
    candidates: Sequence[Candidate],
    rejected: Sequence[Rejection],
    demand: Demand,
    holders: Sequence[Candidate],
    count: int,
) -> list[Candidate]:
    """At most `count` of those passed over only because they rest, who rest least first.

    When nearly everybody failed it was our own line that did.
    """
    resting = {rejection.node_id for rejection in rejected if rejection.reason is Reason.AVOIDED}
    order = sorted(
        (candidate for candidate in candidates if candidate.node_id in resting),
        key=lambda candidate: candidate.avoid_until_ms,
    )
    return _hand_out(order, replace(demand, count=count), holders)[0]


def shortage(known: int, found: int, demand: Demand, rejected: Sequence[Rejection]) -> str:
    """One sentence that says what is missing and what stood in the way of the others."""
    counts = Counter(rejection.reason for rejection in rejected)
    why = "; ".join(f"{count} {reason.value}" for reason, count in counts.most_common())
    noun = "farmer is" if demand.count == 1 else "farmers are"
    text = f"{demand.count} more {noun} needed and {found} can be had: {known} known"
    return f"{text}, of which {why}" if why else text


def eligible(candidates: Sequence[Candidate], demand: Demand, *, now_ms: int) -> int:
    """How many shards of one segment could be placed at most, up to `demand.count`; for choosing a policy."""
    fit = [candidate for candidate in candidates if _unfit(candidate, demand, frozenset(), now_ms) is None]
    return len(_hand_out(fit, demand, ())[0])


def independent_domains(candidates: Iterable[Candidate], spread: Spread) -> int:
    """How many groups of farmers fail independently, as far as declarations and addresses tell.

    Farmers that share an operator, a network or a failure domain are one group (transitively). With
    `Spread.DOMAINS` networks do not count, with `Spread.FARMERS` each farmer does.
    """
    parent: dict[object, object] = {}

    def find(item: object) -> object:
        while parent.setdefault(item, item) != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    nodes: list[object] = []
    for candidate in candidates:
        nodes.append(candidate.node_id)
        find(candidate.node_id)
        if spread is not Spread.FARMERS:
            for group in _groups(candidate, spread):
                parent[find(group)] = find(candidate.node_id)
    return len({find(node) for node in nodes})


def shards_taken(candidates: Iterable[Candidate], count: int) -> int:
    """The largest shards that at least `count` of them take, or all when they are fewer; not below what all farmers
    ever took as they ship, so that one that takes only tiny ones is passed over and slows nobody down.
    """
    sizes = sorted((candidate.max_shard_bytes for candidate in candidates), reverse=True)[:count]
    return max(_USUAL_SHARD_BYTES, min(sizes, default=LADDER[-1]))
