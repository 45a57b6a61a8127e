"""Losses that farmers declare: noted durably, with the question that was open about them, before their note is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from weakref import WeakValueDictionary

from stook.audits.challenge import Challenge
from stook.audits.messages import AuditMethod, DeclareLoss, LossesNoted
from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.loss import NotedLoss, SignedLoss, note_loss, verify_loss
from stook.errors import MisbehaviourError
from stook.identity.keys import NodeKey
from stook.ids import ContractId, NodeId
from stook.renter.book import FarmerBook
from stook.storage.audit_records import read_question
from stook.storage.renter_ports import AgentStore
from stook.wire.endpoint import Endpoint, Exchange


class LossNotes:
    """The part of an `Auditor` that hears of losses, in heartbeats and by DECLARE_LOSS."""

    def __init__(
        self, *, endpoint: Endpoint, key: NodeKey, book: FarmerBook, store: AgentStore, clock: Clock, offload: Offload
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._book = book
        self._store = store
        self._clock = clock
        self._offload = offload
        self._noting: WeakValueDictionary[NodeId, asyncio.Lock] = WeakValueDictionary()

    def serve(self) -> None:
        """Answer DECLARE_LOSS: a farmer with a session to us need not wait for our heartbeat."""
        self._endpoint.handle(AuditMethod.DECLARE_LOSS, self._declare_loss)

    async def _declare_loss(self, exchange: Exchange, payload: bytes) -> None:
        losses = decode(DeclareLoss, payload).losses
        noted, _ = await self.note(exchange.peer_id, losses)
        of = {each.loss.loss.contract_id: each.note for each in noted}
        await exchange.reply(encode(LossesNoted(tuple(of.get(each.loss.contract_id) for each in losses))))

    async def note(self, farmer: NodeId, losses: Sequence[SignedLoss]) -> tuple[list[NotedLoss], int]:
        """Note durably which of these losses are the farmer's to tell, and how many of them are news.

        Those noted before keep their first note.
        """
        if not losses:
            return [], 0
        lock = self._noting.setdefault(farmer, asyncio.Lock())
        async with lock:
            names = [each.loss.contract_id for each in losses]
            placements = await self._offload(lambda: [self._store.placement(name) for name in names])
            asked = await self._asked(farmer)
            now, noted = self._clock.now_ms(), []
            for signed, placement in zip(losses, placements, strict=True):
                if placement is None or placement.farmer != farmer:
                    continue
                try:
                    verify_loss(signed, placement.contract.terms)
                except MisbehaviourError:
                    continue
                noted.append(note_loss(signed, self._key, now, asked.get(placement.contract_id, b"")))
            told = {each.loss.loss.contract_id for each in noted}
            known = await self._offload(lambda: self._store.noted_losses(told))
            kept = await self._offload(lambda: self._store.note_losses(farmer, noted, now))
            self._book.take([await self._offload(partial(self._store.dossier, farmer))])
        return kept, len(told) - len(known)

    async def _asked(self, farmer: NodeId) -> Mapping[ContractId, bytes]:
        """The first challenge about each shard that is not answered for: a loss of it that comes now comes too late."""
        asked: dict[ContractId, bytes] = {}

        def add(challenge: Challenge) -> None:
            for ask in challenge.asks:
                asked.setdefault(ask.contract_id, challenge.repeats or challenge.digest)

        dossier = await self._offload(partial(self._store.dossier, farmer))
        if dossier.silence.question:
            add(read_question(dossier.silence.question).signed.challenge)
        for each in await self._offload(self._store.open_challenges):
            if each.farmer == farmer:
                add(each.signed.challenge)
        return asked
