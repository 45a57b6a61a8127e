"""Farmers and clients killed at random moments of uploads: whole shards or none, nothing acknowledged lost, and the
same command, run again, completes.

The seed is printed; ``STOOK_CRASH_SEED`` runs a test with a given one, up to the timing of processes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

import crash_audit
from crash_audit import in_state
from crash_client import BUCKET, Errand, items_of, live
from stook.assembly import Renter, check_farmer_home, create_renter_home, open_renter
from stook.cli.local_network import LocalNetwork
from stook.config import NodeSettings, RentSettings
from stook.errors import NotEnoughError
from stook.renter.files import BytesSink
from stook.storage.renter_ports import PlacementState

pytestmark = pytest.mark.system

MIB = 1 << 20
CODE = "2/3/3/4"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["stook.assembly"])
PATIENCE_SECONDS = 120.0


@dataclass
class ClientProcess:
    """A running errand and what it said so far."""

    process: ForkServerProcess
    pipe: Connection
    said: dict[str, object] = field(default_factory=dict)

    @classmethod
    def start(cls, errand: Errand) -> ClientProcess:
        ours, theirs = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=live, args=(errand, theirs))
        process.start()
        theirs.close()
        return cls(process, ours)

    def hear(self, until: str, seconds: float = PATIENCE_SECONDS) -> bool:
        """Listen until a word was said, the process is gone, or the time is up; whether it was said."""
        deadline = time.monotonic() + seconds
        while until not in self.said and self.pipe.poll(max(0.0, deadline - time.monotonic())):
            try:
                word, value = self.pipe.recv()
            except (EOFError, OSError):
                break
            self.said[word] = value
        return until in self.said

    def end(self, *, kill: bool) -> None:
        if kill:
            self.process.kill()
        else:
            assert self.hear("done") or "failed" in self.said, f"a client hangs; it said {self.said}"
        self.hear("nothing more")
        self.process.join(PATIENCE_SECONDS)
        assert self.process.exitcode in ((0, -9) if kill else (0,)), self.said
        self.process.close()
        self.pipe.close()


class Crash:
    """A network, a renter, and the directories it stores one after the other."""

    def __init__(self, root: Path, network: LocalNetwork, dice: random.Random, *, small: int, large: tuple[int, ...]):
        self.network = network
        self.dice = dice
        self.home = root / "renter"
        self.trees = root / "trees"
        self.small, self.large = small, large
        self.files: dict[str, Path] = {}
        self.acknowledged: set[str] = set()
        self.typical_seconds = 60.0
        create_renter_home(
            self.home,
            NodeSettings(seeds=network.seeds, max_nodes_per_network=0, log_level="error"),
            RentSettings(code=CODE, spread="farmers"),
        )
        asyncio.run(self._enter())

    async def _enter(self) -> None:
        async with open_renter(self.home) as renter:
            while len(renter.agent.candidates()) < len(self.network.farmers):
                await renter.agent.refresh()
            await renter.client.make_bucket(BUCKET)

    # --- one round -----------------------------------------------------------------------------------------------

    def rounds(self, kills: int) -> Iterator[int]:
        """Rounds until so many kills have hit an upload under way; the numbers of those that did."""
        hits = number = 0
        while hits < kills:
            if self.round(number):
                hits += 1
                yield hits
            number += 1

    def round(self, number: int) -> bool:
        """One upload, and a kill at a random moment of it, unless it was over by then; whether it was under way."""
        errand = self._errand(number)
        # The first one is let run, to see how long one takes here and now; those that are cut short tell nothing.
        whom = self.dice.choice(("client", "client", "farmer", "both")) if number else "nobody"
        moment = self.dice.uniform(0.0, 1.1 * self.typical_seconds)
        client = ClientProcess.start(errand)
        assert client.hear("open"), client.said
        began = time.monotonic()
        under_way = not client.hear("done", moment)
        if whom in ("farmer", "both"):
            self.network.kill([self.dice.choice(self.network.farmers)])
        client.end(kill=whom in ("client", "both"))
        took = time.monotonic() - began
        if "done" in client.said:
            self.typical_seconds = took if whom == "nobody" else 0.7 * self.typical_seconds + 0.3 * took
        if "stored" in client.said:
            self.acknowledged |= {name for name in self.files if name.startswith(errand.prefix)}
        print(f"round {number}: {whom} killed at {moment:.2f} of {took:.2f} s; client: {client.said}", flush=True)
        self.network.start()
        asyncio.run(self._judge(errand))
        print(f"    judged after {time.monotonic() - began:.1f} s", flush=True)
        return under_way

    def _errand(self, number: int) -> Errand:
        prefix = f"{number:03d}/"
        tree = self.trees / prefix
        tree.mkdir(parents=True)
        sizes = [self.dice.randrange(0, 20_000) for _ in range(self.small)]
        sizes += [self.dice.randrange(size * 3 // 4, size) for size in self.large]
        self.dice.shuffle(sizes)
        for position, size in enumerate(sizes):
            path = tree / f"{position:03d}"
            path.write_bytes(self.dice.randbytes(size))
            self.files[prefix + path.name] = path
        old = f"{number - 2:03d}/"
        gone = tuple(name for name in self.files if name.startswith(old))
        # From here on it may be there or not.
        self.acknowledged.difference_update(gone)
        return Errand(self.home, tree, prefix, gone)

    def killed_half_way(self, number: int) -> int:
        """A client killed when half of its bytes are durable; how many shard bytes a second run need not send."""
        errand = self._errand(number)
        client = ClientProcess.start(errand)
        assert client.hear("half"), client.said
        client.end(kill=True)
        kept = crash_audit.kept_bytes(self.home, crash_audit.placements(self.home, self.network))
        asyncio.run(self._judge(errand))
        return kept

    def two_at_once(self, number: int, *, kill: bool) -> None:
        """Two clients of one renter store the same directory at the same time; one of them may die on the way."""
        errand = self._errand(number)
        one, other = ClientProcess.start(errand), ClientProcess.start(errand)
        assert one.hear("open"), one.said
        assert other.hear("open"), other.said
        if kill:
            one.hear("half")
        one.end(kill=kill)
        other.end(kill=False)
        assert "done" in other.said, other.said
        assert kill or "done" in one.said, one.said
        asyncio.run(self._judge(errand))

    # --- judging -------------------------------------------------------------------------------------------------

    async def _judge(self, errand: Errand) -> None:
        """The state right after the crash; then what running the same again makes of it."""
        await self._farmers_keep_what_they_receipted()
        async with open_renter(self.home) as renter:
            await self._reads_back(renter)
            await self._again(renter, errand)
            self.acknowledged |= {name for name in self.files if name.startswith(errand.prefix)}
            await renter.client.remove(BUCKET, errand.remove)
            for name in errand.remove:
                self.files.pop(name).unlink()
            await self._settle(renter)
            await self._reads_back(renter)
        await self._everything_is_in_order()

    async def _again(self, renter: Renter, errand: Errand) -> None:
        """The same command once more sends what is missing, and little else."""
        listed = {summary.name async for summary in renter.client.walk(BUCKET, prefix=errand.prefix)}
        missing = [path.stat().st_size for path in errand.tree.iterdir() if errand.prefix + path.name not in listed]
        kept = crash_audit.kept_bytes(self.home, crash_audit.placements(self.home, self.network))
        before = await crash_audit.bytes_in(self.network)
        tries = await _patiently(lambda: renter.client.put_many(BUCKET, items_of(errand.tree, errand.prefix)))
        await renter.client.drain()
        sent = await crash_audit.bytes_in(self.network) - before
        print(
            f"    {sent / MIB:.1f} MiB sent again for {sum(missing) / MIB:.1f} MiB, {kept / MIB:.1f} MiB kept",
            flush=True,
        )
        if tries == 1:
            # Every shard of every segment once, spares included: 5 shards of half a segment, padding below 12.5 %.
            assert sent <= 5 / 2 * 1.125 * sum(missing) + 5 * MIB - kept

    async def _farmers_keep_what_they_receipted(self) -> None:
        holdings = await crash_audit.examine(self.home, self.network, verify=True)
        found = crash_audit.placements(self.home, self.network)
        lost = in_state(found, PlacementState.STORED).keys() - holdings.stored.keys()
        assert not lost, f"{len(lost)} acknowledged shards are gone"
        unknown = (holdings.stored.keys() | holdings.signed.keys()) - {placement.contract_id for placement in found}
        assert not unknown, f"{len(unknown)} contracts that we signed are not in our database"

    async def _reads_back(self, renter: Renter) -> None:
        """Every object that the catalog lists is whole; every one that was acknowledged is listed."""
        listed = [summary.name async for summary in renter.client.walk(BUCKET)]
        assert self.acknowledged <= set(listed) <= self.files.keys()
        sinks = {name: BytesSink() for name in listed}
        await renter.client.get_many(BUCKET, listed, sinks.__getitem__)
        for name, sink in sinks.items():
            assert sink.data == self.files[name].read_bytes(), f"{name} reads back other than it was stored"

    async def _settle(self, renter: Renter) -> None:
        async def settled() -> None:
            await renter.client.settle()
            status = await renter.client.status()
            if status.agent.segments_below_n or status.agent.shards_to_cancel:
                raise NotEnoughError(f"not settled: {status.agent}")

        await _patiently(settled)

    async def _everything_is_in_order(self) -> None:
        """After one clean-up: every segment at n, and at the farmers nothing that is not ours to keep."""
        holdings = await crash_audit.examine(self.home, self.network, verify=False)
        found = crash_audit.placements(self.home, self.network)
        stored = in_state(found, PlacementState.STORED)
        assert {placement.state for placement in found} <= {PlacementState.STORED}
        assert holdings.stored.keys() == stored.keys(), "farmers are paid for shards that nobody wants"
        assert not holdings.signed
        kept, known = crash_audit.known_segments(self.home)
        assert kept == known, f"{len(kept - known)} segments are kept that no object has"
        assert kept == {placement.segment_id for placement in found}
        assert not crash_audit.uploads_left(self.home)

    def check_disks(self) -> None:
        """With every farmer stopped: no damaged file, no shard without a contract, no contract without its shard."""
        self.network.stop()
        for farmer in self.network.farmers:
            report = check_farmer_home(farmer.home, deep=True, rebuild=False)
            assert report["ok"], (farmer.name, report)


async def _patiently(work: Callable[[], Awaitable[object]]) -> int:
    """A farmer that failed rests for some seconds; a person would try again too. How many tries it took."""
    deadline, tries = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        tries += 1
        try:
            await work()
        except NotEnoughError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            return tries


@contextmanager
def crash(root: Path, *, small: int, large: tuple[int, ...], farmers: int = 5) -> Iterator[Crash]:
    seed = int(os.environ.get("STOOK_CRASH_SEED", random.SystemRandom().randrange(10**9)))
    print(f"seed {seed}")
    with LocalNetwork(root / "net", farmers=farmers, capacity="2 GiB") as network:
        network.start()
        yield Crash(root, network, random.Random(seed), small=small, large=large)


def test_ten_kills(tmp_path: Path) -> None:
    with crash(tmp_path, small=30, large=(8 * MIB,)) as story:
        assert sum(1 for _ in story.rounds(kills=10)) == 10
        story.check_disks()


def test_what_arrived_is_not_sent_again(tmp_path: Path) -> None:
    with crash(tmp_path, small=0, large=(64 * MIB,)) as story:
        assert story.killed_half_way(0) > 16 * MIB


def test_two_clients_of_one_renter_at_once(tmp_path: Path) -> None:
    with crash(tmp_path, small=20, large=(20 * MIB, 8 * MIB)) as story:
        story.two_at_once(0, kill=False)
        story.two_at_once(1, kill=True)
        story.check_disks()


@pytest.mark.soak
def test_a_hundred_kills(tmp_path: Path) -> None:
    with crash(tmp_path, small=60, large=(30 * MIB, 10 * MIB)) as story:
        for hits in story.rounds(kills=100):
            if hits % 25 == 0:
                story.check_disks()
                story.network.start()
        story.check_disks()
