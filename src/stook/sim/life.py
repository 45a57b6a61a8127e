"""What befalls farmers in months of a network: they restart, are away, lose a disk, leave for good, and others come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from stook.sim.dice import Dice
from stook.sim.nodes import SimFarmer
from stook.sim.testnet import Testnet

DAY_SECONDS = 86_400.0
MONTH_SECONDS = 30 * DAY_SECONDS
FIRST_MORTAL = 2
"""Farmers 0 and 1 are the seeds by which newcomers are heard of; they restart and are away, but never leave."""


@dataclass(frozen=True, slots=True)
class Fates:
    """How often things happen to one farmer, in times a month; each comes without memory."""

    restarts: float = 0.0
    """Down for some seconds to ten minutes."""
    absences: float = 0.0
    """Away for two hours to `longest_absence_hours`, and back with everything."""
    longest_absence_hours: float = 120.0
    disk_losses: float = 0.0
    """Comes back from a restart without half of its shards, and says so. (A farmer without any does not start.)"""
    departures: float = 0.0
    """Leaves without a word, for good, and a newcomer takes its place."""
    skew_ms: int = 0
    """Clocks of newcomers are off by up to so much either way."""


class Life:
    """Lets fates befall the farmers of a testnet while its block is open. Liars are left alone: they have their own."""

    def __init__(self, net: Testnet, fates: Fates, dice: Dice) -> None:
        self.left: set[int] = set()
        """Farmers that are gone for good, by number."""
        self.restarts = self.absences = self.disk_losses = 0
        self._net = net
        self._fates = fates
        self._dice = dice
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Life:
        for farmer in self._net.honest:
            self._begin(farmer)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    @property
    def living(self) -> list[SimFarmer]:
        """Honest farmers that did not leave for good, those that are away just now included."""
        return [farmer for farmer in self._net.honest if farmer.number not in self.left]

    def _begin(self, farmer: SimFarmer) -> None:
        self._tasks.append(asyncio.create_task(self._live(farmer), name=f"life-{farmer.host}"))

    async def _live(self, farmer: SimFarmer) -> None:
        dice, fates = self._dice.child(farmer.host), self._fates
        mortal = farmer.number >= FIRST_MORTAL
        rates: dict[Callable[[SimFarmer, Dice], object], float] = {
            self._restart: fates.restarts,
            self._absence: fates.absences,
            self._disk_loss: fates.disk_losses,
            self._departure: fates.departures if mortal else 0.0,
        }
        total = sum(rates.values())
        while total and farmer.number not in self.left:
            await asyncio.sleep(dice.wait(MONTH_SECONDS / total))
            left = dice.between(0, total)
            for what, rate in rates.items():
                left -= rate
                if left < 0:
                    await what(farmer, dice)  # type: ignore[misc]
                    break

    async def _restart(self, farmer: SimFarmer, dice: Dice) -> None:
        self.restarts += 1
        await self._away(farmer, dice.between(2, 600))

    async def _absence(self, farmer: SimFarmer, dice: Dice) -> None:
        self.absences += 1
        await self._away(farmer, dice.between(2, self._fates.longest_absence_hours) * 3600)

    async def _disk_loss(self, farmer: SimFarmer, dice: Dice) -> None:
        self.disk_losses += 1
        await farmer.die()
        shards = list(farmer.disk.scan())
        for at in dice.some(len(shards) // 2, len(shards)):
            farmer.disk.erase(shards[at].root)
        await farmer.start(chores=True)

    async def _departure(self, farmer: SimFarmer, dice: Dice) -> None:
        self.left.add(farmer.number)
        await farmer.die()
        skew = self._fates.skew_ms
        self._begin(await self._net.add_farmer(skew_ms=dice.whole(-skew, skew)))

    async def _away(self, farmer: SimFarmer, seconds: float) -> None:
        await farmer.die()
        await asyncio.sleep(seconds)
        await farmer.start(chores=True)
