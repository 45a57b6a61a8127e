"""Nodes and records for tests of the overlay."""

from __future__ import annotations

from stook.identity.contact import Address, AddressKind, Contact, SignedContact, sign_contact
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId, PublicKey, Signature
from stook.overlay.routing_table import Node

NETWORK = NetworkId("sim.stook")
NOW_MS = 1_800_000_000_000


def bare_node(number: int, network: str = "n", sequence: int = 1) -> Node:
    """A node with this id, whatever its key; nothing about it is signed."""
    address = Address(AddressKind.DIRECT, "h", 1)
    contact = Contact(1, NETWORK, PublicKey(bytes(33)), 0, sequence, NOW_MS, 0, (address,))
    signed = SignedContact(contact, Signature(bytes(64)))
    return Node(signed, NodeId(number.to_bytes(20, "big")), number, network)


def key_of(number: int) -> NodeKey:
    """A node key of this number."""
    return NodeKey.from_secret(number.to_bytes(32, "big"))


def contact_of(key: NodeKey, host: str = "45.0.0.1", *, sequence: int = 1, port: int = 4000) -> SignedContact:
    """A signed contact at one address."""
    return sign_contact(
        key,
        network=NETWORK,
        addresses=[Address(AddressKind.DIRECT, host, port)],
        sequence=sequence,
        issued_ms=NOW_MS,
    )
