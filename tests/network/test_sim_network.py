"""The simulated network: delay, rate, loss, breaks, partitions; and one history for one seed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path as FilePath

import pytest

from sim_segments import get_segment, put_segment
from stook.errors import DeadlineError, PeerError, UnreachableError
from stook.sim.loop import run
from stook.sim.network import CALM, ROUGH, Path, Rate
from stook.sim.testnet import Testnet

HERE = FilePath(__file__)


async def ping(net: Testnet, number: int, deadline_seconds: float = 30.0) -> float:
    return await net.renter.endpoint.ping(net.farmers[number].peer, deadline_seconds=deadline_seconds)


def test_a_round_trip_takes_two_delays():
    async def main() -> None:
        async with Testnet(farmers=2, seed=1, path=Path(delay_seconds=0.05, jitter_seconds=0.0)) as net:
            assert await ping(net, 1) == pytest.approx(0.1)

    run(main(), within_seconds=60)


def test_paths_may_differ():
    async def main() -> None:
        async with Testnet(farmers=2, seed=1, path=Path(0.01, 0.0)) as net:
            net.network.set_path("renter", "farmer-1", Path(1.0, 0.0))
            assert await ping(net, 0) == pytest.approx(0.02)
            assert await ping(net, 1) == pytest.approx(2.0)

    run(main(), within_seconds=60)


def test_a_hosts_rate_is_shared_by_its_streams():
    async def main() -> float:
        async with Testnet(farmers=10, seed=1) as net:
            net.network.set_rate("renter", Rate(up=100_000))
            begun = asyncio.get_running_loop().time()
            kept = await put_segment(net, net.dice(300_000))
            assert len(kept.pushed.held) == 8
            return asyncio.get_running_loop().time() - begun

    # Eight shards of 128 KiB and what belongs to them, through 100 kB/s.
    assert 10 < run(main(), within_seconds=600) < 14


def test_lost_chunks_come_late_and_never_out_of_order():
    async def main() -> None:
        async with Testnet(farmers=10, seed=3, path=Path(loss=0.3, resend_seconds=0.5)) as net:
            data = net.dice(400_000)
            assert await get_segment(net, await put_segment(net, data)) == data

    run(main(), within_seconds=600)


def test_a_killed_farmer_is_refused_and_comes_back_with_its_disk():
    async def main() -> None:
        async with Testnet(farmers=10, seed=2) as net:
            await put_segment(net, net.dice(100_000))
            held = net.farmers[4].stored_bytes
            await net.kill(4)
            with pytest.raises(UnreachableError):
                await ping(net, 4)
            await net.restart(4)
            await ping(net, 4)
            assert net.farmers[4].stored_bytes == held

    run(main(), within_seconds=60)


def test_a_partition_is_silent_and_heals():
    async def main() -> None:
        async with Testnet(farmers=4, seed=2) as net:
            await ping(net, 3)
            net.partition([2, 3])
            with pytest.raises(DeadlineError):
                await ping(net, 3, deadline_seconds=5)
            with pytest.raises(PeerError):
                await ping(net, 3, deadline_seconds=60)
            await ping(net, 1)
            net.heal()
            await ping(net, 3)

    run(main(), within_seconds=600)


def test_an_unplugged_host_hears_nothing():
    async def main() -> None:
        async with Testnet(farmers=2, seed=2) as net:
            net.network.unplug("farmer-1")
            assert not net.network.reachable("renter", "farmer-1")
            with pytest.raises(PeerError):
                await ping(net, 1, deadline_seconds=60)
            net.network.plug_in("farmer-1")
            await ping(net, 1)

    run(main(), within_seconds=600)


def test_a_reset_is_noticed_at_once():
    async def main() -> None:
        async with Testnet(farmers=2, seed=2) as net:
            assert net.network.reset("farmer-1", "renter") == 2
            await asyncio.sleep(0.1)
            before = asyncio.get_running_loop().time()
            await ping(net, 1)
            assert asyncio.get_running_loop().time() - before < 1

    run(main(), within_seconds=600)


def test_paths_must_make_sense():
    with pytest.raises(ValueError, match="before it was sent"):
        Path(delay_seconds=-1)
    with pytest.raises(ValueError, match="get through"):
        Path(loss=1.0)


def test_the_log_counts_what_went_where():
    async def main() -> None:
        async with Testnet(farmers=10, seed=2) as net:
            before = net.network.traffic.bytes_between("renter")
            kept = await put_segment(net, net.dice(100_000))
            sent = net.network.traffic.bytes_between("renter") - before
            shards = len(kept.pushed.held) * kept.shape.shard_bytes
            assert shards < sent < shards * 1.25
            assert net.network.traffic.counts.total() == len(net.network.traffic.events) > 0

    run(main(), within_seconds=600)


# --- one seed, one history -------------------------------------------------------------------------------------------


async def eventful_day(seed: int) -> tuple[str, int, float]:
    """Uploads, downloads, chores, a kill, a partition, on a bad network."""
    async with Testnet(farmers=12, seed=seed, path=ROUGH, chores=True) as net:
        kept = [await put_segment(net, net.dice(60_000 * number)) for number in range(1, 4)]
        await net.kill(net.dice.whole(0, 5))
        await get_segment(net, kept[0])
        net.partition([6, 7], [8])
        await put_segment(net, net.dice(50_000))
        net.heal()
        await asyncio.sleep(8 * 3600)
        await get_segment(net, kept[2])
        return net.network.traffic.digest, net.stored_bytes(), asyncio.get_running_loop().time()


def test_two_runs_of_one_seed_are_the_same_and_of_two_seeds_are_not():
    one, again, other = (run(eventful_day(seed), within_seconds=10 * 3600) for seed in (11, 11, 12))
    assert one == again
    assert one[0] != other[0]


def test_the_history_does_not_depend_on_the_process():
    """Sets and dictionaries of bytes are ordered by a secret of each process; nothing may follow that order."""

    def in_process(hash_seed: str) -> str:
        script = (
            f"import sys; sys.path[:0] = {sys.path!r}; import test_sim_network as t; print(t.run(t.eventful_day(11)))"
        )
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        return subprocess.run(
            [sys.executable, "-c", script], cwd=HERE.parent, env=env, check=True, capture_output=True, text=True
        ).stdout

    assert in_process("1") == in_process("2") == f"{run(eventful_day(11))}\n"


def test_calm_is_calm():
    assert CALM.loss == CALM.breaks == 0
