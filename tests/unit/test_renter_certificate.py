"""What a restore certificate claims, and what is refused of one."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from certificate_samples import DAY_MS, MIB, OWNER, certify, chain, target
from stook.audits.confidence import largest_unseen_fraction
from stook.codec import decode, encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode
from stook.identity.keys import NodeKey
from stook.renter.certificate import (
    PERIOD_MS,
    Certificate,
    CertificateFile,
    SignedCertificate,
    period_of,
    read_certificate_file,
    sign_certificate,
    verify_certificate,
    verify_chain,
)


def proved(number: int, at_ms: int = 2000, *, spot: bool = False, mib: int = 1, since_ms: int = 1000):
    spot_ms = at_ms if spot else 0
    return target(number, mib, since_ms=since_ms, tried_ms=at_ms, proved_ms=at_ms, spot_ms=spot_ms)


# --- the claim -------------------------------------------------------------------------------------------------------


def test_nothing_drilled_proves_nothing() -> None:
    certificate = certify(target(1), target(2), now_ms=3000).certificate
    assert (certificate.proved_bytes, certificate.oldest_proof_ms, certificate.unreadable_ppm) == (0, 0, 1_000_000)


def test_everything_drilled_leaves_nothing_open() -> None:
    certificate = certify(proved(1, 2000), proved(2, 2500), now_ms=3000).certificate
    assert (certificate.proved_segments, certificate.unreadable_ppm) == (2, 0)
    assert certificate.oldest_proof_ms == 2000


def test_an_empty_bucket_has_nothing_to_lose() -> None:
    certificate = certify(now_ms=3000).certificate
    assert (certificate.from_ms, certificate.until_ms, certificate.unreadable_ppm) == (3000, 3000, 0)


def test_without_spot_checks_only_what_was_proved_counts() -> None:
    certificate = certify(*(proved(number) for number in range(3)), target(3), now_ms=3000).certificate
    assert certificate.unreadable_ppm == 250_000


def test_spot_checks_speak_for_what_was_there_all_the_time() -> None:
    pool = [proved(number, spot=True) for number in range(100)] + [target(number) for number in range(100, 400)]
    certificate = certify(*pool, now_ms=3000).certificate
    share = largest_unseen_fraction(100, 0.95)
    assert share == pytest.approx(0.0295, abs=1e-3)
    assert certificate.unreadable_ppm == pytest.approx(share * 1e6, abs=1)
    later = [target(number, since_ms=2500) for number in range(400, 500)]
    mixed = certify(*pool, *later, now_ms=3000).certificate
    assert (mixed.settled_bytes, mixed.spot_checks) == (400 * MIB, 100)
    assert mixed.unreadable_ppm == pytest.approx((100 + 400 * share) / 500 * 1e6, abs=1), "the new ones are not drawn"


def test_a_failure_voids_the_sample() -> None:
    pool = [proved(number, spot=True) for number in range(100)] + [target(number) for number in range(100, 399)]
    failing = target(399, tried_ms=2000, failures=1)
    certificate = certify(*pool, failing, now_ms=3000).certificate
    assert certificate.unreadable_ppm == 750_000
    assert (certificate.failing_segments, certificate.failing_bytes) == (1, MIB)


def test_an_old_proof_counts_no_more() -> None:
    now = PERIOD_MS + 10_000
    certificate = certify(proved(1, 2000), proved(2, now - 5), now_ms=now).certificate
    assert (certificate.from_ms, certificate.proved_segments) == (10_000, 1)
    assert certificate.unreadable_ppm == 500_000


def test_a_failing_segment_is_not_proved_whatever_it_was_before() -> None:
    was = replace(proved(1), tried_ms=2500, failures=1)
    assert certify(was, now_ms=3000).certificate.proved_segments == 0


def test_the_period_begins_with_the_pool() -> None:
    assert period_of([target(1, since_ms=500), target(2, since_ms=900)], 1000) == (500, 1000)
    assert period_of([target(1, since_ms=2000)], 1000) == (1000, 1000), "a clock was set back"
    assert period_of([], 1000) == (1000, 1000)


# --- the chain and the signature -------------------------------------------------------------------------------------


def refused(signed: SignedCertificate, before: SignedCertificate | None = None) -> ReasonCode:
    with pytest.raises(MisbehaviourError) as caught:
        verify_certificate(signed, before)
    return caught.value.code


def test_a_chain_holds_link_by_link() -> None:
    signed = chain()
    verify_chain(signed)
    verify_chain(signed[1:])
    assert refused(signed[2], signed[0]) is ReasonCode.HASH_MISMATCH
    other = sign_certificate(msgspec.structs.replace(signed[1].certificate, drills=12), OWNER)
    verify_certificate(other, signed[0])
    assert refused(signed[2], other) is ReasonCode.HASH_MISMATCH


@pytest.mark.parametrize(
    "change", [{"bucket_id": bytes(16)}, {"network": "other"}, {"until_ms": 6000 - 1}, {"sequence": 4}]
)
def test_another_buckets_or_times_link_is_refused(change: dict) -> None:
    _, second, third, *_ = chain()
    bent = sign_certificate(msgspec.structs.replace(third.certificate, **change), OWNER)
    verify_certificate(bent)
    assert refused(bent, second) is ReasonCode.HASH_MISMATCH


def test_only_the_owner_signs() -> None:
    signed = chain()[1]
    stranger = NodeKey.from_secret(bytes(31) + b"\x09")
    with pytest.raises(ValueError, match="owner"):
        sign_certificate(signed.certificate, stranger)
    assert refused(SignedCertificate(signed.certificate, chain()[0].signature)) is ReasonCode.BAD_SIGNATURE


def test_a_claim_that_the_numbers_do_not_give_is_refused() -> None:
    certificate = chain()[1].certificate
    assert certificate.unreadable_ppm > 10
    for claim, fine in ((0, False), (1, True), (2, False)):
        shifted = certificate.unreadable_ppm - claim if claim else 0
        bent = sign_certificate(msgspec.structs.replace(certificate, unreadable_ppm=shifted), OWNER)
        if fine:
            verify_certificate(bent)
        else:
            assert refused(bent) is ReasonCode.BAD_TERMS


def test_an_unknown_version_is_refused() -> None:
    bent = sign_certificate(msgspec.structs.replace(chain()[0].certificate, version=2), OWNER)
    assert refused(bent) is ReasonCode.WRONG_VERSION
    with pytest.raises(MisbehaviourError, match="file version"):
        read_certificate_file(encode(CertificateFile(2, tuple(chain()))))


@pytest.mark.parametrize(
    "change",
    [
        {"until_ms": 0},
        {"proved_segments": 21},
        {"failing_segments": 11},
        {"proved_bytes": 2**40},
        {"failing_bytes": 2**40},
        {"drills_failed": 12},
        {"shards_refused": 45},
        {"settled_bytes": 2**40},
        {"settled_proved_bytes": 2**40},
        {"spot_checks": 11},
        {"sequence": 1},
        {"previous": bytes(32)},
        {"confidence_ppm": 1_000_000},
        {"unreadable_ppm": 1_000_001},
    ],
)
def test_what_contradicts_itself_does_not_decode(change: dict) -> None:
    certificate = chain()[1].certificate
    values = [change.get(name, getattr(certificate, name)) for name in Certificate.__struct_fields__]
    with pytest.raises(MalformedError):
        decode(Certificate, encode(values))


def test_a_clock_set_back_does_not_break_the_chain() -> None:
    first = certify(proved(1), now_ms=DAY_MS)
    second = certify(proved(1), now_ms=5000, last=first)
    verify_certificate(second, first)
    assert second.certificate.until_ms == DAY_MS
