"""A farmer's signed, dated statement of where it is, what it offers and at what price.

It feeds the renter's candidate table; a CLAIM is judged against the farmer's newest one
(`docs/formats/announcement.md`). Everything in it but the key is the farmer's own claim: placement trusts none of it
further than it can be checked.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.contracts.contract import Settlement
from stook.errors import MisbehaviourError, ReasonCode
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import CONTACT_VERSION, SignedContact
from stook.identity.keys import NodeKey, verify
from stook.ids import NetworkId, NodeId, SignatureField, U32Field, U63Field

MAX_CLOCK_SKEW_MS = 300_000
"""How far in the future an announcement may be dated; the tolerance of signed messages."""
ANNOUNCEMENT_LIFE_MS = 24 * 3_600_000
"""How long after its date an announcement is worth passing on."""


class Announcement(Record):
    """What a farmer offers. `contact` carries its key, network and addresses."""

    contact: SignedContact
    issued_ms: U63Field
    """Of two announcements of one key the later one counts."""
    capacity_bytes: U63Field
    free_bytes: U63Field
    """What may still be claimed, as far as the farmer knows now."""
    storage_price_per_gib_hour: U63Field
    download_price_per_gib: U63Field
    min_duration_ms: U63Field
    max_duration_ms: U63Field
    max_shard_bytes: U63Field
    settlements: Annotated[tuple[U32Field, ...], Meta(max_length=8)]
    """Numbers of `Settlement`, ascending; unknown ones stand, so that an older node can hear a newer farmer."""
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

    @property
    def node_id(self) -> NodeId:
        """Whose it is."""
        return self.announcement.contact.node_id


def sign_announcement(announcement: Announcement, key: NodeKey) -> SignedAnnouncement:
    """The announcement with its farmer's signature. Raises `ValueError` when `key` is not the contact's."""
    if key.public_key != announcement.contact.contact.public_key:
        raise ValueError("a farmer announces itself only")
    return SignedAnnouncement(announcement=announcement, signature=key.sign(announcement.digest))


def verify_announcement(signed: SignedAnnouncement, *, network: NetworkId, now_ms: int) -> None:
    """Whether a node of our network made this announcement and its contact, and its numbers make sense.

    Raises `MisbehaviourError`: WRONG_VERSION, WRONG_NETWORK, MALFORMED, CLOCK_SKEW (dated in the future),
    BAD_SIGNATURE. Age is no fault: see `is_fresh`.
    """
    announcement, contact = signed.announcement, signed.announcement.contact.contact
    if contact.version != CONTACT_VERSION:
        raise MisbehaviourError(ReasonCode.WRONG_VERSION, f"contact version {contact.version}")
    if contact.network != network:
        raise MisbehaviourError(ReasonCode.WRONG_NETWORK, f"a farmer of network {contact.network}")
    settlements = announcement.settlements
    if (
        announcement.free_bytes > announcement.capacity_bytes
        or announcement.min_duration_ms > announcement.max_duration_ms
        or list(settlements) != sorted(set(settlements))
        or any(number < 0 for number in settlements)
    ):
        raise MisbehaviourError(ReasonCode.MALFORMED, "the announcement contradicts itself")
    if announcement.issued_ms > now_ms + MAX_CLOCK_SKEW_MS:
        raise MisbehaviourError(ReasonCode.CLOCK_SKEW, "the announcement is dated in the future")
    if not signed.announcement.contact.verifies():
        raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "the contact is not signed by its key")
    if not verify(contact.public_key, announcement.digest, signed.signature):
        raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "the announcement is not signed by its farmer")


def is_fresh(announcement: Announcement, now_ms: int) -> bool:
    """Whether it is recent enough to pass on and to claim by."""
    return now_ms - announcement.issued_ms < ANNOUNCEMENT_LIFE_MS


def known_settlements(announcement: Announcement) -> frozenset[Settlement]:
    """The settlements offered that this version knows."""
    known = {settlement.value for settlement in Settlement}
    return frozenset(Settlement(number) for number in announcement.settlements if number in known)
