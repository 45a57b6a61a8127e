"""What the renter's commands share: opening a home, waiting for the last shards, telling farmers what to erase."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stook.cli.output import plural
from stook.cli.run import configure_logging, log_level, passphrase_for
from stook.errors import NotEnoughError

if TYPE_CHECKING:
    from stook.assembly import Renter
    from stook.renter.agent import LocalAgent
    from stook.renter.ports import AgentStatus

SETTLE_SECONDS = 120.0
"""How long a command waits, once everything is durable, for the shards beyond."""
ERASE_SECONDS = 20.0
"""How long a command waits for farmers to confirm erasures; those that are silent are told another time."""
T = TypeVar("T")


def home_passphrase(home: Path) -> str | None:
    """Begin the work of a command in `home`: logging, and the passphrase if its keys are encrypted.

    Raises `ConfigError` when there is no node in `home`.
    """
    from stook.assembly import KEY_FILE

    configure_logging(log_level(home))
    return passphrase_for(home / KEY_FILE)


@asynccontextmanager
async def open_home(home: Path, *, refresh: bool) -> AsyncIterator[Renter]:
    """The renter in `home`. `refresh` asks seeds and farmers for news first: for what places shards."""
    from stook.assembly import open_renter

    async with open_renter(home, passphrase=home_passphrase(home), refresh=refresh) as renter:
        yield renter


async def with_news(
    agent: LocalAgent, work: Callable[[], Awaitable[T]], *, may_repeat: Callable[[], bool] = lambda: True
) -> T:
    """`work`, and once more after asking for farmers' newest addresses when too few of them answered."""
    try:
        return await work()
    except NotEnoughError:
        if not may_repeat():
            raise
        await agent.refresh()
        return await work()


@dataclass(frozen=True, slots=True)
class Settled:
    """What was reached before the command ended. Numbers are over everything stored."""

    segments: int
    segments_below_n: int

    def words(self, what: str = "Everything stored") -> str:
        """A sentence on how full segments are."""
        if not self.segments_below_n:
            return f"{what}: {plural(self.segments, 'segment')}, each with all its shards."
        return (
            f"{what}: {plural(self.segments, 'segment')}, {self.segments_below_n:,} of them short of some shards "
            "beyond the durable ones; `stook agent run` fills them."
        )


async def settle(renter: Renter, before: AgentStatus, *, wait: bool, seconds: float = SETTLE_SECONDS) -> Settled:
    """After an upload: wait, at most `seconds`, until its segments have all n shards; then let spares be erased.

    Only what fell short since `before` is filled here: older gaps are the business of `stook agent run`.
    """
    if wait:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await renter.client.drain()
                if (await renter.agent.status()).segments_below_n > before.segments_below_n:
                    await renter.client.settle()
        await erase(renter.agent)
    status = await renter.agent.status()
    return Settled(status.segments, status.segments_below_n)


async def erase(agent: LocalAgent, seconds: float = ERASE_SECONDS) -> int:
    """Tell farmers what was given up, waiting at most `seconds`; how many erasures still wait for an answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await agent.caretaker.cancel_due()
    return (await agent.status()).shards_to_cancel
