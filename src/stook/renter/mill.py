"""One segment's way out: seal it, write down its key, bring its shards to farmers, and say when it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stook.clock import Clock, Entropy, Offload
from stook.errors import BugError, StookError
from stook.renter.meter import Meter
from stook.renter.pace import PushGoal
from stook.renter.ports import Agent
from stook.renter.push import Pusher
from stook.renter.slots import Slot, SlotPool
from stook.renter.vault import Vault
from stook.shards.erasure import Codec
from stook.shards.geometry import Policy, SegmentShape
from stook.shards.pipeline import SealedSegment, seal
from stook.shards.pointer import POINTER_VERSION, SegmentRecord
from stook.storage.renter_ports import SegmentEntry, SegmentFacts


@dataclass(frozen=True, slots=True)
class Reuse:
    """A segment sealed by an interrupted upload whose plaintext is the same: it is sealed again to the same shards."""

    record: SegmentRecord
    entry: SegmentEntry
    mask_key: bytes


Register = Callable[[SegmentEntry], Awaitable[None]]
"""Makes the catalog know a segment before any farmer does."""


async def _nothing(entry: SegmentEntry) -> None:
    """For segments that the catalog learns of with their objects."""


class Mill:
    """Sends segments. Pushes go on after `send` returned, until their segment has n shards."""

    def __init__(
        self,
        *,
        agent: Agent,
        pusher: Pusher,
        vault: Vault,
        slots: SlotPool,
        codec: Codec,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
    ) -> None:
        self._agent = agent
        self._pusher = pusher
        self._vault = vault
        self._slots = slots
        self._codec = codec
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._pushes: set[asyncio.Task[None]] = set()

    async def send(
        self,
        slot: Slot,
        shape: SegmentShape,
        policy: Policy,
        plain_bytes: int,
        meter: Meter,
        *,
        reuse: Reuse | None = None,
        register: Register = _nothing,
    ) -> SegmentEntry:
        """Send the first `plain_bytes` of the slot's plaintext as one segment; returns when it is durable.

        Takes over the slot and gives it back when the last shard has left. Raises `NotEnoughError` when too few
        farmers took shards; the segment is then given up, unless it was registered and may be resumed.
        """
        try:
            record, entry, sealed = await self._seal(slot, shape, plain_bytes, reuse)
            if reuse is None:
                await register(entry)
        except BaseException:
            self._slots.give_back(slot)
            raise
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._push(slot, record, policy, sealed, meter, durable))
        self._pushes.add(task)
        task.add_done_callback(self._pushes.discard)
        try:
            await durable
        except asyncio.CancelledError:
            task.cancel()
            raise
        return entry

    async def _seal(
        self, slot: Slot, shape: SegmentShape, plain_bytes: int, reuse: Reuse | None
    ) -> tuple[SegmentRecord, SegmentEntry, SealedSegment]:
        if reuse is None:
            (allotment,) = await self._agent.allot(1)
            segment_id, mask_key, key = allotment.segment_id, allotment.mask_key, self._entropy(32)
        else:
            segment_id, mask_key, key = reuse.record.segment_id, reuse.mask_key, reuse.record.key

        def work() -> tuple[SegmentRecord, SegmentEntry, SealedSegment]:
            plain = slot.plain[:plain_bytes]
            sealed = seal(plain, key=key, mask_key=mask_key, shape=shape, arena=slot.arena, codec=self._codec)
            if reuse is not None:
                if sealed.roots != reuse.record.roots[: shape.total]:
                    raise BugError("sealing the same bytes with the same key gave other shards")
                return reuse.record, reuse.entry, sealed
            record = SegmentRecord(
                version=POINTER_VERSION,
                segment_id=segment_id,
                key=key,
                k=shape.k,
                total=shape.total,
                shard_bytes=shape.shard_bytes,
                plain_bytes=plain_bytes,
                plain_hash=sealed.plain_hash,
                roots=sealed.roots,
            )
            return record, self._vault.seal_segment(record), sealed

        return await self._offload(work)

    async def _push(
        self,
        slot: Slot,
        record: SegmentRecord,
        policy: Policy,
        sealed: SealedSegment,
        meter: Meter,
        durable: asyncio.Future[None],
    ) -> None:
        facts = SegmentFacts(
            segment_id=record.segment_id,
            policy=policy,
            total=record.total,
            shard_bytes=record.shard_bytes,
            roots=record.roots,
            created_ms=self._clock.now_ms(),
        )
        goal = PushGoal(enough=policy.o, full=policy.n, spares=tuple(range(policy.n, record.total)))

        def is_durable() -> None:
            meter.durable(record.plain_bytes)
            if not durable.done():
                durable.set_result(None)

        try:
            await self._pusher.push(
                facts,
                {shard.index: shard for shard in sealed.shards},
                goal,
                on_accepted=lambda: meter.accepted(record.plain_bytes),
                on_durable=is_durable,
                on_stored=meter.shard,
            )
        except StookError as error:
            # Once durable the object exists already, and what is missing to n is the agent's to fill.
            if not durable.done():
                durable.set_exception(error)
        finally:
            self._slots.give_back(slot)
            if not durable.done():
                durable.cancel()

    async def settle(self) -> None:
        """Wait until every push under way has brought its n shards, or given up."""
        while self._pushes:
            await asyncio.wait(self._pushes)

    async def aclose(self) -> None:
        """Stop what still runs; claims that were not used run out or are cancelled by the agent."""
        for task in self._pushes:
            task.cancel()
        await self.settle()
