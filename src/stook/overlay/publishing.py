"""A farmer's own records, and what it makes of the announcements of others that it keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from stook.clock import Clock, Offload
from stook.codec import decode
from stook.contracts.announcement import SignedAnnouncement
from stook.errors import MalformedError, RefusedError
from stook.identity.keys import NodeKey
from stook.overlay.contact_book import ContactBook
from stook.overlay.ports import RecordSource
from stook.overlay.records import (
    MAX_BODY_BYTES,
    RecordKind,
    SignedRecord,
    announcement_record,
    contact_record,
)
from stook.wire.endpoint import Endpoint


def own_records(
    key: NodeKey,
    endpoint: Endpoint,
    announcement: Callable[[], Awaitable[SignedAnnouncement]],
    clock: Clock,
    offload: Offload,
) -> RecordSource:
    """A farmer's contact and announcement, as they are at the moment."""

    async def records() -> Sequence[SignedRecord]:
        contact = endpoint.contact
        if contact is None:
            return ()
        try:
            said = await announcement()
        except RefusedError:
            return ()  # not yet: the farmer is starting
        now_ms = clock.now_ms()
        return await offload(
            lambda: (contact_record(key, contact, now_ms=now_ms), announcement_record(key, said, now_ms=now_ms))
        )

    return records


def announcement_into(book: ContactBook, clock: Clock) -> Callable[[SignedRecord], None]:
    """Lets announcements that are kept for others enter the book too, so that CONTACTS names them."""

    def take(signed: SignedRecord) -> None:
        if signed.record.kind == RecordKind.ANNOUNCEMENT and signed.record.body:
            try:
                announcement = decode(SignedAnnouncement, signed.record.body, max_bytes=MAX_BODY_BYTES)
            except MalformedError:
                return
            book.offer(announcement, now_ms=clock.now_ms())

    return take
