"""Records: who may write what under which key, and what a store of them keeps for others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import contract_samples
from overlay_samples import NETWORK, NOW_MS, contact_of, key_of
from stook.codec import encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.ids import NetworkId, NodeId
from stook.overlay.record_store import (
    CACHED_MS,
    FAR_CACHED_MS,
    REPLICATE_MS,
    Allowance,
    PeerLimits,
    RecordStore,
    StoreLimits,
    life_ms,
)
from stook.overlay.records import (
    DAY_MS,
    HOUR_MS,
    MAX_RECORD_BYTES,
    BridgeEntry,
    OverlayRecord,
    RecordKind,
    SignedRecord,
    announcement_record,
    check_record,
    contact_record,
    newest,
    sign_record,
)

OWNER, OTHER = key_of(5), key_of(6)


def pointer(sequence: int = 1, body: bytes = b"x", *, key: Any = OWNER, **changes: Any) -> SignedRecord:
    facts = {"network": NETWORK, "kind": RecordKind.POINTER, "issued_ms": NOW_MS, **changes}
    return sign_record(key, body=body, sequence=sequence, **facts)


def provider(number: int, *, key: Any = OWNER, sequence: int = 1, issued_ms: int = NOW_MS) -> SignedRecord:
    return sign_record(
        key,
        network=NETWORK,
        kind=RecordKind.PROVIDER,
        subject=number.to_bytes(32, "big"),
        body=encode(contact_of(OTHER)),
        sequence=sequence,
        issued_ms=issued_ms,
    )


def bent(signed: SignedRecord, **fields: Any) -> SignedRecord:
    """The record with other fields, signed anew by its owner."""
    record = msgspec.structs.replace(signed.record, **fields)
    return SignedRecord(record, OWNER.sign(record.digest))


def refusal(signed: SignedRecord, *, now_ms: int = NOW_MS, puzzle: int = 0) -> ReasonCode:
    with pytest.raises((MisbehaviourError, MalformedError)) as caught:
        check_record(signed, network=NETWORK, now_ms=now_ms, puzzle=puzzle)
    return caught.value.code if isinstance(caught.value, MisbehaviourError) else ReasonCode.MALFORMED


def test_good_records_of_every_kind() -> None:
    contact = contact_of(OWNER)
    said = contract_samples.signed_announcement()
    for signed, network in (
        (contact_record(OWNER, contact, now_ms=NOW_MS), NETWORK),
        (announcement_record(contract_samples.FARMER, said, now_ms=NOW_MS), contract_samples.NETWORK),
        (provider(1), NETWORK),
        (pointer(), NETWORK),
        (sign_bridge(contact), NETWORK),
        (pointer(2, b""), NETWORK),
    ):
        check_record(signed, network=network, now_ms=NOW_MS)


def sign_bridge(contact: Any) -> SignedRecord:
    body = encode(BridgeEntry(contact, "b", "u"))
    return sign_record(OWNER, network=NETWORK, kind=RecordKind.BRIDGE, body=body, sequence=1, issued_ms=NOW_MS)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"version": 2}, ReasonCode.WRONG_VERSION),
        ({"network": NetworkId("elsewhere")}, ReasonCode.WRONG_NETWORK),
        ({"kind": 77}, ReasonCode.MALFORMED),
        ({"subject": bytes(20)}, ReasonCode.MALFORMED),
        ({"kind": int(RecordKind.PROVIDER)}, ReasonCode.MALFORMED),
        ({"kind": int(RecordKind.BRIDGE)}, ReasonCode.MALFORMED),
        ({"issued_ms": NOW_MS + 300_001, "expires_ms": NOW_MS + 400_000}, ReasonCode.CLOCK_SKEW),
        ({"expires_ms": NOW_MS}, ReasonCode.MALFORMED),
        ({"expires_ms": NOW_MS + 366 * DAY_MS + 1}, ReasonCode.MALFORMED),
        ({"issued_ms": NOW_MS - 2, "expires_ms": NOW_MS}, ReasonCode.STALE),
        ({"kind": int(RecordKind.CONTACT), "expires_ms": NOW_MS + DAY_MS, "body": b"\x91"}, ReasonCode.MALFORMED),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], code: ReasonCode) -> None:
    assert refusal(bent(pointer(), **fields)) is code


def test_signatures_hold_inside_and_out() -> None:
    good = contact_record(OWNER, contact_of(OWNER), now_ms=NOW_MS)
    assert refusal(SignedRecord(good.record, OTHER.sign(good.record.digest))) is ReasonCode.BAD_SIGNATURE
    assert refusal(bent(good, body=encode(contact_of(OTHER)))) is ReasonCode.MALFORMED, "another's contact"
    contact = contact_of(OWNER)
    forged = type(contact)(contact.contact, OTHER.sign(contact.contact.digest))
    assert refusal(bent(good, body=encode(forged))) is ReasonCode.BAD_SIGNATURE
    assert refusal(bent(provider(1), body=encode(forged))) is ReasonCode.BAD_SIGNATURE
    foreign = contract_samples.signed_announcement()
    announced = bent(good, kind=int(RecordKind.ANNOUNCEMENT), body=encode(foreign))
    assert refusal(announced) is ReasonCode.MALFORMED, "another farmer's announcement"
    assert refusal(bent(sign_bridge(contact), body=encode(BridgeEntry(contact_of(OTHER), "", "")))) is (
        ReasonCode.MALFORMED
    )


def test_a_puzzle_is_asked_of_publishers() -> None:
    assert refusal(pointer(), puzzle=30) is ReasonCode.PUZZLE_UNSOLVED


def test_what_no_record_may_be_is_not_signed() -> None:
    with pytest.raises(ValueError, match="at most 8192"):
        pointer(1, bytes(8193))
    with pytest.raises(ValueError, match="no subject"):
        pointer(subject=bytes(20))
    assert len(encode(pointer(2**63 - 1, bytes(8192)))) <= MAX_RECORD_BYTES


def test_newest_of_each_publisher_and_its_rivals() -> None:
    one, two, rival = pointer(1), pointer(2), pointer(2, b"y")
    other = provider(1, key=OTHER)
    assert set(newest([one, two, other, rival, two])) == {two, rival, other}
    assert newest([]) == ()


# --- the store -------------------------------------------------------------------------------------------------------


def store(**limits: int) -> RecordStore:
    return RecordStore(NodeId(bytes(20)), NETWORK, StoreLimits(**limits))


def code(kept: Any) -> int:
    return int(kept.code)


def test_a_newer_one_takes_the_place_of_an_older_and_never_the_other_way_round() -> None:
    kept = store()
    one, two, rival = pointer(1), pointer(2), pointer(2, b"y")
    first = kept.put(one, nearer=0, now_ms=NOW_MS)
    assert (first.code, first.changed, first.dropped) == (0, True, ())
    assert not kept.put(one, nearer=0, now_ms=NOW_MS).changed, "again"
    second = kept.put(two, nearer=0, now_ms=NOW_MS)
    assert second.dropped == (one,)
    assert code(kept.put(one, nearer=0, now_ms=NOW_MS)) == ReasonCode.STALE
    assert code(kept.put(rival, nearer=0, now_ms=NOW_MS)) == ReasonCode.STALE, "the first of two stays"
    assert kept.get(two.key, now_ms=NOW_MS) == (two,)
    assert len(kept) == 1
    assert kept.size_bytes == len(encode(two))
    bad = SignedRecord(pointer(3).record, one.signature)
    assert code(kept.put(bad, nearer=0, now_ms=NOW_MS)) == ReasonCode.BAD_SIGNATURE
    assert kept.get(two.key, now_ms=NOW_MS) == (two,)


def test_so_many_of_a_key_and_of_a_publisher() -> None:
    kept = store(max_per_key=2, max_per_publisher=3)
    for secret in (11, 12):
        assert code(kept.put(provider(1, key=key_of(secret)), nearer=0, now_ms=NOW_MS)) == 0
    assert code(kept.put(provider(1, key=key_of(13)), nearer=0, now_ms=NOW_MS)) == ReasonCode.NO_SPACE
    assert code(kept.put(provider(1, key=key_of(11), sequence=2), nearer=0, now_ms=NOW_MS)) == 0, "its own newer one"
    for number in (2, 3):
        assert code(kept.put(provider(number, key=key_of(11)), nearer=0, now_ms=NOW_MS)) == 0
    assert code(kept.put(provider(4, key=key_of(11)), nearer=0, now_ms=NOW_MS)) == ReasonCode.NO_SPACE


def test_when_full_the_farthest_leaves_and_kinds_of_chosen_keys_displace_no_others() -> None:
    kept = store(max_records=8, max_per_publisher=64)
    mine = [pointer(key=key_of(secret)) for secret in range(20, 24)]
    for one in mine:
        assert code(kept.put(one, nearer=0, now_ms=NOW_MS)) == 0
    records = sorted((provider(number) for number in range(30)), key=lambda one: one.key)
    for one in records[4:8]:
        assert code(kept.put(one, nearer=0, now_ms=NOW_MS)) == 0
    assert code(kept.put(records[9], nearer=0, now_ms=NOW_MS)) == ReasonCode.NO_SPACE, "farther than all"
    nearer = kept.put(records[0], nearer=0, now_ms=NOW_MS)
    assert (nearer.code, nearer.dropped) == (0, (records[7],))
    for one in records[:4]:
        kept.put(one, nearer=0, now_ms=NOW_MS)
    assert all(kept.get(one.key, now_ms=NOW_MS) == (one,) for one in mine)
    assert len(kept) == 8
    later = NOW_MS + DAY_MS + 1
    fresh = provider(29, issued_ms=later)
    assert code(kept.put(fresh, nearer=0, now_ms=later)) == 0, "expired ones leave first"


def test_a_full_half_is_put_in_order_for_nobody_who_did_not_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store(max_records=4)
    records = sorted((provider(number) for number in range(9)), key=lambda one: one.key)
    for one in records[2:4]:
        assert code(kept.put(one, nearer=0, now_ms=NOW_MS)) == 0
    sorts: list[int] = []
    inner = RecordStore._worst_first

    def counted(self: RecordStore, half: Any, now_ms: int) -> Any:
        sorts.append(now_ms)
        return inner(self, half, now_ms)

    monkeypatch.setattr(RecordStore, "_worst_first", counted)
    for one in records[:2]:
        forged = SignedRecord(one.record, records[5].signature)
        assert code(kept.put(forged, nearer=0, now_ms=NOW_MS)) == ReasonCode.BAD_SIGNATURE
    for one in records[4:]:
        assert code(kept.put(one, nearer=0, now_ms=NOW_MS)) == ReasonCode.NO_SPACE, "farther than all"
    assert not sorts
    assert kept.put(records[0], nearer=0, now_ms=NOW_MS).dropped == (records[3],)
    assert code(kept.put(records[3], nearer=0, now_ms=NOW_MS)) == ReasonCode.NO_SPACE
    assert len(sorts) == 1
    later = NOW_MS + DAY_MS + 1
    assert code(kept.put(provider(8, issued_ms=later), nearer=0, now_ms=later)) == 0, "expired ones leave first"


def test_bytes_are_bounded_too() -> None:
    kept = store(max_bytes=20_000, max_per_publisher=64)
    large = [pointer(key=key_of(secret), body=bytes(4000)) for secret in range(30, 40)]
    answers = [code(kept.put(one, nearer=0, now_ms=NOW_MS)) for one in large]
    assert answers.count(0) >= 2
    assert kept.size_bytes <= 10_000, "half of it is for pointers"


def test_how_long_copies_live() -> None:
    assert life_ms(19, DAY_MS) == DAY_MS
    assert life_ms(20, DAY_MS) == CACHED_MS
    assert life_ms(40, DAY_MS) == FAR_CACHED_MS
    assert life_ms(40, 5) == 5
    kept = store()
    kept.put(pointer(), nearer=20, now_ms=NOW_MS)
    assert kept.get(pointer().key, now_ms=NOW_MS + CACHED_MS - 1)
    assert not kept.get(pointer().key, now_ms=NOW_MS + CACHED_MS)
    assert kept.expire(now_ms=NOW_MS + CACHED_MS) == (pointer(),)
    assert len(kept) == kept.size_bytes == 0


def test_what_is_due_is_named_once_an_hour() -> None:
    kept = store()
    one, two = pointer(), pointer(key=OTHER)
    kept.put(one, nearer=0, now_ms=NOW_MS)
    kept.put(two, nearer=0, now_ms=NOW_MS + 10)
    assert kept.due(9, now_ms=NOW_MS + HOUR_MS - 1) == ()
    assert kept.due(1, now_ms=NOW_MS + HOUR_MS + 20) == (one,)
    assert kept.due(9, now_ms=NOW_MS + HOUR_MS + 20) == (two,)
    assert kept.due(9, now_ms=NOW_MS + HOUR_MS + 20) == ()
    kept.put(one, nearer=0, now_ms=NOW_MS + HOUR_MS + 30)
    assert kept.due(9, now_ms=NOW_MS + HOUR_MS + 20 + REPLICATE_MS) == (two,), "somebody brought the first meanwhile"


def test_a_key_is_answered_within_bounds() -> None:
    kept = store(max_per_key=64, max_bytes=4 << 20)
    body = encode(BridgeEntry(contact_of(OWNER), "b" * 64, "u" * 256))
    assert len(body) < 1000
    for secret in range(100, 140):
        key = key_of(secret)
        entry = encode(BridgeEntry(contact_of(key), "", ""))
        kept.put(
            sign_record(key, network=NETWORK, kind=RecordKind.BRIDGE, body=entry, sequence=1, issued_ms=NOW_MS),
            nearer=0,
            now_ms=NOW_MS,
        )
    found = kept.get(sign_bridge(contact_of(OWNER)).key, now_ms=NOW_MS)
    assert len(found) == 32


# --- allowances ------------------------------------------------------------------------------------------------------


def test_an_allowance_fills_again_and_peers_are_forgotten() -> None:
    limits = PeerLimits(Allowance(burst=3, per_second=2), max_peers=2)
    one, two, three = (NodeId(bytes([number]) * 20) for number in (1, 2, 3))
    assert [limits.wait_ms(one, 1, now_ms=0) for _ in range(4)] == [0, 0, 0, 501]
    assert limits.wait_ms(one, 1, now_ms=500) == 0
    assert limits.wait_ms(one, 1, now_ms=400) > 0, "a clock set back gives nothing"
    assert limits.wait_ms(two, 3, now_ms=500) == 0
    assert limits.wait_ms(three, 4, now_ms=500) > 0, "more than it ever has"
    assert limits.wait_ms(one, 3, now_ms=500) == 0, "forgotten: it was not seen for longest"


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError):
        pointer().record.sequence = 9  # type: ignore[misc]
    assert isinstance(pointer().record, OverlayRecord)
