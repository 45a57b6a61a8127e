"""A farmer's signed, dated statement of where it is, what it offers and at what price.

It feeds the renter's candidate table; a CLAIM is judged against the farmer's newest one.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import SignedContact
from stook.ids import SignatureField, U63Field


class Announcement(Record):
    """What a farmer offers. `contact` carries its key, network and addresses."""

    contact: SignedContact
    issued_ms: U63Field
    capacity_bytes: U63Field
    free_bytes: U63Field
    storage_price_per_gib_hour: U63Field
    download_price_per_gib: U63Field
    min_duration_ms: U63Field
    max_duration_ms: U63Field
    max_shard_bytes: U63Field
    settlements: Annotated[tuple[int, ...], Meta(max_length=8)]
    operator: Annotated[str, Meta(max_length=64)]
    """Who runs it, as declared; placement caps shards per operator. Empty: unknown, counted by network alone."""
    failure_domain: Annotated[str, Meta(max_length=64)]
    """Building, rack or circuit, as declared, for private grids."""

    @property
    def digest(self) -> bytes:
        """What the farmer signs."""
        return tagged_hash(Tag.ANNOUNCEMENT, encode(self))


class SignedAnnouncement(Record):
    """An announcement with the signature of the key in its contact."""

    announcement: Announcement
    signature: SignatureField
