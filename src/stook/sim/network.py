"""Seeded weather over the wire's memory network: delay, rate, loss, broken lines, partitions, and a log of it all.

A stream here behaves like TCP over a bad line: bytes come once and in order, late when a packet was lost, or the line
breaks. Everything is drawn from one seed in the order in which nodes act, so one seed gives one history, of which
`Traffic.digest` is the fingerprint (`docs/simulator.md`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from stook.sim.dice import Dice
from stook.wire.memory import MemoryCarrier, Network, Passage

KEPT_EVENTS = 2_000
_BROKEN = Passage(broken=True)


@dataclass(frozen=True, slots=True)
class Path:
    """What lies between two hosts, one way. Chances are per chunk (at most 64 KiB)."""

    delay_seconds: float = 0.010
    jitter_seconds: float = 0.005
    loss: float = 0.0
    """The chance that a chunk is lost and comes `resend_seconds` later, again and again; what is behind it waits."""
    resend_seconds: float = 0.2
    breaks: float = 0.0
    """The chance that the line breaks: every stream between the two hosts is reset, both ends learn of it."""
    vanishes: float = 0.0
    """The chance that a chunk is lost for good and nobody is told: its stream is dead from there on, this way, until a
    deadline passes. So a message is lost, while others between the same hosts get through on new streams.
    """

    def __post_init__(self) -> None:
        if min(self.delay_seconds, self.jitter_seconds, self.resend_seconds) < 0:
            raise ValueError("nothing arrives before it was sent")
        if not (0 <= self.loss < 1 and 0 <= self.breaks <= 1 and 0 <= self.vanishes <= 1):
            raise ValueError("a chance is between 0 and 1, and something must get through in the end")


CALM = Path()
"""A good home connection: 10 to 15 ms."""
ROUGH = Path(delay_seconds=0.030, jitter_seconds=0.200, loss=0.03, breaks=0.002)
"""A bad wireless one: chunks lost, times all over the place, a line broken every 500 chunks."""
LOSSY = Path(loss=0.05, vanishes=0.05)
"""One message in twenty never arrives, and another comes late."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a host sends and receives in bytes per second, all its streams together; 0 is no limit."""

    up: float = 0.0
    down: float = 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened on the network, at `seconds` of virtual time."""

    seconds: float
    kind: str
    source: str
    target: str
    size_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.seconds:12.6f} {self.kind:9} {self.source} -> {self.target} {self.size_bytes}"


class Traffic:
    """The log: the latest events, bytes per pair of hosts, and a fingerprint of all events since the start."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self.counts: Counter[str] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._hash = hashlib.sha256()

    def note(self, event: Event) -> None:
        """One more event."""
        self.events.append(event)
        self.counts[event.kind] += 1
        self._bytes[event.source, event.target] += event.size_bytes
        self._hash.update(f"{event}\n".encode())

    @property
    def digest(self) -> str:
        """The same for two runs if, and only if, the network saw the same things at the same moments in both."""
        return self._hash.copy().hexdigest()

    def bytes_between(self, source: str | None = None, target: str | None = None) -> int:
        """Bytes put on the wire from `source` to `target`; None is any host."""
        return sum(
            size for (one, other), size in self._bytes.items() if source in (None, one) and target in (None, other)
        )


class SimNetwork:
    """Hosts, the paths between them, and the power to spoil them."""

    def __init__(self, dice: Dice, path: Path = CALM) -> None:
        self.traffic = Traffic()
        self.path = path
        """Between hosts for which nothing else was said; may be changed at any time."""
        self._dice = dice
        self._paths: dict[tuple[str, str], Path] = {}
        self._rates: dict[str, Rate] = {}
        self._up_free_at: dict[str, float] = {}
        self._down_free_at: dict[str, float] = {}
        self._sides: dict[str, int] = {}
        self._gone: set[str] = set()
        self._network = Network(dice.child("channels"), self)

    def carrier(self, host: str) -> MemoryCarrier:
        """How the node on `host` reaches the others."""
        return self._network.carrier(host)

    # --- what lies between -------------------------------------------------------------------------------------------

    def set_path(self, host: str, other: str, path: Path) -> None:
        """Let `path` lie between two hosts, both ways."""
        self._paths[host, other] = self._paths[other, host] = path

    def set_rate(self, host: str, rate: Rate) -> None:
        """Give a host so much bandwidth."""
        self._rates[host] = rate

    def partition(self, *sides: Iterable[str]) -> None:
        """Let nothing through between hosts of different sides; a host in none is on a side with the other such ones.

        Nobody is told: what was on its way is lost, and streams that try to cross stay dead, as behind a router that
        forgot them. Streams that stay silent until `heal` survive.
        """
        self._sides = {host: number for number, hosts in enumerate(sides, start=1) for host in hosts}

    def heal(self) -> None:
        """End the partition."""
        self._sides = {}

    def unplug(self, host: str) -> None:
        """Let nothing in or out of a host; nobody is told."""
        self._gone.add(host)

    def plug_in(self, host: str) -> None:
        """Undo `unplug`."""
        self._gone.discard(host)

    def reset(self, host: str, other: str | None = None) -> int:
        """Break the open streams of `host` (with `other` only, if given); both ends learn of it. How many ends."""
        self._note("reset", host, other or "*")
        return self._network.cut(host, other)

    def reachable(self, source: str, target: str) -> bool:
        """Whether anything gets from one to the other now."""
        if source in self._gone or target in self._gone:
            return False
        return self._sides.get(source, 0) == self._sides.get(target, 0)

    # --- weather -----------------------------------------------------------------------------------------------------

    def connects(self, source: str, target: str) -> Passage:
        """See `stook.wire.memory.Weather`."""
        if not self.reachable(source, target):
            self._note("no way", source, target)
            return _BROKEN
        self._note("connect", source, target)
        return Passage(self._delay(self._path(source, target)))

    def carries(self, source: str, target: str, size_bytes: int) -> Passage:
        """See `stook.wire.memory.Weather`."""
        if not self.reachable(source, target):
            self._note("lost", source, target, size_bytes)
            return _BROKEN
        path = self._path(source, target)
        if size_bytes and self._dice.chance(path.breaks):
            self._note("break", source, target)
            # Not now: the stream that asks is in the middle of a write.
            asyncio.get_running_loop().call_soon(self._network.cut, source, target)
        if path.vanishes and size_bytes and self._dice.chance(path.vanishes):
            self._note("lost", source, target, size_bytes)
            return _BROKEN
        self._note("chunk", source, target, size_bytes)
        delay = self._delay(path)
        return Passage(delay, self._leaves_within(source, target, size_bytes, delay))

    def _path(self, source: str, target: str) -> Path:
        return self._paths.get((source, target), self.path)

    def _delay(self, path: Path) -> float:
        delay = path.delay_seconds + self._dice.between(0.0, path.jitter_seconds)
        while self._dice.chance(path.loss):
            delay += path.resend_seconds
        return delay

    def _leaves_within(self, source: str, target: str, size_bytes: int, delay: float) -> float:
        """Seconds until a chunk has had its turn at its sender's uplink and will find one at its receiver's downlink.

        Streams ask for one chunk at a time, so those that share a bottleneck share it evenly.
        """
        now = asyncio.get_running_loop().time()
        left = now
        if up := self._rates.get(source, _UNLIMITED).up:
            left = self._up_free_at[source] = max(now, self._up_free_at.get(source, now)) + size_bytes / up
        if down := self._rates.get(target, _UNLIMITED).down:
            arrives = max(left + delay, self._down_free_at.get(target, now)) + size_bytes / down
            self._down_free_at[target] = arrives
            left = arrives - delay
        return left - now

    def _note(self, kind: str, source: str, target: str, size_bytes: int = 0) -> None:
        self.traffic.note(Event(asyncio.get_running_loop().time(), kind, source, target, size_bytes))


_UNLIMITED = Rate()
