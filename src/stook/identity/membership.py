"""A private grid: who belongs to it, proved by a word of its owner that every node shows in its hello. Pure.

The owner of a grid is a node key. It signs memberships; a member who may invite signs further ones, one step deep
(`docs/formats/invite.md`).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.hashing import Tag, tagged_hash
from stook.identity.envelope import TIME_WINDOW_MS
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.ids import NetworkId, NetworkIdField, NodeId, NodeIdField, PublicKeyField, SignatureField, U63Field

MEMBERSHIP_VERSION = 1
MAX_MEMBERSHIP_BYTES = 512
"""What the hello has room for; a membership with that of its issuer inside takes less."""
MAX_ISSUER_BYTES = 256
FOR_EVER_MS = 2**63 - 1


class Membership(Record):
    """The signed text: this node belongs to this grid, until then."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    member_id: NodeIdField
    may_invite: bool
    """Whether the member may sign memberships, of members who may not."""
    issued_ms: U63Field
    expires_ms: U63Field
    """The first moment at which it is worth nothing."""
    issuer_key: PublicKeyField

    @property
    def digest(self) -> bytes:
        """What the issuer signs."""
        return tagged_hash(Tag.MEMBERSHIP, encode(self))


class SignedMembership(Record):
    """A membership with its issuer's signature, and the issuer's own membership unless he is the owner."""

    membership: Membership
    signature: SignatureField
    issuer: Annotated[bytes, Meta(max_length=MAX_ISSUER_BYTES)]
    """An encoded `SignedMembership`; empty: the owner signed."""


def sign_membership(
    key: NodeKey,
    *,
    network: NetworkId,
    member_id: NodeId,
    now_ms: int,
    expires_ms: int,
    may_invite: bool = False,
    issuer: SignedMembership | None = None,
) -> SignedMembership:
    """A membership signed by the owner, or by a member: then `issuer` is its own, and bounds what it may give."""
    if issuer is not None:
        may_invite = False
        expires_ms = min(expires_ms, issuer.membership.expires_ms)
    membership = Membership(
        version=MEMBERSHIP_VERSION,
        network=network,
        member_id=member_id,
        may_invite=may_invite,
        issued_ms=now_ms,
        expires_ms=expires_ms,
        issuer_key=key.public_key,
    )
    return SignedMembership(membership, key.sign(membership.digest), b"" if issuer is None else encode(issuer))


def verify_membership(
    signed: SignedMembership, *, network: NetworkId, owner_id: NodeId, member_id: NodeId, now_ms: int
) -> int:
    """Until when it makes `member_id` a member of the grid of `owner_id`.

    Raises `MisbehaviourError` with the first that fails, cheapest first: WRONG_VERSION, WRONG_NETWORK, WRONG_IDENTITY
    (another node's), CLOCK_SKEW (dated in the future), STALE (over), NOT_A_MEMBER (its issuer may not invite),
    BAD_SIGNATURE.
    """
    membership = signed.membership
    peer = member_id.hex()
    if membership.version != MEMBERSHIP_VERSION:
        raise MisbehaviourError(ReasonCode.WRONG_VERSION, f"membership version {membership.version}", peer=peer)
    if membership.network != network:
        raise MisbehaviourError(ReasonCode.WRONG_NETWORK, f"a member of network {membership.network}", peer=peer)
    if membership.member_id != member_id:
        raise MisbehaviourError(ReasonCode.WRONG_IDENTITY, "another node's membership", peer=peer)
    if membership.issued_ms > now_ms + TIME_WINDOW_MS:
        raise MisbehaviourError(ReasonCode.CLOCK_SKEW, "the membership is dated in the future", peer=peer)
    if membership.expires_ms <= now_ms:
        raise MisbehaviourError(ReasonCode.STALE, "the membership is over", peer=peer)
    until_ms = membership.expires_ms
    issuer_id = node_id_of(membership.issuer_key)
    if issuer_id != owner_id:
        issuer = _issuer(signed)
        # One step and no more: an issuer invited by an issuer has none above him here.
        if issuer is None or issuer.issuer or not issuer.membership.may_invite or membership.may_invite:
            raise MisbehaviourError(ReasonCode.NOT_A_MEMBER, "signed by one who may not invite", peer=peer)
        until_ms = min(
            until_ms,
            verify_membership(issuer, network=network, owner_id=owner_id, member_id=issuer_id, now_ms=now_ms),
        )
    elif signed.issuer:
        raise MisbehaviourError(ReasonCode.NOT_A_MEMBER, "the owner needs nobody above", peer=peer)
    if not verify(membership.issuer_key, membership.digest, signed.signature):
        raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "the membership is not signed by its issuer", peer=peer)
    return until_ms


def _issuer(signed: SignedMembership) -> SignedMembership | None:
    try:
        return decode(SignedMembership, signed.issuer, max_bytes=MAX_ISSUER_BYTES)
    except MalformedError:
        return None


@dataclass(frozen=True, slots=True)
class Gate:
    """Who is let in at one node of a private grid. `shown` is this node's own membership; empty for the owner's."""

    network: NetworkId
    owner_id: NodeId
    shown: bytes = b""
    banned: Set[NodeId] = frozenset()
    """Refused everything, whatever they show; and so is whoever shows a membership that one of them signed."""
    open_methods: Set[str] = frozenset()
    """What strangers may ask: to redeem an invite, for one."""

    def member_until_ms(self, peer_id: NodeId, shown: bytes, *, now_ms: int) -> int:
        """Until when what a peer showed in its hello makes it a member; 0 for a stranger. Never raises."""
        if peer_id in self.banned:
            return 0
        if peer_id == self.owner_id:
            return FOR_EVER_MS
        try:
            signed = decode(SignedMembership, shown, max_bytes=MAX_MEMBERSHIP_BYTES)
            if node_id_of(signed.membership.issuer_key) in self.banned:
                return 0  # who is kept out would sign a membership for a new key of his own
            return verify_membership(
                signed, network=self.network, owner_id=self.owner_id, member_id=peer_id, now_ms=now_ms
            )
        except (MalformedError, MisbehaviourError):
            return 0
