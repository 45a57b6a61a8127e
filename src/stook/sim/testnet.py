"""A whole network in one line: ``async with Testnet(farmers=10, seed=7) as net: ...`` inside `stook.sim.loop.run`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from stook.clock import Offload
from stook.farmer.settings import FarmerSettings
from stook.renter.agent import AgentOptions
from stook.shards.erasure import load_codec
from stook.shards.geometry import Policy
from stook.sim.adversary import Adversary, Casting
from stook.sim.dice import Dice
from stook.sim.factories import agent_options, farmer_settings
from stook.sim.loop import InlineOffload, SimulationError
from stook.sim.network import CALM, Path, SimNetwork
from stook.sim.nodes import SimFarmer, SimRenter, World
from stook.sim.signatures import CheapSignatures, Signatures
from stook.wire.limits import Limits

LOG_LINES_SHOWN = 20
_ROUTINE = frozenset({"farmer recovered", "farmer stopped"})


class Testnet:
    """Farmers and a renter on a memory network, all of it drawn from `seed`.

    Real farmers, agents, clients, signatures and erasure code; memory instead of disk and wire. `cast` says which
    farmers are played by adversaries. Background loops stand still and are stepped by `step_chores`, unless `chores`
    lets them run by timer. Leaving the block fails when a node ran into a bug, even if nobody noticed; a failure
    carries the seed and the last log lines. Signatures are real below 50 farmers, cheap from there on, or as told
    (`stook.sim.signatures`).
    """

    __test__ = False  # no pytest class, whatever its name

    def __init__(
        self,
        farmers: int = 10,
        *,
        seed: int,
        path: Path = CALM,
        policy: Policy | None = None,
        options: AgentOptions | None = None,
        settings: FarmerSettings | None = None,
        limits: Limits | None = None,
        cast: Mapping[int, Casting] | None = None,
        skews_ms: Mapping[int, int] | None = None,
        chores: bool = False,
        offload: Offload | None = None,
        signatures: Signatures | None = None,
    ) -> None:
        self.seed = seed
        dice = Dice(seed)
        self.dice = dice.child("test")
        """For the test itself."""
        self.signatures = signatures if signatures is not None else Signatures.for_farmers(farmers)
        self.network = SimNetwork(dice.child("network"), path)
        self.world = World(
            dice=dice,
            network=self.network,
            codec=load_codec(),
            limits=limits if limits is not None else Limits(),
            offload=offload if offload is not None else InlineOffload(),
            cheap=CheapSignatures() if self.signatures is Signatures.CHEAP else None,
        )
        farm = self._settings = settings if settings is not None else farmer_settings()
        roles, skews = cast or {}, skews_ms or {}
        self.farmers: tuple[SimFarmer, ...] = tuple(
            SimFarmer(self.world, number, farm, casting=roles.get(number), skew_ms=skews.get(number, 0))
            for number in range(farmers)
        )
        for farmer in self.farmers:
            farmer.seeds = [seed_farmer.peer for seed_farmer in self.farmers[:2]]
        self.renter = SimRenter(
            self.world, "renter", options if options is not None else agent_options(policy), self.farmers
        )
        self._chores = chores

    # --- beginning and end -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Testnet:
        if self.world.cheap is not None:
            self.world.cheap.__enter__()
        try:
            for farmer in self.farmers:
                await farmer.start(chores=self._chores)
            await self.renter.start(chores=self._chores)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        story = self.story()
        await self._stop()
        if error is not None:
            error.add_note(story)
        elif self.world.errors:
            where, bug = self.world.errors[0]
            failure = SimulationError(f"{len(self.world.errors)} bugs, the first in {where}: {bug!r}")
            failure.add_note(story)
            raise failure from bug

    async def _stop(self) -> None:
        try:
            await self.renter.stop()
            for farmer in self.farmers:
                await farmer.stop()
        finally:
            for books in self.world.opened:
                books.close()
            if self.world.cheap is not None:
                self.world.cheap.__exit__(None, None, None)

    def story(self) -> str:
        """What one needs to see it again: the seed, the moment, the cast, the last log lines."""
        now = asyncio.get_running_loop().time()
        lines = [
            f"testnet of {len(self.farmers)} farmers, seed {self.seed}, {self.signatures} signatures, "
            f"after {now:.3f} virtual seconds"
        ]
        lines += [f"  {farmer!r}" for farmer in self.farmers if farmer.adversary is not None or not farmer.alive]
        telling = [line for line in self.world.log if line.get("event") not in _ROUTINE]
        lines += [f"  {line}" for line in telling[-LOG_LINES_SHOWN:]]
        return "\n".join(lines)

    async def add_farmer(self, *, skew_ms: int = 0) -> SimFarmer:
        """One more farmer, honest and new, with the same seeds as the others; it runs when this returns.

        A renter hears of it from its seeds, or when it is started again.
        """
        farmer = SimFarmer(self.world, len(self.farmers), self._settings, skew_ms=skew_ms)
        farmer.seeds = self.farmers[0].seeds
        self.farmers = (*self.farmers, farmer)
        self.renter.farmers = self.farmers
        await farmer.start(chores=self._chores)
        return farmer

    # --- what befalls it ---------------------------------------------------------------------------------------------

    async def kill(self, *numbers: int) -> None:
        """End farmers suddenly; their disks stay."""
        for number in numbers:
            await self.farmers[number].die()

    async def restart(self, *numbers: int) -> None:
        """Bring farmers back on the disks that they had; those that run are killed first."""
        for number in numbers:
            await self.farmers[number].die()
            await self.farmers[number].start(chores=self._chores)

    async def restart_renter(self) -> None:
        """Kill the renter's process and start it again on the same databases."""
        await self.renter.die()
        await self.renter.start(chores=self._chores)

    def partition(self, *sides: Iterable[int]) -> None:
        """Cut off groups of farmers, given by number, from each other and from everyone else, the renter included."""
        self.network.partition(*([self.farmers[number].host for number in side] for side in sides))

    def heal(self) -> None:
        """End the partition."""
        self.network.heal()

    async def step_chores(self, *names: str) -> None:
        """One run of every chore of every living node, in order (of those named only, if any are)."""
        for farmer in self.farmers:
            if farmer.alive:
                for name, chore in farmer.farmer.chores.items():
                    if not names or name in names:
                        await chore.step()
        if self.renter.alive:
            for name, chore in self.renter.chores.items():
                if not names or name in names:
                    await chore.step()

    async def pass_seconds(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def honest(self) -> Sequence[SimFarmer]:
        """The farmers that are what they seem."""
        return [farmer for farmer in self.farmers if farmer.adversary is None]

    def adversary(self, number: int) -> Adversary:
        """Who plays this farmer. Raises `LookupError` for an honest one."""
        played = self.farmers[number].adversary
        if played is None:
            raise LookupError(f"farmer {number} is honest")
        return played

    def stored_bytes(self) -> int:
        """Shard bytes that truly lie on all disks together."""
        return sum(farmer.stored_bytes for farmer in self.farmers)
