from __future__ import annotations

import pytest
from msgspec import structs

from contract_samples import FARMER, NOW_MS, OTHER, RENTER, announcement, contract, draft
from stook.contracts.contract import Absence, AuditStrategy, AuditTerms, Contract, Settlement, Terms
from stook.contracts.messages import Renew
from stook.contracts.negotiation import DAY_MS, HOUR_MS, MAX_BEGIN_SKEW_MS, sign_offer
from stook.contracts.renewal import (
    RENEWABLE,
    WITH_OWNER,
    changed_fields,
    check_renewal,
    next_revision,
    renewed_contract,
    sign_renewal,
    supersedes,
)
from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.identity.keys import NodeKey
from stook.ids import Signature

LATER_MS = NOW_MS + 50 * DAY_MS
LONGER = {"end_ms": NOW_MS + 120 * DAY_MS, "criteria": b"\0\0\0\0"}


def judge(old: Contract, request: Renew, *, caller: NodeKey = RENTER, now_ms: int = LATER_MS) -> None:
    check_renewal(old, request, announcement=announcement(), caller_key=caller.public_key, now_ms=now_ms)


def refused(old: Contract, request: Renew, *, caller: NodeKey = RENTER, now_ms: int = LATER_MS) -> ReasonCode:
    with pytest.raises(RefusedError) as caught:
        judge(old, request, caller=caller, now_ms=now_ms)
    return caught.value.code


GOOD = {
    "longer": LONGER,
    "dearer from now on": LONGER | {"begin_ms": LATER_MS, "storage_price_per_gib_hour": 10**13},
    "audited more": LONGER | {"audit": AuditTerms(AuditStrategy.SAMPLED, HOUR_MS, 8)},
    "absent then": LONGER | {"absences": (Absence(NOW_MS + 70 * DAY_MS, NOW_MS + 71 * DAY_MS),)},
    "shorter": {"end_ms": LATER_MS + 1},
    "nothing new": {},
}


@pytest.mark.parametrize("changes", GOOD.values(), ids=GOOD.keys())
def test_a_renewal_within_the_rules(changes: dict[str, object]) -> None:
    old = contract()
    request = sign_renewal(next_revision(old, **changes), RENTER)
    judge(old, request)
    new = renewed_contract(request, sign_offer(request.terms, FARMER))
    assert new.contract_id == old.contract_id
    assert supersedes(new, old)
    assert not supersedes(old, new)


FOREIGN: dict[str, object] = {
    "version": 2,
    "network": "other",
    "farmer_key": OTHER.public_key,
    "farmer_index": 1,
    "shard_root": b"\1" * 32,
    "shard_size_bytes": 16384,
    "consign_by_ms": NOW_MS + 2 * HOUR_MS,
    "settlement": Settlement.EVM,
    "collateral": 1,
    "grace_ms": 1,
    "memo": b"mine now",
    "renter_index": 1,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_every_other_field_is_not_renewable(name: str) -> None:
    old = contract()
    request = sign_renewal(next_revision(old, **{name: FOREIGN[name]}), RENTER)
    assert refused(old, request) is ReasonCode.FIELD_NOT_RENEWABLE


def test_every_field_of_the_terms_is_decided() -> None:
    assert set(FOREIGN) | RENEWABLE | {"revision", "origin"} == set(Terms.__struct_fields__)
    assert set(FOREIGN) >= WITH_OWNER


def test_the_difference_names_exactly_the_changed_fields() -> None:
    one = draft()
    assert changed_fields(one, one) == frozenset()
    two = structs.replace(one, end_ms=5, memo=b"")
    assert changed_fields(one, two) == {"end_ms", "memo"}


def test_revisions_follow_one_another() -> None:
    old = contract()
    good = next_revision(old, **LONGER)
    for wrong in ({"revision": 2}, {"revision": 0}, {"origin": b"\1" * 32}, {"origin": b""}):
        assert refused(old, sign_renewal(structs.replace(good, **wrong), RENTER)) is ReasonCode.BAD_TERMS
    first = Contract(good, sign_offer(good, FARMER), RENTER.sign(good.digest))
    second = next_revision(first, end_ms=NOW_MS + 130 * DAY_MS)
    assert (second.revision, second.origin) == (2, old.contract_id)
    judge(first, sign_renewal(second, RENTER))


def test_times_and_prices_have_rules() -> None:
    old = contract()

    def asked(**changes: object) -> Renew:
        return sign_renewal(next_revision(old, **({"criteria": b"\0\0\0\0"} | changes)), RENTER)

    assert refused(old, asked(begin_ms=NOW_MS - 1)) is ReasonCode.BAD_TERMS
    gap = NOW_MS + 60 * DAY_MS + 1
    assert refused(old, asked(begin_ms=gap, end_ms=gap + DAY_MS)) is ReasonCode.BAD_TERMS
    assert refused(old, asked(end_ms=LATER_MS)) is ReasonCode.TOO_SHORT
    assert refused(old, asked(end_ms=LATER_MS + 90 * DAY_MS + 1)) is ReasonCode.TOO_LONG
    judge(old, asked(end_ms=LATER_MS + 90 * DAY_MS))
    assert refused(old, asked(storage_price_per_gib_hour=1, begin_ms=LATER_MS)) is ReasonCode.PRICE_TOO_LOW
    # The past is not priced anew.
    dearer = {"download_price_per_gib": 10**16}
    assert refused(old, asked(**dearer)) is ReasonCode.BAD_TERMS
    assert refused(old, asked(begin_ms=LATER_MS - MAX_BEGIN_SKEW_MS - 1, **dearer)) is ReasonCode.BAD_TERMS
    judge(old, asked(begin_ms=LATER_MS - MAX_BEGIN_SKEW_MS, **dearer))
    assert refused(old, asked(**LONGER), now_ms=NOW_MS + 60 * DAY_MS) is ReasonCode.CONTRACT_ENDED


def test_an_owner_hands_over_with_its_consent() -> None:
    old = contract()
    terms = next_revision(old, renter_key=OTHER.public_key, renter_index=7, memo=b"mine now", **LONGER)
    request = sign_renewal(terms, OTHER, previous=RENTER)
    for caller in (RENTER, OTHER):
        judge(old, request, caller=caller)
    assert refused(old, request, caller=FARMER) is ReasonCode.NOT_YOUR_CONTRACT
    assert renewed_contract(request, sign_offer(terms, FARMER)).terms.renter_key == OTHER.public_key


def test_nobody_takes_a_contract_over() -> None:
    old = contract()
    terms = next_revision(old, renter_key=OTHER.public_key, **LONGER)
    for consent in (Signature(b""), OTHER.sign(terms.consent_digest), RENTER.sign(terms.digest)):
        request = structs.replace(sign_renewal(terms, OTHER), previous_signature=consent)
        assert refused(old, request, caller=OTHER) is ReasonCode.BAD_SIGNATURE
    unsigned = structs.replace(sign_renewal(terms, OTHER, previous=RENTER), renter_signature=RENTER.sign(terms.digest))
    assert refused(old, unsigned) is ReasonCode.BAD_SIGNATURE
    kept = next_revision(old, **LONGER)
    assert refused(old, sign_renewal(kept, RENTER, previous=RENTER)) is ReasonCode.BAD_TERMS
    with pytest.raises(ValueError, match="owner"):
        sign_renewal(kept, OTHER)


def test_a_renewal_that_the_farmer_did_not_sign() -> None:
    old = contract()
    request = sign_renewal(next_revision(old, **LONGER), RENTER)
    with pytest.raises(MisbehaviourError) as caught:
        renewed_contract(request, old.farmer_signature)
    assert caught.value.code is ReasonCode.BAD_SIGNATURE


def test_two_texts_of_one_revision_are_an_alarm() -> None:
    old = contract()
    one = next_revision(old, **LONGER)
    two = next_revision(old, **(LONGER | {"end_ms": NOW_MS + 100 * DAY_MS}))
    signed = [renewed_contract(sign_renewal(terms, RENTER), sign_offer(terms, FARMER)) for terms in (one, two)]
    with pytest.raises(MisbehaviourError) as caught:
        supersedes(*signed)
    assert caught.value.code is ReasonCode.BAD_TERMS
    assert not supersedes(signed[0], contract(draft(memo=b"other")))
