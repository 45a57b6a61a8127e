"""Publish and subscribe over the wire, in virtual time: neighbours that restart, die, or say what is not so."""

from __future__ import annotations

import pytest

from market_town import market_of, settle, town
from stook.codec import encode
from stook.errors import ReasonCode, RefusedError
from stook.overlay.bloom import NOTHING
from stook.overlay.publication import Filters, Publish, QuasarMethod, Update, sign_publication
from stook.overlay.pubsub import PubSub
from stook.sim.loop import run
from stook.sim.nodes import SimFarmer
from stook.sim.testnet import Testnet

TOPIC = b"\x0f\x01\x02\x02\x02"


def pubsub_of(farmer: SimFarmer) -> PubSub:
    stall = farmer.farmer._stall
    assert stall is not None
    return stall.pubsub


async def heard_by(net: Testnet) -> set[int]:
    """Who hears what the renter publishes now."""
    before = {farmer.number: pubsub_of(farmer).quasar.counts.delivered for farmer in net.farmers if farmer.alive}
    await market_of(net).pubsub.publish(TOPIC, b"")
    await net.pass_seconds(60)
    return {
        number for number, count in before.items() if pubsub_of(net.farmers[number]).quasar.counts.delivered > count
    }


def test_everybody_who_wants_it_hears_it_once() -> None:
    async def main() -> None:
        async with town(24) as net:
            await settle(net)
            assert await heard_by(net) == set(range(24))
            counts = [pubsub_of(farmer).quasar.counts for farmer in net.farmers]
            assert all(one.delivered == 1 for one in counts)

    run(main(), within_seconds=600)


def test_a_farmer_that_restarts_is_found_again() -> None:
    async def main() -> None:
        async with town(12) as net:
            await settle(net)
            await net.restart(4, 5)
            await settle(net, 3)
            assert await heard_by(net) == set(range(12))

    run(main(), within_seconds=600)


def test_what_dead_neighbours_do_not_take_goes_to_others() -> None:
    async def main() -> None:
        async with town(30) as net:
            await settle(net)
            await net.kill(*range(1, 10))
            heard = await heard_by(net)
            assert len(heard) >= 20
            await settle(net, 2)
            await net.pass_seconds(310)
            await settle(net, 2)
            dead = {net.farmers[number].node_id for number in range(1, 10)}
            assert await heard_by(net) == {0, *range(10, 30)}
            for number in (0, *range(10, 30)):
                assert len(dead & pubsub_of(net.farmers[number]).quasar.asked) == 0

    run(main(), within_seconds=1200)


def test_who_takes_nothing_any_more_is_told_nothing_after_three_rounds() -> None:
    async def main() -> None:
        async with town(8) as net:
            await settle(net)
            pubsub_of(net.farmers[3]).subscribe(())
            pubs = [pubsub_of(farmer) for farmer in net.farmers]
            for one in pubs:
                one._before = None  # or it would subscribe again
            await settle(net, 3)
            assert all(one.quasar.filters_for(None) != NOTHING for one in pubs)
            assert 3 not in await heard_by(net)

    run(main(), within_seconds=600)


def test_lies_about_oneself_are_refused() -> None:
    async def main() -> None:
        async with town(4) as net:
            await settle(net)
            liar, other = net.farmers[2].endpoint, net.farmers[1].endpoint
            full = tuple(b"\xff" * 256 for _ in range(3))
            good = Filters.of(NOTHING)
            for update, code in (
                (Update(good, other.contact), ReasonCode.WRONG_IDENTITY),
                (Update(Filters(full), liar.contact), ReasonCode.MALFORMED),
            ):
                with pytest.raises(RefusedError) as refused:
                    await liar.call(net.farmers[0].peer, QuasarMethod.UPDATE, encode(update), deadline_seconds=10)
                assert refused.value.code is code
            mine = sign_publication(
                net.farmers[2].key,
                network=net.world.network_id,
                topic=TOPIC,
                contents=b"",
                now_ms=net.farmers[2].clock.now_ms(),
                max_ttl=2,
            )
            far = encode(Publish(mine, 3, ()))
            with pytest.raises(RefusedError) as refused:
                await liar.call(net.farmers[0].peer, QuasarMethod.PUBLISH, far, deadline_seconds=10)
            assert refused.value.code is ReasonCode.TTL_TOO_HIGH

    run(main(), within_seconds=600)


def test_one_that_came_up_first_finds_those_that_come_later() -> None:
    """By its own timers: nobody is there at first, and nobody steps it."""

    async def main() -> None:
        net = town(5)
        net._chores = True
        async with net:
            await net.pass_seconds(150)
            assert all(len(pubsub_of(farmer).quasar.neighbours) >= 3 for farmer in net.farmers)
            assert await heard_by(net) == set(range(5))

    run(main(), within_seconds=3600)
