from __future__ import annotations

import pytest
from msgspec import structs

from contract_samples import (
    FARMER,
    NETWORK,
    NOW_MS,
    OTHER,
    RENTER,
    SHARD_BYTES,
    announcement,
    contract,
    draft,
    signed_announcement,
)
from stook.codec import encode
from stook.contracts.announcement import (
    ANNOUNCEMENT_LIFE_MS,
    MAX_CLOCK_SKEW_MS,
    SignedAnnouncement,
    is_fresh,
    known_settlements,
    sign_announcement,
    verify_announcement,
)
from stook.contracts.contract import (
    MAX_ABSENCES,
    MAX_CONTRACT_BYTES,
    Absence,
    AuditStrategy,
    AuditTerms,
    Contract,
    Settlement,
    Terms,
)
from stook.contracts.messages import ClaimAnswer, ClaimReply
from stook.contracts.negotiation import (
    DAY_MS,
    HOUR_MS,
    MAX_AUDIT_LEAVES,
    MAX_BEGIN_SKEW_MS,
    MAX_CONSIGN_WINDOW_MS,
    MAX_GRACE_MS,
    Declined,
    accept_offer,
    check_draft,
    check_terms,
    countersign,
    read_claim_reply,
    sign_offer,
    verify_contract,
)
from stook.contracts.receipt import (
    sign_erase_receipt,
    sign_storage_receipt,
    verify_erase_receipt,
    verify_storage_receipt,
)
from stook.contracts.topics import criteria_of
from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.ids import NetworkId, PublicKey, ShardRoot, Signature

BIG = 2**63 - 1
END = draft().end_ms


def audit(leaves: int = 4, interval_ms: int = DAY_MS, strategy: AuditStrategy = AuditStrategy.SAMPLED) -> AuditTerms:
    return AuditTerms(strategy=strategy, interval_ms=interval_ms, leaves_per_interval=leaves)


def judge(terms: Terms) -> None:
    check_draft(terms, announcement=announcement(), renter_key=RENTER.public_key, now_ms=NOW_MS)


ACCEPTABLE = {
    "as it stands": {},
    "nothing said of its kind": {"criteria": b"\0\0\0\0"},
    "smallest": {"shard_size_bytes": 16384},
    "largest": {"shard_size_bytes": 4 << 20},
    "dearer": {"storage_price_per_gib_hour": BIG, "download_price_per_gib": BIG},
    "shortest": {"end_ms": NOW_MS + DAY_MS, "criteria": b"\0\0\0\0"},
    "longest": {"end_ms": NOW_MS + 90 * DAY_MS},
    "earliest begin": {"begin_ms": NOW_MS - MAX_BEGIN_SKEW_MS},
    "latest begin": {"begin_ms": NOW_MS + MAX_BEGIN_SKEW_MS},
    "last moment to consign": {"consign_by_ms": NOW_MS + MAX_CONSIGN_WINDOW_MS},
    "soonest consign": {"consign_by_ms": NOW_MS + 1},
    "never audited": {"audit": audit(leaves=0, interval_ms=0)},
    "audited most": {"audit": audit(leaves=MAX_AUDIT_LEAVES, interval_ms=60_000)},
    "two absences": {"absences": (Absence(NOW_MS, NOW_MS + 5), Absence(NOW_MS + 5, END))},
    "longest grace": {"grace_ms": MAX_GRACE_MS},
    "no memo": {"memo": b""},
}

REFUSED = [
    ("other version", {"version": 2}, ReasonCode.WRONG_VERSION),
    ("other network", {"network": "other"}, ReasonCode.WRONG_NETWORK),
    ("other farmer", {"farmer_key": OTHER.public_key}, ReasonCode.WRONG_RECIPIENT),
    ("other child of the farmer", {"farmer_index": 1}, ReasonCode.WRONG_RECIPIENT),
    ("other renter", {"renter_key": OTHER.public_key}, ReasonCode.NOT_YOUR_CONTRACT),
    ("odd size", {"shard_size_bytes": 100_000}, ReasonCode.SHARD_SIZE_UNSUPPORTED),
    ("no bytes", {"shard_size_bytes": 0}, ReasonCode.SHARD_SIZE_UNSUPPORTED),
    ("under the ladder", {"shard_size_bytes": 8192}, ReasonCode.SHARD_SIZE_UNSUPPORTED),
    ("over the ladder", {"shard_size_bytes": 8 << 20}, ReasonCode.SHARD_SIZE_UNSUPPORTED),
    ("ends at its begin", {"end_ms": NOW_MS}, ReasonCode.BAD_TERMS),
    ("consigned after the end", {"consign_by_ms": END + 1}, ReasonCode.BAD_TERMS),
    ("salted audits", {"audit": audit(strategy=AuditStrategy.SALTED)}, ReasonCode.BAD_TERMS),
    ("too many leaves", {"audit": audit(leaves=MAX_AUDIT_LEAVES + 1)}, ReasonCode.BAD_TERMS),
    ("audited too often", {"audit": audit(interval_ms=59_999)}, ReasonCode.BAD_TERMS),
    ("a destination without a chain", {"payment_destination": b"\1" * 20}, ReasonCode.BAD_TERMS),
    ("a chain without a destination", {"settlement": Settlement.EVM}, ReasonCode.BAD_TERMS),
    (
        "a settlement that is not offered",
        {"settlement": Settlement.EVM, "payment_destination": b"\1" * 20},
        ReasonCode.WRONG_SETTLEMENT,
    ),
    ("criteria untrue of the size", {"criteria": bytes((2, 2, 2, 2))}, ReasonCode.BAD_TERMS),
    ("criteria untrue of the duration", {"criteria": bytes((1, 3, 2, 2))}, ReasonCode.BAD_TERMS),
    ("criteria out of range", {"criteria": bytes((1, 2, 4, 2))}, ReasonCode.BAD_TERMS),
    ("absence before the begin", {"absences": (Absence(NOW_MS - 1, NOW_MS + 1),)}, ReasonCode.BAD_TERMS),
    ("absence after the end", {"absences": (Absence(NOW_MS, END + 1),)}, ReasonCode.BAD_TERMS),
    ("empty absence", {"absences": (Absence(NOW_MS, NOW_MS),)}, ReasonCode.BAD_TERMS),
    (
        "absences overlap",
        {"absences": (Absence(NOW_MS, NOW_MS + 5), Absence(NOW_MS + 4, NOW_MS + 9))},
        ReasonCode.BAD_TERMS,
    ),
    ("collateral", {"collateral": 1}, ReasonCode.BAD_TERMS),
    ("endless grace", {"grace_ms": MAX_GRACE_MS + 1}, ReasonCode.BAD_TERMS),
    ("a later revision", {"revision": 1, "origin": b"\1" * 32}, ReasonCode.BAD_TERMS),
    ("an origin in revision 0", {"origin": b"\1" * 32}, ReasonCode.BAD_TERMS),
    ("a later revision of nothing", {"revision": 1}, ReasonCode.BAD_TERMS),
    ("cheap storage", {"storage_price_per_gib_hour": 10**12 - 1}, ReasonCode.PRICE_TOO_LOW),
    ("cheap downloads", {"download_price_per_gib": 10**15 - 1}, ReasonCode.PRICE_TOO_LOW),
    ("begun long ago", {"begin_ms": NOW_MS - MAX_BEGIN_SKEW_MS - 1}, ReasonCode.BAD_TERMS),
    ("begun in a while", {"begin_ms": NOW_MS + MAX_BEGIN_SKEW_MS + 1}, ReasonCode.BAD_TERMS),
    ("too short", {"end_ms": NOW_MS + DAY_MS - 1, "criteria": b"\0\0\0\0"}, ReasonCode.TOO_SHORT),
    ("too long", {"end_ms": NOW_MS + 90 * DAY_MS + 1, "criteria": b"\0\0\0\0"}, ReasonCode.TOO_LONG),
    ("consign-by is now", {"consign_by_ms": NOW_MS}, ReasonCode.CONSIGN_TOO_LATE),
    ("consign-by is far off", {"consign_by_ms": NOW_MS + MAX_CONSIGN_WINDOW_MS + 1}, ReasonCode.BAD_TERMS),
]


@pytest.mark.parametrize("changes", ACCEPTABLE.values(), ids=ACCEPTABLE.keys())
def test_a_draft_that_a_farmer_may_sign(changes: dict[str, object]) -> None:
    judge(draft(**changes))


@pytest.mark.parametrize(("changes", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_each_bad_field_has_its_reason(changes: dict[str, object], code: ReasonCode) -> None:
    with pytest.raises(RefusedError) as caught:
        judge(draft(**changes))
    assert caught.value.code is code
    assert 0 < len(caught.value.detail) <= 200


def test_every_field_of_the_terms_has_a_refusal_or_needs_none() -> None:
    # memo: any bytes within its bound; renter_index: the renter's own affair; shard_root: judged when it arrives.
    free = {"memo", "renter_index", "shard_root"}
    assert {name for _, changes, _ in REFUSED for name in changes} | free == set(Terms.__struct_fields__)


def test_keys_must_be_points_and_differ() -> None:
    nonsense = PublicKey(b"\x02" + b"\xff" * 32)
    for changes in ({"renter_key": nonsense}, {"farmer_key": nonsense}, {"renter_key": FARMER.public_key}):
        with pytest.raises(RefusedError) as caught:
            check_terms(draft(**changes))
        assert caught.value.code is ReasonCode.BAD_TERMS


def test_a_shard_larger_than_the_farmer_takes_is_refused() -> None:
    small = announcement(max_shard_bytes=SHARD_BYTES // 2)
    with pytest.raises(RefusedError) as caught:
        check_draft(draft(), announcement=small, renter_key=RENTER.public_key, now_ms=NOW_MS)
    assert caught.value.code is ReasonCode.SHARD_SIZE_UNSUPPORTED


def test_an_evm_contract_is_possible_where_it_is_offered() -> None:
    terms = draft(settlement=Settlement.EVM, payment_destination=b"\1" * 20)
    check_draft(terms, announcement=announcement(settlements=(0, 1)), renter_key=RENTER.public_key, now_ms=NOW_MS)


def test_both_sign_and_anyone_can_check() -> None:
    terms = draft()
    offer = sign_offer(terms, FARMER)
    assert accept_offer(terms, offer).renter_signature == b""
    signed = countersign(terms, offer, RENTER)
    verify_contract(signed, NETWORK)
    assert signed.contract_id == terms.digest == terms.contract_id


def test_the_renter_verifies_the_farmer_before_it_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = draft()

    def never(self: object, digest: bytes) -> Signature:
        raise AssertionError("signed for a farmer that had not signed")

    bad = OTHER.sign(terms.digest)
    monkeypatch.setattr(type(RENTER), "sign", never)
    for forged in (bad, Signature(b""), Signature(bytes(64))):
        with pytest.raises(MisbehaviourError) as caught:
            countersign(terms, forged, RENTER)
        assert caught.value.code is ReasonCode.BAD_SIGNATURE


def test_nobody_signs_for_somebody_else() -> None:
    terms = draft()
    with pytest.raises(ValueError, match="farmer"):
        sign_offer(terms, OTHER)
    with pytest.raises(ValueError, match="renter"):
        countersign(terms, sign_offer(terms, FARMER), OTHER)
    with pytest.raises(ValueError, match="farmer"):
        sign_storage_receipt(terms, RENTER, NOW_MS)
    with pytest.raises(ValueError, match="farmer"):
        sign_erase_receipt(terms, RENTER, 0, NOW_MS)
    with pytest.raises(ValueError, match="itself"):
        sign_announcement(announcement(), OTHER)


def test_a_contract_that_is_none() -> None:
    signed = contract()
    missing = structs.replace(signed, renter_signature=Signature(b""))
    swapped = Contract(signed.terms, signed.renter_signature, signed.farmer_signature)
    for bad in (missing, swapped):
        with pytest.raises(MisbehaviourError) as caught:
            verify_contract(bad, NETWORK)
        assert caught.value.code is ReasonCode.BAD_SIGNATURE
    with pytest.raises(MisbehaviourError) as caught:
        verify_contract(signed, NetworkId("other"))
    assert caught.value.code is ReasonCode.WRONG_NETWORK
    with pytest.raises(MisbehaviourError) as caught:
        verify_contract(contract(draft(version=2)), NETWORK)
    assert caught.value.code is ReasonCode.WRONG_VERSION
    # A "first" revision that names another contract's id would pass for a renewal of it.
    with pytest.raises(MisbehaviourError) as caught:
        verify_contract(contract(draft(origin=b"\1" * 32)), NETWORK)
    assert caught.value.code is ReasonCode.BAD_TERMS


def test_the_largest_contract_fits_its_bound() -> None:
    largest = draft(
        network="n" * 32,
        renter_index=2**32 - 1,
        farmer_index=2**32 - 1,
        shard_size_bytes=BIG,
        begin_ms=BIG,
        end_ms=BIG,
        consign_by_ms=BIG,
        audit=AuditTerms(AuditStrategy.SALTED, BIG, 2**32 - 1),
        storage_price_per_gib_hour=BIG,
        download_price_per_gib=BIG,
        payment_destination=b"\xff" * 64,
        criteria=b"\xff" * 4,
        absences=(Absence(BIG, BIG),) * MAX_ABSENCES,
        collateral=BIG,
        grace_ms=BIG,
        memo=b"\xff" * 128,
        revision=2**32 - 1,
        origin=b"\xff" * 32,
    )
    assert len(encode(contract(largest))) <= MAX_CONTRACT_BYTES


# --- the claim's reply -----------------------------------------------------------------------------------------------


def answer(terms: Terms, code: int = 0, signature: Signature | None = None) -> ClaimAnswer:
    if signature is None:
        signature = Signature(b"") if code else sign_offer(terms, FARMER)
    return ClaimAnswer(contract_id=terms.contract_id, code=code, detail="why", farmer_signature=signature)


def test_answers_stand_beside_their_drafts() -> None:
    drafts = [draft(shard_root=ShardRoot(bytes((number,)) * 32)) for number in range(3)]
    reply = ClaimReply(answers=(answer(drafts[0]), answer(drafts[1], code=400), answer(drafts[2])))
    first, second, third = read_claim_reply(drafts, reply)
    assert isinstance(first, Contract)
    assert isinstance(third, Contract)
    assert second == Declined(drafts[1], ReasonCode.NO_SPACE, "why")


def test_answers_to_something_else_are_not_used() -> None:
    one, two = draft(), draft(memo=b"other")
    for answers in ((), (answer(two),), (answer(one), answer(two)), (answer(two), answer(one))):
        with pytest.raises(MisbehaviourError) as caught:
            read_claim_reply([one], ClaimReply(answers=answers))
        assert caught.value.code is ReasonCode.UNBOUND_REPLY


def test_a_yes_without_a_signature_is_misbehaviour() -> None:
    one, two = draft(), draft(memo=b"other")
    for signature in (Signature(b""), sign_offer(two, FARMER)):
        with pytest.raises(MisbehaviourError) as caught:
            read_claim_reply([one], ClaimReply(answers=(answer(one, signature=signature),)))
        assert caught.value.code is ReasonCode.BAD_SIGNATURE


# --- receipts --------------------------------------------------------------------------------------------------------


def test_receipts_are_checked_against_their_contract() -> None:
    agreed = contract()
    stored = sign_storage_receipt(agreed.terms, FARMER, NOW_MS)
    verify_storage_receipt(stored, agreed)
    erased = sign_erase_receipt(agreed.terms, FARMER, 123, NOW_MS)
    verify_erase_receipt(erased, agreed)
    for other in (contract(draft(memo=b"other")), contract(draft(farmer_key=OTHER.public_key), farmer=OTHER)):
        with pytest.raises(MisbehaviourError) as caught:
            verify_storage_receipt(stored, other)
        assert caught.value.code is ReasonCode.UNBOUND_REPLY
        with pytest.raises(MisbehaviourError) as caught:
            verify_erase_receipt(erased, other)
        assert caught.value.code is ReasonCode.UNBOUND_REPLY


def test_a_receipt_for_fewer_bytes_is_none() -> None:
    agreed = contract()
    short = structs.replace(sign_storage_receipt(agreed.terms, FARMER, NOW_MS).receipt, size_bytes=101)
    forged = structs.replace(sign_storage_receipt(agreed.terms, FARMER, NOW_MS), receipt=short)
    with pytest.raises(MisbehaviourError) as caught:
        verify_storage_receipt(forged, agreed)
    assert caught.value.code is ReasonCode.UNBOUND_REPLY


def test_an_erase_receipt_is_no_storage_receipt() -> None:
    agreed = contract()
    stored = sign_storage_receipt(agreed.terms, FARMER, NOW_MS)
    erased = sign_erase_receipt(agreed.terms, FARMER, SHARD_BYTES, NOW_MS)
    crossed = structs.replace(stored, signature=erased.signature)
    with pytest.raises(MisbehaviourError) as caught:
        verify_storage_receipt(crossed, agreed)
    assert caught.value.code is ReasonCode.BAD_SIGNATURE
    # The two have the same shape, so only their tags keep them apart.
    assert encode(stored.receipt) == encode(erased.receipt)


# --- announcements ---------------------------------------------------------------------------------------------------


def test_an_announcement_is_its_farmers_own() -> None:
    signed = signed_announcement()
    verify_announcement(signed, network=NETWORK, now_ms=NOW_MS)
    assert signed.node_id == FARMER.node_id
    cheaper = structs.replace(signed.announcement, storage_price_per_gib_hour=1)
    with pytest.raises(MisbehaviourError) as caught:
        verify_announcement(SignedAnnouncement(cheaper, signed.signature), network=NETWORK, now_ms=NOW_MS)
    assert caught.value.code is ReasonCode.BAD_SIGNATURE
    with pytest.raises(MisbehaviourError) as caught:
        verify_announcement(signed, network=NetworkId("other"), now_ms=NOW_MS)
    assert caught.value.code is ReasonCode.WRONG_NETWORK


def test_a_contact_that_its_node_did_not_sign_is_refused() -> None:
    plain = announcement()
    moved = structs.replace(plain.contact, contact=structs.replace(plain.contact.contact, sequence=9))
    signed = sign_announcement(structs.replace(plain, contact=moved), FARMER)
    with pytest.raises(MisbehaviourError) as caught:
        verify_announcement(signed, network=NETWORK, now_ms=NOW_MS)
    assert caught.value.code is ReasonCode.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"free_bytes": (1 << 40) + 1}, ReasonCode.MALFORMED),
        ({"min_duration_ms": 91 * DAY_MS}, ReasonCode.MALFORMED),
        ({"settlements": (1, 0)}, ReasonCode.MALFORMED),
        ({"settlements": (0, 0)}, ReasonCode.MALFORMED),
        ({"settlements": (-1, 0)}, ReasonCode.MALFORMED),
        ({"issued_ms": NOW_MS + MAX_CLOCK_SKEW_MS + 1}, ReasonCode.CLOCK_SKEW),
    ],
)
def test_an_announcement_that_cannot_be_true(changes: dict[str, object], code: ReasonCode) -> None:
    with pytest.raises(MisbehaviourError) as caught:
        verify_announcement(signed_announcement(**changes), network=NETWORK, now_ms=NOW_MS)
    assert caught.value.code is code


def test_announcements_age_and_may_offer_what_we_do_not_know() -> None:
    signed = signed_announcement(settlements=(0, 7))
    verify_announcement(signed, network=NETWORK, now_ms=NOW_MS + 10 * ANNOUNCEMENT_LIFE_MS)
    assert known_settlements(signed.announcement) == {Settlement.LEDGER}
    assert is_fresh(signed.announcement, NOW_MS + ANNOUNCEMENT_LIFE_MS - 1)
    assert not is_fresh(signed.announcement, NOW_MS + ANNOUNCEMENT_LIFE_MS)


def test_criteria_of_a_draft_are_what_the_factory_says() -> None:
    assert draft().criteria == criteria_of(SHARD_BYTES, draft().end_ms - draft().begin_ms)
    assert HOUR_MS * 24 == DAY_MS
