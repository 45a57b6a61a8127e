"""What a contract costs on either road: latency and messages, through the open market and directly.

    python -m bench.market [--farmers 30] [--contracts 1000] [--batch 10] [--renters 10] [--folder DIR]

Farmers are processes of their own on loopback that know one seed and nothing else. Renters are agents in this process,
each with its own key, database and port. A negotiation makes `batch` contracts, one at each of so many farmers, as one
segment needs them: *directly*, CLAIM at farmers of the table; *on the open market*, a draft published through Quasar,
offers heard, then CLAIM at what was offered. Contracts are signed by both sides and stored by both, and then given up:
no shards are brought. `without_seed`: the same once more on both roads after the seed was killed.

Messages are requests that nodes served: those that farmers counted, and offers that renters heard. Their replies,
hellos, and what goes on without any negotiation (gossip, announcements) are not among them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.common import end_in_order, report
from stook.assembly import create_renter_home, farmer_status, open_agent
from stook.cli.local_network import LocalNetwork
from stook.config import NodeSettings, RentSettings
from stook.contracts.market import MarketMethod
from stook.contracts.messages import Method
from stook.errors import StookError
from stook.ids import ShardRoot
from stook.overlay.publication import QuasarMethod
from stook.renter.agent import LocalAgent
from stook.renter.ports import Order
from stook.shards.geometry import Policy
from stook.storage.renter_ports import SegmentFacts

SHARD_BYTES = 16 << 10
NEGOTIATING = (Method.CLAIM, QuasarMethod.PUBLISH)
SETTLE_SECONDS = 120.0
LIVELY = 0.9
"""The share of farmers that must have neighbours, and be known, before anything is measured."""


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else list(seconds) * 99
    return {
        "mean": round(1000 * statistics.fmean(seconds), 2),
        "p50": round(1000 * cuts[49], 2),
        "p95": round(1000 * cuts[94], 2),
        "max": round(1000 * max(seconds), 2),
    }


class Grid:
    """The farmers' processes, and the renters of this one."""

    def __init__(self, network: LocalNetwork, renters: Sequence[LocalAgent], batch: int) -> None:
        self.network = network
        self.renters = renters
        self.batch = batch

    async def counted(self) -> Counter[str]:
        """Requests that belong to negotiations, so far."""
        living = [farmer.home for farmer in self.network.farmers if farmer.alive]
        found: Counter[str] = Counter()
        for status in await asyncio.gather(*map(farmer_status, living)):
            found.update({name: status["requests"].get(name, 0) for name in NEGOTIATING})
        for renter in self.renters:
            found[MarketMethod.OFFER] += renter.market.offers_heard if renter.market is not None else 0
        return found

    async def settle(self) -> float:
        """Wait until farmers have neighbours; how many seconds that took."""
        began = time.monotonic()
        while time.monotonic() - began < SETTLE_SECONDS:
            statuses = await asyncio.gather(*(farmer_status(one.home) for one in self.network.farmers if one.alive))
            if sum(status["market"]["neighbours"] >= 4 for status in statuses) >= LIVELY * len(statuses):
                return time.monotonic() - began
            await asyncio.sleep(0.5)
        raise SystemExit("the farmers found no neighbours")

    async def place(self, renter: LocalAgent) -> int:
        """One order for a batch of contracts, given up at once; how many were made."""
        (allotment,) = await renter.allot(1)
        count = self.batch
        facts = SegmentFacts(
            segment_id=allotment.segment_id,
            policy=Policy(k=max(1, count // 2), r=max(1, count // 2), o=count, n=count),
            total=count,
            shard_bytes=SHARD_BYTES,
            roots=tuple(ShardRoot(os.urandom(32)) for _ in range(count)),
            created_ms=time.time_ns() // 1_000_000,
        )
        (placed,) = await renter.place([Order(facts, tuple(range(count)))], renter.rules.renter_key)
        await renter.abandon([ticket.contract.contract_id for ticket in placed.tickets])
        return len(placed.tickets)

    async def road(self, contracts: int, *, market: bool) -> dict[str, Any]:
        """So many contracts on one road, one negotiation after the other, renters taking turns."""
        before, seconds, heard = await self.counted(), list[float](), list[float]()
        made = failed = offers = published = 0
        while made < contracts and failed < 20:
            renter = self.renters[len(seconds) % len(self.renters)]
            began = time.monotonic()
            try:
                if market and renter.market is not None:
                    for farmer in renter.book.farmers():
                        renter.book.drop_quote(farmer)
                    result = await renter.market.solicit(SHARD_BYTES, 1, offers_wanted=2 * self.batch)
                    heard.append(time.monotonic() - began)
                    offers, published = offers + len(result.kept), published + result.published
                got = await self.place(renter)
            except StookError as error:
                print(error, file=sys.stderr)
                got = 0
            seconds.append(time.monotonic() - began)
            made += got
            failed += not got
        messages = await self.counted() - before
        result_: dict[str, Any] = {
            "contracts": made,
            "negotiations": len(seconds),
            "failed": failed,
            "negotiation_ms": quantiles(seconds),
            "contract_ms": round(1000 * sum(seconds) / max(1, made), 2),
            "messages_per_contract": round(sum(messages.values()) / max(1, made), 2),
            "messages": dict(messages),
        }
        if market:
            result_ |= {
                "until_offers_ms": quantiles(heard),
                "offers_kept_per_negotiation": round(offers / max(1, len(heard)), 1),
                "publications_per_negotiation": round(published / max(1, len(heard)), 2),
            }
        return result_


async def bench(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it."""
    with LocalNetwork(folder, farmers=options.farmers, capacity="1 GiB", log_level="error") as network:
        began = time.monotonic()
        network.start()
        started = time.monotonic() - began
        node = NodeSettings(seeds=network.seeds, max_nodes_per_network=0)
        rent = RentSettings(spread="farmers", market=True)
        async with contextlib.AsyncExitStack() as stack:
            renters = []
            for number in range(options.renters):
                home = folder / f"renter-{number}"
                create_renter_home(home, node, rent)
                renters.append(await stack.enter_async_context(open_agent(home)))
            grid = Grid(network, renters, options.batch)
            settled = await grid.settle()
            result: dict[str, Any] = {
                "farmers": options.farmers,
                "renters": options.renters,
                "batch": options.batch,
                "start_seconds": round(started, 1),
                "neighbours_seconds": round(settled, 1),
                "known_before": round(statistics.fmean(len(renter.book) for renter in renters), 1),
                "market": await grid.road(options.contracts, market=True),
                "direct": await grid.road(options.contracts, market=False),
            }
            result["known_after"] = round(statistics.fmean(len(renter.book) for renter in renters), 1)
            network.kill([network.farmers[0]])
            few = max(options.batch, options.contracts // 10)
            result["without_seed"] = {
                "market": await grid.road(few, market=True),
                "direct": await grid.road(few, market=False),
            }
            return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--farmers", type=int, default=30)
    parser.add_argument("--contracts", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--renters", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where homes are made; default: the temporary folder")
    options = parser.parse_args()
    end_in_order()
    with tempfile.TemporaryDirectory(prefix="stook-bench-", dir=options.folder) as folder:
        result = asyncio.run(bench(options, Path(folder)))
    report("market", result)
    roads = [result["market"], result["direct"], *result["without_seed"].values()]
    return int(any(road["failed"] for road in roads))


if __name__ == "__main__":
    sys.exit(main())
