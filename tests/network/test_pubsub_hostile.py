"""Publish and subscribe among neighbours that do not answer, or refuse: what the others get of it. In virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from tests.support.overlay_samples import NETWORK, NOW_MS, contact_of, key_of

from stook.codec import encode
from stook.errors import DeadlineError, ReasonCode, RefusedError
from stook.identity.contact import SignedContact
from stook.ids import NodeId
from stook.overlay.bloom import NOTHING, STANDARD, Levels
from stook.overlay.publication import Filters, Publish, QuasarMethod, Taken, Updated, sign_publication
from stook.overlay.pubsub import PubSub
from stook.sim.loop import run
from stook.wire.endpoint import Peer

TOPIC = b"\x0f\x01\x02\x02\x02"
ME, HONEST = key_of(1), key_of(2)
SILENT = [key_of(number).node_id for number in range(100, 124)]


class Line:
    """An endpoint, its exchange, its clock and its contacts: everything that a `PubSub` needs of its surroundings."""

    contact = None
    peer_id = key_of(3).node_id

    def __init__(self) -> None:
        self.began = asyncio.get_running_loop().time()
        self.calls: Counter[tuple[NodeId, str]] = Counter()
        self.under_way: Counter[NodeId] = Counter()
        self.most_under_way: Counter[NodeId] = Counter()
        self.met: list[SignedContact] = []
        self.announced: list[SignedContact] = []
        self.refusing: set[NodeId] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.pubsub = PubSub(
            endpoint=self,  # type: ignore[arg-type]
            key=ME,
            network=NETWORK,
            clock=self,
            entropy=lambda size_bytes: bytes(size_bytes),
            neighbourhood=self,
            on_publication=lambda _: None,
            on_error=lambda name, error: pytest.fail(f"{name}: {error}"),
        )

    def now_ms(self) -> int:
        return NOW_MS + int(self.monotonic() * 1000)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    def neighbours(self) -> Sequence[SignedContact]:
        return (*self.announced, *self.met)

    def verified(self) -> Sequence[SignedContact]:
        return self.met

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def reply(self, payload: bytes) -> None:
        """Of the exchange by which publications are handed in."""

    async def call(self, peer: Peer, method: str, payload: bytes, *, deadline_seconds: float) -> bytes:
        name = peer.node_id
        self.calls[name, method] += 1
        if name in self.refusing:
            raise RefusedError(ReasonCode.RATE_LIMITED, "at most 20 a minute")
        self.under_way[name] += 1
        self.most_under_way[name] = max(self.most_under_way[name], self.under_way[name])
        try:
            await asyncio.sleep(deadline_seconds if name in SILENT else 0.02)
        finally:
            self.under_way[name] -= 1
        if name in SILENT:
            raise DeadlineError("no answer")
        return encode(Updated(Filters.of(NOTHING)) if method == QuasarMethod.UPDATE else Taken(False))

    def meet(self, name: NodeId, levels: Levels, *, asked: bool = False) -> None:
        self.pubsub.quasar.heard(name, levels, self.now_ms(), asked=asked)

    async def hear(self, number: int) -> None:
        """Somebody hands in a publication."""
        signed = sign_publication(
            key_of(200 + number % 30), network=NETWORK, topic=TOPIC, contents=b"%d" % number, now_ms=self.now_ms()
        )
        if self.peer_id not in self.pubsub.quasar.neighbours:
            self.meet(self.peer_id, NOTHING, asked=True)
        await self.pubsub._on_publish(self, encode(Publish(signed, 19, ())))  # type: ignore[arg-type]


def full() -> Levels:
    """Of who wants to hear the topic."""
    return (STANDARD.mask(TOPIC), 0, 0)


async def close(line: Line) -> None:
    line.pubsub.close()
    for task in line.tasks:
        task.cancel()
    ends = await asyncio.gather(*line.tasks, return_exceptions=True)
    assert [end for end in ends if end is not None and not isinstance(end, asyncio.CancelledError)] == []


def test_silent_neighbours_keep_nobody_else_waiting() -> None:
    async def main() -> None:
        line = Line()
        line.meet(HONEST.node_id, full(), asked=True)
        for number in range(120):
            for name in SILENT:  # dropped when it does not answer, each comes again at once
                if name not in line.pubsub.quasar.neighbours:
                    line.meet(name, full())
            await line.hear(number)
            await asyncio.sleep(0.05)
        assert max(line.most_under_way[name] for name in SILENT) == 2
        assert line.pubsub._copies <= 512
        # Somebody who answers is told and handed what there is without delay.
        taken = line.calls[HONEST.node_id, QuasarMethod.PUBLISH]
        began = line.monotonic()
        await line.pubsub._tell(HONEST.node_id, asked=True)
        line.meet(HONEST.node_id, full(), asked=True)
        for name in SILENT:
            line.pubsub.quasar.drop(name)
        await line.hear(1000)
        await asyncio.sleep(0.1)
        assert line.calls[HONEST.node_id, QuasarMethod.PUBLISH] == taken + 1
        assert line.monotonic() - began < 0.2
        await close(line)

    run(main(), within_seconds=600)


def test_a_burst_for_a_neighbour_that_answers_arrives_whole_as_far_as_it_may_wait() -> None:
    async def main() -> None:
        line = Line()
        line.meet(HONEST.node_id, full(), asked=True)
        for number in range(15):
            await line.hear(number)
        await asyncio.sleep(5)
        assert line.calls[HONEST.node_id, QuasarMethod.PUBLISH] == 15
        assert line.most_under_way[HONEST.node_id] == 2
        assert line.pubsub._copies == 0
        assert not line.pubsub._lanes
        await close(line)

    run(main(), within_seconds=600)


def test_a_neighbour_that_was_told_too_much_stays_and_is_told_later() -> None:
    async def main() -> None:
        line = Line()
        name = HONEST.node_id
        line.meet(name, full(), asked=True)
        line.refusing.add(name)
        line.pubsub.subscribe([TOPIC])
        await line.pubsub.gossip()
        assert line.pubsub.quasar.asked == {name}
        line.refusing.clear()
        await line.pubsub.gossip()
        assert line.calls[name, QuasarMethod.UPDATE] == 1, "not at once"
        await asyncio.sleep(4)
        await line.pubsub.gossip()
        assert line.calls[name, QuasarMethod.UPDATE] == 2
        await line.pubsub.gossip()
        assert line.calls[name, QuasarMethod.UPDATE] == 2, "it knows"
        # A stranger that has no room does not become a neighbour.
        line.refusing.add(SILENT[0])
        await line.pubsub._tell(SILENT[0], asked=True)
        assert line.pubsub.quasar.asked == {name}
        await close(line)

    run(main(), within_seconds=600)


def test_however_often_others_change_a_neighbour_is_told_fifteen_times_a_minute() -> None:
    async def main() -> None:
        line = Line()
        name = HONEST.node_id
        line.meet(name, full(), asked=True)
        for second in range(600):
            for number in range(4):  # each within what it may send
                if (second + number) % 4 == 0:
                    line.meet(key_of(50 + number).node_id, ((second & 4) << number, 0, 0))
            if second % 2:
                await line.pubsub.gossip()
            await asyncio.sleep(1)
        assert 100 <= line.calls[name, QuasarMethod.UPDATE] <= 150
        await close(line)

    run(main(), within_seconds=900)


def test_whoever_only_announced_itself_is_asked_when_those_met_are_too_few() -> None:
    async def main() -> None:
        line = Line()
        line.announced = [contact_of(key_of(number)) for number in range(300, 400)]
        line.met = [contact_of(key_of(number)) for number in range(400, 420)]
        met = {contact.node_id for contact in line.met}
        await line.pubsub.gossip()
        assert len(line.pubsub.quasar.asked) == 9
        assert line.pubsub.quasar.asked <= met
        for name in line.pubsub.quasar.asked:
            line.pubsub._forget(name)
        line.met = line.met[:3]
        await line.pubsub.gossip()
        assert len(line.pubsub.quasar.asked) == 9
        assert {contact.node_id for contact in line.met} <= line.pubsub.quasar.asked
        await close(line)

    run(main(), within_seconds=60)


def test_when_none_of_those_met_takes_part_the_announced_are_asked_all_the_same() -> None:
    async def main() -> None:
        line = Line()
        line.announced = [contact_of(key_of(number)) for number in range(300, 400)]
        line.met = [contact_of(key_of(number)) for number in range(400, 420)]
        line.refusing = {contact.node_id for contact in line.met}
        for _ in range(5):
            await line.pubsub.gossip()
            line.pubsub.close()
        assert line.pubsub.quasar.asked
        await close(line)

    run(main(), within_seconds=60)
