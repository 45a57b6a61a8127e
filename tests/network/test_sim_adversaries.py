"""Each dishonest farmer in turn: every byte comes back, the right farmer is blamed, nothing hangs."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from sim_objects import assert_all_there, put_all, some_objects
from sim_segments import get_segment, put_segment
from stook.contracts.messages import Method
from stook.errors import ReasonCode
from stook.shards.geometry import Policy
from stook.sim.adversaries import (
    Babbles,
    ForgesReceipts,
    Forgets,
    HangsUp,
    HoldsHostage,
    Overcharges,
    RefusesAfterAccepting,
    ReusesReceipts,
    ServesOtherBytes,
    ServesOtherLeaves,
    SignsNonsense,
    Slow,
    Stalls,
    Truncates,
)
from stook.sim.adversary import Adversary, Casting
from stook.sim.loop import run
from stook.sim.network import Path
from stook.sim.replay import Replays
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import OutcomeKind

CLAIM, CONSIGN, RETRIEVE = OutcomeKind.CLAIM, OutcomeKind.CONSIGN, OutcomeKind.RETRIEVE
VILLAIN = 3
LOSSY = Path(delay_seconds=0.02, jitter_seconds=0.05, loss=0.02, breaks=0.0005)

CAST: dict[str, tuple[Casting, OutcomeKind]] = {
    "serves other bytes": (ServesOtherBytes, RETRIEVE),
    "serves other leaves": (ServesOtherLeaves, RETRIEVE),
    "forgets": (Forgets, RETRIEVE),
    "truncates": (Truncates, RETRIEVE),
    "holds hostage": (HoldsHostage, RETRIEVE),
    "holds hostage, politely": (partial(HoldsHostage, code=ReasonCode.BUSY), RETRIEVE),
    "stalls on retrieve": (partial(Stalls, methods=[Method.RETRIEVE]), RETRIEVE),
    "stalls on consign": (partial(Stalls, methods=[Method.CONSIGN]), CONSIGN),
    "stalls on claim": (partial(Stalls, methods=[Method.CLAIM]), CLAIM),
    "hangs up": (HangsUp, CONSIGN),
    "refuses after accepting": (RefusesAfterAccepting, CONSIGN),
    "forges receipts": (ForgesReceipts, RETRIEVE),
    "signs nonsense": (SignsNonsense, CONSIGN),
    "reuses receipts": (ReusesReceipts, CONSIGN),
    "overcharges": (Overcharges, CLAIM),
    "babbles": (Babbles, CLAIM),
    "replays claims": (partial(Replays, methods=[Method.CLAIM]), CLAIM),
    "replays receipts": (partial(Replays, methods=[Method.CONSIGN]), CONSIGN),
    "replays retrievals": (partial(Replays, methods=[Method.RETRIEVE]), RETRIEVE),
}


@pytest.mark.parametrize("name", CAST)
def test_every_byte_comes_back_and_the_villain_alone_is_blamed(name: str):
    casting, kind = CAST[name]

    async def main() -> None:
        async with Testnet(farmers=10, seed=7, cast={VILLAIN: casting}) as net:
            villain = net.adversary(VILLAIN)
            kept = []
            for _ in range(6):
                data = net.dice(100_000)
                kept.append((await put_segment(net, data), data))
            assert all(len(one.pushed.held) == one.facts.policy.n for one, _ in kept)
            for _ in range(3):
                for one, data in kept:
                    assert await get_segment(net, one) == data
                    if villain.deeds:
                        break
            assert villain.deeds, "it never had its chance: choose another seed"
            blamed = await net.renter.blame()
            assert set(blamed) == {VILLAIN}
            assert blamed[VILLAIN][kind] >= 1
            # What it did does not pay: it is given less, not more, from now on.
            weights = {one.node_id: one.weight for one in net.renter.agent.candidates()}
            honest = [weights[farmer.node_id] for farmer in net.honest]
            assert weights[net.farmers[VILLAIN].node_id] < min(honest)

    run(main(), within_seconds=300)


@pytest.mark.parametrize("name", CAST)
def test_objects_survive_each_of_them_on_a_bad_network(name: str):
    casting, _ = CAST[name]

    async def main() -> None:
        async with Testnet(farmers=10, seed=3, path=LOSSY, cast={VILLAIN: casting}) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await assert_all_there(net, objects)

    run(main(), within_seconds=900)


def test_the_whole_cast_at_once_cannot_keep_a_byte():
    """Twelve honest farmers and nineteen of the others, on a bad network."""
    villains = {12 + number: casting for number, (casting, _) in enumerate(CAST.values())}

    async def main() -> None:
        policy = Policy(k=3, r=5, o=8, n=10)
        async with Testnet(farmers=12 + len(villains), seed=1, path=LOSSY, cast=villains, policy=policy) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await assert_all_there(net, objects)

    run(main(), within_seconds=3_600)


def test_a_slow_farmer_does_not_hold_up_the_others():
    async def main(cast: dict[int, Casting]) -> float:
        async with Testnet(farmers=10, seed=7, cast=cast) as net:
            begun = asyncio.get_running_loop().time()
            for _ in range(4):
                data = net.dice(200_000)
                assert await get_segment(net, await put_segment(net, data)) == data
            return asyncio.get_running_loop().time() - begun

    honest = run(main({}), within_seconds=300)
    with_one = run(main({VILLAIN: Slow}), within_seconds=300)
    assert with_one < honest + 4 * 1.5, "a shard at 4 kB/s takes 16 s; the tail is cut long before"


def test_an_adversary_that_bends_nothing_is_an_honest_farmer():
    async def main() -> None:
        async with Testnet(farmers=10, seed=7, cast=dict.fromkeys(range(10), Adversary)) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await assert_all_there(net, objects)
            assert await net.renter.blame() == {}

    run(main(), within_seconds=60)
