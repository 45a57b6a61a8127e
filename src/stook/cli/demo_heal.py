"""The second half of the demo: audits find who is gone, repair brings everything back to n, and more may die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stook.assembly import Renter
from stook.audits.containment import Silence
from stook.contracts.verdict import Verdict
from stook.ids import NodeId
from stook.renter.ports import AgentStatus
from stook.renter.repairer import CLIENT

_ROUNDS = 4
"""Rounds of repair at most: one does, unless a farmer was busy."""
_LOOK_SECONDS = 0.5
OnHealth = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Audited:
    """Everything that audits came to so far, by their receipts."""

    passed: int
    """Shards that were proved, in all rounds together."""
    failed: int
    proved_bytes: int
    silent: frozenset[NodeId]
    """Farmers that do not answer at all now."""
    liars: frozenset[NodeId]
    holders: frozenset[NodeId]
    """Farmers that have been asked at all: who holds nothing is asked nothing."""

    @property
    def bytes_per_shard(self) -> float:
        """What the proof of one shard took."""
        return self.proved_bytes / self.passed if self.passed else 0.0


async def audit(renter: Renter, farmers: Sequence[NodeId]) -> Audited:
    """A round at every farmer now; what all rounds came to."""
    await renter.agent.auditor.audit_all()
    passed = failed = proved_bytes = 0
    silent, liars, holders = set(), set(), set()
    for farmer in farmers:
        known = await renter.agent.knows_of(farmer)
        if known.rounds:
            holders.add(farmer)
        for kept in known.rounds:
            signed = kept.file.receipt
            if signed is not None:
                receipt = signed.receipt
                passed += receipt.count(Verdict.PASSED)
                failed += receipt.count(Verdict.FAILED) + receipt.count(Verdict.MALFORMED)
                proved_bytes += receipt.proved_bytes
        if known.dossier.silence.state in (Silence.OFFLINE, Silence.GONE):
            silent.add(farmer)
        elif known.dossier.silence.state is Silence.CONDEMNED or known.dossier.score.crime is not None:
            liars.add(farmer)
    return Audited(passed, failed, proved_bytes, frozenset(silent), frozenset(liars), frozenset(holders))


def health(status: AgentStatus) -> float:
    """The share of segments that have all their n shards proved."""
    return status.proved_whole / status.segments if status.segments else 1.0


class Repairs:
    """Repairs everything, and can be looked at meanwhile."""

    def __init__(self, renter: Renter) -> None:
        self._renter = renter
        self.shards = 0
        """Made and stored so far, as far as whole rounds go."""

    async def run(self, on_health: OnHealth) -> None:
        """Until nothing more can be done. `on_health` hears, twice a second, what share of segments is whole."""
        work = asyncio.create_task(self._rounds())
        try:
            while not work.done():
                await asyncio.wait([work], timeout=_LOOK_SECONDS)
                on_health(health((await self._renter.client.status()).agent))
            await work
        finally:
            work.cancel()

    async def _rounds(self) -> None:
        for _ in range(_ROUNDS):
            report = await self._renter.agent.repairer.repair_all(CLIENT)
            self.shards += report.shards
            if not report.shards and not report.unfinished:
                return


def named(nodes: frozenset[NodeId], names: Mapping[bytes, str]) -> list[str]:
    """Farmers by the names of the demo, in order."""
    return sorted(names.get(node, node.hex()[:16]) for node in nodes)
