"""What a real agent tells of farmers and holdings, as far as it says how durable things are."""

from __future__ import annotations

import pytest

from renter_sources import item
from sim_objects import BUCKET, put_all
from stook.errors import NotFoundError
from stook.shards.geometry import Policy
from stook.sim.loop import run
from stook.sim.testnet import Testnet

POLICY = Policy(k=2, r=3, o=4, n=5)
DAY_SECONDS = 86_400


def test_farmers_are_watched_from_their_first_receipt_and_given_up_after_a_week() -> None:
    async def main() -> None:
        async with Testnet(farmers=5, seed=1, policy=POLICY) as net:
            await put_all(net, {"a": net.dice(100_000)})
            await net.renter.client.settle()
            agent = net.renter.agent
            assert sum(facts.exposure.years for facts in (await agent.farmer_facts()).values()) < 1e-4
            for _ in range(4):
                await net.pass_seconds(DAY_SECONDS)
                await agent.refresh()
            facts = await agent.farmer_facts()
            assert len(facts) == 5
            for each in facts.values():
                assert each.exposure.years == pytest.approx(4 / 365.25, rel=0.01)
                assert (each.exposure.losses, each.gone) == (0.0, False)
            before = await net.renter.client.outlook(BUCKET)
            assert (before.segments, before.unreadable, before.least_margin) == (1, 0, 3)
            await net.kill(0, 1)
            for _ in range(8):
                await net.pass_seconds(DAY_SECONDS)
                await agent.refresh()
            facts = await agent.farmer_facts()
            dead = [facts[net.farmers[number].node_id] for number in (0, 1)]
            assert [(each.gone, each.exposure.losses) for each in dead] == [(True, 1.0)] * 2
            assert all(each.exposure.years == pytest.approx(4 / 365.25, rel=0.01) for each in dead)
            after = await net.renter.client.outlook(BUCKET)
            assert (after.gone, after.least_margin, after.farmers) == (2, 1, 3)
            assert after.likely.at_most > before.likely.at_most

    run(main(), within_seconds=20 * DAY_SECONDS)


def test_an_agent_that_slept_gives_nobody_up() -> None:
    async def main() -> None:
        async with Testnet(farmers=5, seed=1, policy=POLICY) as net:
            await put_all(net, {"a": net.dice(100_000)})
            await net.renter.client.settle()
            await net.pass_seconds(30 * DAY_SECONDS)
            facts = await net.renter.agent.farmer_facts()
            assert not any(each.gone for each in facts.values())
            assert sum(each.exposure.years for each in facts.values()) < 1e-3, "nobody watched meanwhile"

    run(main(), within_seconds=40 * DAY_SECONDS)


def test_a_bucket_is_looked_at_alone() -> None:
    async def main() -> None:
        async with Testnet(farmers=6, seed=1, policy=POLICY) as net:
            client = net.renter.client
            await client.make_bucket("one")
            await client.make_bucket("two")
            await client.put("one", item("a", net.dice(100_000)))
            await client.settle()
            assert (await client.outlook("one")).segments == 1
            assert (await client.outlook("two")).segments == 0
            with pytest.raises(NotFoundError):
                await client.outlook("nowhere")
            (target,) = await client.driller.pool(["one"]).targets()
            held = (await net.renter.agent.holdings([target.segment_id]))[target.segment_id]
            assert held.policy == POLICY
            assert len(held.shards) == 5
            await net.renter.agent.release([target.segment_id])
            lost = await client.outlook("one")
            assert (lost.unreadable, lost.likely.at_least) == (1, 1.0)

    run(main(), within_seconds=600)
