"""An invite: where to enter a network, who answers there, and a secret that lets one node in, once, until a day. Pure.

A code is what people pass on; its secret is known to nobody else, its issuer keeps a hash (`docs/formats/invite.md`).
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import ConfigError, MalformedError
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import Address, AddressKind, ContactUri
from stook.identity.membership import SignedMembership
from stook.identity.pow import MAX_PUZZLE_BITS
from stook.ids import NODE_ID_BYTES, NetworkIdField, NodeIdField, U63Field

INVITE_VERSION = 1
SECRET_BYTES = 16
INVITE_ID_BYTES = 16
CHECK_BYTES = 4
MAX_INVITE_ADDRESSES = 3
MAX_CODE_CHARS = 2048
MAX_LABEL_CHARS = 64
PREFIX = "stook-invite-"


class Invite(Record):
    """What a code says."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    issuer_id: NodeIdField
    """Who answers at the addresses has to prove this id before the secret is said."""
    addresses: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=MAX_INVITE_ADDRESSES)]
    secret: Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    expires_ms: U63Field
    owner_id: Annotated[bytes, Meta(max_length=NODE_ID_BYTES)]
    """The owner of a private grid; empty for an open network."""
    puzzle_bits: Annotated[int, Meta(ge=0, le=MAX_PUZZLE_BITS)]

    def code(self) -> str:
        """The text that people pass on."""
        body = encode(self)
        text = base64.b32encode(body + tagged_hash(Tag.INVITE_CODE, body)[:CHECK_BYTES]).decode()
        return PREFIX + text.rstrip("=").lower()

    @classmethod
    def parse(cls, text: str) -> Invite:
        """Read a code as typed or pasted: spaces, line breaks and capitals do not matter. Raises `ConfigError`."""
        compact = "".join(text.split()).lower()
        if len(compact) > MAX_CODE_CHARS:
            raise ConfigError("that is too long for an invite code")
        if not compact.startswith(PREFIX):
            raise ConfigError(f"an invite code begins with {PREFIX}")
        body = compact.removeprefix(PREFIX).upper()
        try:
            data = base64.b32decode(body + "=" * (-len(body) % 8))
        except (binascii.Error, ValueError):
            raise ConfigError("the invite code has characters that no code has, or some are missing") from None
        record, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
        if tagged_hash(Tag.INVITE_CODE, record)[:CHECK_BYTES] != check:
            raise ConfigError("the invite code was mistyped, or part of it is missing")
        try:
            invite = decode(cls, record, max_bytes=MAX_CODE_CHARS)
        except MalformedError:
            raise ConfigError("the invite code is of a kind that this version does not know") from None
        if invite.version != INVITE_VERSION or len(invite.owner_id) not in (0, NODE_ID_BYTES):
            raise ConfigError("the invite code is of a kind that this version does not know")
        if any(address.kind is not AddressKind.DIRECT for address in invite.addresses):
            raise ConfigError("the invite code leads to an address that this version cannot call")
        if invite.code().removeprefix(PREFIX).upper() != body:
            raise ConfigError("the invite code was mistyped at its end")
        return invite

    @property
    def invite_id(self) -> bytes:
        """What the issuer knows it by."""
        return invite_id_of(self.secret)

    @property
    def seeds(self) -> tuple[str, ...]:
        """Contact URIs of the issuer."""
        return tuple(str(ContactUri(address, self.issuer_id)) for address in self.addresses)


def invite_id_of(secret: bytes) -> bytes:
    """The name under which an issuer keeps an invite: nobody can turn it back into the secret."""
    return tagged_hash(Tag.INVITE, secret)[:INVITE_ID_BYTES]


# --- what the issuer keeps -------------------------------------------------------------------------------------------


class KeptInvite(Record):
    """An invite as its issuer remembers it: without the secret."""

    version: Annotated[int, Meta(ge=1, le=255)]
    invite_id: Annotated[bytes, Meta(min_length=INVITE_ID_BYTES, max_length=INVITE_ID_BYTES)]
    label: Annotated[str, Meta(max_length=MAX_LABEL_CHARS)]
    """For whom, in the issuer's own words."""
    may_invite: bool
    membership_ms: U63Field
    """How long the membership lasts from the day it is used."""
    issued_ms: U63Field
    expires_ms: U63Field


class Redemption(Record):
    """What ended an invite: the node that used it, or its issuer taking it back."""

    version: Annotated[int, Meta(ge=1, le=255)]
    invite_id: Annotated[bytes, Meta(min_length=INVITE_ID_BYTES, max_length=INVITE_ID_BYTES)]
    member_id: Annotated[bytes, Meta(max_length=NODE_ID_BYTES)]
    """Empty: taken back."""
    redeemed_ms: U63Field
    membership: SignedMembership | None
    """What the member was given; none in an open network."""
