"""A network of farmer processes that know nothing but one seed; then the seed dies.

    python -m bench.network [--farmers 30] [--size "8 MiB"]

Every farmer is a process with one contact URI in its settings, that of the first; the renter too. They find one another
through the overlay. Then the first is killed for good, and everything has to go on: what is stored is read, more is
stored, a farmer that dies and comes back gets in by what it remembers, a new farmer and a new renter by another node.
One JSON object on standard output; exit status 0 only if all of it worked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.common import peak_rss_mib, same_file
from stook.assembly import Renter, create_renter_home, farmer_status, open_renter
from stook.cli.local_network import LocalNetwork
from stook.cli.run import configure_logging
from stook.config import NodeSettings, RentSettings, parse_size
from stook.ids import NodeId
from stook.renter.files import FileSink, FileSource
from stook.renter.ports import Item

BUCKET = "network"
DEADLINE_SECONDS = 180.0
PAUSE_SECONDS = 0.2


class Story:
    """One run in a fresh folder."""

    def __init__(self, root: Path, network: LocalNetwork, size_bytes: int) -> None:
        self.root = root
        self.network = network
        self.size_bytes = size_bytes
        self.farmers = len(network.farmers)
        self.figures: dict[str, Any] = {}
        self.wrong: list[str] = []

    async def run(self) -> None:
        began = time.monotonic()
        await asyncio.to_thread(self.network.start)
        self.figures["start_seconds"] = round(time.monotonic() - began, 2)
        first = self.network.farmers[0]
        async with self._renter("renter", first.uri) as renter:
            self.figures["discovery_seconds"] = await self._find_all(renter)
            await renter.client.make_bucket(BUCKET)
            self.figures["put_mb_s"] = await self._put(renter, "before")
            self.figures["get_mb_s"] = await self._get(renter, "before", "before-1")
            await self._note_farmers("")
            await asyncio.to_thread(self.network.kill, [first])
            self.figures["get_after_mb_s"] = await self._get(renter, "before", "before-2")
            self.figures["put_after_mb_s"] = await self._put(renter, "after")
            await self._get(renter, "after", "after-1")
            self.figures["return_seconds"] = await self._one_comes_back(renter)
            self.figures["newcomer_seconds"] = await self._one_is_new(renter)
        await self._another_renter()
        await self._note_farmers("_after")

    # --- parts -------------------------------------------------------------------------------------------------------

    def _renter(self, name: str, seed: str) -> Any:
        home = self.root / name
        create_renter_home(
            home,
            NodeSettings(seeds=(seed,), max_nodes_per_network=0, log_level="error"),
            RentSettings(code="4/8" if self.farmers > 8 else "2/4", spread="farmers"),
        )
        return open_renter(home, refresh=False)

    async def _until(self, what: str, done: Callable[[], Awaitable[bool]]) -> float:
        began = time.monotonic()
        while not await done():
            if time.monotonic() - began > DEADLINE_SECONDS:
                self.wrong.append(f"{what}: not within {DEADLINE_SECONDS:g} s")
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return round(time.monotonic() - began, 2)

    async def _find_all(self, renter: Renter) -> float:
        living = sum(farmer.alive for farmer in self.network.farmers)

        async def found() -> bool:
            return await renter.agent.discover() >= living

        return await self._until(f"finding {living} farmers", found)

    async def _put(self, renter: Renter, name: str) -> float:
        path = self.root / name
        path.write_bytes(os.urandom(self.size_bytes))
        began = time.monotonic()
        await renter.client.put(BUCKET, Item(name, lambda: FileSource(path), self.size_bytes))
        await renter.client.settle()
        return round(self.size_bytes / 1e6 / (time.monotonic() - began), 1)

    async def _get(self, renter: Renter, name: str, back: str) -> float:
        target = self.root / "back" / back
        began = time.monotonic()
        await renter.client.get(BUCKET, name, FileSink(target))
        seconds = time.monotonic() - began
        if not same_file(self.root / name, target):
            self.wrong.append(f"{name} came back different")
        return round(self.size_bytes / 1e6 / seconds, 1)

    async def _one_comes_back(self, renter: Renter) -> float:
        """A farmer is killed and started again; its only seed is dead, so it has what it remembers."""
        farmer = self.network.farmers[1]
        await asyncio.to_thread(self.network.kill, [farmer])
        await asyncio.to_thread(self.network.start, [farmer])

        async def back() -> bool:
            status = await farmer_status(farmer.home)
            return int(status["overlay"]["contacts"]) > 0

        return await self._until("coming back without the seed", back)

    async def _one_is_new(self, renter: Renter) -> float:
        """A farmer that nobody knows enters by another node than the dead seed, and the renter finds it."""
        farmer = self.network.add((self.network.farmers[2].uri,))
        await asyncio.to_thread(self.network.start, [farmer])
        node_id = NodeId(bytes.fromhex(farmer.uri[-40:]))

        async def found() -> bool:
            await renter.agent.look_around()
            return node_id in renter.agent.book.farmers()

        return await self._until("finding the newcomer", found)

    async def _another_renter(self) -> None:
        async with self._renter("second", self.network.farmers[3].uri) as renter:
            self.figures["second_discovery_seconds"] = await self._find_all(renter)
            await renter.client.make_bucket(BUCKET)
            await self._put(renter, "second-file")
            await self._get(renter, "second-file", "second-1")

    async def _note_farmers(self, when: str) -> None:
        living = [farmer for farmer in self.network.farmers if farmer.alive]
        statuses = await asyncio.gather(*(farmer_status(farmer.home) for farmer in living))
        contacts = [int(status["overlay"]["contacts"]) for status in statuses]
        self.figures[f"contacts_min{when}"] = min(contacts)
        self.figures[f"with_shards{when}"] = sum(status["contracts"]["active"] > 0 for status in statuses)
        self.figures[f"farmer_cpu_seconds{when}"] = round(sum(status["cpu_seconds"] for status in statuses), 1)
        pids = [farmer.process.pid for farmer in living if farmer.process is not None]
        self.figures[f"farmer_peak_rss_mib{when}"] = round(max(map(peak_rss_mib, pids)), 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.network")
    parser.add_argument("--farmers", type=int, default=30)
    parser.add_argument("--size", default="8 MiB")
    given = parser.parse_args()
    if given.farmers < 5:
        parser.error("4 shards of a segment need 4 farmers, and one of them dies")
    configure_logging("error")
    root = Path(tempfile.mkdtemp(prefix="stook-network-"))
    began = time.monotonic()
    try:
        with LocalNetwork(root / "farmers", farmers=given.farmers, capacity="1 GiB") as network:
            story = Story(root, network, parse_size(given.size))
            asyncio.run(story.run())
    finally:
        shutil.rmtree(root, ignore_errors=True)
    ok = not story.wrong
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"ok": ok, "farmers": given.farmers, **story.figures, "wrong": story.wrong, "seconds": seconds}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
