"""The laptop is lost: what was recoverable comes back from 24 words and one farmer, and nothing else is trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from recovery_net import everything, laptop_lost, other_machine, recover, saving
from renter_sources import item
from stook.shards.geometry import Policy
from stook.sim.loop import run
from stook.sim.testnet import Testnet

POLICY = Policy(k=2, r=3, o=4, n=5)


def net_of(seed: int = 1, farmers: int = 8, **rest: object) -> Testnet:
    return Testnet(farmers=farmers, seed=seed, policy=POLICY, **rest)  # type: ignore[arg-type]


def test_every_bucket_name_version_and_byte_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client = net.renter.client
            await client.make_bucket("photos")
            await client.make_bucket("empty")
            await client.put_many("photos", [item(f"a/{n}", net.dice(100 + n)) for n in range(40)])
            await client.put("photos", item("large", net.dice(3_000_000)))
            assert client.saver is not None
            await client.saver.recoverable()
            await client.put("photos", item("a/3", b"again"))
            await client.remove("photos", ["a/7"])
            saved = await client.saver.recoverable()
            assert saved is not None
            assert await client.saver.recoverable() is None
            before = await everything(client)
            assert len(before) == 40
            await client.settle()
            await laptop_lost(net.renter)

            other = other_machine(net)
            came = await recover(other, tmp_path / "second.db")
            assert (came.buckets, came.objects, came.missing_segments, came.unnamed_segments) == (2, 40, 0, 0)
            assert came.settings
            await other.start(chores=False)
            assert await everything(other.client) == before
            assert {b.name for b in await other.client.buckets()} == {"photos", "empty"}
            # And it goes on from there.
            await other.client.put("photos", item("new", b"new"))
            assert other.client.saver is not None
            again = await other.client.saver.recoverable()
            assert again is not None
            assert again.sequence > saved.sequence
            await other.stop()

    run(main(), within_seconds=3600)
