"""What a node's overlay remembers over a restart: whom to ask first, and the records that it answers for.

Kept in small blobs, a damaged one of which is as good as none. Calls block; the service makes them off the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import MalformedError
from stook.identity.contact import SignedContact
from stook.overlay.records import MAX_RECORD_BYTES, SignedRecord

CONTACTS = "contacts"
MAX_CONTACTS_KEPT = 256
_MAX_FILE_BYTES = 1 << 20


class Blobs(Protocol):
    """Small named files, each written whole and durably or not at all (`stook.storage.blobs`)."""

    def names(self) -> tuple[str, ...]:
        """What is there, in order."""
        ...

    def read(self, name: str) -> bytes | None:
        """A blob, or None."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put a blob in the place of what was there."""
        ...

    def remove(self, name: str) -> None:
        """Forget a blob, if it is there."""
        ...


class RememberedContacts(Record):
    """The contacts file (`docs/protocol/overlay.md`)."""

    contacts: Annotated[tuple[SignedContact, ...], Meta(max_length=MAX_CONTACTS_KEPT)]


class BlobMemory:
    """Fulfils `ports.OverlayMemory` over blobs."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def contacts(self) -> tuple[SignedContact, ...]:
        """The contacts saved last; empty when there are none that can be read."""
        data = self._blobs.read(CONTACTS)
        if data is None:
            return ()
        try:
            return decode(RememberedContacts, data, max_bytes=_MAX_FILE_BYTES).contacts
        except MalformedError:
            return ()

    def save_contacts(self, contacts: Sequence[SignedContact]) -> None:
        """Put these, at most 256, in the place of those saved before."""
        self._blobs.write(CONTACTS, encode(RememberedContacts(tuple(contacts[:MAX_CONTACTS_KEPT]))))

    def records(self) -> tuple[SignedRecord, ...]:
        """Every record that was saved and not dropped."""
        found = []
        for name in self._blobs.names():
            data = self._blobs.read(name) if name != CONTACTS else None
            if data is not None:
                try:
                    found.append(decode(SignedRecord, data, max_bytes=MAX_RECORD_BYTES))
                except MalformedError:
                    continue
        return tuple(found)

    def save_record(self, record: SignedRecord) -> None:
        """Keep a record in the place of one of the same key and publisher."""
        self._blobs.write(_name(record), encode(record))

    def drop_record(self, record: SignedRecord) -> None:
        """Forget a record of this key and publisher."""
        self._blobs.remove(_name(record))


def _name(record: SignedRecord) -> str:
    return f"{record.key.hex()}-{record.publisher.hex()}"
