"""REDEEM: a node that was invited asks its issuer to let it in (`docs/protocol/joining.md`)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Annotated, Protocol

from msgspec import Meta

from stook.clock import Clock, Offload
from stook.codec import Record, decode, encode
from stook.errors import ReasonCode, RefusedError
from stook.identity.contact import SignedContact
from stook.identity.invite import INVITE_VERSION, SECRET_BYTES, Invite, KeptInvite, Redemption, invite_id_of
from stook.identity.keys import NodeKey
from stook.identity.membership import SignedMembership, sign_membership, verify_membership
from stook.ids import NetworkId, NodeId
from stook.wire.endpoint import Endpoint, Exchange, Peer

MAX_SEEDS_TOLD = 8
REDEEM_DEADLINE_SECONDS = 30.0


class JoinMethod(enum.StrEnum):
    """The method's name as it stands in the envelope."""

    REDEEM = "REDEEM"


class Redeem(Record):
    """REDEEM request. The membership is for the node that signed the request."""

    secret: Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]


class RedeemReply(Record):
    """REDEEM reply: the membership of a private grid, and some nodes to enter by besides the issuer."""

    membership: SignedMembership | None
    seeds: Annotated[tuple[SignedContact, ...], Meta(max_length=MAX_SEEDS_TOLD)]


class InviteBook(Protocol):
    """What an issuer remembers. Calls block; what returned is durable. `storage.invite_store` keeps it."""

    def get(self, invite_id: bytes) -> KeptInvite | None:
        """The invite, used or not; None when there is none."""
        ...

    def redemption(self, invite_id: bytes) -> Redemption | None:
        """What ended it; None while it is open."""
        ...

    def end(self, redemption: Redemption) -> bool:
        """Use it up or take it back; False when that was done before, by whomever."""
        ...


class InviteDesk:
    """Serves REDEEM at the node that made the invites."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network: NetworkId,
        private: bool,
        own: SignedMembership | None,
        book: InviteBook,
        clock: Clock,
        offload: Offload,
        seeds: Callable[[], Sequence[SignedContact]],
    ) -> None:
        self._key = key
        self._network = network
        self._private = private
        self._own = own
        self._book = book
        self._clock = clock
        self._offload = offload
        self._seeds = seeds

    async def redeem(self, exchange: Exchange, payload: bytes) -> None:
        """Let the caller in, if its secret is that of an invite that is open or was used by the caller itself."""
        invite_id = invite_id_of(decode(Redeem, payload).secret)
        caller = exchange.peer_id
        redemption = await self._offload(lambda: self._redeem(invite_id, caller))
        seeds = [contact for contact in self._seeds() if contact.node_id != caller][:MAX_SEEDS_TOLD]
        await exchange.reply(encode(RedeemReply(redemption.membership, tuple(seeds))))

    def _redeem(self, invite_id: bytes, caller: NodeId) -> Redemption:
        invite = self._book.get(invite_id)
        if invite is None:
            raise RefusedError(ReasonCode.INVITE_UNKNOWN, "no such invite is known here")
        known = self._book.redemption(invite_id)
        now_ms = self._clock.now_ms()
        if known is None:
            if invite.expires_ms <= now_ms:
                raise RefusedError(ReasonCode.INVITE_EXPIRED, "ask for a new one")
            made = Redemption(INVITE_VERSION, invite_id, caller, now_ms, self._membership(invite, caller, now_ms))
            if self._book.end(made):
                return made
            known = self._book.redemption(invite_id)  # somebody was faster, perhaps the caller's own other request
        if known is None or known.member_id == b"":
            raise RefusedError(ReasonCode.INVITE_UNKNOWN, "it was taken back")
        if known.member_id != caller:
            raise RefusedError(ReasonCode.INVITE_SPENT, "another node has used it; ask for a new one")
        return known

    def _membership(self, invite: KeptInvite, caller: NodeId, now_ms: int) -> SignedMembership | None:
        if not self._private:
            return None
        return sign_membership(
            self._key,
            network=self._network,
            member_id=caller,
            now_ms=now_ms,
            expires_ms=now_ms + invite.membership_ms,
            may_invite=invite.may_invite,
            issuer=self._own,
        )


async def redeem(endpoint: Endpoint, invite: Invite, *, now_ms: int) -> RedeemReply:
    """Redeem an invite for the node of `endpoint`, at its issuer and nobody else.

    The session is opened to the id in the code, so the secret is said only to the node that made it. Raises
    `RefusedError` with the issuer's code, `MisbehaviourError` when what it gives is no membership of this grid, or any
    other `PeerError` of a call.
    """
    issuer = Peer(invite.issuer_id, invite.addresses)
    answer = await endpoint.call(
        issuer, JoinMethod.REDEEM, encode(Redeem(invite.secret)), deadline_seconds=REDEEM_DEADLINE_SECONDS
    )
    reply = decode(RedeemReply, answer)
    if invite.owner_id:
        if reply.membership is None:
            raise RefusedError(ReasonCode.NOT_A_MEMBER, "the issuer gave no membership", peer=invite.issuer_id.hex())
        verify_membership(
            reply.membership,
            network=invite.network,
            owner_id=NodeId(invite.owner_id),
            member_id=endpoint.node_id,
            now_ms=now_ms,
        )
    sound = [one for one in reply.seeds if one.contact.network == invite.network and one.verifies()]
    return RedeemReply(reply.membership, tuple(sound))
