"""No farmer gets two shards of one segment, whoever asks at the same time."""

from __future__ import annotations

import asyncio

import pytest

from sim_objects import assert_all_there, assert_spread, put_all, some_objects
from sim_segments import put_segment
from stook.renter.ports import Order
from stook.shards.geometry import Policy
from stook.sim.loop import run
from stook.sim.network import Rate
from stook.sim.testnet import Testnet


def test_calls_at_once_for_one_segment_do_not_choose_the_same_farmer():
    """Six shards of one segment ended at one farmer when their transfers failed together and were replaced at once."""

    async def main() -> None:
        async with Testnet(farmers=9, seed=1, policy=Policy(k=1, r=1, o=1, n=3)) as net:
            kept = await put_segment(net, net.dice(10_000))
            agent, me = net.renter.agent, net.renter.key.public_key
            contracts = [
                placement.contract_id
                for placement in net.renter.store.placements([kept.facts.segment_id])[kept.facts.segment_id]
            ]
            net.renter.store.cancel_stored(contracts)
            placed = await asyncio.gather(*(agent.place([Order(kept.facts, (index,))], me) for index in range(4)))
            chosen = [ticket.peer.node_id for (answer,) in placed for ticket in answer.tickets]
            assert len(chosen) == 4
            assert len(set(chosen)) == 4
            assert_spread(net)

    run(main(), within_seconds=100)


def test_one_call_may_name_a_segment_twice():
    async def main() -> None:
        async with Testnet(farmers=9, seed=1, policy=Policy(k=1, r=1, o=1, n=3)) as net:
            kept = await put_segment(net, net.dice(10_000))
            agent, me = net.renter.agent, net.renter.key.public_key
            placed = await agent.place([Order(kept.facts, (0,)), Order(kept.facts, (1,))], me)
            assert [sorted(answer.held) for answer in placed] == [[0, 1, 2], [0, 1, 2]]
            assert not any(answer.tickets for answer in placed)

    run(main(), within_seconds=100)


@pytest.mark.parametrize("seed", range(6))
def test_many_transfers_that_end_together_are_replaced_apart(seed: int):
    """What one attempt had stored was given up by another that had been given the same claim."""

    async def main() -> None:
        async with Testnet(farmers=18, seed=seed, policy=Policy(k=3, r=5, o=7, n=8)) as net:
            net.network.set_rate("renter", Rate(up=1_000_000))
            objects = some_objects(net, (900_000, 2_000_000))
            upload = asyncio.create_task(put_all(net, objects))
            for _ in range(2):
                await asyncio.sleep(net.dice.between(0.5, 3.0))
                net.network.reset("renter")
            await upload
            await net.renter.client.settle()
            assert_spread(net)
            status = await net.renter.agent.status()
            while status.shards_to_cancel:  # a farmer that was away when it was told is told again later
                await asyncio.sleep(60)
                await net.step_chores("cancel")
                status = await net.renter.agent.status()
            assert status.segments_below_n == 0
            assert net.stored_bytes() == status.stored_bytes
            await assert_all_there(net, objects)

    run(main(), within_seconds=3_000)
