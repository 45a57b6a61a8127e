"""One segment's way out: seal it, write down its key, bring its shards to farmers, and say when it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from stook.clock import Clock, Entropy, Offload
from stook.errors import BugError, ConflictError, StookError
from stook.renter.meter import Meter
from stook.renter.pace import PushGoal
from stook.renter.ports import Agent, Allotment
from stook.renter.push import Pusher
from stook.renter.slots import Slot, SlotPool
from stook.renter.vault import Vault
from stook.shards.erasure import Codec
from stook.shards.geometry import Policy, SegmentShape
from stook.shards.pipeline import seal
from stook.shards.pointer import POINTER_VERSION, SegmentRecord
from stook.shards.rebuild import SealedShard
from stook.storage.renter_ports import SegmentEntry, SegmentFacts

_CLOSED = "the client was closed while it was storing"


@dataclass(frozen=True, slots=True)
class Reuse:
    """A segment sealed by an interrupted upload whose plaintext is the same: it is sealed again to the same shards."""

    record: SegmentRecord
    entry: SegmentEntry
    mask_key: bytes


@dataclass(frozen=True, slots=True)
class Naming:
    """A segment whose id and content key are not drawn by chance: a part of the saved catalog."""

    allotment: Allotment
    key: bytes


Register = Callable[[SegmentEntry], Awaitable[None]]
"""Makes the catalog know a segment before any farmer does."""


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
        self._closed = False

    async def send(
        self,
        slot: Slot,
        shape: SegmentShape,
        policy: Policy,
        plain_bytes: int,
        meter: Meter,
        *,
        register: Register,
        reuse: Reuse | None = None,
        naming: Naming | None = None,
    ) -> SegmentEntry:
        """Send the first `plain_bytes` of the slot's plaintext as one segment; returns when it is durable.

        Takes over the slot and gives it back in parts, at the latest when the last shard has left. When it raises, or
        is cancelled, nothing of the segment is under way any more; its owner in the catalog decides whether it is
        resumed or given up. Raises `NotEnoughError` when too few farmers took shards, `ConflictError` when the mill was
        closed meanwhile.
        """
        try:
            if self._closed:
                raise ConflictError(_CLOSED)
            record, entry, shards = await self._seal(slot, shape, plain_bytes, reuse, naming)
            self._slots.give_back_plain(slot)
            if reuse is None:
                await register(entry)
            if self._closed:
                raise ConflictError(_CLOSED)
        except BaseException:
            self._slots.give_back(slot)
            raise
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._push(record, policy, slot, shards, meter, durable))
        self._pushes.add(task)
        # A callback, because a task that is cancelled before its first step never reaches its own `finally`.
        task.add_done_callback(lambda ended: self._ended(ended, slot, durable))
        try:
            await durable
        except BaseException:
            task.cancel()
            await asyncio.wait([task])
            raise
        return entry

    def _ended(self, push: asyncio.Task[None], slot: Slot, durable: asyncio.Future[None]) -> None:
        self._pushes.discard(push)
        self._slots.give_back(slot)
        error = ConflictError(_CLOSED) if push.cancelled() else push.exception()
        if not durable.done():
            durable.set_exception(error or BugError("an upload ended without a word"))
        elif not durable.cancelled() and error is not None and not isinstance(error, StookError):
            raise error  # the segment was durable, so nobody waits for this: the loop's handler is told

    async def _seal(
        self, slot: Slot, shape: SegmentShape, plain_bytes: int, reuse: Reuse | None, naming: Naming | None
    ) -> tuple[SegmentRecord, SegmentEntry, dict[int, SealedShard]]:
        if naming is not None:
            segment_id, mask_key, key = naming.allotment.segment_id, naming.allotment.mask_key, naming.key
        elif reuse is None:
            (allotment,) = await self._agent.allot(1)
            segment_id, mask_key, key = allotment.segment_id, allotment.mask_key, self._entropy(32)
        else:
            segment_id, mask_key, key = reuse.record.segment_id, reuse.mask_key, reuse.record.key

        def work() -> tuple[SegmentRecord, SegmentEntry, dict[int, SealedShard]]:
            plain = slot.plain[:plain_bytes]
            with self._slots.scratch() as scratch:
                arena = slot.arena(scratch)
                sealed = seal(plain, key=key, mask_key=mask_key, shape=shape, arena=arena, codec=self._codec)
            shards = {shard.index: shard for shard in sealed.shards}
            if reuse is not None:
                if sealed.roots != reuse.record.roots[: shape.total]:
                    raise BugError("sealing the same bytes with the same key gave other shards")
                return reuse.record, reuse.entry, shards
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
            return record, self._vault.seal_segment(record), shards

        return await self._offload(work)

    async def _push(
        self,
        record: SegmentRecord,
        policy: Policy,
        slot: Slot,
        shards: dict[int, SealedShard],
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

        def kept(numbers: Collection[int]) -> None:
            for number in numbers:
                del shards[number]
            self._slots.give_back_shards(slot, numbers)

        # Once durable the object exists already, and what is missing to n is the agent's to fill: see `_ended`.
        await self._pusher.push(
            facts,
            shards,
            goal,
            on_accepted=lambda: meter.accepted(record.plain_bytes),
            on_durable=is_durable,
            on_stored=meter.shard,
            on_kept=kept,
        )

    async def settle(self) -> None:
        """Wait until every push under way has brought its n shards, or given up."""
        while self._pushes:
            await asyncio.wait(self._pushes)

    async def aclose(self) -> None:
        """Stop what still runs and take nothing new; claims not used run out or are cancelled by the agent."""
        self._closed = True
        while self._pushes:
            for task in self._pushes:
                task.cancel()
            await asyncio.wait(self._pushes)
