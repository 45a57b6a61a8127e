"""Golden vectors of invites, memberships and beacons. Never delete a file in `data/`."""

from __future__ import annotations

import json
from pathlib import Path

import joining_samples as samples
from stook.codec import decode, encode
from stook.identity.invite import Invite
from stook.identity.membership import MAX_MEMBERSHIP_BYTES, SignedMembership, verify_membership
from stook.overlay.beacon import MAX_BEACON_BYTES, Neighbourhood, SignedBeacon

DATA = Path(__file__).parent / "data"
INVITES = json.loads((DATA / "invite-v1.json").read_text())
BEACONS = json.loads((DATA / "beacon-v1.json").read_text())


def test_the_vectors_are_what_is_made_now() -> None:
    assert samples.invite_vectors() == INVITES
    assert samples.beacon_vectors() == BEACONS


def test_memberships_read_as_they_were_written() -> None:
    for text in INVITES["memberships"].values():
        data = bytes.fromhex(text)
        signed = decode(SignedMembership, data, max_bytes=MAX_MEMBERSHIP_BYTES)
        assert encode(signed) == data
        verify_membership(
            signed,
            network=INVITES["network"],
            owner_id=samples.OWNER.node_id,
            member_id=samples.MEMBER.node_id,
            now_ms=INVITES["now_ms"],
        )


def test_codes_read_as_they_were_written() -> None:
    for vector in INVITES["invites"]:
        invite = Invite.parse(vector["code"])
        assert encode(invite).hex() == vector["encoded"]
        assert invite.invite_id.hex() == vector["invite_id"]


def test_beacons_read_as_they_were_written() -> None:
    around = Neighbourhood(samples.NETWORK, samples.OWNER.node_id)
    for vector in BEACONS["beacons"]:
        data = bytes.fromhex(vector["datagram"])
        assert encode(decode(SignedBeacon, data, max_bytes=MAX_BEACON_BYTES)) == data
        heard = around.hear(data, "192.0.2.7", now_ms=BEACONS["now_ms"])
        assert heard is not None
        assert (heard.neighbour.address.port if heard.neighbour else 0) == vector["port"]
        assert heard.answer == vector["asks"]
