"""What a member answers: FIND_NODE, FIND_VALUE, STORE. Every peer has an allowance (`docs/protocol/overlay.md`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.errors import EnvironmentFault, ReasonCode, RefusedError
from stook.identity.contact import SignedContact
from stook.ids import NodeId
from stook.overlay.messages import (
    MAX_DETAIL_CHARS,
    FindNode,
    FindValue,
    NodesReply,
    Store,
    StoreAnswer,
    StoreReply,
    ValueReply,
)
from stook.overlay.ports import OverlayMemory
from stook.overlay.record_store import (
    FIND_ALLOWANCE,
    STORE_ALLOWANCE,
    Kept,
    PeerLimits,
    RecordStore,
    is_durable,
)
from stook.overlay.records import SignedRecord
from stook.overlay.routing_table import K
from stook.overlay.searcher import Searcher
from stook.wire.endpoint import Exchange


class Desk:
    """Serves the overlay's methods and keeps records for others."""

    def __init__(
        self,
        searcher: Searcher,
        store: RecordStore,
        memory: OverlayMemory,
        clock: Clock,
        offload: Offload,
        on_record: Callable[[SignedRecord], None],
    ) -> None:
        self._searcher = searcher
        self._store = store
        self._memory = memory
        self._clock = clock
        self._offload = offload
        self._on_record = on_record
        self._find_limits = PeerLimits(FIND_ALLOWANCE)
        self._store_limits = PeerLimits(STORE_ALLOWANCE)
        self._changing = asyncio.Lock()
        """Memory and disk change together: or two saves of one record would end in any order."""

    async def find_node(self, exchange: Exchange, payload: bytes) -> None:
        """Who is near a number?"""
        self._charge(self._find_limits, exchange.peer_id, 1)
        request = decode(FindNode, payload)
        self._searcher.called(exchange.peer_id)
        await exchange.reply(encode(NodesReply(self._near(request.target, request.limit, exchange.peer_id))))

    async def find_value(self, exchange: Exchange, payload: bytes) -> None:
        """What is kept under a key, and who is near it?"""
        self._charge(self._find_limits, exchange.peer_id, 1)
        request = decode(FindValue, payload)
        self._searcher.called(exchange.peer_id)
        records = self._store.get(request.key, now_ms=self._clock.now_ms())
        near = self._near(request.key, request.limit, exchange.peer_id)
        await exchange.reply(encode(ValueReply(records, near)))

    async def store(self, exchange: Exchange, payload: bytes) -> None:
        """Keep records that somebody brings."""
        request = decode(Store, payload)
        self._charge(self._store_limits, exchange.peer_id, len(request.records))
        self._searcher.called(exchange.peer_id)
        answers = []
        for signed in request.records:
            kept = await self.keep(signed)
            answers.append(StoreAnswer(kept.code, kept.detail[:MAX_DETAIL_CHARS]))
            await asyncio.sleep(0)  # a signature or more each: others come in between
        await exchange.reply(encode(StoreReply(tuple(answers))))

    async def keep(self, signed: SignedRecord) -> Kept:
        """Judge a record and keep it; a durable one is on disk when this says so, to whoever asks meanwhile too."""
        async with self._changing:
            nearer = self._searcher.table.nearer_than(signed.key, 2 * K)
            kept = self._store.put(signed, nearer=nearer, now_ms=self._clock.now_ms())
            if not kept.changed:
                return kept
            self._on_record(signed)
            try:
                await self._drop(one for one in kept.dropped if one.key != signed.key)
                if is_durable(signed):
                    await self._offload(lambda: self._memory.save_record(signed))
            except BaseException as error:
                # Cancelled, too: what is in memory would be answered for as if it were on disk.
                self._take_back(signed, kept, nearer)
                if isinstance(error, EnvironmentFault):
                    return Kept(int(ReasonCode.DISK_LOW), "the disk takes no more here")
                raise
            return kept

    async def expire(self) -> None:
        """Drop what is past its time."""
        async with self._changing:
            await self._drop(self._store.expire(now_ms=self._clock.now_ms()))

    async def load(self) -> tuple[SignedRecord, ...]:
        """Take up what an earlier run kept, and which that was. What is refused now is forgotten on disk too.

        Not what seems to come from the future: then it is this machine's clock that is wrong, as a rule.
        """
        async with self._changing:
            gone: list[SignedRecord] = []
            for signed in await self._offload(self._memory.records):
                kept = self._store.put(signed, nearer=0, now_ms=self._clock.now_ms())
                gone += kept.dropped
                if kept.code not in (0, ReasonCode.CLOCK_SKEW):
                    gone.append(signed)
            with suppress(EnvironmentFault):  # they are refused at the next start too
                await self._drop(gone)
            return self._store.all()

    def _take_back(self, signed: SignedRecord, kept: Kept, nearer: int) -> None:
        self._store.discard(signed)
        for older in kept.dropped:
            if older.key == signed.key and older.publisher == signed.publisher:
                self._store.put(older, nearer=nearer, now_ms=self._clock.now_ms())

    async def _drop(self, records: Iterable[SignedRecord]) -> None:
        """Records left the store: forget durable ones on disk too."""
        for one in records:
            if is_durable(one):
                await self._offload(partial(self._memory.drop_record, one))

    def _near(self, target: bytes, limit: int, asker: NodeId) -> tuple[SignedContact, ...]:
        return tuple(node.contact for node in self._searcher.table.closest(target, limit, without=asker))

    def _charge(self, limits: PeerLimits, peer: NodeId, cost: int) -> None:
        wait_ms = limits.wait_ms(peer, cost, now_ms=self._clock.now_ms())
        if wait_ms:
            raise RefusedError(ReasonCode.RATE_LIMITED, "more than a peer may ask", retry_after_ms=wait_ms)
