"""Who belongs to a private grid: every way in which a membership can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from joining_samples import DAY_MS, INVITER, MEMBER, NETWORK, NOW_MS, OWNER, STRANGER, chained, membership
from stook.codec import encode
from stook.errors import MisbehaviourError, ReasonCode
from stook.identity.envelope import TIME_WINDOW_MS
from stook.identity.keys import NodeKey
from stook.identity.membership import (
    FOR_EVER_MS,
    MAX_MEMBERSHIP_BYTES,
    Gate,
    Membership,
    SignedMembership,
    sign_membership,
    verify_membership,
)
from stook.ids import NetworkId


def verify(signed: SignedMembership, **changes: Any) -> int:
    values: dict[str, Any] = {
        "network": NETWORK,
        "owner_id": OWNER.node_id,
        "member_id": MEMBER.node_id,
        "now_ms": NOW_MS,
    }
    return verify_membership(signed, **(values | changes))


def signed_by(key: NodeKey, text: Membership, issuer: SignedMembership | None = None) -> SignedMembership:
    return SignedMembership(text, key.sign(text.digest), b"" if issuer is None else encode(issuer))


def altered(signed: SignedMembership, key: NodeKey = OWNER, **changes: Any) -> SignedMembership:
    """The same with other fields, signed again."""
    import msgspec

    changed = msgspec.structs.replace(signed.membership, **changes)
    return SignedMembership(changed, key.sign(changed.digest), signed.issuer)


def test_the_owners_word_and_a_members_word_hold() -> None:
    assert verify(membership()) == NOW_MS + DAY_MS
    assert verify(chained()) == NOW_MS + DAY_MS


def test_a_chain_lasts_no_longer_than_its_issuer() -> None:
    until = NOW_MS + DAY_MS
    own = membership(OWNER, INVITER, may_invite=True, expires_ms=until)
    signed = membership(INVITER, MEMBER, issuer=own, expires_ms=until + DAY_MS, may_invite=True)
    assert signed.membership.expires_ms == until
    assert not signed.membership.may_invite
    # And if the issuer does not keep to it, the verifier does.
    longer = signed_by(INVITER, altered(signed, INVITER, expires_ms=until + DAY_MS).membership, own)
    assert verify(longer) == until


@pytest.mark.parametrize(
    ("signed", "changes", "code"),
    [
        (altered(membership(), version=2), {}, ReasonCode.WRONG_VERSION),
        (membership(), {"network": NetworkId("other")}, ReasonCode.WRONG_NETWORK),
        (membership(), {"member_id": STRANGER.node_id}, ReasonCode.WRONG_IDENTITY),
        (membership(), {"now_ms": NOW_MS - TIME_WINDOW_MS - 1}, ReasonCode.CLOCK_SKEW),
        (membership(), {"now_ms": NOW_MS + DAY_MS}, ReasonCode.STALE),
        (chained(), {"now_ms": NOW_MS + DAY_MS}, ReasonCode.STALE),
        (membership(STRANGER), {}, ReasonCode.NOT_A_MEMBER),
        (membership(), {"owner_id": STRANGER.node_id}, ReasonCode.NOT_A_MEMBER),
        # An issuer who may not invite; an issuer invited by a stranger; two steps; one who makes another inviter.
        (membership(INVITER, MEMBER, issuer=membership(OWNER, INVITER)), {}, ReasonCode.NOT_A_MEMBER),
        (
            membership(INVITER, MEMBER, issuer=membership(STRANGER, INVITER, may_invite=True)),
            {},
            ReasonCode.NOT_A_MEMBER,
        ),
        (
            membership(
                INVITER,
                MEMBER,
                issuer=signed_by(
                    STRANGER,
                    membership(STRANGER, INVITER, may_invite=True).membership,
                    membership(OWNER, STRANGER, may_invite=True),
                ),
            ),
            {},
            ReasonCode.NOT_A_MEMBER,
        ),
        (altered(chained(), INVITER, may_invite=True), {}, ReasonCode.NOT_A_MEMBER),
        # Somebody else's issuer, and an issuer above the owner.
        (
            membership(INVITER, MEMBER, issuer=membership(OWNER, STRANGER, may_invite=True)),
            {},
            ReasonCode.WRONG_IDENTITY,
        ),
        (signed_by(OWNER, membership().membership, membership(OWNER, OWNER)), {}, ReasonCode.NOT_A_MEMBER),
        (SignedMembership(membership().membership, chained().signature, b""), {}, ReasonCode.BAD_SIGNATURE),
        (
            SignedMembership(chained().membership, membership().signature, chained().issuer),
            {},
            ReasonCode.BAD_SIGNATURE,
        ),
    ],
)
def test_what_is_wrong_is_told(signed: SignedMembership, changes: dict[str, Any], code: ReasonCode) -> None:
    with pytest.raises(MisbehaviourError) as caught:
        verify(signed, **changes)
    assert caught.value.code is code


def gate(**changes: Any) -> Gate:
    return Gate(**({"network": NETWORK, "owner_id": OWNER.node_id} | changes))


def test_the_gate_knows_members_and_the_owner_and_nobody_else() -> None:
    shown = encode(membership())
    assert gate().member_until_ms(MEMBER.node_id, shown, now_ms=NOW_MS) == NOW_MS + DAY_MS
    assert gate().member_until_ms(OWNER.node_id, b"", now_ms=NOW_MS) == FOR_EVER_MS
    for peer, what in ((STRANGER, shown), (STRANGER, b""), (MEMBER, b""), (MEMBER, b"\xc1"), (MEMBER, shown + b"\0")):
        assert gate().member_until_ms(peer.node_id, what, now_ms=NOW_MS) == 0


def test_the_banned_are_strangers_whatever_they_show() -> None:
    barred = gate(banned=frozenset({MEMBER.node_id, OWNER.node_id}))
    assert barred.member_until_ms(MEMBER.node_id, encode(membership()), now_ms=NOW_MS) == 0
    assert barred.member_until_ms(OWNER.node_id, b"", now_ms=NOW_MS) == 0


def test_whom_a_banned_inviter_let_in_is_a_stranger_too() -> None:
    # Else he would sign a membership for a new key of his own, and come back.
    shown = encode(chained())
    assert gate().member_until_ms(MEMBER.node_id, shown, now_ms=NOW_MS) > NOW_MS
    barred = gate(banned=frozenset({INVITER.node_id}))
    assert barred.member_until_ms(MEMBER.node_id, shown, now_ms=NOW_MS) == 0
    assert barred.member_until_ms(MEMBER.node_id, encode(membership()), now_ms=NOW_MS) > NOW_MS


def test_the_largest_membership_fits_the_hello() -> None:
    late = 2**63 - 1
    own = sign_membership(
        OWNER, network=NetworkId("n" * 32), member_id=INVITER.node_id, now_ms=late, expires_ms=late, may_invite=True
    )
    largest = sign_membership(
        INVITER, network=NetworkId("n" * 32), member_id=MEMBER.node_id, now_ms=late, expires_ms=late, issuer=own
    )
    assert len(encode(largest)) <= MAX_MEMBERSHIP_BYTES
