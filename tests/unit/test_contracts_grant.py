from __future__ import annotations

import pytest
from msgspec import structs

from contract_samples import (
    CLIENT,
    FARMER,
    NETWORK,
    NOW_MS,
    OTHER,
    RENTER,
    SERIAL,
    SHARD_BYTES,
    contract,
    draft,
    grant,
)
from stook.codec import encode
from stook.contracts.contract import Contract
from stook.contracts.grant import (
    MAX_CHAIN,
    MAX_PARENT_BYTES,
    Operation,
    SignedGrant,
    attenuate,
    chain_of,
    check_grant,
    issue_grant,
    spendings,
)
from stook.contracts.negotiation import HOUR_MS
from stook.errors import MalformedError, ReasonCode, RefusedError, UserError
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId, PublicKey, ShardRoot

USED = {
    "network": NETWORK,
    "farmer": FARMER.node_id,
    "caller_key": CLIENT.public_key,
    "operation": Operation.RETRIEVE,
    "begin": 0,
    "end": SHARD_BYTES,
    "now_ms": NOW_MS,
}


def judge(signed: SignedGrant, held: Contract | None = None, **changes: object) -> None:
    arguments = {"contract": contract() if held is None else held} | USED | changes
    check_grant(signed, **arguments)


def refused(signed: SignedGrant, held: Contract | None = None, **changes: object) -> ReasonCode:
    with pytest.raises(RefusedError) as caught:
        judge(signed, held, **changes)
    assert len(caught.value.detail) <= 200
    return caught.value.code


def forged(signed: SignedGrant, key: NodeKey = RENTER, **changes: object) -> SignedGrant:
    """The grant with other words, signed by `key` all the same."""
    text = structs.replace(signed.grant, **changes)
    return SignedGrant(grant=text, signature=key.sign(text.digest))


def test_a_good_grant_passes() -> None:
    judge(grant())
    judge(grant(begin_byte=100, end_byte=200), begin=100, end=200)
    judge(grant(), now_ms=NOW_MS + HOUR_MS - 1)


def test_each_failure_has_exactly_one_code() -> None:
    good = grant()
    stolen = structs.replace(good, signature=OTHER.sign(good.grant.digest))
    assert refused(stolen) is ReasonCode.GRANT_INVALID
    assert refused(good, network=NetworkId("other")) is ReasonCode.GRANT_INVALID
    assert refused(forged(good, version=2)) is ReasonCode.GRANT_INVALID
    assert refused(good, farmer=OTHER.node_id) is ReasonCode.GRANT_WRONG_FARMER
    assert refused(good, contract(draft(memo=b"other"))) is ReasonCode.GRANT_WRONG_SHARD
    assert refused(forged(good, shard_root=ShardRoot(b"\1" * 32))) is ReasonCode.GRANT_WRONG_SHARD
    assert refused(good, caller_key=OTHER.public_key) is ReasonCode.GRANT_WRONG_GRANTEE
    assert refused(good, operation=Operation.CONSIGN) is ReasonCode.GRANT_WRONG_OPERATION
    assert refused(good, now_ms=NOW_MS + HOUR_MS) is ReasonCode.GRANT_EXPIRED
    narrow = grant(begin_byte=100, end_byte=200)
    for begin, end in ((99, 200), (100, 201), (150, 149), (-1, 100)):
        assert refused(narrow, begin=begin, end=end) is ReasonCode.GRANT_OUT_OF_RANGE


def test_a_range_beyond_the_shard_is_out_of_range_whatever_the_grant_says() -> None:
    assert refused(grant(end_byte=2 * SHARD_BYTES), end=SHARD_BYTES + 1) is ReasonCode.GRANT_OUT_OF_RANGE


def test_a_grant_for_a_contract_that_is_not_held() -> None:
    with pytest.raises(RefusedError) as caught:
        check_grant(grant(), contract=None, **USED)
    assert caught.value.code is ReasonCode.UNKNOWN_CONTRACT
    with pytest.raises(RefusedError) as caught:
        check_grant(grant(), contract=None, **(USED | {"farmer": OTHER.node_id}))
    assert caught.value.code is ReasonCode.GRANT_WRONG_FARMER


def test_only_the_renter_of_the_contract_begins_a_chain() -> None:
    by_another = forged(grant(), OTHER, issuer_key=OTHER.public_key)
    assert refused(by_another) is ReasonCode.GRANT_INVALID
    with pytest.raises(ValueError, match="renter"):
        issue_grant(
            draft(), OTHER, grantee_key=CLIENT.public_key, operation=Operation.AUDIT, expires_ms=1, serial=SERIAL
        )


def test_after_a_transfer_the_old_owners_grants_are_worth_nothing() -> None:
    terms = structs.replace(draft(), renter_key=OTHER.public_key, revision=1, origin=draft().contract_id)
    assert refused(grant(), contract(terms, renter=OTHER)) is ReasonCode.GRANT_INVALID


# --- chains ----------------------------------------------------------------------------------------------------------


def handed_on(signed: SignedGrant, giver: NodeKey, taker: NodeKey, **narrowing: object) -> SignedGrant:
    return attenuate(signed, giver, grantee_key=taker.public_key, serial=b"s" * 16, **narrowing)


def test_a_grant_is_handed_on_and_narrowed_offline() -> None:
    child = handed_on(grant(), CLIENT, OTHER, begin_byte=100, end_byte=200, budget_bytes=100, expires_ms=NOW_MS + 5)
    judge(child, caller_key=OTHER.public_key, begin=100, end=200)
    assert refused(child, begin=100, end=200) is ReasonCode.GRANT_WRONG_GRANTEE
    assert refused(child, caller_key=OTHER.public_key) is ReasonCode.GRANT_OUT_OF_RANGE
    late = refused(child, caller_key=OTHER.public_key, begin=100, end=200, now_ms=NOW_MS + 5)
    assert late is ReasonCode.GRANT_EXPIRED


WIDENING = [
    {"begin_byte": 99},
    {"end_byte": 201},
    {"begin_byte": 150, "end_byte": 149},
    {"budget_bytes": 1001},
    {"expires_ms": NOW_MS + HOUR_MS + 1},
]


@pytest.mark.parametrize("wider", WIDENING)
def test_nothing_is_widened_by_our_own_hand(wider: dict[str, int]) -> None:
    parent = grant(begin_byte=100, end_byte=200, budget_bytes=1000)
    with pytest.raises(UserError, match="only be narrowed"):
        handed_on(parent, CLIENT, OTHER, **wider)


@pytest.mark.parametrize(
    "wider",
    [
        *WIDENING,
        {"operation": Operation.CONSIGN},
        {"shard_root": ShardRoot(b"\1" * 32)},
        {"contract_id": b"\1" * 32},
        {"farmer": NodeId(b"\1" * 20)},
        {"network": "other"},
        {"version": 2},
    ],
)
def test_nothing_is_widened_by_a_forger(wider: dict[str, object]) -> None:
    child = handed_on(grant(begin_byte=100, end_byte=200, budget_bytes=1000), CLIENT, OTHER)
    assert refused(forged(child, CLIENT, **wider), caller_key=OTHER.public_key) is ReasonCode.GRANT_INVALID


def test_a_chain_needs_each_issuer_in_turn() -> None:
    child = handed_on(grant(), CLIENT, OTHER)
    with pytest.raises(ValueError, match="grantee"):
        handed_on(grant(), OTHER, CLIENT)
    by_a_stranger = forged(child, OTHER, issuer_key=OTHER.public_key)
    assert refused(by_a_stranger, caller_key=OTHER.public_key) is ReasonCode.GRANT_INVALID
    parent = grant()
    unsigned = encode(structs.replace(parent, signature=OTHER.sign(parent.grant.digest)))
    assert refused(forged(child, CLIENT, parent=unsigned), caller_key=OTHER.public_key) is ReasonCode.GRANT_INVALID


def longest_chain() -> SignedGrant:
    signed, keys = grant(), [CLIENT, OTHER]
    for step in range(MAX_CHAIN - 1):
        signed = handed_on(signed, keys[step % 2], keys[(step + 1) % 2])
    return signed


def test_a_chain_has_a_bound() -> None:
    longest = longest_chain()
    last = CLIENT if longest.grant.grantee_key == CLIENT.public_key else OTHER
    judge(longest, caller_key=last.public_key)
    assert len(chain_of(longest)) == MAX_CHAIN
    with pytest.raises(UserError, match="handed on 3 times"):
        handed_on(longest, last, RENTER)
    text = structs.replace(longest.grant, issuer_key=last.public_key, parent=encode(longest))
    too_long = SignedGrant(grant=text, signature=last.sign(text.digest))
    assert refused(too_long) is ReasonCode.GRANT_INVALID
    with pytest.raises(MalformedError, match="more than 4"):
        spendings(too_long)


def test_the_longest_chain_fits_its_bound() -> None:
    big = {"begin_byte": 2**62, "end_byte": 2**63 - 1, "budget_bytes": 2**63 - 1, "expires_ms": 2**63 - 1}
    signed, keys = forged(grant(), network=NetworkId("n" * 32), **big), [CLIENT, OTHER]
    for step in range(MAX_CHAIN - 1):
        signed = handed_on(signed, keys[step % 2], keys[(step + 1) % 2])
    assert len(signed.grant.parent) <= MAX_PARENT_BYTES


def test_a_parent_that_is_no_grant() -> None:
    for junk in (b"\x00", b"junk", encode(grant())[:-1], encode(grant()) + b"\0"):
        assert refused(forged(grant(), parent=junk)) is ReasonCode.GRANT_INVALID


# --- spending --------------------------------------------------------------------------------------------------------


def test_a_use_counts_against_every_budget_above() -> None:
    parent = grant(budget_bytes=1000)
    one = handed_on(parent, CLIENT, OTHER, budget_bytes=600, expires_ms=NOW_MS + 9)
    two = handed_on(parent, CLIENT, RENTER, budget_bytes=500)
    assert [spending.budget_bytes for spending in spendings(one)] == [1000, 600]
    assert [spending.expires_ms for spending in spendings(one)] == [NOW_MS + HOUR_MS, NOW_MS + 9]
    # The children have one serial of one issuer, so they share what is spent of it, as the issuer asked.
    assert [s.serial for s in spendings(one)] == [s.serial for s in spendings(two)]
    assert spendings(one)[0] == spendings(parent)[0]
    assert all(len(spending.serial) == 16 for spending in spendings(one))


def test_copying_a_serial_does_not_touch_the_budget_it_was_copied_from() -> None:
    mine = grant()
    copied = forged(mine, OTHER, issuer_key=OTHER.public_key)
    elsewhere = grant(draft(memo=b"other"))
    assert mine.grant.serial == copied.grant.serial == elsewhere.grant.serial
    assert len({spendings(signed)[0].serial for signed in (mine, copied, elsewhere)}) == 3


def test_defaults_are_the_whole_shard_once() -> None:
    text = grant().grant
    assert (text.begin_byte, text.end_byte, text.budget_bytes) == (0, SHARD_BYTES, SHARD_BYTES)
    assert text.issuer_key == PublicKey(RENTER.public_key)
