"""The integrity scrub: read every stored shard once a round, a little at a time, and be the first to know of a loss.

A loss counts as honest only when it is declared before a challenge touches it, so damage found here is worth more than
damage found by a renter. A damaged shard's contract becomes LOST; its file stays until the contract goes, because some
of its units may still be good and nothing should be built on a sector that failed. The walk goes over the contracts,
not over the files, so that a file that is missing, or too damaged to be named, is found too; files without a contract
are `stook.storage.fsck`'s to find.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stook.contracts.lifecycle import ContractState
from stook.errors import RefusedError
from stook.farmer.losses import declare_lost
from stook.farmer.parts import Parts
from stook.farmer.readback import is_damaged
from stook.farmer.status import ScrubReport
from stook.storage.ports import HeldContract

CHECK_DEADLINE_SECONDS = 300.0


class Scrub:
    """Walks over all stored shards, round after round. One `step` at a time; give it to a `Chore`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._walk: Iterator[HeldContract] | None = None
        self._report = ScrubReport()
        self._next_round_monotonic = float("-inf")

    async def step(self) -> None:
        """Check as many bytes as one interval's share of a round, at least one shard."""
        parts, chores = self._parts, self._parts.settings.chores
        if self._walk is None:
            now = parts.clock.monotonic()
            if now < self._next_round_monotonic:
                return
            self._next_round_monotonic = now + chores.scrub_round_seconds
        share = min(1.0, chores.scrub_seconds / chores.scrub_round_seconds)
        totals = await parts.offload(parts.contracts.totals)
        await self.check(max(1, int(totals.stored_bytes * share)))

    async def run_round(self) -> ScrubReport:
        """Check every shard now, from the start; what was found."""
        self._walk = None
        return await self.check(1 << 62)

    async def check(self, budget_bytes: int) -> ScrubReport:
        """Go on with the walk until `budget_bytes` were read or the round is over; the round's report so far."""
        parts = self._parts
        if self._walk is None:
            self._walk = iter(parts.contracts.all())
            self._report = ScrubReport()
        walk = self._walk
        while budget_bytes > 0:
            held = await parts.offload(lambda: next(walk, None))
            if held is None:
                self._walk = None
                self._report = replace(self._report, finished_ms=parts.clock.now_ms())
                break
            if held.state is ContractState.ACTIVE:
                budget_bytes -= held.contract.terms.shard_size_bytes
                await self._check_one(held)
        parts.tally.last_scrub = self._report
        return self._report

    async def _check_one(self, seen: HeldContract) -> None:
        parts, root = self._parts, seen.contract.terms.shard_root
        if parts.gate.busy(root):
            return  # being renewed or erased: the next round sees it
        try:
            async with parts.gate.hold(root, deadline_seconds=CHECK_DEADLINE_SECONDS):
                held = await parts.offload(lambda: parts.contracts.get(seen.contract_id))
                if held is None or held.state is not ContractState.ACTIVE:
                    return  # given up since the walk saw it
                damaged = await parts.offload(lambda: is_damaged(parts.shards, root))
                if damaged:
                    await declare_lost(parts, held, "integrity scrub")
        except RefusedError:
            parts.log.warning("scrub gave up on a shard", shard=root.hex())
            return
        report, size = self._report, seen.contract.terms.shard_size_bytes
        self._report = replace(
            report, shards=report.shards + 1, bytes=report.bytes + size, damaged=report.damaged + damaged
        )
