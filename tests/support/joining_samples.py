"""Samples of invites, memberships and beacons, and the golden vectors made of them."""

from __future__ import annotations

from typing import Any

from stook.codec import encode
from stook.identity.contact import Address, AddressKind
from stook.identity.invite import Invite
from stook.identity.keys import NodeKey
from stook.identity.membership import SignedMembership, sign_membership
from stook.ids import NetworkId
from stook.overlay.beacon import sign_beacon

NETWORK = NetworkId("grid-example")
NOW_MS = 1_750_000_000_000
DAY_MS = 86_400_000
OWNER, INVITER, MEMBER, STRANGER = (NodeKey.from_secret(bytes([number]) * 32) for number in (11, 12, 13, 14))


def membership(key: NodeKey = OWNER, member: NodeKey = MEMBER, **changes: Any) -> SignedMembership:
    values: dict[str, Any] = {
        "network": NETWORK,
        "member_id": member.node_id,
        "now_ms": NOW_MS,
        "expires_ms": NOW_MS + DAY_MS,
    }
    return sign_membership(key, **(values | changes))


def chained(**changes: Any) -> SignedMembership:
    """What a member who may invite signed."""
    return membership(INVITER, MEMBER, issuer=membership(OWNER, INVITER, may_invite=True), **changes)


def invite(**changes: Any) -> Invite:
    values: dict[str, Any] = {
        "version": 1,
        "network": NETWORK,
        "issuer_id": OWNER.node_id,
        "addresses": (Address(AddressKind.DIRECT, "farm.example.org", 7071),),
        "secret": bytes(range(16)),
        "expires_ms": NOW_MS + DAY_MS,
        "owner_id": OWNER.node_id,
        "puzzle_bits": 0,
    }
    return Invite(**(values | changes))


def invite_vectors() -> dict[str, Any]:
    return {
        "owner_secret": (b"\x0b" * 32).hex(),
        "inviter_secret": (b"\x0c" * 32).hex(),
        "member_secret": (b"\x0d" * 32).hex(),
        "network": NETWORK,
        "now_ms": NOW_MS,
        "memberships": {"of_the_owner": encode(membership()).hex(), "of_a_member": encode(chained()).hex()},
        "invites": [
            {"encoded": encode(one).hex(), "code": one.code(), "invite_id": one.invite_id.hex()}
            for one in (
                invite(),
                invite(
                    addresses=(
                        Address(AddressKind.DIRECT, "192.0.2.7", 7071),
                        Address(AddressKind.DIRECT, "2001:db8::7", 7071),
                    ),
                    owner_id=b"",
                    puzzle_bits=20,
                ),
            )
        ],
    }


def beacon_vectors() -> dict[str, Any]:
    return {
        "secret": (b"\x0d" * 32).hex(),
        "network": NETWORK,
        "now_ms": NOW_MS,
        "beacons": [
            {
                "port": port,
                "asks": asks,
                "datagram": sign_beacon(MEMBER, network=NETWORK, port=port, asks=asks, now_ms=NOW_MS).hex(),
            }
            for port, asks in ((7071, False), (0, True))
        ],
    }
