"""A contact: who a node is and where it can be reached, signed by itself and numbered so that the newest wins."""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, encode
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import node_id_of, verify
from stook.ids import NetworkIdField, NodeId, PublicKeyField, SignatureField, U32Field, U63Field

CONTACT_VERSION = 1
MAX_ADDRESSES = 8
MAX_CONTACT_BYTES = 2048


class AddressKind(enum.IntEnum):
    """How an address is reached. RELAY is reserved: it does not decode to anything callable yet."""

    DIRECT = 1
    RELAY = 2


class Address(Record):
    """One way to reach a node: a DNS name or IP literal, and a TCP port."""

    kind: AddressKind
    host: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:\-]+\Z")]
    port: Annotated[int, Meta(ge=1, le=65535)]


class Contact(Record):
    """The signed text of a contact. Of two contacts of one key the one with the higher sequence counts."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    public_key: PublicKeyField
    puzzle_nonce: U63Field
    sequence: U63Field
    issued_ms: U63Field
    hd_index: U32Field
    addresses: Annotated[tuple[Address, ...], Meta(max_length=MAX_ADDRESSES)]

    @property
    def node_id(self) -> NodeId:
        """The id that follows from the key."""
        return node_id_of(self.public_key)

    @property
    def digest(self) -> bytes:
        """What the node signs."""
        return tagged_hash(Tag.CONTACT, encode(self))


class SignedContact(Record):
    """A contact with its node's signature."""

    contact: Contact
    signature: SignatureField

    @property
    def node_id(self) -> NodeId:
        """The id that follows from the key."""
        return self.contact.node_id

    def verifies(self) -> bool:
        """Whether the node itself signed this contact."""
        return verify(self.contact.public_key, self.contact.digest, self.signature)
