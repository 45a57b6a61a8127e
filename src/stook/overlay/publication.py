"""Publications and the messages that carry them: SUBSCRIBE, UPDATE, PUBLISH (`docs/protocol/quasar.md`). Pure.

A publication is signed by its originator, whole; what changes from hop to hop (how far it may still go, who has it)
travels beside it, unsigned, and is bounded by what is signed.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import SignedContact
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.identity.pow import puzzle_bits
from stook.ids import NetworkId, NetworkIdField, NodeId, NodeIdField, PublicKeyField, SignatureField, U63Field
from stook.overlay.bloom import DEPTH, STANDARD, Levels

PUBLICATION_VERSION = 1
MAX_TOPIC_BYTES = 16
MAX_CONTENTS_BYTES = 12 * 1024
"""A signed announcement, or a draft with its renter's contact, with room to spare."""
MAX_TTL = 20
"""Hops a publication may make at most; chosen from the figures of `docs/quasar.md`."""
MAX_PUBLISHERS = 64
"""How many nodes that have a publication are named beside it."""
PUBLICATION_LIFE_MS = 300_000
"""How far its date may lie from a receiver's clock, either way: what clocks are allowed for messages too."""
ID_BYTES = 32


class QuasarMethod(enum.StrEnum):
    """Names of the methods as they stand in the envelope."""

    SUBSCRIBE = "SUBSCRIBE"
    UPDATE = "UPDATE"
    PUBLISH = "PUBLISH"


class Publication(Record):
    """The signed text: what is said on a topic, by whom, when, and how far it may go."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    originator_key: PublicKeyField
    puzzle_nonce: U63Field
    """The originator's solution of the network's node id puzzle."""
    topic: Annotated[bytes, Meta(min_length=1, max_length=MAX_TOPIC_BYTES)]
    issued_ms: U63Field
    max_ttl: Annotated[int, Meta(ge=0, le=255)]
    contents: Annotated[bytes, Meta(max_length=MAX_CONTENTS_BYTES)]

    @property
    def digest(self) -> bytes:
        """What the originator signs, and the publication's id: the same words at the same moment are one."""
        return _digest(self)


@lru_cache(maxsize=256)
def _digest(publication: Publication) -> bytes:
    # Remembered, since a node looks at each of the copies that reach it.
    return tagged_hash(Tag.PUBLICATION, encode(publication))


class SignedPublication(Record):
    """A publication with its originator's signature."""

    publication: Publication
    signature: SignatureField

    @property
    def originator(self) -> NodeId:
        """The node that said it."""
        return node_id_of(self.publication.originator_key)


def sign_publication(
    key: NodeKey,
    *,
    network: NetworkId,
    topic: bytes,
    contents: bytes,
    now_ms: int,
    max_ttl: int = MAX_TTL,
    puzzle_nonce: int = 0,
) -> SignedPublication:
    """A publication of our own."""
    publication = Publication(
        version=PUBLICATION_VERSION,
        network=network,
        originator_key=key.public_key,
        puzzle_nonce=puzzle_nonce,
        topic=topic,
        issued_ms=now_ms,
        max_ttl=max_ttl,
        contents=contents,
    )
    return SignedPublication(publication, key.sign(publication.digest))


def check_publication(publication: Publication, *, network: NetworkId, now_ms: int, puzzle_bits_asked: int = 0) -> None:
    """Whether it is one that a node of our network may carry now; the signature is not looked at.

    Raises `RefusedError` for the first rule that fails: WRONG_VERSION, WRONG_NETWORK, TTL_TOO_HIGH, CLOCK_SKEW,
    STALE, PUZZLE_UNSOLVED.
    """
    if publication.version != PUBLICATION_VERSION:
        raise RefusedError(ReasonCode.WRONG_VERSION, f"publication version {publication.version}")
    if publication.network != network:
        raise RefusedError(ReasonCode.WRONG_NETWORK, f"a publication of network {publication.network}")
    if publication.max_ttl > MAX_TTL:
        raise RefusedError(ReasonCode.TTL_TOO_HIGH, f"{publication.max_ttl} hops, at most {MAX_TTL}")
    if publication.issued_ms > now_ms + PUBLICATION_LIFE_MS:
        raise RefusedError(ReasonCode.CLOCK_SKEW, "the publication is dated in the future")
    if publication.issued_ms < now_ms - PUBLICATION_LIFE_MS:
        raise RefusedError(ReasonCode.STALE, "the publication is over")
    if puzzle_bits_asked and puzzle_bits(publication.originator_key, publication.puzzle_nonce) < puzzle_bits_asked:
        raise RefusedError(ReasonCode.PUZZLE_UNSOLVED, f"the originator's id has fewer than {puzzle_bits_asked} bits")


def verify_publication(signed: SignedPublication) -> None:
    """Whether its originator signed it. Raises `MisbehaviourError` (BAD_SIGNATURE)."""
    publication = signed.publication
    if not verify(publication.originator_key, publication.digest, signed.signature):
        raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "the publication is not signed by its originator")


# --- messages --------------------------------------------------------------------------------------------------------


Level = Annotated[bytes, Meta(min_length=STANDARD.size_bytes, max_length=STANDARD.size_bytes)]


class Filters(Record):
    """An attenuated filter on the wire, and SUBSCRIBE's reply: what the sender leads to, as told to this receiver."""

    levels: Annotated[tuple[Level, ...], Meta(min_length=DEPTH, max_length=DEPTH)]

    @classmethod
    def of(cls, levels: Levels) -> Filters:
        """The record of these levels."""
        return cls(tuple(STANDARD.to_bytes(level) for level in levels))

    def read(self) -> Levels:
        """The levels."""
        return tuple(STANDARD.from_bytes(level) for level in self.levels)


class Subscribe(Record):
    """SUBSCRIBE request: what do you lead to? Changes nothing at whoever is asked. Answered by `Filters`."""


class Update(Record):
    """UPDATE request: what the caller leads to; it wants to be a neighbour. Answered by `Updated`."""

    filters: Filters
    contact: SignedContact | None
    """The caller's own; without one it can only be called over the session that it opened."""


class Updated(Record):
    """UPDATE reply: what the receiver leads to, as told to the caller."""

    filters: Filters


class Publish(Record):
    """PUBLISH request. Answered by `Taken`."""

    signed: SignedPublication
    ttl: Annotated[int, Meta(ge=0, le=255)]
    """Hops that it may make from the receiver on."""
    publishers: Annotated[tuple[NodeIdField, ...], Meta(max_length=MAX_PUBLISHERS)]
    """Nodes that have it, or are being sent it; none of them is sent it again."""


class Taken(Record):
    """PUBLISH reply."""

    known: bool
    """The receiver had it already."""
