"""Everything at once, drawn from a seed: bad lines, villains, deaths, partitions, a renter killed in the middle.

Whatever the seed: no hang, no bug in any node, no farmer with two shards of a segment, and every byte comes back. A
seed that fails is added to `SEEDS` for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sim_objects import assert_all_there, assert_spread, put_all, some_objects
from stook.errors import StookError
from stook.shards.geometry import Policy
from stook.sim.adversaries import (
    Babbles,
    ForgesReceipts,
    Forgets,
    HangsUp,
    HoldsHostage,
    RefusesAfterAccepting,
    ReusesReceipts,
    ServesOtherBytes,
    SignsNonsense,
    Slow,
    Stalls,
    Truncates,
)
from stook.sim.dice import Dice
from stook.sim.loop import InlineOffload, run
from stook.sim.network import Path, Rate
from stook.sim.replay import Replays
from stook.sim.testnet import Testnet

VILLAINS = (
    Babbles,
    Forgets,
    ForgesReceipts,
    HangsUp,
    HoldsHostage,
    RefusesAfterAccepting,
    Replays,
    ReusesReceipts,
    ServesOtherBytes,
    SignsNonsense,
    Slow,
    Stalls,
    Truncates,
)
SEEDS = (0, 1, 2, 3, 1022, 1205, 1284)
TRIES = 5


async def befall(net: Testnet, dice: Dice, put: Callable[[], Awaitable[object]]) -> asyncio.Task[object]:
    """Some misfortunes while an upload runs; the upload as it is afterwards."""

    async def upload() -> object:
        return await put()

    task = asyncio.create_task(upload())
    for _ in range(dice.whole(0, 4)):
        await asyncio.sleep(dice.between(0, 8))
        number = dice.whole(0, len(net.farmers) - 1)
        match dice.whole(0, 5):
            case 0:
                await net.restart(number)
            case 1:
                net.partition([number])
            case 2:
                net.heal()
            case 3:
                net.network.reset("renter")
            case 4:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await net.restart_renter()
                task = asyncio.create_task(upload())
            case _:
                net.network.unplug("renter")
                await asyncio.sleep(dice.between(0, 50))
                net.network.plug_in("renter")
    net.heal()
    return task


async def chaos(seed: int) -> None:
    dice = Dice(seed, "plan")
    count, villains = dice.whole(10, 16), dice.whole(0, 3)
    path = Path(
        delay_seconds=dice.between(0, 0.2),
        jitter_seconds=dice.between(0, 0.3),
        loss=dice.between(0, 0.2),
        breaks=dice.between(0, 0.004),
    )
    net = Testnet(
        farmers=count,
        seed=seed,
        cast={count - 1 - number: VILLAINS[dice.whole(0, len(VILLAINS) - 1)] for number in range(villains)},
        path=path,
        policy=Policy(k=3, r=5, o=7, n=8),
        chores=dice.chance(0.5),
        offload=InlineOffload(lambda: dice.between(0, 0.02)),
    )
    async with net:
        net.network.set_rate("renter", Rate(up=dice.between(3e5, 2e7), down=dice.between(3e5, 2e7)))
        objects = some_objects(net, tuple(dice.whole(0, 2_000_000) for _ in range(4)))
        task = await befall(net, dice, lambda: put_all(net, objects))
        for tries_left in reversed(range(TRIES)):
            try:
                await task
                break
            except StookError:
                if not tries_left:
                    raise
            await asyncio.sleep(120)
            await net.step_chores()
            task = asyncio.create_task(put_all(net, objects))
        for tries_left in reversed(range(TRIES)):
            try:
                await assert_all_there(net, objects)
                break
            except StookError:
                if not tries_left:
                    raise
            await asyncio.sleep(60)
        assert_spread(net)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_at_once(seed: int):
    run(chaos(seed), within_seconds=20_000)


@pytest.mark.soak
def test_everything_at_once_for_many_seeds():
    for seed in range(1_000, 1_300):
        run(chaos(seed), within_seconds=20_000)
