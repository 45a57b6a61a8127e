"""Where the newest recovery record is left and looked for: with the farmers that hold contracts of ours, and elsewhere.

`RecoveryPointers` is the port. `FarmerPointers` is its first adapter; a DHT can be another, and `AllPointers` makes
one of several (`docs/protocol/recovery.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stook.codec import decode, encode
from stook.contracts.recovery import FindRecord, LeaveRecord, RecordReply, RecoveryMethod, SignedRecoveryRecord
from stook.errors import PeerError
from stook.ids import PublicKey
from stook.renter.tasks import Tasks
from stook.wire.endpoint import Endpoint, Peer

CALL_SECONDS = 10.0
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Left:
    """What came of leaving a record."""

    accepted: int
    """Places that keep exactly this record now."""
    asked: int
    others: tuple[SignedRecoveryRecord, ...] = ()
    """What is kept instead, as the places said; not verified."""


class RecoveryPointers(Protocol):
    """Carries recovery records. Whatever comes back is only a candidate: the asker verifies it."""

    async def put(self, record: SignedRecoveryRecord) -> Left:
        """Leave a record wherever it can be left. Raises nothing for a place that cannot be reached."""
        ...

    async def get(self, key: PublicKey) -> list[SignedRecoveryRecord]:
        """Every record of this key that somebody offers."""
        ...

    async def places(self) -> Sequence[Peer]:
        """Nodes that a record should name, so that who finds one finds the others."""
        ...


class FarmerPointers:
    """Records left with farmers. `holders` are those that have contracts of ours, `known` all that can be asked."""

    def __init__(
        self,
        endpoint: Endpoint,
        holders: Callable[[], Awaitable[Sequence[Peer]]],
        known: Callable[[], Sequence[Peer]],
    ) -> None:
        self._endpoint = endpoint
        self._holders = holders
        self._known = known
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def put(self, record: SignedRecoveryRecord) -> Left:
        """See the port."""
        request = encode(LeaveRecord(record))
        replies = await self._ask(await self._holders(), RecoveryMethod.LEAVE_RECORD, request)
        kept = [reply for reply in replies if reply is not None]
        return Left(kept.count(record), len(replies), tuple(each for each in kept if each != record))

    async def get(self, key: PublicKey) -> list[SignedRecoveryRecord]:
        """See the port."""
        replies = await self._ask(self._known(), RecoveryMethod.FIND_RECORD, encode(FindRecord(key)))
        return list(dict.fromkeys(reply for reply in replies if reply is not None))

    async def places(self) -> Sequence[Peer]:
        """See the port."""
        return await self._holders()

    async def _ask(
        self, peers: Sequence[Peer], method: RecoveryMethod, request: bytes
    ) -> list[SignedRecoveryRecord | None]:
        async with Tasks() as group:
            tasks = [group.create_task(self._call(peer, method, request)) for peer in peers]
        return [task.result() for task in tasks]

    async def _call(self, peer: Peer, method: RecoveryMethod, request: bytes) -> SignedRecoveryRecord | None:
        async with self._gate:
            try:
                reply = await self._endpoint.call(peer, method, request, deadline_seconds=CALL_SECONDS)
                return decode(RecordReply, reply).record
            except PeerError:
                return None


class AllPointers:
    """Several ways at once. What counts as accepted is what the first one says: it is where fetching begins."""

    def __init__(self, first: RecoveryPointers, *others: RecoveryPointers) -> None:
        self._all = (first, *others)

    async def put(self, record: SignedRecoveryRecord) -> Left:
        """See the port."""
        async with Tasks() as group:
            tasks = [group.create_task(each.put(record)) for each in self._all]
        left = [task.result() for task in tasks]
        return Left(left[0].accepted, left[0].asked, tuple(other for each in left for other in each.others))

    async def get(self, key: PublicKey) -> list[SignedRecoveryRecord]:
        """See the port."""
        async with Tasks() as group:
            tasks = [group.create_task(each.get(key)) for each in self._all]
        return list(dict.fromkeys(record for task in tasks for record in task.result()))

    async def places(self) -> Sequence[Peer]:
        """See the port."""
        return [peer for each in self._all for peer in await each.places()]
