"""Serves LEAVE_RECORD and FIND_RECORD: a renter's recovery record is kept beside its contracts, and given to anybody.

Who leaves one holds a contract here; a record is at most 8 KiB and there are few of each renter, so that they take
next to nothing. A record proves itself, so nothing is decided about who asks.
"""

from __future__ import annotations

from stook.codec import decode, encode
from stook.contracts.recovery import (
    MAX_RECORD_BYTES,
    FindRecord,
    LeaveRecord,
    RecordReply,
    SignedRecoveryRecord,
    verify_record,
)
from stook.errors import ConflictError, ReasonCode, RefusedError
from stook.farmer.parts import Parts
from stook.ids import PublicKey
from stook.wire.endpoint import Exchange

MAX_PER_RENTER = 4
KEEP_MS = 90 * 24 * 3_600_000
"""How long a record outlives its renter's last contract here."""


class KeepsakeDesk:
    """Keeps recovery records."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def leave(self, exchange: Exchange, payload: bytes) -> None:
        """Keep a record, unless a later one of its key is kept; the answer is what is kept."""
        record = decode(LeaveRecord, payload, max_bytes=MAX_RECORD_BYTES + 1).record
        verify_record(record, self._parts.network)
        kept = await self._parts.offload(lambda: self._keep(record, exchange.peer_key))
        await exchange.reply(encode(RecordReply(kept)))

    def _keep(self, record: SignedRecoveryRecord, caller: PublicKey) -> SignedRecoveryRecord:
        if not holds_contract(self._parts, caller):
            raise RefusedError(ReasonCode.UNKNOWN_CONTRACT, "records are kept for renters with a contract here")
        try:
            return self._parts.records.keep(record, caller, self._parts.clock.now_ms(), MAX_PER_RENTER)
        except ConflictError as error:
            raise RefusedError(ReasonCode.RATE_LIMITED, str(error)) from None

    async def find(self, exchange: Exchange, payload: bytes) -> None:
        """The record of a key, or none."""
        key = decode(FindRecord, payload).key
        await exchange.reply(encode(RecordReply(await self._parts.offload(lambda: self._parts.records.find(key)))))


def holds_contract(parts: Parts, renter: PublicKey) -> bool:
    """Whether this renter has a contract in force here."""
    totals = parts.contracts.totals_of(renter)
    return totals.stored_count + totals.reserved_count > 0


def forget_strangers(parts: Parts, now_ms: int) -> int:
    """Let go of records whose renters have had no contract here for long; how many."""
    records = parts.records
    gone = [key for key, renter in records.left_before(now_ms - KEEP_MS) if not holds_contract(parts, renter)]
    records.forget(gone)
    return len(gone)
