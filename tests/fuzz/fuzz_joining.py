"""Targets: what nodes show in a hello to be let in, codes that people paste, and datagrams on a local link."""

from __future__ import annotations

import msgspec

import joining_samples as samples
from fuzz_base import target
from stook.codec import decode, encode
from stook.identity.invite import Invite
from stook.identity.membership import MAX_MEMBERSHIP_BYTES, Gate, SignedMembership, verify_membership
from stook.overlay.beacon import MAX_NEIGHBOURS, Neighbourhood, SignedBeacon, sign_beacon

KEYS = {key.public_key: key for key in (samples.OWNER, samples.INVITER, samples.MEMBER)}


@target(
    "identity.membership",
    seeds=lambda: [encode(samples.membership()), encode(samples.chained())],
    covers=("stook.identity.membership.verify_membership", "stook.identity.membership.Gate.member_until_ms"),
)
def membership(data: bytes) -> None:
    """As it came, at the gate, which never raises; then signed again by whom it names, before the verifier."""
    gate = Gate(network=samples.NETWORK, owner_id=samples.OWNER.node_id)
    assert gate.member_until_ms(samples.STRANGER.node_id, data, now_ms=samples.NOW_MS) == 0
    gate.member_until_ms(samples.MEMBER.node_id, data, now_ms=samples.NOW_MS)
    signed = decode(SignedMembership, data, max_bytes=MAX_MEMBERSHIP_BYTES)
    key = KEYS.get(signed.membership.issuer_key)
    if key is not None:
        signed = SignedMembership(signed.membership, key.sign(signed.membership.digest), signed.issuer)
    verify_membership(
        signed,
        network=samples.NETWORK,
        owner_id=samples.OWNER.node_id,
        member_id=samples.MEMBER.node_id,
        now_ms=samples.NOW_MS,
    )


@target(
    "identity.invite",
    seeds=lambda: [samples.invite().code().encode(), samples.invite(owner_id=b"").code().upper().encode()],
    covers=("stook.identity.invite.Invite.parse",),
)
def invite(data: bytes) -> None:
    """What parses is said again in one way."""
    read = Invite.parse(data.decode("utf-8", "surrogateescape"))
    assert Invite.parse(read.code()) == read
    assert read.seeds


@target(
    "overlay.beacon",
    seeds=lambda: [
        sign_beacon(samples.MEMBER, network=samples.NETWORK, port=port, asks=asks, now_ms=samples.NOW_MS)
        for port, asks in ((7071, True), (0, True), (65535, False))
    ],
    covers=("stook.overlay.beacon.Neighbourhood.hear",),
)
def beacon(data: bytes) -> None:
    """As it came, then signed again; nothing is called but the address that it came from."""
    around = Neighbourhood(samples.NETWORK, samples.OWNER.node_id)
    around.hear(data, "192.0.2.7", now_ms=samples.NOW_MS)
    signed = decode(SignedBeacon, data)
    again = msgspec.structs.replace(signed.beacon, public_key=samples.MEMBER.public_key)
    around.hear(encode(SignedBeacon(again, samples.MEMBER.sign(again.digest))), "192.0.2.7", now_ms=samples.NOW_MS)
    known = around.neighbours(now_ms=samples.NOW_MS)
    assert len(known) <= MAX_NEIGHBOURS
    assert all(one.address.host == "192.0.2.7" for one in known)
