"""Virtual time, nodes of a memory network, and sessions driven by hand."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from stook.identity.contact import Address, AddressKind
from stook.identity.keys import NodeKey
from stook.ids import MessageId, NetworkId, NodeId, SessionNonce
from stook.wire.endpoint import Endpoint, Limits, Peer
from stook.wire.hello import Party, Role
from stook.wire.memory import Network, Passage
from stook.wire.session import Session

T = TypeVar("T")
NOW_MS = 1_700_000_000_000
NETWORK = NetworkId("test")
CHANNEL = bytes(range(32))
ALICE = NodeKey.from_secret(b"\x01" * 32)
BOB = NodeKey.from_secret(b"\x02" * 32)
CAROL = NodeKey.from_secret(b"\x03" * 32)


# --- virtual time ----------------------------------------------------------------------------------------------------


class _Jumping(selectors.BaseSelector):
    """Never waits: the loop's time jumps to its next timer instead."""

    def __init__(self) -> None:
        self._inner = selectors.DefaultSelector()
        self.now = 0.0

    def register(self, fileobj, events, data=None):
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj):
        return self._inner.unregister(fileobj)

    def select(self, timeout=None):
        ready = self._inner.select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everything waits and no timer is set")
            self.now += timeout
        return ready

    def get_map(self):
        return self._inner.get_map()

    def close(self):
        self._inner.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps; threads and sockets are not for it."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        # The loop runs timers up to `time() + resolution`; jumping exactly to them is enough.
        return self._jumping.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time, and make sure that it leaves no task behind."""
    loop = VirtualLoop()
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: problems.append(context))
    try:
        result = loop.run_until_complete(main)
        left = asyncio.all_tasks(loop)
        assert not left, f"tasks left behind: {left}"
        loop.run_until_complete(asyncio.sleep(0))
        assert not problems, problems
        return result
    finally:
        loop.close()


class LoopClock:
    """Tells the loop's time, plus what the test adds."""

    def __init__(self, skew_ms: int = 0) -> None:
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return NOW_MS + int(asyncio.get_running_loop().time() * 1000) + self.skew_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Dice:
    """Seeded randomness for tests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, size_bytes: int, /) -> bytes:
        return self._random.randbytes(size_bytes)


# --- nodes in memory -------------------------------------------------------------------------------------------------


class Wind:
    """Weather with a delay, a rate, and hosts that are cut off."""

    def __init__(self, delay_seconds: float = 0.0, bytes_per_second: float = 0.0) -> None:
        self.delay_seconds = delay_seconds
        self.bytes_per_second = bytes_per_second
        self.cut_off: set[str] = set()

    def connects(self, source: str, target: str) -> Passage:
        return self.carries(source, target, 0)

    def carries(self, source: str, target: str, size_bytes: int) -> Passage:
        if {source, target} & self.cut_off:
            return Passage(broken=True)
        seconds = size_bytes / self.bytes_per_second if self.bytes_per_second else 0.0
        return Passage(self.delay_seconds, seconds)


class World:
    """A memory network and the nodes on it."""

    def __init__(self, weather: Wind | None = None, seed: int = 1) -> None:
        self.weather = weather if weather is not None else Wind()
        self.dice = Dice(seed)
        self.network = Network(self.dice, self.weather)
        self.nodes: list[Endpoint] = []
        self.errors: list[tuple[str, Exception]] = []

    def node(self, number: int, **changes: Any) -> Endpoint:
        """The node with key `number` on host ``h<number>``."""
        values: dict[str, Any] = {
            "key": NodeKey.from_secret(bytes([number]) * 32),
            "network": NETWORK,
            "clock": LoopClock(),
            "entropy": self.dice,
            "carrier": self.network.carrier(f"h{number}"),
            "limits": Limits(),
            "on_error": lambda what, error: self.errors.append((what, error)),
        }
        endpoint = Endpoint(**(values | changes))
        self.nodes.append(endpoint)
        return endpoint

    async def pair(self, **changes: Any) -> tuple[Endpoint, Endpoint, Peer]:
        """A caller, a listening callee, and how to reach it. `changes` are for both."""
        caller, callee = self.node(1, **changes), self.node(2, **changes)
        return caller, callee, await listening(callee)

    async def close(self) -> None:
        for node in self.nodes:
            await node.close(grace_seconds=1)


async def listening(node: Endpoint) -> Peer:
    """Let a node listen and tell how to reach it."""
    host, port = await node.listen("127.0.0.1", 0)
    return Peer(node.node_id, (Address(AddressKind.DIRECT, host, port),))


# --- sessions by hand ------------------------------------------------------------------------------------------------


def message_id(number: int) -> MessageId:
    return MessageId(number.to_bytes(16, "big"))


def party(key: NodeKey, **changes: Any) -> Party:
    return Party(**({"key": key, "network": NETWORK} | changes))


def initiator(
    key: NodeKey = ALICE, to: NodeId | None = BOB.node_id, channel: bytes = CHANNEL, **changes: Any
) -> Session:
    return Session(
        role=Role.INITIATOR, party=party(key, **changes), channel=channel, nonce=SessionNonce(b"a" * 16), expected=to
    )


def responder(key: NodeKey = BOB, channel: bytes = CHANNEL, **changes: Any) -> Session:
    return Session(role=Role.RESPONDER, party=party(key, **changes), channel=channel, nonce=SessionNonce(b"b" * 16))


def outgoing(session: Session) -> bytes:
    """Everything a session wants to say, in one piece."""
    return b"".join(bytes(piece) for piece in session.take_outgoing())


def pump(one: Session, other: Session, now_ms: int = NOW_MS) -> tuple[list[Any], list[Any]]:
    """Carry bytes to and fro until both are silent; what each was told."""
    heard_by_one: list[Any] = []
    heard_by_other: list[Any] = []
    while True:
        there, back = outgoing(one), outgoing(other)
        if not there and not back:
            return heard_by_one, heard_by_other
        heard_by_other += other.feed(there, now_ms)
        heard_by_one += one.feed(back, now_ms)


def open_pair(**changes: Any) -> tuple[Session, Session]:
    """Two sessions that have said hello."""
    one, other = initiator(**changes), responder(**changes)
    one.greet(NOW_MS)
    pump(one, other)
    return one, other
