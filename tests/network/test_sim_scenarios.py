"""A person's days on the simulated network: farmers die, networks part, laptops close, months pass."""

from __future__ import annotations

import asyncio
import time

import pytest

from sim_objects import BUCKET, assert_all_there, items, put_all, some_objects
from stook.errors import NotEnoughError, StookError
from stook.shards.geometry import Policy
from stook.sim.factories import agent_options
from stook.sim.loop import InlineOffload, run
from stook.sim.network import ROUGH, Path, Rate
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import PlacementState

POLICY = Policy(k=3, r=5, o=7, n=8)
DAY = 86_400.0


def now() -> float:
    return asyncio.get_running_loop().time()


# --- farmers come and go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_any_five_of_ten_farmers_may_die(seed: int):
    async def main() -> None:
        async with Testnet(farmers=10, seed=seed, policy=POLICY) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await net.renter.client.settle()
            numbers = list(range(10))
            victims = [numbers.pop(net.dice.whole(0, len(numbers) - 1)) for _ in range(5)]
            await net.kill(*victims)
            await assert_all_there(net, objects)

    run(main(), within_seconds=600)


def test_with_too_few_farmers_left_it_says_so_and_does_not_hang():
    async def main() -> None:
        async with Testnet(farmers=10, seed=1, policy=POLICY) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await net.kill(*range(8))
            with pytest.raises(NotEnoughError, match="of the 3 shards needed could be fetched"):
                await assert_all_there(net, objects)
            await net.restart(*range(8))
            await assert_all_there(net, objects)

    run(main(), within_seconds=600)


def test_farmers_that_die_during_an_upload_are_replaced():
    async def main() -> None:
        async with Testnet(farmers=14, seed=4, policy=POLICY) as net:
            net.network.set_rate("renter", Rate(up=2_000_000))
            objects = some_objects(net, (4_000_000,))
            upload = asyncio.create_task(put_all(net, objects))
            await asyncio.sleep(1)
            await net.kill(1, 2, 3)
            await upload
            await net.renter.client.settle()
            status = await net.renter.agent.status()
            assert status.segments_below_n == 0
            await net.kill(5, 6, 7)
            await assert_all_there(net, objects)

    run(main(), within_seconds=900)


def test_a_farmer_that_restarts_in_the_middle_is_no_worse_for_it():
    async def main() -> None:
        async with Testnet(farmers=8, seed=4, policy=POLICY) as net:
            net.network.set_rate("renter", Rate(up=2_000_000))
            objects = some_objects(net, (3_000_000,))
            upload = asyncio.create_task(put_all(net, objects))
            await asyncio.sleep(1)
            await net.restart(2)
            await upload
            await net.step_chores("repair", "refresh")
            await net.renter.client.settle()
            await assert_all_there(net, objects)

    run(main(), within_seconds=900)


# --- the network parts -----------------------------------------------------------------------------------------------


def test_a_partition_during_an_upload_costs_time_and_nothing_else():
    async def main() -> None:
        async with Testnet(farmers=14, seed=6, policy=POLICY) as net:
            net.network.set_rate("renter", Rate(up=2_000_000))
            objects = some_objects(net, (4_000_000, 100_000))
            upload = asyncio.create_task(put_all(net, objects))
            await asyncio.sleep(1)
            net.partition([0, 1, 2], [3])
            await upload
            assert now() < 120
            await assert_all_there(net, objects)
            net.heal()
            await net.renter.client.settle()
            assert (await net.renter.agent.status()).segments_below_n == 0

    run(main(), within_seconds=900)


@pytest.mark.parametrize("pause_seconds", [0, 600, 3_600, 86_400])
def test_cut_off_from_everyone_an_upload_fails_in_time_and_goes_on_later(pause_seconds: int):
    async def main() -> None:
        async with Testnet(farmers=10, seed=6, policy=POLICY) as net:
            net.network.set_rate("renter", Rate(up=2_000_000))
            objects = some_objects(net, (4_000_000,))
            before = net.network.traffic.bytes_between("renter")
            upload = asyncio.create_task(put_all(net, objects))
            await asyncio.sleep(3)
            net.network.unplug("renter")
            with pytest.raises(StookError):
                await upload
            assert now() < 1_300, "bounded by the deadlines of calls, not by luck"
            first = net.network.traffic.bytes_between("renter") - before
            net.network.plug_in("renter")
            await asyncio.sleep(pause_seconds)
            await net.step_chores("reaper", "refresh")
            await put_all(net, objects)
            second = net.network.traffic.bytes_between("renter") - before - first
            if pause_seconds < 3_600:
                assert second < 4_000_000 * 8 // 3 * 1.2 - first / 2, "what arrived is not sent again"
            await assert_all_there(net, objects)

    run(main(), within_seconds=90_000)


def test_two_thirds_of_all_chunks_lost_is_slow_and_true():
    async def main() -> None:
        async with Testnet(farmers=10, seed=6, path=Path(loss=0.66, resend_seconds=0.1)) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await assert_all_there(net, objects)

    run(main(), within_seconds=900)


# --- the renter's own troubles ---------------------------------------------------------------------------------------


def test_an_interrupted_put_sends_only_what_is_missing():
    async def main() -> None:
        async with Testnet(farmers=8, seed=7, policy=POLICY) as net:
            net.network.set_rate("renter", Rate(up=4_000_000))
            objects = {"large": net.dice(6_000_000)}
            whole_bytes = 6_000_000 * 8 // 3

            def sent_bytes() -> int:
                return net.network.traffic.bytes_between("renter")

            before = sent_bytes()
            upload = asyncio.create_task(put_all(net, objects))
            while sent_bytes() - before < whole_bytes // 2:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.05)
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
            await net.restart_renter()
            first = sent_bytes() - before
            before = sent_bytes()
            await put_all(net, objects)
            await net.renter.client.settle()
            second = sent_bytes() - before
            assert first > whole_bytes // 2
            # What was on the way when the line went, and what the ladder pads, is sent twice; nothing else.
            assert first + second < whole_bytes * 1.15
            assert net.stored_bytes() == (await net.renter.agent.status()).stored_bytes
            await assert_all_there(net, objects)

    run(main(), within_seconds=900)


@pytest.mark.parametrize("seed", range(6))
def test_a_renter_that_crashes_at_any_moment_loses_nothing_it_said_it_had_and_pays_for_nothing_else(seed: int):
    async def main() -> None:
        async with Testnet(farmers=10, seed=seed, policy=POLICY, offload=InlineOffload(lambda: 0.002)) as net:
            net.network.set_rate("renter", Rate(up=8_000_000))
            safe, risky = some_objects(net, (50_000, 700_000)), {"risky": net.dice(5_000_000)}
            await put_all(net, safe)
            upload = asyncio.create_task(put_all(net, risky))
            await asyncio.sleep(net.dice.between(0.0, 2.5))
            upload.cancel()
            await net.restart_renter()
            await asyncio.gather(upload, return_exceptions=True)
            await assert_all_there(net, safe)
            names = {summary.name async for summary in net.renter.client.walk(BUCKET)}
            if "risky" in names:
                await assert_all_there(net, risky)
            # It is not tried again: after a while nothing is left of it, at the agent or at any farmer.
            await asyncio.sleep(9 * DAY)
            await net.renter.agent.refresh()
            await net.renter.client.remove(BUCKET, ["risky"])
            await net.renter.client.collect_garbage()
            for _ in range(2):
                await net.step_chores("repair", "cancel", "reaper")
            status = await net.renter.agent.status()
            assert status.shards_to_cancel == 0
            assert net.stored_bytes() == status.stored_bytes
            assert status.segments == 1, "the one bundle of what was safe"
            await assert_all_there(net, safe)

    run(main(), within_seconds=20 * DAY)


def test_what_is_removed_is_erased_everywhere():
    async def main() -> None:
        async with Testnet(farmers=10, seed=2, policy=POLICY) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await net.kill(3)
            await net.renter.client.remove(BUCKET, objects)
            await net.step_chores("cancel")
            left = [farmer.number for farmer in net.farmers if farmer.stored_bytes]
            assert set(left) <= {3}
            await net.restart(3)
            await asyncio.sleep(60)
            await net.step_chores("cancel")
            assert net.stored_bytes() == 0
            assert (await net.renter.agent.status()).segments == 0

    run(main(), within_seconds=900)


def test_put_again_is_idle_when_nothing_changed():
    async def main() -> None:
        async with Testnet(farmers=10, seed=2, policy=POLICY) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await net.renter.client.settle()
            before = net.network.traffic.bytes_between("renter")
            again = await put_all(net, objects)
            assert (again.stored, again.unchanged) == (0, len(objects))
            assert net.network.traffic.bytes_between("renter") == before

    run(main(), within_seconds=900)


def test_memory_for_segments_stays_within_its_budget():
    async def main() -> None:
        async with Testnet(farmers=10, seed=2, policy=POLICY) as net:
            net.renter.memory_budget_bytes = 16 << 20
            await net.restart_renter()
            held = net.renter.client._mill._slots
            peak = 0

            async def watch() -> None:
                nonlocal peak
                while True:
                    peak = max(peak, held.held_bytes)
                    await asyncio.sleep(0.01)

            watcher = asyncio.create_task(watch())
            net.network.set_rate("renter", Rate(up=4_000_000))
            await net.renter.client.make_bucket(BUCKET)
            objects = {"large": net.dice(20_000_000)}
            await net.renter.client.put_many(BUCKET, items(objects))
            watcher.cancel()
            assert held.budget_bytes // 2 < peak <= held.budget_bytes
            await assert_all_there(net, objects)

    run(main(), within_seconds=900)


# --- clocks and months -----------------------------------------------------------------------------------------------


def test_clocks_may_differ_by_minutes():
    async def main() -> None:
        skews = {0: 240_000, 1: -240_000, 2: 120_000, 3: -30_000}
        async with Testnet(farmers=8, seed=2, policy=POLICY, skews_ms=skews) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await net.renter.client.settle()
            assert (await net.renter.agent.status()).segments_below_n == 0
            await assert_all_there(net, objects)

    run(main(), within_seconds=900)


def test_farmers_whose_clocks_are_far_off_are_left_alone():
    async def main() -> None:
        async with Testnet(farmers=10, seed=2, policy=POLICY, skews_ms={0: 3_600_000, 1: -3_600_000}) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await assert_all_there(net, objects)
            assert net.farmers[0].stored_bytes == net.farmers[1].stored_bytes == 0

    run(main(), within_seconds=900)


def test_a_hundred_days_of_chores_pass_in_seconds():
    """Contracts of twelve days are renewed; left alone, they end and their shards go."""

    async def main() -> None:
        options = agent_options(POLICY, contract_days=12)
        async with Testnet(farmers=10, seed=9, options=options, chores=True) as net:
            objects = some_objects(net, (5_000, 120_000, 1_300_000))
            await put_all(net, objects)
            await net.renter.client.settle()
            before = (await net.renter.agent.status()).shards_stored
            for _ in range(8):
                await asyncio.sleep(10 * DAY)
                await assert_all_there(net, objects)
            status = await net.renter.agent.status()
            assert status.segments_below_n == 0
            assert status.shards_stored == before
            assert net.stored_bytes() == status.stored_bytes
            placements = net.renter.store.placements(net.renter.store.segment_ids(2**62, b"", 100))
            revisions = [
                placement.contract.terms.revision
                for held in placements.values()
                for placement in held
                if placement.state is PlacementState.STORED
            ]
            assert min(revisions) >= 3
            # And when the renter is gone for good, so are its shards, once their contracts have run out.
            await net.renter.stop()
            await asyncio.sleep(20 * DAY)
            assert net.stored_bytes() == 0
            for farmer in net.farmers:
                status_of = await farmer.farmer.status()
                assert status_of.contracts == {"reserved": 0, "active": 0, "lost": 0}

    begun = time.perf_counter()
    run(main(), within_seconds=101 * DAY)
    assert time.perf_counter() - begun < 120, "about ten seconds, on a machine that has nothing else to do"


def test_a_month_on_a_bad_network():
    async def main() -> None:
        options = agent_options(POLICY, contract_days=20)
        async with Testnet(farmers=12, seed=10, options=options, chores=True, path=ROUGH) as net:
            objects = some_objects(net, (5_000, 120_000, 1_300_000))
            await put_all(net, objects)
            for day in range(30):
                victim = net.dice.whole(0, 11)
                await net.kill(victim)
                await asyncio.sleep(DAY / 2)
                await net.restart(victim)
                await asyncio.sleep(DAY / 2)
                if day % 10 == 0:
                    await assert_all_there(net, objects)
            await assert_all_there(net, objects)

    run(main(), within_seconds=40 * DAY)


def test_over_a_slow_uplink_nothing_is_sent_twice_and_nobody_rests():
    """Every shard takes a minute, because our own line does: no farmer is late for that."""

    async def main() -> None:
        async with Testnet(farmers=12, seed=3, policy=POLICY) as net:
            net.network.set_rate("renter", Rate(up=200_000))
            size = 4_000_000
            objects = some_objects(net, (size,))
            await put_all(net, objects)
            await net.renter.client.settle()
            coded = size * POLICY.n / POLICY.k
            assert net.network.traffic.bytes_between("renter") < 1.15 * coded
            resting = [
                one for one in net.renter.agent.book.candidates() if one.avoid_until_ms > net.renter.clock.now_ms()
            ]
            assert not resting
            net.network.set_rate("renter", Rate(down=800_000))
            before = sum(net.network.traffic.bytes_between(f"farmer-{number}", "renter") for number in range(12))
            await assert_all_there(net, objects)
            after = sum(net.network.traffic.bytes_between(f"farmer-{number}", "renter") for number in range(12))
            assert after - before < 1.15 * size

    run(main(), within_seconds=6000)
