from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from audit_samples import ANSWER_WITHIN_MS, NONCE, PARTIES, drawn, keeper
from contract_samples import CLIENT, DAY_MS, FARMER, HOUR_MS, NETWORK, NOW_MS, OTHER, RENTER, SERIAL, contract, draft
from stook.audits.challenge import (
    MAX_ANSWER_MS,
    MAX_ASKS,
    MAX_PAGE_WEIGHT,
    MAX_PAGES,
    Ask,
    Parties,
    SaltedAsk,
    SignedChallenge,
    billable_units,
    check_access,
    check_challenge,
    draw_challenge,
    is_drawn,
    is_repeat,
    is_signed,
    pages_of,
    repeat_challenge,
    salted_challenge,
    window_of,
)
from stook.audits.holding import MAX_LEAVES, MAX_LEAVES_PER_SHARD, MAX_SIZE_BYTES, HeldShard, Holding
from stook.codec import decode, encode
from stook.contracts.contract import AuditStrategy, AuditTerms
from stook.contracts.grant import Operation, issue_grant
from stook.errors import MalformedError, ReasonCode, RefusedError
from stook.ids import ContractId, NetworkId, ShardRoot
from stook.merkle import UNIT_BYTES

HOLDING = keeper().holding


def big_holding(shards: int = 600, units: int = 256) -> Holding:
    return Holding(
        HeldShard(ContractId(number.to_bytes(32, "big")), ShardRoot(bytes(32)), units * UNIT_BYTES)
        for number in range(shards)
    )


# --- holdings --------------------------------------------------------------------------------------------------------


def test_a_holding_is_the_same_in_whatever_order_it_is_given() -> None:
    assert Holding(reversed(HOLDING.shards)).digest == HOLDING.digest
    assert Holding.parse(HOLDING.encoded()).shards == HOLDING.shards
    assert HOLDING.units == sum(shard.units for shard in HOLDING.shards)


def test_a_holding_that_cannot_be_is_refused() -> None:
    first = HOLDING.shards[0]
    for shards in (
        [],
        [first, first],
        [first, replace(first, size_bytes=5)],
        [replace(first, size_bytes=0)],
        [replace(first, size_bytes=MAX_SIZE_BYTES + 1)],
    ):
        with pytest.raises(ValueError):
            Holding(shards)
    encoded = HOLDING.encoded()
    for data in (b"", encoded[:-1], encoded[72:144] + encoded[:72], encoded[:72] * 2, encoded[:64] + bytes(8)):
        with pytest.raises(MalformedError):
            Holding.parse(data)


def test_a_draw_takes_no_unit_twice_and_no_shard_beyond_its_cap() -> None:
    lone = Holding([HeldShard(ContractId(bytes(32)), ShardRoot(bytes(32)), 256 * UNIT_BYTES)])
    ((_, units),) = lone.draw(NONCE, MAX_LEAVES)
    assert len(set(units)) == len(units) == MAX_LEAVES_PER_SHARD
    small = Holding([HeldShard(ContractId(bytes(32)), ShardRoot(bytes(32)), 3 * UNIT_BYTES + 1)])
    assert small.draw(NONCE, 10) == [(small.shards[0], (0, 1, 2, 3))]
    assert sum(len(units) for _, units in big_holding().draw(NONCE, MAX_LEAVES)) == MAX_LEAVES


def test_a_draw_ends_where_one_file_is_full_and_hides_all_others() -> None:
    """Of 2^32 + 1 units one is small: it is never hit, and whoever wants 49 gets 48."""
    holding = Holding(
        HeldShard(ContractId(bytes([number]) * 32), ShardRoot(bytes(32)), size)
        for number, size in enumerate((MAX_SIZE_BYTES, 1))
    )
    signed = drawn(holding, 60)
    assert signed.challenge.leaves == MAX_LEAVES_PER_SHARD
    assert is_drawn(signed.challenge, holding)


@pytest.mark.parametrize("wanted", [0, -1, MAX_LEAVES + 1])
def test_a_draw_of_too_many_is_a_callers_mistake(wanted: int) -> None:
    with pytest.raises(ValueError):
        HOLDING.draw(NONCE, wanted)
    with pytest.raises(ValueError):
        HOLDING.draw(NONCE[1:], 1)


def test_every_unit_is_drawn_about_as_often_as_any_other() -> None:
    holding = Holding(HOLDING.shards[:2])
    assert holding.units < 100
    counts = dict.fromkeys([(shard.contract_id, unit) for shard in holding.shards for unit in range(shard.units)], 0)
    for number in range(2000):
        for shard, units in holding.draw(number.to_bytes(32, "big"), 2):
            for unit in units:
                counts[shard.contract_id, unit] += 1
    expected = 4000 / holding.units
    assert all(0.6 * expected < count < 1.4 * expected for count in counts.values())


# --- challenges ------------------------------------------------------------------------------------------------------


def test_a_drawn_challenge_can_be_drawn_again_by_anybody() -> None:
    signed = drawn(HOLDING)
    assert is_signed(signed)
    assert is_drawn(signed.challenge, HOLDING)
    assert decode(SignedChallenge, encode(signed)) == signed
    assert not is_drawn(signed.challenge, Holding(HOLDING.shards[1:]))
    assert not is_drawn(structs.replace(signed.challenge, nonce=bytes(32)), HOLDING)
    fewer = structs.replace(signed.challenge, asks=signed.challenge.asks[1:])
    assert not is_drawn(fewer, HOLDING)
    assert not is_signed(SignedChallenge(fewer, signed.signature))


def test_a_challenge_that_contradicts_itself_does_not_decode() -> None:
    good = drawn(HOLDING).challenge
    ask = good.asks[-1]
    salted = Ask(ask.contract_id, ask.shard_root, ask.size_bytes, (), SaltedAsk(0, 1, bytes(32), bytes(32)))
    for changes in (
        {"answer_by_ms": good.sent_at_ms},
        {"answer_by_ms": good.sent_at_ms + MAX_ANSWER_MS + 1},
        {"asks": good.asks[::-1]},
        {"asks": (ask, ask)},
        {"asks": (salted,)},
        {"asks": good.asks, "strategy": AuditStrategy.SALTED},
        {"repeats": b"x"},
        {"asks": (salted,), "strategy": AuditStrategy.SALTED, "repeats": bytes(32)},
    ):
        with pytest.raises(ValueError):
            structs.replace(good, **changes)
    plain = [getattr(good, name) for name in good.__struct_fields__]
    with pytest.raises(MalformedError):
        decode(type(good), encode((*plain[:-1], good.asks[::-1])))


@pytest.mark.parametrize(
    "changes",
    [
        {"units": ()},
        {"units": (1, 1)},
        {"units": (2, 1)},
        {"units": (64,)},
        {"salted": SaltedAsk(0, 1, bytes(32), bytes(32))},
    ],
)
def test_an_ask_that_contradicts_itself_cannot_be_made(changes: dict[str, object]) -> None:
    good = Ask(ContractId(bytes(32)), ShardRoot(bytes(32)), 64 * UNIT_BYTES, (0, 63), None)
    with pytest.raises(ValueError):
        structs.replace(good, **changes)
    with pytest.raises(ValueError):
        SaltedAsk(4, 4, bytes(32), bytes(32))


def test_what_an_ask_moves_and_spans() -> None:
    ask = Ask(ContractId(bytes(32)), ShardRoot(bytes(32)), 3 * UNIT_BYTES + 5, (1, 3), None)
    assert (ask.weight, ask.moved_bytes, ask.span) == (2, UNIT_BYTES + 5, (UNIT_BYTES, 3 * UNIT_BYTES + 5))
    salted = structs.replace(ask, units=(), salted=SaltedAsk(0, 1, bytes(32), bytes(32)))
    assert (salted.weight, salted.moved_bytes, salted.span) == (1, ask.size_bytes, (0, ask.size_bytes))


def test_pages_hold_every_ask_once_and_no_more_than_fits() -> None:
    for wanted in (1, 48, 49, 300, MAX_LEAVES):
        for holding in (HOLDING, big_holding(), big_holding(11), big_holding(21, 30)):
            challenge = drawn(holding, wanted).challenge
            pages = pages_of(challenge)
            assert [at for page in pages for at in page] == list(range(len(challenge.asks)))
            assert len(pages) <= MAX_PAGES
            weights = [sum(challenge.asks[at].weight for at in page) for page in pages]
            assert all(0 < weight <= MAX_PAGE_WEIGHT for weight in weights)


def test_the_worst_challenge_has_the_most_pages() -> None:
    """Shards of 1 and 48 units by turns: no two fit one page."""
    sizes = [48 if number % 2 else 1 for number in range(2 * (MAX_LEAVES // 49))] + [MAX_LEAVES % 49]
    asks = tuple(
        Ask(ContractId(number.to_bytes(32, "big")), ShardRoot(bytes(32)), 48 * UNIT_BYTES, tuple(range(units)), None)
        for number, units in enumerate(sizes)
    )
    challenge = structs.replace(drawn(HOLDING).challenge, asks=asks)
    assert challenge.leaves == MAX_LEAVES
    assert len(pages_of(challenge)) == MAX_PAGES
    one_more = Ask(ContractId(b"\xff" * 32), ShardRoot(bytes(32)), 1, (0,), None)
    with pytest.raises(ValueError):
        structs.replace(challenge, asks=(*asks, one_more))


# --- repeats ---------------------------------------------------------------------------------------------------------


def test_a_repeat_asks_for_the_same_units() -> None:
    first = drawn(HOLDING).challenge
    wanted = {ask.contract_id for ask in first.asks[1:3]}
    again = repeat_challenge(first, wanted, RENTER, nonce=bytes(32), now_ms=NOW_MS + 9, answer_within_ms=1000).challenge
    assert again.asks == first.asks[1:3]
    assert (again.sent_at_ms, again.holding) == (NOW_MS + 9, first.holding)
    assert is_repeat(again, first)
    assert not is_drawn(again, HOLDING)
    third = repeat_challenge(again, wanted, RENTER, nonce=b"n" * 32, now_ms=NOW_MS + 99, answer_within_ms=1).challenge
    assert is_repeat(third, again)
    assert not is_repeat(third, first)
    for changes in (
        {"nonce": first.nonce},
        {"sent_at_ms": NOW_MS},
        {"asks": (structs.replace(first.asks[0], units=(0, 1)),)},
        {"farmer_key": OTHER.public_key},
    ):
        assert not is_repeat(structs.replace(again, **changes), first)


def test_what_is_no_repeat_is_not_made() -> None:
    first = drawn(HOLDING).challenge
    ids = {ask.contract_id for ask in first.asks}
    good: dict[str, object] = {"nonce": bytes(32), "now_ms": NOW_MS + 1, "answer_within_ms": 1000}
    for ids_, key, changes in (
        (ids, RENTER, {"nonce": first.nonce}),
        (ids, RENTER, {"nonce": b""}),
        (ids, RENTER, {"now_ms": NOW_MS}),
        (ids, OTHER, {}),
        (set(), RENTER, {}),
    ):
        with pytest.raises(ValueError):
            repeat_challenge(first, ids_, key, **(good | changes))  # type: ignore[arg-type]


def test_salts_are_asked_for_one_a_shard() -> None:
    ask = Ask(ContractId(bytes(32)), ShardRoot(bytes(32)), 5, (), SaltedAsk(0, 1, bytes(32), bytes(32)))
    later = structs.replace(ask, contract_id=ContractId(b"\1" * 32))
    given = {"nonce": NONCE, "now_ms": NOW_MS, "answer_within_ms": ANSWER_WITHIN_MS}
    challenge = salted_challenge([later, ask], PARTIES, RENTER, **given).challenge
    assert challenge.asks == (ask, later)
    assert len(pages_of(challenge)) == 1
    assert not is_drawn(challenge, Holding([HeldShard(a.contract_id, a.shard_root, 5) for a in challenge.asks]))
    for asks in ([], [ask, ask], [structs.replace(ask, units=(0,), salted=None)]):
        with pytest.raises(ValueError):
            salted_challenge(asks, PARTIES, RENTER, **given)
    many = [structs.replace(ask, contract_id=ContractId(n.to_bytes(32, "big"))) for n in range(MAX_ASKS + 1)]
    assert len(pages_of(salted_challenge(many[1:], PARTIES, RENTER, **given).challenge)) == 11
    with pytest.raises(ValueError):
        salted_challenge(many, PARTIES, RENTER, **given)


# --- what a farmer refuses -------------------------------------------------------------------------------------------


def refusal(signed: SignedChallenge, page: int = 0, **changes: object) -> ReasonCode | None:
    given = {
        "network": NETWORK,
        "farmer_key": FARMER.public_key,
        "caller_key": RENTER.public_key,
        "now_ms": NOW_MS,
    }
    try:
        check_challenge(signed, page, **(given | changes))  # type: ignore[arg-type]
    except RefusedError as error:
        return error.code
    return None


def test_the_first_rule_that_fails_names_the_refusal() -> None:
    signed = drawn(HOLDING)
    assert refusal(signed) is None
    assert refusal(signed, now_ms=NOW_MS + ANSWER_WITHIN_MS) is None
    other = structs.replace(signed.challenge, version=2)
    assert refusal(SignedChallenge(other, RENTER.sign(other.digest))) is ReasonCode.WRONG_VERSION
    assert refusal(signed, network=NetworkId("other.net")) is ReasonCode.WRONG_NETWORK
    assert refusal(signed, farmer_key=OTHER.public_key) is ReasonCode.WRONG_RECIPIENT
    assert refusal(signed, caller_key=OTHER.public_key) is ReasonCode.WRONG_IDENTITY
    assert refusal(SignedChallenge(signed.challenge, OTHER.sign(signed.challenge.digest))) is ReasonCode.BAD_SIGNATURE
    assert refusal(signed, now_ms=NOW_MS - 300_001) is ReasonCode.CLOCK_SKEW
    assert refusal(signed, now_ms=NOW_MS + ANSWER_WITHIN_MS + 1) is ReasonCode.STALE
    assert refusal(signed, page=len(pages_of(signed.challenge))) is ReasonCode.MALFORMED
    assert refusal(signed, page=-1) is ReasonCode.MALFORMED


TERMS = draft()
CONTRACT = contract(TERMS)
CONTRACTS = {CONTRACT.contract_id: CONTRACT}
HELD = HeldShard(CONTRACT.contract_id, TERMS.shard_root, TERMS.shard_size_bytes)


def access(
    grants: list[object] | None = None, contracts: object = CONTRACTS, *, auditor: object = RENTER, **changes: object
) -> ReasonCode | None:
    signed = draw_challenge(
        Holding([HELD]),
        Parties(NETWORK, RENTER.public_key, FARMER.public_key),
        auditor,  # type: ignore[arg-type]
        nonce=NONCE,
        wanted=3,
        now_ms=NOW_MS,
        answer_within_ms=1000,
    ).challenge
    if "ask" in changes:
        signed = structs.replace(signed, asks=(structs.replace(signed.asks[0], **changes.pop("ask")),))  # type: ignore[arg-type]
    signed = structs.replace(signed, **changes)
    try:
        check_access(signed, 0, contracts, grants or [], now_ms=NOW_MS)  # type: ignore[arg-type]
    except RefusedError as error:
        return error.code
    return None


def audit_grant(**changes: object) -> object:
    given = {
        "grantee_key": CLIENT.public_key,
        "operation": Operation.AUDIT,
        "expires_ms": NOW_MS + HOUR_MS,
        "serial": SERIAL,
    }
    return issue_grant(TERMS, RENTER, **(given | changes))  # type: ignore[arg-type]


def test_a_renter_asks_about_its_own_contracts_only() -> None:
    assert access() is None
    assert access(contracts={}) is None, "a contract that is not held is answered UNKNOWN"
    assert access([audit_grant()]) is ReasonCode.GRANT_INVALID
    assert access(renter_key=OTHER.public_key, auditor_key=OTHER.public_key) is ReasonCode.NOT_YOUR_CONTRACT
    assert access(ask={"shard_root": ShardRoot(bytes(32))}) is ReasonCode.GRANT_WRONG_SHARD
    assert access(ask={"size_bytes": HELD.size_bytes + 1}) is ReasonCode.GRANT_WRONG_SHARD
    salted = contract(draft(audit=AuditTerms(AuditStrategy.SALTED, DAY_MS, 4)))
    assert access(contracts={HELD.contract_id: salted}) is ReasonCode.BAD_TERMS


def test_anybody_else_needs_a_grant_for_each_shard() -> None:
    assert access([audit_grant()], auditor=CLIENT) is None
    assert access([], auditor=CLIENT) is ReasonCode.GRANT_INVALID
    assert access([audit_grant(), audit_grant()], auditor=CLIENT) is ReasonCode.GRANT_INVALID
    assert access([audit_grant()], auditor=OTHER) is ReasonCode.GRANT_WRONG_GRANTEE
    retrieve = audit_grant(operation=Operation.RETRIEVE)
    assert access([retrieve], auditor=CLIENT) is ReasonCode.GRANT_WRONG_OPERATION
    assert access([audit_grant(end_byte=1)], auditor=CLIENT) is ReasonCode.GRANT_OUT_OF_RANGE
    assert access([audit_grant(expires_ms=NOW_MS)], auditor=CLIENT) is ReasonCode.GRANT_EXPIRED
    assert access([audit_grant()], contracts={}, auditor=CLIENT) is None


def test_units_beyond_the_interval_are_to_be_paid() -> None:
    assert [window_of(TERMS, NOW_MS + at) for at in (-5, 0, DAY_MS - 1, DAY_MS)] == [0, 0, 0, 1]
    assert [billable_units(TERMS, used, 3) for used in (0, 1, 2, 4, 9)] == [0, 0, 1, 3, 3]
    never = draft(audit=AuditTerms(AuditStrategy.SAMPLED, 0, 0))
    assert window_of(never, NOW_MS + DAY_MS) == 0
    assert billable_units(never, 0, 2) == 2
