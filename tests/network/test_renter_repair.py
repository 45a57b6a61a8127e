"""An agent repairs a simulated network: what is not proved is made again elsewhere, once, and from ciphertext."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from sim_objects import assert_all_there, assert_spread, put_all, some_objects
from stook.audits.allowance import DAY_MS, Allowance
from stook.audits.containment import Silence
from stook.ids import NodeId, SegmentId
from stook.renter.audit_rules import AuditRules
from stook.renter.repair_plan import RepairJob
from stook.renter.repairer import BYTES, RepairSettings
from stook.shards.geometry import Policy
from stook.sim.adversaries import Forgets
from stook.sim.factories import agent_options
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import Placement, PlacementState

POLICY = Policy(k=3, r=5, o=6, n=7)
OPTIONS = agent_options(POLICY, audits=AuditRules())
HOUR = 3600.0
DAY = 24 * HOUR
SIZES = (200_000, 500_000, 800_000)


async def stored(net: Testnet) -> dict[str, bytes]:
    objects = some_objects(net, SIZES)
    await put_all(net, objects)
    await net.renter.client.settle()
    return objects


async def care_for(net: Testnet, seconds: float, every: float = 600.0) -> None:
    """Audits, repair and cancelling for so long."""
    for _ in range(int(seconds / every)):
        await net.step_chores("refresh", "audit", "repair", "cancel")
        await net.pass_seconds(every)


def placements(net: Testnet) -> dict[SegmentId, list[Placement]]:
    store = net.renter.store
    found = store.placements(store.segment_ids(2**62, b"", 10_000))
    return {name: [each for each in held if each.state is PlacementState.STORED] for name, held in found.items()}


def holders(net: Testnet) -> set[NodeId]:
    return {each.farmer for held in placements(net).values() for each in held}


def is_twice(held: list[Placement]) -> bool:
    return len({(each.index, each.copy) for each in held}) < len(held)


def assert_whole(net: Testnet) -> None:
    for held in placements(net).values():
        assert sorted(each.index for each in held) == sorted({each.index for each in held})
        assert len(held) >= POLICY.n


@pytest.mark.parametrize("seed", [1, 2])
def test_what_liars_held_is_made_again_and_a_second_killing_loses_nothing(seed: int) -> None:
    async def main() -> None:
        cast = dict.fromkeys((2, 5, 7), Forgets)
        async with Testnet(farmers=14, seed=seed, options=OPTIONS, cast=cast) as net:
            objects = await stored(net)
            await care_for(net, 3 * HOUR)
            liars = {net.farmers[number].node_id for number in cast}
            assert not holders(net) & liars
            crimes = {each.farmer for each in net.renter.store.dossiers() if each.score.crime}
            assert crimes <= liars
            below_r = [held for held in placements(net).values() if len(held) < POLICY.r]
            assert not below_r
            # Four honest ones die for good: n - k shards of a segment at most.
            victims = [number for number in range(14) if number not in cast][:3]
            await net.kill(*victims)
            await care_for(net, 9 * DAY, HOUR)
            assert all(len(held) >= POLICY.r for held in placements(net).values())
            again = [number for number in range(14) if number not in cast and number not in victims][:2]
            await net.kill(*again)
            await assert_all_there(net, objects)
            assert_spread(net)

    run(main(), within_seconds=30 * DAY)


def test_an_honest_loss_is_made_good_below_r_and_not_before() -> None:
    async def main() -> None:
        async with Testnet(farmers=7, seed=3, options=OPTIONS) as net:
            objects = await stored(net)
            await care_for(net, 2 * HOUR)
            assert_whole(net)

            async def lose(number: int) -> None:
                farmer = net.farmers[number]
                for each in net.renter.store.stored_at(farmer.node_id):
                    farmer.disk.erase(each.root)
                await farmer.farmer.chores["scrub"].step()
                await care_for(net, 2 * HOUR)

            for number in (0, 1):
                await lose(number)
                assert len(holders(net)) == 6 - number
            # With the third it is four of seven; nobody else is there, so the losers are given theirs again.
            await lose(2)
            await care_for(net, 2 * HOUR)
            assert len(holders(net)) == 7
            assert_whole(net)
            assert not [each for each in net.renter.store.dossiers() if each.score.crime]
            assert net.renter.store.lost_and_replaced(9) == []
            await net.kill(3, 4, 5, 6)
            await assert_all_there(net, objects)

    run(main(), within_seconds=10 * DAY)


def test_a_reboot_is_waited_for() -> None:
    async def main() -> None:
        async with Testnet(farmers=9, seed=4, options=OPTIONS) as net:
            await stored(net)
            await care_for(net, 2 * HOUR)
            before = placements(net)
            holding = sorted(holders(net))
            victims = [farmer.number for farmer in net.farmers if farmer.node_id in holding[:3]]
            await net.kill(*victims)
            await care_for(net, 4 * HOUR)
            silent = [each.farmer for each in net.renter.store.dossiers() if each.silence.state is Silence.OFFLINE]
            assert len(silent) == 3
            assert placements(net) == before
            report = await net.renter.agent.repairer.repair_due()
            assert report.waiting > 0
            await net.restart(*victims)
            await care_for(net, HOUR)
            assert {name: Counter(each.farmer for each in held) for name, held in placements(net).items()} == {
                name: Counter(each.farmer for each in held) for name, held in before.items()
            }
            # Away for longer, its shards are made again elsewhere: those that are below r without them.
            await net.kill(*victims)
            await care_for(net, 16 * HOUR, 1800.0)
            alive = {farmer.node_id for farmer in net.farmers if farmer.alive}
            for held in placements(net).values():
                assert len({each.index for each in held if each.farmer in alive}) >= POLICY.r
            # Back, and proved: what was made meanwhile is given up again.
            assert any(is_twice(held) for held in placements(net).values())
            await net.restart(*victims)
            await care_for(net, 3 * HOUR)
            for _ in range(3):  # a round where nothing new waits for its first audit
                await net.renter.agent.auditor.audit_all()
                await care_for(net, HOUR)
            assert not any(is_twice(held) for held in placements(net).values())
            assert_whole(net)

    run(main(), within_seconds=10 * DAY)


def test_more_copies_are_kept_where_they_are_wanted() -> None:
    async def main() -> None:
        options = replace(OPTIONS, policy=Policy(k=2, r=2, o=3, n=3), spares=0, repair=RepairSettings(copies=2))
        async with Testnet(farmers=12, seed=5, options=options) as net:
            objects = some_objects(net, (100_000,))
            await put_all(net, objects)
            await net.renter.client.settle()
            await care_for(net, HOUR)
            for held in placements(net).values():
                assert Counter(each.index for each in held) == {0: 2, 1: 2, 2: 2}
                assert len({each.root for each in held}) == len({each.farmer for each in held}) == 6
                assert {each.copy for each in held} == {0, 1}
            # What is left of a segment in copies alone is enough to make it anew.
            first = [each.farmer for held in placements(net).values() for each in held if each.copy == 0]
            await net.kill(*(farmer.number for farmer in net.farmers if farmer.node_id in first[:2]))
            await care_for(net, 10 * DAY, HOUR)
            await assert_all_there(net, objects)

    run(main(), within_seconds=20 * DAY)


def test_an_agent_killed_in_the_middle_repairs_nothing_twice() -> None:
    async def main() -> None:
        cast = dict.fromkeys((1, 4, 6), Forgets)
        async with Testnet(farmers=12, seed=6, options=OPTIONS, cast=cast) as net:
            objects = await stored(net)
            for step in range(12):
                work = asyncio.create_task(care_for(net, 1200.0))
                await net.pass_seconds(0.01 * 3**step % 1200)
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                await net.restart_renter()
                await net.renter.agent.repairer.resume()
            await care_for(net, 3 * HOUR)
            store = net.renter.store
            assert store.open_challenges() == []
            assert store.flights(store.segment_ids(2**62, b"", 999)) == {}
            for held in placements(net).values():
                assert max(Counter(each.index for each in held).values()) == 1
                assert len(held) >= POLICY.r
            # Nothing is in limbo: what is claimed lapses, what is given up is erased, what farmers hold is known.
            await care_for(net, 3 * HOUR)
            assert store.counts().placements.get(PlacementState.CLAIMED, 0) == 0
            assert store.counts().placements.get(PlacementState.CANCELLING, 0) == 0
            known = {each.contract_id for held in placements(net).values() for each in held}
            for farmer in net.honest:
                held_there = farmer.contracts.owned_by(net.renter.key.public_key, b"", 999)
                assert {each.contract_id for each in held_there} <= known
            await assert_all_there(net, objects)

    run(main(), within_seconds=5 * DAY)


def test_a_farmer_that_leaves_is_emptied_by_itself_and_counted_after_an_audit() -> None:
    async def main() -> None:
        async with Testnet(farmers=9, seed=8, options=OPTIONS) as net:
            objects = await stored(net)
            await care_for(net, 2 * HOUR)
            before = placements(net)
            leaver = next(farmer for farmer in net.farmers if farmer.node_id in holders(net))
            moved = {each.contract_id for held in before.values() for each in held if each.farmer == leaver.node_id}
            leaver.contracts.exits.set_leaving(leaver.clock.now_ms() + int(30 * DAY * 1000))
            await net.step_chores("reaper")
            for _ in range(30):
                await net.step_chores("refresh", "audit", "move", "cancel")
                for held in placements(net).values():
                    # Never fewer than n that count, and never given up before the other was proved.
                    assert len({each.index for each in held}) >= POLICY.n
                await net.pass_seconds(600)
            assert leaver.stored_bytes == 0
            assert (await leaver.farmer.status()).contracts == {"reserved": 0, "active": 0, "lost": 0}
            assert net.renter.store.flights(list(before)) == {}
            for held in placements(net).values():
                assert not {each.contract_id for each in held} & moved
                assert all(each.proved_ms for each in held)
            await net.kill(leaver.number)
            await assert_all_there(net, objects)
            assert_spread(net)

    run(main(), within_seconds=DAY)


def test_some_segments_are_repaired_beside_each_other_and_every_byte_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        options = replace(OPTIONS, policy=Policy(3, 7, 7, 7), repair=RepairSettings(at_once=3, patience_ms=0))
        async with Testnet(farmers=14, seed=31, options=options) as net:
            objects = {}
            for number in range(8):  # one by one, so that each is a segment of its own
                objects |= {f"{number}": net.dice(100_000)}
                await put_all(net, {f"{number}": objects[f"{number}"]})
            await net.renter.client.settle()
            repairer, store = net.renter.agent.repairer, net.renter.store
            running, most, moved, spent = 0, 0, 0, 0
            run_one, change = repairer._run, store.change

            async def watched(job: RepairJob, *more: Any) -> int:
                nonlocal running, most, moved
                running, moved = running + 1, moved + job.moved_bytes
                most = max(most, running)
                try:
                    return await run_one(job, *more)
                finally:
                    running -= 1

            def counted(*changes: Any, allowances: Any = None) -> None:
                nonlocal spent
                if allowances and (new := allowances.get(BYTES)):
                    kept = store.allowance(BYTES) or Allowance.full(new.per_day, new.at_ms)
                    spent += (kept.at(new.at_ms).level - new.level) // DAY_MS
                change(*changes, allowances=allowances)

            monkeypatch.setattr(repairer, "_run", watched)
            monkeypatch.setattr(store, "change", counted)
            await net.kill(0, 1, 2, 3)
            await care_for(net, 2 * HOUR)
            assert most == 3
            assert moved == spent > 0
            alive = {farmer.node_id for farmer in net.farmers if farmer.alive}
            for held in placements(net).values():
                indices = [each.index for each in held if each.farmer in alive]
                assert len(indices) == len(set(indices)) == 7
            await assert_all_there(net, objects)

    run(main(), within_seconds=DAY)
