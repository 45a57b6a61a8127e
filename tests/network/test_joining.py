"""Private grids and invites, on sessions in virtual time: who is let in, who is not, and what strangers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import joining_samples as samples
import wire_samples as wires
from contract_samples import NETWORK
from farm_network import SKEW_MS, Caller, Countryside, Farm, key
from farm_samples import inline
from stook.codec import encode
from stook.contracts.messages import Announce, CapacityRequest, Claim, ContactsRequest, Method
from stook.errors import MisbehaviourError, PeerError, ReasonCode, RefusedError
from stook.identity.invite import Invite, KeptInvite, Redemption
from stook.identity.membership import Gate, SignedMembership, sign_membership
from stook.ids import NetworkId
from stook.overlay.joining import InviteDesk, JoinMethod, RedeemReply, redeem
from stook.overlay.messages import FindNode, OverlayMethod
from stook.wire.endpoint import Exchange

DAY_MS = samples.DAY_MS
OWNER, MEMBER, STRANGER, SECOND = 2, 3, 4, 5
"""Numbers of keys; the owner's farm is `Countryside`'s usual one."""


def now_ms() -> int:
    return wires.LoopClock(SKEW_MS).now_ms()


def word(member: int, *, life_ms: int = DAY_MS, may_invite: bool = False) -> SignedMembership:
    """The owner's word for a node."""
    moment = now_ms()
    return sign_membership(
        key(OWNER),
        network=NETWORK,
        member_id=key(member).node_id,
        now_ms=moment,
        expires_ms=moment + life_ms,
        may_invite=may_invite,
    )


def gate(shown: SignedMembership | None = None, **changes: Any) -> Gate:
    values: dict[str, Any] = {
        "network": NETWORK,
        "owner_id": key(OWNER).node_id,
        "shown": b"" if shown is None else encode(shown),
        "open_methods": frozenset({JoinMethod.REDEEM}),
    }
    return Gate(**(values | changes))


class MemoryInvites:
    """The book of an issuer, in memory."""

    def __init__(self) -> None:
        self.invites: dict[bytes, KeptInvite] = {}
        self.ended: dict[bytes, Redemption] = {}

    def get(self, invite_id: bytes) -> KeptInvite | None:
        return self.invites.get(invite_id)

    def redemption(self, invite_id: bytes) -> Redemption | None:
        return self.ended.get(invite_id)

    def end(self, redemption: Redemption) -> bool:
        return self.ended.setdefault(redemption.invite_id, redemption) is redemption


def invite(farm: Farm, book: MemoryInvites, *, life_ms: int = DAY_MS, secret: bytes = b"s" * 16) -> Invite:
    made = samples.invite(
        network=NETWORK,
        issuer_id=farm.key.node_id,
        addresses=farm.peer.addresses,
        secret=secret,
        expires_ms=now_ms() + life_ms,
        owner_id=key(OWNER).node_id,
    )
    kept = KeptInvite(1, made.invite_id, "", False, 30 * DAY_MS, now_ms(), made.expires_ms)
    book.invites[made.invite_id] = kept
    return made


def desk(farm: Farm, book: MemoryInvites, own: SignedMembership | None = None, *, private: bool = True) -> InviteDesk:
    return InviteDesk(
        key=farm.key,
        network=NETWORK,
        private=private,
        own=own,
        book=book,
        clock=farm.clock,
        offload=inline,
        seeds=lambda: [one.announcement.contact for one in farm.book.some(9, now_ms=farm.clock.now_ms())],
    )


async def refusal(work: Coroutine[Any, Any, Any]) -> ReasonCode:
    with pytest.raises((RefusedError, MisbehaviourError)) as caught:
        await work
    return caught.value.code


def told(story: Callable[[Countryside], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            async with Countryside() as land:
                await story(land)

        wires.run_virtual(main())

    test.__name__ = story.__name__
    test.__doc__ = story.__doc__
    return test


async def finding(exchange: Exchange, payload: bytes) -> None:
    raise AssertionError("a stranger got as far as this")


@told
async def test_strangers_are_refused_everything_and_members_nothing(land: Countryside) -> None:
    farm = await land.farm(OWNER, gate=gate())
    farm.endpoint.handle(OverlayMethod.FIND_NODE, finding)
    other = await land.farm(SECOND, gate=gate(word(SECOND)))
    announcement = await other.farmer.announcement()
    stranger, member = land.caller(STRANGER), land.caller(MEMBER, gate=gate(word(MEMBER)))
    requests: list[tuple[str, Any]] = [
        (Method.ANNOUNCE, Announce(announcement)),
        (Method.CLAIM, Claim((stranger.draft(farm, b"x" * 16384),))),
        (Method.CONTACTS, ContactsRequest(8)),
        (Method.CAPACITY, CapacityRequest()),
        (OverlayMethod.FIND_NODE, FindNode(farm.key.node_id, 20)),
    ]
    for method, request in requests:
        assert await refusal(stranger.call(farm, method, request)) is ReasonCode.NOT_A_MEMBER, method
    assert await refusal(stranger.endpoint.ping(farm.peer, deadline_seconds=5)) is ReasonCode.NOT_A_MEMBER
    assert len(farm.book) == 0
    for method, request in requests[:1] + requests[2:4]:
        await member.call(farm, method, request)
    assert len(farm.book) == 1
    assert (await member.claim(farm, member.draft(farm, b"x" * 16384))).answers[0].code == 0


@told
async def test_a_member_calls_no_stranger(land: Countryside) -> None:
    """A farmer that was announced by somebody, and does not belong here, gets no contract."""
    outsider = await land.farm(STRANGER)
    member = land.caller(MEMBER, gate=gate(word(MEMBER)))
    assert await refusal(member.call(outsider, Method.CAPACITY, CapacityRequest())) is ReasonCode.NOT_A_MEMBER
    host = outsider.peer.addresses[0]
    assert await refusal(member.endpoint.probe(host.host, host.port, deadline_seconds=5)) is ReasonCode.NOT_A_MEMBER


@told
async def test_a_membership_ends_in_the_middle_of_a_session(land: Countryside) -> None:
    farm = await land.farm(OWNER, gate=gate())
    member = land.caller(MEMBER, gate=gate(word(MEMBER, life_ms=60_000)))
    await member.call(farm, Method.CAPACITY, CapacityRequest())
    await asyncio.sleep(61)
    assert await refusal(member.call(farm, Method.CAPACITY, CapacityRequest())) is ReasonCode.NOT_A_MEMBER


@told
async def test_the_banned_are_refused(land: Countryside) -> None:
    farm = await land.farm(OWNER, gate=gate(banned=frozenset({key(MEMBER).node_id})))
    member = land.caller(MEMBER, gate=gate(word(MEMBER)))
    assert await refusal(member.call(farm, Method.CAPACITY, CapacityRequest())) is ReasonCode.NOT_A_MEMBER


@told
async def test_a_stolen_membership_is_worth_nothing(land: Countryside) -> None:
    farm = await land.farm(OWNER, gate=gate())
    thief = land.caller(STRANGER, gate=gate(word(MEMBER)))
    assert await refusal(thief.call(farm, Method.CAPACITY, CapacityRequest())) is ReasonCode.NOT_A_MEMBER


@told
async def test_networks_do_not_mix_even_with_the_same_owner(land: Countryside) -> None:
    farm = await land.farm(OWNER, gate=gate())
    elsewhere = land.caller(MEMBER, network=NetworkId("elsewhere"), gate=gate(word(MEMBER)))
    assert await refusal(elsewhere.call(farm, Method.CAPACITY, CapacityRequest())) is ReasonCode.WRONG_NETWORK


# --- invites ---------------------------------------------------------------------------------------------------------


async def join(caller: Caller, code: Invite) -> RedeemReply:
    return await redeem(caller.endpoint, code, now_ms=now_ms())


@told
async def test_an_invite_makes_a_member_of_one_node_and_says_it_again(land: Countryside) -> None:
    book = MemoryInvites()
    farm = await land.farm(OWNER, gate=gate())
    farm.endpoint.handle(JoinMethod.REDEEM, desk(farm, book).redeem)
    code = invite(farm, book)
    first = await join(land.caller(MEMBER), code)
    again = await join(land.caller(MEMBER), code)
    assert first.membership is not None
    assert again.membership == first.membership
    member = land.caller(MEMBER, gate=gate(first.membership))
    await member.call(farm, Method.CAPACITY, CapacityRequest())
    assert await refusal(join(land.caller(STRANGER), code)) is ReasonCode.INVITE_SPENT


@told
async def test_of_two_at_once_exactly_one_wins(land: Countryside) -> None:
    book = MemoryInvites()
    farm = await land.farm(OWNER, gate=gate())
    farm.endpoint.handle(JoinMethod.REDEEM, desk(farm, book).redeem)
    code = invite(farm, book)
    came = await asyncio.gather(
        *(join(land.caller(number), code) for number in (MEMBER, STRANGER, SECOND)), return_exceptions=True
    )
    won = [one for one in came if isinstance(one, RedeemReply)]
    lost = [one.code for one in came if isinstance(one, RefusedError)]
    assert len(won) == 1
    assert lost == [ReasonCode.INVITE_SPENT] * 2


@told
async def test_the_late_the_unknown_and_the_taken_back_are_told_apart(land: Countryside) -> None:
    book = MemoryInvites()
    farm = await land.farm(OWNER, gate=gate())
    farm.endpoint.handle(JoinMethod.REDEEM, desk(farm, book).redeem)
    short = invite(farm, book, life_ms=1000, secret=b"a" * 16)
    taken = invite(farm, book, secret=b"b" * 16)
    used = invite(farm, book, life_ms=5000, secret=b"c" * 16)
    book.end(Redemption(1, taken.invite_id, b"", now_ms(), None))
    await join(land.caller(SECOND), used)
    await asyncio.sleep(10)
    caller = land.caller(MEMBER)
    assert await refusal(join(caller, short)) is ReasonCode.INVITE_EXPIRED
    assert await refusal(join(caller, taken)) is ReasonCode.INVITE_UNKNOWN
    unknown = samples.invite(
        network=NETWORK, issuer_id=farm.key.node_id, addresses=farm.peer.addresses, secret=b"z" * 16
    )
    assert await refusal(join(caller, unknown)) is ReasonCode.INVITE_UNKNOWN
    # Who used one in time is answered after its end too: the answer may have been lost.
    assert (await join(land.caller(SECOND), used)).membership is not None


@told
async def test_the_secret_is_said_to_nobody_but_the_issuer(land: Countryside) -> None:
    book = MemoryInvites()
    heard: list[bytes] = []

    async def listen(exchange: Exchange, payload: bytes) -> None:
        heard.append(payload)

    impostor = await land.farm(STRANGER)
    impostor.endpoint.handle(JoinMethod.REDEEM, listen)
    farm = await land.farm(OWNER, gate=gate())
    pinned = invite(farm, book)
    led_astray = samples.invite(
        network=NETWORK, issuer_id=pinned.issuer_id, addresses=impostor.peer.addresses, secret=pinned.secret
    )
    with pytest.raises(PeerError):
        await join(land.caller(MEMBER), led_astray)
    assert heard == []


@told
async def test_a_false_issuer_makes_nobody_believe(land: Countryside) -> None:
    """The issuer in the code may itself be no member: what it signs is looked at before it is written down."""
    book = MemoryInvites()
    farm = await land.farm(STRANGER)
    farm.endpoint.handle(JoinMethod.REDEEM, desk(farm, book).redeem)
    assert await refusal(join(land.caller(MEMBER), invite(farm, book))) is ReasonCode.NOT_A_MEMBER
    farm.endpoint.handle(JoinMethod.REDEEM, desk(farm, book, private=False).redeem)
    assert await refusal(join(land.caller(SECOND), invite(farm, book, secret=b"t" * 16))) is ReasonCode.NOT_A_MEMBER


@told
async def test_a_member_who_may_invite_lets_others_in(land: Countryside) -> None:
    """So that the grid can grow when its owner's machine is gone."""
    book = MemoryInvites()
    own = word(SECOND, may_invite=True)
    farm = await land.farm(SECOND, gate=gate(own))
    farm.endpoint.handle(JoinMethod.REDEEM, desk(farm, book, own).redeem)
    owner = await land.farm(OWNER, gate=gate())
    reply = await join(land.caller(MEMBER), invite(farm, book))
    assert reply.membership is not None
    member = land.caller(MEMBER, gate=gate(reply.membership))
    await member.call(owner, Method.CAPACITY, CapacityRequest())


@told
async def test_an_open_network_gives_seeds_and_no_membership(land: Countryside) -> None:
    book = MemoryInvites()
    farm = await land.farm(OWNER)
    farm.endpoint.handle(JoinMethod.REDEEM, desk(farm, book, private=False).redeem)
    other = await land.farm(SECOND)
    await land.caller(STRANGER).call(farm, Method.ANNOUNCE, Announce(await other.farmer.announcement()))
    made = invite(farm, book)
    code = samples.invite(
        network=NETWORK,
        issuer_id=farm.key.node_id,
        addresses=farm.peer.addresses,
        secret=made.secret,
        owner_id=b"",
    )
    reply = await join(land.caller(MEMBER), code)
    assert reply.membership is None
    assert [one.node_id for one in reply.seeds] == [other.key.node_id]
