"""Recovery records in the overlay (DHT), besides those left with farmers: who knows any node can find the newest there.

A record is the body of a POINTER of the record key, so that its address follows from the phrase and nobody else can
write under it (`docs/formats/overlay-record.md`). It is one more way: what counts as accepted is what farmers say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache

from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.recovery import MAX_RECORD_BYTES, SignedRecoveryRecord
from stook.errors import MalformedError, MisbehaviourError
from stook.identity.keys import NodeKey
from stook.identity.pow import solve_puzzle
from stook.ids import NetworkId, PublicKey
from stook.overlay.ports import Overlay
from stook.overlay.records import RecordKind, pointer_key, sign_record
from stook.renter.pointers import Left
from stook.wire.endpoint import Peer

SECONDS = 10.0
"""How long a save or a recovery waits for the overlay."""


class OverlayPointers:
    """`RecoveryPointers` over one node's door to the overlay. `key` is the record key."""

    def __init__(
        self, overlay: Overlay, key: NodeKey, network: NetworkId, clock: Clock, offload: Offload, puzzle_bits: int = 0
    ) -> None:
        self._overlay = overlay
        self._key = key
        self._network = network
        self._clock = clock
        self._offload = offload
        self._nonce = cache(lambda: _solve(key, puzzle_bits))

    async def put(self, record: SignedRecoveryRecord) -> Left:
        """See the port. Where a later record is kept already, it is told."""
        try:
            async with asyncio.timeout(SECONDS):
                before = await self._find(record.body.key)
                nonce = await self._offload(self._nonce)
                signed = sign_record(
                    self._key,
                    network=self._network,
                    kind=RecordKind.POINTER,
                    body=encode(record),
                    sequence=record.body.sequence,
                    issued_ms=self._clock.now_ms(),
                    puzzle_nonce=nonce,
                )
                kept = await self._overlay.store(signed)
        except (TimeoutError, MisbehaviourError):
            return Left(0, 1)
        return Left(kept, max(kept, 1), tuple(each for each in before if each != record))

    async def get(self, key: PublicKey) -> list[SignedRecoveryRecord]:
        """See the port."""
        try:
            async with asyncio.timeout(SECONDS):
                return await self._find(key)
        except TimeoutError:
            return []

    async def places(self) -> Sequence[Peer]:
        """See the port. Whoever is in the overlay is found without being named."""
        return ()

    async def _find(self, key: PublicKey) -> list[SignedRecoveryRecord]:
        found = []
        for signed in await self._overlay.find_value(pointer_key(key)):
            try:
                found.append(decode(SignedRecoveryRecord, signed.record.body, max_bytes=MAX_RECORD_BYTES))
            except MalformedError:
                continue
        return found


def _solve(key: NodeKey, bits: int) -> int:
    """The record key's own solution of the network's puzzle; 0 where none is asked, or none was found."""
    return (solve_puzzle(key.public_key, bits, attempts=64 << bits) or 0) if bits else 0
