"""Tiny objects: in the catalog, or in a segment of their own and the catalog saved after. Real farmers on loopback.

``python -m bench.tiny``: for each size, puts one after the other and sixteen at once, each recoverable when it counts.
Milliseconds a put, and bytes that farmers keep for it, saves of the catalog included, superseded ones not.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from stook.assembly import create_renter_home, open_renter
from stook.cli.local_network import LocalNetwork
from stook.config import NodeSettings, RentSettings
from stook.renter import client as client_module
from stook.renter.client import Client
from stook.renter.files import BytesSource
from stook.renter.ports import Item

FARMERS = 10
ALONE, TOGETHER, AT_ONCE = 16, 64, 16
SIZES = (256, 1024, 4096, 16_384, 65_536)


def item(name: str, data: bytes) -> Item:
    """An object in memory."""
    return Item(name, lambda: BytesSource(data), size_bytes=len(data))


async def put(client: Client, name: str, size: int) -> float:
    """Store one object until it is recoverable; seconds."""
    begun = time.perf_counter()
    await client.put("b", item(name, os.urandom(size)))
    assert client.saver is not None
    await client.saver.recoverable()
    return time.perf_counter() - begun


async def measure(network: LocalNetwork, work: Path, size: int, inline: int) -> dict[str, float]:
    """A home of its own."""
    client_module.INLINE_BYTES = inline
    node = NodeSettings(seeds=network.seeds, max_nodes_per_network=0, log_level="error", overlay=False)
    create_renter_home(work, node, RentSettings(spread="farmers", catalog_history="0 s"))
    async with open_renter(work) as renter:
        client = renter.client
        await client.make_bucket("b")
        await put(client, "first", size)
        alone = [await put(client, f"alone-{number}", size) for number in range(ALONE)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await put(client, f"together-{number}", size)

        begun = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(TOGETHER)))
        together = time.perf_counter() - begun
        await client.settle()
        kept = (await renter.agent.status()).stored_bytes
    return {
        "alone_ms": round(1000 * statistics.median(alone), 1),
        "together_per_second": round(TOGETHER / together, 1),
        "kept_bytes_per_object": kept // (1 + ALONE + TOGETHER),
    }


def main() -> None:
    """Measure every size both ways."""
    with (
        tempfile.TemporaryDirectory() as root,
        LocalNetwork(Path(root) / "grid", farmers=FARMERS, capacity="4 GiB") as n,
    ):
        n.start()
        for size in SIZES:
            for way, inline in (("catalog", size), ("segment", 0)):
                figures = asyncio.run(measure(n, Path(root) / f"{way}-{size}", size, inline))
                print(json.dumps({"bytes": size, "kept_in": way} | figures), flush=True)


if __name__ == "__main__":
    main()
