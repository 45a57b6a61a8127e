"""The open market: a draft that names no farmer yet, the offers it draws, and what is said to them. Pure.

A renter publishes a `Solicitation` on its draft's topic. Farmers that serve the topic judge the draft as they would a
CLAIM, and call the renter with an `Offer`; the answer keeps it, asks for less, or says why not. An offer that was kept
is the farmer's price for this renter for a while; the contract itself is then made by CLAIM, by the same rules as on
the direct road (`docs/protocol/market.md`).
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.contracts.announcement import Announcement, SignedAnnouncement
from stook.contracts.contract import Terms
from stook.contracts.messages import MAX_BATCH, Code, Detail
from stook.contracts.topics import (
    CAPACITY_PREFIX,
    CONTRACT_PREFIX,
    Criterion,
    Degree,
    degree,
    parse_criteria,
    topic_of,
)
from stook.errors import MalformedError, ReasonCode, RefusedError
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import AddressKind, SignedContact
from stook.ids import Bytes32Field, NetworkId, PublicKey, ShardRoot, U63Field
from stook.shards.geometry import LADDER

NOBODY = PublicKey(bytes(33))
"""Stands in a draft for the farmer that is still looked for."""
OPEN_ROOT = ShardRoot(bytes(32))
"""Stands in a draft for shards that are named later, in the CLAIM."""
MAX_ROUNDS = 3
"""Offers that one farmer may make to one solicitation."""
MAX_OFFERS = 64
MAX_ANSWER_MS = 120_000
"""How long a renter may hear offers to one solicitation."""
QUOTE_LIFE_MS = 600_000
"""How long an offer that was kept binds its farmer."""
MAX_SOLICITATION_BYTES = 8192


class MarketMethod(enum.StrEnum):
    """The method's name as it stands in the envelope."""

    OFFER = "OFFER"


class Prices(Record):
    """What is paid, in smallest units."""

    storage_price_per_gib_hour: U63Field
    download_price_per_gib: U63Field

    def within(self, most: Prices) -> bool:
        """Whether neither price is above."""
        return (
            self.storage_price_per_gib_hour <= most.storage_price_per_gib_hour
            and self.download_price_per_gib <= most.download_price_per_gib
        )


class Solicitation(Record):
    """What is published on a contract topic."""

    draft: Terms
    """Revision 0; farmer and root are left open, the prices are the renter's bid, 0 where it makes none."""
    count: Annotated[int, Meta(ge=1, le=MAX_BATCH)]
    """Contracts wanted of each farmer at most."""
    offers_wanted: Annotated[int, Meta(ge=1, le=MAX_OFFERS)]
    """Farmers that it means to keep offers of."""
    answer_by_ms: U63Field
    contact: SignedContact
    """Where the renter hears offers."""

    @property
    def digest(self) -> bytes:
        """Its name in offers: the same in each publication that repeats it."""
        return tagged_hash(Tag.SOLICITATION, encode(self))


class Offer(Record):
    """OFFER request, from a farmer to the renter."""

    solicitation: Bytes32Field
    announcement: SignedAnnouncement
    """The farmer's own, made now."""
    round: Annotated[int, Meta(ge=0, lt=MAX_ROUNDS)]
    count: Annotated[int, Meta(ge=1, le=MAX_BATCH)]
    """Contracts that it would make."""
    prices: Prices
    """Never above those of its announcement."""
    valid_until_ms: U63Field


class OfferReply(Record):
    """OFFER reply: kept (code 0), refused for good, or, with prices beside PRICE_TOO_HIGH, a counter-offer."""

    code: Code
    detail: Detail
    counter: Prices | None


def quoted(announcement: Announcement, prices: Prices) -> Announcement:
    """The announcement at the lower of its own and these prices: what drafts are made and judged by."""
    return msgspec.structs.replace(
        announcement,
        storage_price_per_gib_hour=min(announcement.storage_price_per_gib_hour, prices.storage_price_per_gib_hour),
        download_price_per_gib=min(announcement.download_price_per_gib, prices.download_price_per_gib),
    )


def asked(announcement: Announcement) -> Prices:
    """What the farmer asks of everybody."""
    return Prices(announcement.storage_price_per_gib_hour, announcement.download_price_per_gib)


def bid(draft: Terms) -> Prices:
    """What the draft offers."""
    return Prices(draft.storage_price_per_gib_hour, draft.download_price_per_gib)


def read_solicitation(
    topic: bytes, originator_key: PublicKey, contents: bytes, *, network: NetworkId, now_ms: int
) -> Solicitation:
    """The solicitation that was published.

    Raises `MalformedError`, or `RefusedError` for the first rule that fails: BAD_TERMS (it names a farmer or a shard,
    is not the originator's, is on another topic, or wants answers for too long), STALE (its time is over),
    WRONG_NETWORK, WRONG_IDENTITY, BAD_SIGNATURE (of the contact), MALFORMED (the contact has no address).
    """
    found = decode(Solicitation, contents, max_bytes=MAX_SOLICITATION_BYTES)
    draft, contact = found.draft, found.contact.contact
    if (draft.farmer_key, draft.farmer_index, draft.shard_root) != (NOBODY, 0, OPEN_ROOT):
        raise RefusedError(ReasonCode.BAD_TERMS, "a draft on the market names neither farmer nor shard")
    if draft.renter_key != originator_key:
        raise RefusedError(ReasonCode.BAD_TERMS, "the draft is another renter's")
    try:
        right_topic = topic == topic_of(draft.criteria)
    except ValueError:
        right_topic = False
    if not right_topic:
        raise RefusedError(ReasonCode.BAD_TERMS, "the draft does not belong on this topic")
    if found.answer_by_ms > now_ms + 2 * MAX_ANSWER_MS:
        raise RefusedError(ReasonCode.BAD_TERMS, "answers are wanted for too long")
    if found.answer_by_ms < now_ms:
        raise RefusedError(ReasonCode.STALE, "answers are wanted no more")
    if contact.network != network or draft.network != network:
        raise RefusedError(ReasonCode.WRONG_NETWORK, f"a draft for network {draft.network}")
    if contact.public_key != originator_key:
        raise RefusedError(ReasonCode.WRONG_IDENTITY, "the contact is another node's")
    if not found.contact.verifies():
        raise RefusedError(ReasonCode.BAD_SIGNATURE, "the contact is not signed by its node")
    if not any(address.kind is AddressKind.DIRECT for address in contact.addresses):
        raise MalformedError("a renter that cannot be called hears no offers")
    return found


def addressed_to(draft: Terms, announcement: Announcement) -> Terms:
    """The draft as if it were claimed at this farmer at its own prices: for its judgement of all else."""
    contact, prices = announcement.contact.contact, asked(announcement)
    return msgspec.structs.replace(
        draft,
        farmer_key=contact.public_key,
        farmer_index=contact.hd_index,
        storage_price_per_gib_hour=prices.storage_price_per_gib_hour,
        download_price_per_gib=prices.download_price_per_gib,
    )


# --- topics ----------------------------------------------------------------------------------------------------------


def _up_to(most: Degree) -> list[Degree]:
    return [each for each in Degree if each <= most]


def topics_served(announcement: Announcement, availability: Degree, speed: Degree) -> frozenset[bytes]:
    """The contract topics of all drafts that a farmer of this announcement may take.

    Sizes and durations as announced; availability and speed are what the farmer claims for itself, and whoever has more
    serves who asks for less.
    """
    sizes = {degree(Criterion.SIZE, size) for size in LADDER if size <= announcement.max_shard_bytes}
    shortest = degree(Criterion.DURATION, announcement.min_duration_ms)
    longest = degree(Criterion.DURATION, announcement.max_duration_ms)
    durations = {each for each in Degree if shortest <= each <= longest}
    return frozenset(
        bytes((CONTRACT_PREFIX, size, duration, available, fast))
        for size in {*sizes, Degree.ANY}
        for duration in {*durations, Degree.ANY}
        for available in _up_to(availability)
        for fast in _up_to(speed)
    )


def capacity_topic(announcement: Announcement, availability: Degree, speed: Degree) -> bytes:
    """The topic on which a farmer publishes its announcement: the most it has of each."""
    size, duration = announcement.max_shard_bytes, announcement.max_duration_ms
    return bytes(
        (CAPACITY_PREFIX, degree(Criterion.SIZE, size), degree(Criterion.DURATION, duration), availability, speed)
    )


def capacity_topics(criteria: bytes) -> frozenset[bytes]:
    """The capacity topics of farmers that may take contracts of these criteria. Raises `ValueError`."""
    choices = [[each for each in Degree if each >= max(wanted, Degree.LOW)] for wanted in parse_criteria(criteria)]
    sizes, durations, availabilities, speeds = choices
    return frozenset(
        bytes((CAPACITY_PREFIX, size, duration, available, fast))
        for size in sizes
        for duration in durations
        for available in availabilities
        for fast in speeds
    )
