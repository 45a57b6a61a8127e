"""Isolation and what comes after: everybody gone and back, addresses changed, seeds dead. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from stook.errors import EnvironmentFault
from stook.identity.contact import Address, AddressKind
from stook.overlay.neighbours import LanFinder
from stook.sim.factories import NETWORK
from stook.sim.lan import SimLan, SimLink
from stook.sim.loop import run
from stook.sim.overlay_net import PORT, OverlayNet, OverlayPeer
from stook.sim.testnet import Testnet
from stook.wire.carrier import OnDatagram
from stook.wire.endpoint import Peer

MINUTE, HOUR = 60.0, 3600.0


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        run(story())

    test.__name__ = story.__name__
    test.__doc__ = story.__doc__
    return test


async def until(done: Callable[[], bool], within: float) -> float:
    """Seconds until it is so."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not done():
        assert loop.time() - began < within, f"not within {within:g} s"
        await asyncio.sleep(1.0)
    return loop.time() - began


async def finds(one: OverlayPeer, other: OverlayPeer) -> bool:
    """Whether a lookup at one node ends at the other."""
    found = await one.overlay.find_node(other.node_id)
    return bool(found) and found[0].node_id == other.node_id


@told
async def test_who_was_cut_off_for_an_hour_comes_back_within_minutes() -> None:
    async with OverlayNet(8, seed=1, chores=True) as net:
        await until(lambda: all(len(node.overlay.table) >= 5 for node in net.nodes), 5 * MINUTE)
        lonely = net.nodes[7]
        net.network.unplug(lonely.host)
        await asyncio.sleep(HOUR)
        net.network.plug_in(lonely.host)
        await asyncio.sleep(12 * MINUTE)
        assert await finds(lonely, net.nodes[3])
        assert await finds(net.nodes[3], lonely)


@told
async def test_everybody_gone_and_back_needs_no_seed() -> None:
    """A power cut takes all; the seed never returns. What each had written down is enough."""
    async with OverlayNet(10, seed=2, chores=True) as net:
        await until(lambda: all(len(node.overlay.table) >= 6 for node in net.nodes), 5 * MINUTE)
        await asyncio.sleep(10 * MINUTE)
        for node in net.nodes:
            await node.die()
        for node in net.nodes[1:]:
            await node.start()
        await until(lambda: all(len(node.overlay.table) >= 6 for node in net.nodes[1:]), 5 * MINUTE)
        assert await finds(net.nodes[1], net.nodes[9])


@told
async def test_killed_within_the_first_minute_and_the_seed_gone() -> None:
    """The contacts file is written as soon as there is something to write."""
    async with OverlayNet(6, seed=3, chores=True) as net:
        await until(lambda: all(len(node.overlay.table) >= 4 for node in net.nodes), MINUTE)
        await asyncio.sleep(1)
        seed, victim = net.nodes[0], net.nodes[4]
        await seed.die()
        await victim.die()
        await victim.start()
        await until(lambda: len(victim.overlay.table) >= 3, 2 * MINUTE)
        assert await finds(victim, net.nodes[2])


@told
async def test_a_node_that_moved_is_found_where_it_is_now() -> None:
    async with OverlayNet(10, seed=4, chores=True) as net:
        await until(lambda: all(len(node.overlay.table) >= 6 for node in net.nodes), 5 * MINUTE)
        moved = net.nodes[5]
        await moved.die()
        moved.host = "46.1.1.1"
        moved.peer = Peer(moved.node_id, (Address(AddressKind.DIRECT, moved.host, PORT),))
        await moved.start()
        await until(lambda: len(moved.overlay.table) >= 6, 5 * MINUTE)
        await asyncio.sleep(2 * MINUTE)
        found = await net.nodes[8].overlay.find_node(moved.node_id)
        assert found[0].node_id == moved.node_id
        assert found[0].contact.addresses[0].host == "46.1.1.1"


def finder(peer: OverlayPeer, lan: SimLan) -> LanFinder:
    return LanFinder(
        key=peer.key,
        network=NETWORK,
        port=PORT,
        link=lan.link(peer.host),
        clock=peer.clock,
        on_neighbour=lambda other: peer.endpoint.spawn(peer.overlay.meet(other)),
    )


@told
async def test_neighbours_without_any_seed_find_each_other_and_again_after_an_outage() -> None:
    async with OverlayNet(3, seed=5, chores=True) as net:
        for node in net.nodes:  # nobody was told of anybody
            await node.stop()
            node.seeds = ()
            await node.start()
        lan = SimLan(net.network)
        finders = [finder(node, lan) for node in net.nodes]
        for one in finders:
            await one.start()
        try:
            assert await until(lambda: all(len(node.overlay.table) == 2 for node in net.nodes), MINUTE) <= 5
            # The link is out for an hour, and two come back with other addresses in the meantime.
            for node in net.nodes:
                net.network.unplug(node.host)
            await asyncio.sleep(HOUR)
            for node in net.nodes:
                net.network.plug_in(node.host)
            await asyncio.sleep(2 * MINUTE)
            assert await finds(net.nodes[0], net.nodes[2])
            assert {peer.node_id for peer in finders[0].neighbours()} == {node.node_id for node in net.nodes[1:]}
        finally:
            for one in finders:
                await one.stop()


@told
async def test_a_question_is_answered_by_those_who_serve_alone() -> None:
    async with OverlayNet(3, seed=6) as net:
        lan = SimLan(net.network)
        finders = [finder(node, lan) for node in net.nodes[:2]]
        for one in finders:
            one.chore.pause()
            await one.start()
        asking = LanFinder(
            key=net.nodes[2].key, network=NETWORK, port=0, link=lan.link(net.nodes[2].host), clock=net.nodes[2].clock
        )
        await asking.start()
        try:
            found = await asking.ask(wait_seconds=1.0)
            assert {peer.node_id for peer in found} == {node.node_id for node in net.nodes[:2]}
            assert all(peer.node_id != net.nodes[2].node_id for one in finders for peer in one.neighbours())
        finally:
            for one in (*finders, asking):
                await one.stop()


@told
async def test_a_renter_whose_seeds_are_gone_asks_the_farmers_it_knows() -> None:
    async with Testnet(farmers=6, seed=7) as net:
        await net.renter.stop()
        net.renter.seeds = [farmer.peer for farmer in net.farmers[:2]]
        await net.step_chores("announce")
        await net.renter.start(chores=False)
        assert len(net.renter.agent.book) == 6
        newcomer = await net.add_farmer()
        newcomer.seeds = [net.farmers[4].peer]
        await net.kill(0, 1)
        await newcomer.die()
        await newcomer.start(chores=False)
        await newcomer.farmer.announce()
        await net.renter.agent.refresh()
        assert newcomer.node_id in net.renter.agent.book.farmers()


@told
async def test_an_interface_that_comes_up_late_is_used_when_it_is_there() -> None:
    async with OverlayNet(2, seed=8) as net:
        lan = SimLan(net.network)

        class Late(SimLink):
            ready = False

            def open(self, on_datagram: OnDatagram) -> None:
                if not self.ready:
                    raise EnvironmentFault("no such device")
                super().open(on_datagram)

        told_of: list[Exception] = []
        link = Late(lan, net.nodes[0].host)
        late = LanFinder(
            key=net.nodes[0].key,
            network=NETWORK,
            port=PORT,
            link=link,
            clock=net.nodes[0].clock,
            on_error=lambda _, error: told_of.append(error),
        )
        other = finder(net.nodes[1], lan)
        await other.start()
        await late.start()
        try:
            await asyncio.sleep(MINUTE)
            assert told_of
            assert late.neighbours() == ()
            link.ready = True
            await asyncio.sleep(MINUTE)
            assert [peer.node_id for peer in late.neighbours()] == [net.nodes[1].node_id]
        finally:
            await late.stop()
            await other.stop()
