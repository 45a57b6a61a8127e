"""The integrity scrub: read every shard once a round, a little at a time, and be the first to know of a loss.

A loss counts as honest only when it is declared before a challenge touches it, so damage found here is worth more than
damage found by a renter. A damaged shard's contract becomes LOST; its file stays until the contract goes, because some
of its units may still be good and nothing may be built on a sector that failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stook.codec import decode
from stook.contracts.contract import MAX_CONTRACT_BYTES, Contract
from stook.contracts.lifecycle import ContractState, Event, allows, apply
from stook.errors import CorruptionError, MalformedError, NotFoundError, RefusedError
from stook.farmer.gate import to_the_end
from stook.farmer.parts import Parts
from stook.farmer.status import ScrubReport
from stook.identity.keys import verify
from stook.ids import PublicKey
from stook.storage.ports import HeldContract, ShardStore, StoredShard

CHECK_DEADLINE_SECONDS = 300.0


def own_contract(encoded: bytes, farmer_key: PublicKey) -> Contract | None:
    """The contract that a shard file carries, when both parties signed it and we are its farmer; else None."""
    try:
        contract = decode(Contract, encoded, max_bytes=MAX_CONTRACT_BYTES)
    except MalformedError:
        return None
    terms = contract.terms
    signed = verify(terms.farmer_key, terms.digest, contract.farmer_signature) and verify(
        terms.renter_key, terms.digest, contract.renter_signature
    )
    return contract if signed and terms.farmer_key == farmer_key else None


def is_damaged(shards: ShardStore, stored: StoredShard) -> bool:
    """Whether a shard fails its check twice: one bad read may be a cable, two are a loss. Blocks."""
    return _fails(shards, stored) and _fails(shards, stored)


def _fails(shards: ShardStore, stored: StoredShard) -> bool:
    try:
        return bool(shards.bad_units(stored.root))
    except CorruptionError:
        return True


async def declare_lost(parts: Parts, held: HeldContract, why: str) -> None:
    """Write down that a shard is gone, so that it is declared and never served. Hold the shard's gate or its file."""
    if not allows(held.state, Event.LOSE):
        return
    lost = HeldContract(held.contract, apply(held.state, Event.LOSE))
    await to_the_end(parts.offload(lambda: parts.contracts.put(lost)))
    parts.lost.add(held.contract_id)
    terms = held.contract.terms
    parts.log.error(
        "shard lost",
        contract=held.contract_id.hex(),
        shard=terms.shard_root.hex(),
        bytes=terms.shard_size_bytes,
        why=why,
    )


class Scrub:
    """Walks over all shards, round after round. One `step` at a time; give it to a `Chore`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._walk: Iterator[StoredShard] | None = None
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
        while True:
            report = await self.check(1 << 62)
            if report.finished_ms is not None:
                return report

    async def check(self, budget_bytes: int) -> ScrubReport:
        """Go on with the walk until `budget_bytes` were read or the round is over; the round's report so far."""
        parts = self._parts
        if self._walk is None:
            self._walk = await parts.offload(lambda: iter(parts.shards.scan()))
            self._report = ScrubReport()
        walk = self._walk
        while budget_bytes > 0:
            stored = await parts.offload(lambda: next(walk, None))
            if stored is None:
                self._walk = None
                self._report = replace(self._report, finished_ms=parts.clock.now_ms())
                break
            budget_bytes -= stored.size_bytes
            await self._check_one(stored)
        parts.tally.last_scrub = self._report
        return self._report

    async def _check_one(self, stored: StoredShard) -> None:
        parts = self._parts
        if parts.gate.busy(stored.root):
            return  # being written, renewed or erased: the next round sees it
        try:
            async with parts.gate.hold(stored.root, deadline_seconds=CHECK_DEADLINE_SECONDS):
                held = await parts.offload(lambda: parts.contracts.by_root(stored.root))
                if held is None:
                    held = await self._adopt(stored)
                damaged = await to_the_end(parts.offload(lambda: is_damaged(parts.shards, stored)))
                if damaged and held is not None and held.state is ContractState.ACTIVE:
                    await declare_lost(parts, held, "integrity scrub")
        except NotFoundError:
            return  # erased since the walk saw it
        except RefusedError:
            parts.log.warning("scrub gave up on a shard", shard=stored.root.hex())
            return
        report = self._report
        self._report = replace(
            report, shards=report.shards + 1, bytes=report.bytes + stored.size_bytes, damaged=report.damaged + damaged
        )

    async def _adopt(self, stored: StoredShard) -> HeldContract | None:
        """Take a shard in again that the index forgot; the file carries its contract."""
        parts = self._parts
        contract = own_contract(stored.contract, parts.key.public_key)
        if contract is None or contract.terms.shard_root != stored.root:
            parts.log.warning("a shard file without a contract of ours", shard=stored.root.hex())
            return None
        if await parts.offload(lambda: parts.contracts.get(contract.contract_id)) is not None:
            return None  # lost or given up: what was declared stays declared
        held = HeldContract(contract, ContractState.ACTIVE)
        await to_the_end(parts.offload(lambda: parts.contracts.put(held)))
        self._report = replace(self._report, adopted=self._report.adopted + 1)
        parts.log.warning("a shard was missing in the index", shard=stored.root.hex())
        return held
