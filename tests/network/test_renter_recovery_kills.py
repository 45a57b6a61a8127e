"""The machine stops dead at any moment of a save: what was recoverable is, what is here goes on, nothing is left over.

Everything that a renter does to its databases passes through its offload, so stopping at the n-th call of it stops at
every step between two writes; the other half of the runs stop right after the n-th call, before anybody hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from recovery_net import everything, laptop_lost, other_machine, recover, saving
from renter_sources import item
from stook.errors import EnvironmentFault
from stook.renter.client import Client
from stook.shards.geometry import Policy
from stook.sim.loop import InlineOffload, run
from stook.sim.testnet import Testnet
from stook.storage.catalog import SqlCatalog
from stook.storage.journal_load import differences

T = TypeVar("T")
POLICY = Policy(k=1, r=2, o=3, n=4)
STEP = 17
"""Every so many calls, one run; `make soak` has them all."""
Content = dict[tuple[str, str], tuple[int, bytes]]


class Cord(InlineOffload):
    """An offload that is pulled out at a call: nothing is done any more, and nobody is told."""

    def __init__(self, last: int | None = None, *, after: bool = False) -> None:
        super().__init__()
        self.calls = 0
        self._last = last
        self._after = after
        self.out = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, work: Callable[[], T], /) -> T:
        self.calls += 1
        if self._last is not None and self.calls >= self._last:
            if self._after and self.calls == self._last:
                work()
            self.out.set()
            await self.gone.wait()
            raise EnvironmentFault("this machine has stopped")
        return await super().__call__(work)


async def scenario(net: Testnet, recoverable: list[Content], seen: list[int]) -> None:
    """A life in a few steps. Every time it is told that all is recoverable, it writes down what that is."""
    client = net.renter.client
    saver = client.saver
    assert saver is not None
    await client.make_bucket("b")
    await client.put("b", item("tiny", b"one"))
    recoverable.append({("b", "tiny"): (1, b"one")})
    seen.append(1)
    await client.put("b", item("large", b"L" * 9000))
    await saver.recoverable()
    recoverable.append(recoverable[-1] | {("b", "large"): (1, b"L" * 9000)})
    await client.remove("b", ["tiny"])
    await client.put("b", item("large", b"M" * 9000))
    seen.append(2)
    await saver.recoverable()
    recoverable.append({("b", "large"): (2, b"M" * 9000)})
    await client.put("b", item("more", b"two"))
    recoverable.append(recoverable[-1] | {("b", "more"): (2, b"two")})


def stopped_at(last: int | None, path: Path, *, after: bool) -> int:
    """One life that stops there; what must hold then. How many calls a whole life has."""

    async def main() -> int:
        net = Testnet(farmers=5, seed=3, policy=POLICY)
        saving(net, path / "first.db")
        cord = Cord(last, after=after)
        async with net:
            world = net.renter._world
            await net.renter.die()
            net.renter._world = replace(world, offload=cord)
            recoverable: list[Content] = [{}]
            life = asyncio.ensure_future(_life(net, recoverable))
            out = asyncio.ensure_future(cord.out.wait())
            await asyncio.wait({life, out}, return_when=asyncio.FIRST_COMPLETED)
            out.cancel()
            net.network.reset("renter")
            cord.gone.set()
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            net.renter._world = world
            await net.renter.die()
            world.errors.clear()
            if last is None:
                return cord.calls
            await _what_the_words_bring_back(net, path, recoverable[-1])
            await _here_it_goes_on(net, path, recoverable[-1])
        return cord.calls

    return run(main(), within_seconds=7200)


async def _life(net: Testnet, recoverable: list[Content]) -> None:
    await net.renter.start(chores=False)
    await scenario(net, recoverable, [])
    await net.renter.client.settle()


async def _what_the_words_bring_back(net: Testnet, path: Path, promised: Content) -> None:
    """At this very moment, from the network alone; on a machine that only looks: its epoch is taken back."""
    if not promised:
        return
    shelves = [dict(farmer.records._records) for farmer in net.farmers]
    other = other_machine(net)
    other.seeds = None
    await recover(other, path / "words.db")
    await other.start(chores=False)
    _holds(await everything(other.client), promised)
    await other.stop()
    other.catalog.close()
    for farmer, shelf in zip(net.farmers, shelves, strict=True):
        farmer.records._records = shelf


def _holds(found: Content, promised: Content) -> None:
    """What was promised is there in that version or a later one; the scenario removes only what it then replaces."""
    for key, (version, data) in promised.items():
        if key == ("b", "tiny") and key not in found:
            continue  # its removal was saved, and the machine stopped before it heard of that
        assert key in found, key
        assert found[key][0] >= version
        if found[key][0] == version:
            assert found[key][1] == data


async def _here_it_goes_on(net: Testnet, path: Path, promised: Content) -> None:
    await net.renter.start(chores=False)
    client = net.renter.client
    assert client.saver is not None
    if "b" not in {each.name for each in await client.buckets()}:
        await client.make_bucket("b")
    _holds(await everything(client), promised)
    await client.put("b", item("after", b"A" * 5000))
    await client.saver.recoverable()
    assert not (await client.saver.state()).alarm
    before = await everything(client)
    await client.collect_garbage()
    await client.saver.recoverable()
    await client.settle()
    await _nothing_is_left_over(net, client)
    await laptop_lost(net.renter)
    last = other_machine(net, "renter-3")
    last.seeds = None
    came = await recover(last, path / "last.db")
    assert came.unnamed_segments == 0
    assert differences(path / "first.db", path / "last.db") == []
    await last.start(chores=False)
    assert await everything(last.client) == before
    await last.stop()
    last.catalog.close()


async def _nothing_is_left_over(net: Testnet, client: Client) -> None:
    """Every segment that farmers are asked to keep belongs to an object or to a save."""
    catalog = net.renter.catalog
    assert isinstance(catalog, SqlCatalog)
    saved = catalog.journal.segments()
    async for page in net.renter.agent.all_segments(1000):
        assert set(page) - saved <= catalog.known_segments(page)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> int:
    return stopped_at(None, tmp_path_factory.mktemp("whole"), after=False)


@pytest.mark.parametrize("part", range(4))
def test_stopped_dead_now_and_then(tmp_path: Path, calls: int, part: int) -> None:
    moments = list(range(5, calls, STEP))
    for last in moments[part::4]:
        (tmp_path / str(last)).mkdir()
        stopped_at(last, tmp_path / str(last), after=bool(last % 2))


@pytest.mark.soak
@pytest.mark.parametrize("after", [False, True])
def test_stopped_dead_at_every_moment(tmp_path: Path, calls: int, after: bool) -> None:
    for last in range(1, calls):
        (tmp_path / str(last)).mkdir()
        stopped_at(last, tmp_path / str(last), after=after)
