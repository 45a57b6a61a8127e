"""A grant: the renter's signed word that someone may do one thing with one shard at one farmer, up to a budget.

A grant names its grantee's key, so a stolen message is useless, and its farmer, so it is useless elsewhere. It can be
attenuated offline: its grantee signs a narrower one that carries the parent (`docs/formats/grant.md`).
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.hashing import Tag, tagged_hash
from stook.ids import (
    ContractIdField,
    NetworkIdField,
    NodeIdField,
    PublicKeyField,
    ShardRootField,
    SignatureField,
    U63Field,
)

GRANT_VERSION = 1
MAX_CHAIN = 4
MAX_PARENT_BYTES = 2048


class Operation(enum.IntEnum):
    """What a grant allows."""

    CONSIGN = 1
    RETRIEVE = 2
    AUDIT = 3


class Grant(Record):
    """The signed text of a grant. Field order is the format."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    contract_id: ContractIdField
    shard_root: ShardRootField
    farmer: NodeIdField
    issuer_key: PublicKeyField
    grantee_key: PublicKeyField
    operation: Operation
    begin_byte: U63Field
    end_byte: U63Field
    budget_bytes: U63Field
    expires_ms: U63Field
    serial: Annotated[bytes, Meta(min_length=16, max_length=16)]
    parent: Annotated[bytes, Meta(max_length=MAX_PARENT_BYTES)]
    """Encoding of the parent `SignedGrant`, or empty when the issuer is the contract's renter."""

    @property
    def digest(self) -> bytes:
        """What the issuer signs."""
        return tagged_hash(Tag.GRANT, encode(self))


class SignedGrant(Record):
    """A grant with its issuer's signature over `Grant.digest`."""

    grant: Grant
    signature: SignatureField
