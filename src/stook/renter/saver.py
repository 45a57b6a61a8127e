"""Saves the catalog on the network: what changed, sealed like data and spread wider, then the record that names it.

One save at a time, whoever asks: everything that was committed before it began is in it, so many writers share one
(group commit). Nothing it replaces is given up before a newer record was accepted (`docs/protocol/recovery.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from stook.chore import Chore
from stook.clock import Clock, Entropy, Offload
from stook.codec import encode
from stook.contracts.recovery import SignedRecoveryRecord
from stook.errors import BugError, ConflictError, NotEnoughError
from stook.hashing import Tag, tagged_hash
from stook.ids import NetworkId, PublicKey, SegmentId
from stook.renter.journal_seal import (
    CONTENT_VERSION,
    NONCE_BYTES,
    SEAL_BYTES,
    HeadShard,
    JournalKeys,
    KnownFarmer,
    PartName,
    RecoveryContent,
    fit,
    journal_policy,
)
from stook.renter.meter import Meter
from stook.renter.mill import Mill, Naming
from stook.renter.pointers import Left, RecoveryPointers
from stook.renter.ports import Agent, Ticket
from stook.renter.slots import Slot, SlotPool
from stook.shards.cipher import SALT_BYTES
from stook.shards.geometry import Policy, SegmentShape, largest_shape, smallest_shape
from stook.storage.journal_ports import Draft, Journal, JournalState, Reading, Unsaved
from stook.storage.journal_records import (
    JOURNAL_VERSION,
    PartHead,
    PartRef,
    Point,
    SaveHead,
    SaveRef,
    epoch_of,
    frame,
    sequence_of,
)
from stook.storage.presence import MemoryPresence, Presence
from stook.storage.renter_ports import SegmentEntry

DAY_MS = 24 * 3_600_000
QUIET_MS = 3_600_000
"""How long changes of mere bookkeeping wait for company."""
NAMES_SHOWN = 10
MAX_PART_BYTES = 8 << 20
"""What a save holds in memory."""
MAX_FARMERS = 128
NODE_INDICES = ((0, 0),)


@dataclass(frozen=True, slots=True)
class SaverRules:
    """How the catalog is saved. `settings` goes along, so that a new machine rents as this one did."""

    lag_seconds: float = 5.0
    """How long a change waits for others before it is saved, where somebody stays to save it."""
    history_ms: int = 7 * DAY_MS
    """How far back one can go."""
    settings: str = ""
    node_indices: tuple[tuple[int, int], ...] = NODE_INDICES


@dataclass(frozen=True, slots=True)
class Saved:
    """What one save came to."""

    sequence: int
    base: bool
    rows: int
    size_bytes: int
    parts: int
    farmers: int
    """Farmers that keep the record now."""


class Saver:
    """Keeps the catalog recoverable."""

    def __init__(
        self,
        *,
        agent: Agent,
        node_key: PublicKey,
        network: NetworkId,
        mill: Mill,
        slots: SlotPool,
        journal: Journal,
        keys: JournalKeys,
        pointers: RecoveryPointers,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        rules: SaverRules = SaverRules(),
        presence: Presence | None = None,
    ) -> None:
        self._agent = agent
        self._node_key = node_key
        self._network = network
        self._mill = mill
        self._slots = slots
        self._journal = journal
        self._keys = keys
        self._pointers = pointers
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self.rules = rules
        self._presence = presence if presence is not None else MemoryPresence()
        self._maker = RecordMaker(
            agent, pointers, keys, network, node_key, clock, entropy, offload, node_indices=rules.node_indices
        )
        self._turn = asyncio.Lock()

    def chore(self, on_error: Callable[[str, Exception], None]) -> Chore:
        """Saving without end, for a process that stays: at most `lag_seconds` after a change, many in one."""
        return Chore("save", self.rules.lag_seconds, self.save_due, on_error)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def state(self) -> JournalState:
        """Where the journal stands."""
        return await self._offload(self._journal.state)

    async def unsaved(self, limit: int = NAMES_SHOWN) -> Unsaved:
        """What is durable and not recoverable yet."""
        return await self._offload(lambda: self._journal.unsaved(limit))

    async def segments(self) -> frozenset[SegmentId]:
        """Every segment that saves use, or used and did not give back yet."""
        return await self._offload(self._journal.segments)

    async def points(self) -> tuple[Point, ...]:
        """Moments that can be gone back to, oldest first."""
        return tuple(await self._offload(self._journal.points))

    # --- saving ------------------------------------------------------------------------------------------------------

    async def save_due(self) -> Saved | None:
        """For a chore: save when something would be missed, or waits to be erased, or bookkeeping has waited long; None
        when nothing was due.

        Raises as `recoverable`.
        """
        unsaved, state = await self.unsaved(0), await self.state()
        waited = self._clock.now_ms() - state.saved_ms
        late = unsaved.rows and waited >= QUIET_MS and state.saved_ms
        if state.alarm or not (unsaved.pressing or unsaved.waiting or late):
            return None
        return await self.recoverable()

    async def recoverable(self) -> Saved | None:
        """Return when everything committed so far is recoverable; None when it was already.

        Raises `ConflictError` when another device saves with the same words (an alarm stays until it is ended),
        `NotEnoughError` when too few farmers took it.
        """
        unsaved, state = await self.unsaved(0), await self.state()
        if state.alarm:
            raise ConflictError(state.alarm)
        if not unsaved.rows and state.saved_ms:
            return None
        return await self._save_alone(state.generation)

    async def _save_alone(self, target: int) -> Saved | None:
        """Save when it is our turn; None when somebody else's save had everything up to `target` by then."""
        while True:
            async with self._turn:
                stay = self._presence.stay()
                try:
                    # While another process saves, we are let in as a guest, and look whether it saved our changes.
                    alone = await self._offload(stay.enter)
                    if (await self.state()).saved >= target:
                        return None
                    if alone:
                        return await self._save()
                finally:
                    await self._offload(stay.leave)

    async def _save(self) -> Saved:
        policy = journal_policy((await self._agent.policy()).policy)
        draft = await self._offload(self._journal.begin)
        save = await _Save(self, draft, policy).send()
        before = (await self.state()).record
        record = await self._maker.make(draft.sequence, draft.writer, save.sequence, save.head, before)
        left = await self._leave(record, needed=len(await self._maker.holders(save.head)) // 2 + 1)
        now_ms = self._clock.now_ms()
        await self._offload(lambda: self._journal.finish(draft, save, encode(record), now_ms, self.rules.history_ms))
        await self.release()
        return Saved(draft.sequence, draft.base, save.rows, save.size_bytes, len(save.parts), left.accepted)

    async def release(self) -> int:
        """Give up the segments of saves that nothing needs any more; how many saves."""
        given_up = await self._offload(self._journal.to_release)
        await self._agent.release([segment_id for _, segments in given_up for segment_id in segments])
        await self._offload(lambda: self._journal.confirm_released([sequence for sequence, _ in given_up]))
        return len(given_up)

    # --- the record --------------------------------------------------------------------------------------------------

    async def _leave(self, record: SignedRecoveryRecord, needed: int) -> Left:
        left = await self._pointers.put(record)
        await self.judge_others(record, left.others)
        if left.accepted < needed:
            raise NotEnoughError(
                f"the catalog was saved, but only {left.accepted} of the {needed} farmers needed keep the record of it"
            )
        return left

    async def judge_others(self, mine: SignedRecoveryRecord, others: Sequence[SignedRecoveryRecord]) -> None:
        """Sound the alarm when somebody else saves with our words. Raises `ConflictError`."""
        for other in others:
            content = await self._offload(partial(self._keys.open, other, self._network))
            if content is None:
                continue  # a farmer's invention
            if (alarm := rivalry(mine, other)) is not None:
                await self._offload(partial(self._journal.sound, alarm))
                raise ConflictError(alarm)

    async def take_over(self) -> Saved:
        """Say that this catalog is the true one: whatever others saved, a new base under a new epoch goes above it."""
        found = await self._pointers.get(self._keys.record_key.public_key)
        opened = [record for record in found if self._keys.open(record, self._network) is not None]
        state = await self.state()
        highest = max([state.epoch, *(epoch_of(record.body.sequence) for record in opened)])
        await self._offload(lambda: self._journal.take_over(highest + 1))
        saved = await self._save_alone((await self.state()).generation)
        if saved is None:
            raise BugError("a new epoch began and nothing was saved")
        return saved


class RecordMaker:
    """Makes recovery records out of where the head of a save is now."""

    def __init__(
        self,
        agent: Agent,
        pointers: RecoveryPointers,
        keys: JournalKeys,
        network: NetworkId,
        node_key: PublicKey,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        *,
        node_indices: tuple[tuple[int, int], ...] = NODE_INDICES,
    ) -> None:
        self._agent = agent
        self._pointers = pointers
        self._keys = keys
        self._network = network
        self._node_key = node_key
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._node_indices = node_indices

    async def make(self, sequence: int, writer: bytes, save: int, head: PartRef, before: bytes) -> SignedRecoveryRecord:
        """A record that names `head`, the head of a save; `before` is the record it follows, encoded."""
        tickets = await self.holders(head)
        holders = {ticket.peer.node_id for ticket in tickets}
        content = RecoveryContent(
            version=CONTENT_VERSION,
            writer=writer,
            issued_ms=self._clock.now_ms(),
            previous=tagged_hash(Tag.RECOVERY_RECORD, before) if before else b"",
            save=save,
            head=head,
            key=self._keys.content_key(head.segment_id),
            shards=tuple(
                HeadShard(ticket.index, ticket.root, ticket.peer.node_id, ticket.peer.addresses[:2])
                for ticket in tickets
            ),
            node_indices=self._node_indices,
            farmers=tuple(
                KnownFarmer(peer.node_id, peer.addresses[:2])
                for peer in (await self._pointers.places())[:MAX_FARMERS]
                if peer.addresses and peer.node_id not in holders
            ),
        )
        salt = self._entropy(SALT_BYTES)
        return await self._offload(lambda: self._keys.seal(fit(content), self._network, sequence, salt=salt))

    async def holders(self, head: PartRef) -> Sequence[Ticket]:
        """A ticket for each shard of the head that is stored."""
        located = (await self._agent.locate([head.segment_id], self._node_key)).get(head.segment_id)
        return () if located is None else located.tickets


def rivalry(mine: SignedRecoveryRecord, other: SignedRecoveryRecord) -> str | None:
    """What is wrong when a farmer keeps `other`, a true record, instead of `mine`; None when it is only older. Pure."""
    ours, theirs = mine.body.sequence, other.body.sequence
    if theirs < ours:
        return None
    if epoch_of(theirs) > epoch_of(ours):
        how = "another device has recovered the catalog with your words and saves it now"
    elif theirs > ours:
        how = (
            "a later state of the catalog is saved already, by another device or from before this catalog was put back"
        )
    else:
        how = "another device saves the catalog with your words at the same time"
    return (
        f"{how}: nothing more is saved from here. `stook recover` in a new home takes what is saved; `stook catalog "
        "take-over` says that the catalog here is the right one"
    )


def first_sequence(epoch: int) -> int:
    """The number under which a new writer only says that it has taken over."""
    return sequence_of(epoch, 0)


class _Save:
    """One save on its way out."""

    def __init__(self, saver: Saver, draft: Draft, policy: Policy) -> None:
        self._saver = saver
        self._draft = draft
        self._policy = policy
        self._room = min(MAX_PART_BYTES, largest_shape(policy.k, policy.n).capacity) - SEAL_BYTES
        self._parts: list[PartRef] = []
        self._rest = b""
        self._frames: Iterator[bytes] = iter(())

    async def send(self) -> SaveRef:
        """Send all parts, the head last; returns when each is durable."""
        saver, draft = self._saver, self._draft
        reading = saver._journal.read(draft)
        rows = await saver._offload(reading.__enter__)
        try:
            self._frames = rows.frames()
            saved_ms = saver._clock.now_ms()
            while not await self._part(rows, saved_ms):
                pass
        finally:
            await saver._offload(lambda: reading.__exit__(None, None, None))
        return SaveRef(draft.sequence, saved_ms, draft.generation, draft.base, rows.rows, tuple(self._parts))

    async def _part(self, rows: Reading, saved_ms: int) -> bool:
        """Send the next part; whether it was the head."""
        saver = self._saver
        body, head = await saver._offload(lambda: self._next_body(rows, saved_ms))
        name = PartName(self._draft.sequence, 0 if head else len(self._parts) + 1)
        segment_id = saver._keys.segment_id(name, saver._entropy(NONCE_BYTES))
        size = SEAL_BYTES + len(body)
        shape = smallest_shape(size, self._policy.k, self._policy.n)
        (allotted,) = await saver._agent.allot_named([segment_id])
        slot = await saver._slots.lease(shape, size)
        try:
            await saver._offload(lambda: saver._keys.close_part(segment_id, memoryview(body), slot.plain[:size]))
        except BaseException:
            saver._slots.give_back(slot)
            raise
        await self._send(slot, shape, size, Naming(allotted, saver._keys.content_key(segment_id)))
        return head

    async def _send(self, slot: Slot, shape: SegmentShape, size: int, naming: Naming) -> None:
        saver = self._saver
        part = PartRef(naming.allotment.segment_id, shape.k, shape.total, shape.shard_bytes, size)

        async def register(_entry: SegmentEntry) -> None:
            await saver._offload(lambda: saver._journal.add_part(self._draft.sequence, part))

        await saver._mill.send(slot, shape, self._policy, size, Meter(None, None), register=register, naming=naming)
        self._parts.append(part)

    def _next_body(self, rows: Reading, saved_ms: int) -> tuple[bytes, bool]:
        """The next part without its seal, and whether it is the head."""
        pieces, size = [self._rest], len(self._rest)
        while size <= self._room and (one := next(self._frames, None)) is not None:
            pieces.append(one)
            size += len(one)
        data = b"".join(pieces)
        if size <= self._room:  # nothing comes after these rows
            begin = self._begin(head=True) + frame(self._manifest(rows.rows, saved_ms))
            if len(begin) + size <= self._room:
                return begin + data, True
        begin = self._begin(head=False)
        cut = self._room - len(begin)
        self._rest = data[cut:]
        return begin + data[:cut], False

    def _begin(self, *, head: bool) -> bytes:
        part = PartHead(JOURNAL_VERSION, self._saver._network, self._draft.sequence, len(self._parts), head)
        return frame(part)

    def _manifest(self, rows: int, saved_ms: int) -> SaveHead:
        draft = self._draft
        return SaveHead(
            schema=draft.schema,
            writer=draft.writer,
            saved_ms=saved_ms,
            generation=draft.generation,
            base=draft.base,
            rows=rows,
            parts=tuple(self._parts),
            chain=draft.chain,
            saves=draft.saves,
            points=draft.points,
            settings=self._saver.rules.settings,
        )
