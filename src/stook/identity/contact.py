"""A contact: who a node is and where it can be reached, signed by itself and numbered so that the newest wins.

The short form that people pass on, a contact URI, is unsigned: it names the node id, so whoever answers at the address
has to prove that key (`docs/formats/contact.md`).
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from msgspec import Meta

from stook.codec import Record, encode
from stook.errors import ConfigError
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.ids import NetworkId, NetworkIdField, NodeId, PublicKeyField, SignatureField, U32Field, U63Field

CONTACT_VERSION = 1
ODD_NETWORK = "odd"
"""The network of every host that is neither an address literal nor a name."""
MAX_ADDRESSES = 8
MAX_CONTACT_BYTES = 4096
"""Above the encoding of any contact: eight addresses with the longest host names."""
_NUMERIC_LABEL = re.compile(r"(?:0x[0-9a-f]*|[0-9]*)\Z")
_URI = re.compile(r"stook://(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.\-]{1,253})):([0-9]{1,5})/([0-9A-Fa-f]{40})/?")


def ip_network_of(host: str) -> str | None:
    """The /24 of an IPv4 literal (IPv4-mapped IPv6 counts as such), the /48 of an IPv6 one; None for a DNS name.

    No name ends in a number or in nothing, but the resolvers of most systems read ``16909060``, ``1.2.772`` and
    ``0x1.2.3.4`` as ``1.2.3.4``: nobody announces himself so who does not mean to seem many. They share `ODD_NETWORK`.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ODD_NETWORK if _NUMERIC_LABEL.match(host.lower().rstrip(".").rpartition(".")[2]) else None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


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


def sign_contact(
    key: NodeKey,
    *,
    network: NetworkId,
    addresses: Sequence[Address],
    sequence: int,
    issued_ms: int,
    puzzle_nonce: int = 0,
    hd_index: int = 0,
) -> SignedContact:
    """This node's own contact. `sequence` grows with every change; the time in ms serves well.

    Raises `ValueError` for more than `MAX_ADDRESSES` addresses.
    """
    if len(addresses) > MAX_ADDRESSES:
        raise ValueError(f"a contact has at most {MAX_ADDRESSES} addresses, not {len(addresses)}")
    contact = Contact(
        version=CONTACT_VERSION,
        network=network,
        public_key=key.public_key,
        puzzle_nonce=puzzle_nonce,
        sequence=sequence,
        issued_ms=issued_ms,
        hd_index=hd_index,
        addresses=tuple(addresses),
    )
    return SignedContact(contact, key.sign(contact.digest))


@dataclass(frozen=True, slots=True)
class ContactUri:
    """``stook://host:port/<40 hex digits>``: where a node listens, and the id that whoever answers has to prove."""

    address: Address
    node_id: NodeId

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI as typed. Raises `ConfigError` that shows the right form."""
        matched = _URI.fullmatch(text.strip())
        if matched is None:
            raise ConfigError(
                f"{text!r} is no contact; one looks like stook://host:port/ and the 40 hex digits of the node id"
            )
        literal, name, port_text, node_id = matched.groups()
        port = int(port_text)
        if not 1 <= port <= 65535:
            raise ConfigError(f"{text!r}: a port is 1 to 65535, not {port}")
        if literal is not None:
            try:
                name = str(ipaddress.IPv6Address(literal))
            except ValueError:
                raise ConfigError(f"{text!r}: [{literal}] is no IPv6 address") from None
        return cls(Address(AddressKind.DIRECT, name.lower(), port), NodeId(bytes.fromhex(node_id)))

    def __str__(self) -> str:
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"stook://{host}:{self.address.port}/{self.node_id.hex()}"
