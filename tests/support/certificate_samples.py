"""Certificates of one bucket, made from numbers that are written down here; and the golden vectors of the format."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stook.codec import encode
from stook.hashing import Tag
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, SegmentId
from stook.renter.certificate import (
    CertificateFile,
    SignedCertificate,
    draft_certificate,
    period_of,
    sign_certificate,
)
from stook.storage.drill_ports import DrillSums, DrillTarget
from stook.storage.renter_ports import Bucket, BucketTotals

OWNER = NodeKey.from_secret(bytes(31) + b"\7")
NETWORK = NetworkId("example")
BUCKET = Bucket("photos", bytes(range(16)), bytes(32), created_ms=7)
MIB = 1 << 20
DAY_MS = 24 * 3_600_000
NONE = DrillSums()


def target(number: int, mib: int = 1, **what: int) -> DrillTarget:
    return replace(DrillTarget(SegmentId(number.to_bytes(16, "big")), 4, mib * MIB, since_ms=1000), **what)


def certify(
    *targets: DrillTarget, now_ms: int, last: SignedCertificate | None = None, sums: DrillSums = NONE
) -> SignedCertificate:
    certificate = draft_certificate(
        BUCKET,
        BucketTotals(objects=len(targets), size_bytes=sum(each.plain_bytes for each in targets)),
        targets,
        sums,
        period_of(targets, now_ms),
        network=NETWORK,
        key=OWNER,
        last=last,
    )
    return sign_certificate(certificate, OWNER)


def chain() -> list[SignedCertificate]:
    """Nothing drilled; then half of it, by spot checks too; then one that fails; then all of it."""
    pool = [target(number, number % 3 + 1) for number in range(20)]
    first = certify(*pool, now_ms=1000)
    for number in range(10):
        spot = 5000 if number % 2 else 0
        pool[number] = replace(pool[number], tried_ms=5000, proved_ms=5000, spot_ms=spot)
    second = certify(*pool, now_ms=6000, last=first, sums=DrillSums(11, 1, 25 * MIB, 44, 3))
    failing = replace(pool[0], tried_ms=7000, failures=3, why="too few")
    third = certify(failing, *pool[1:], now_ms=DAY_MS, last=second, sums=DrillSums(14, 4, 27 * MIB, 60, 19))
    whole = [replace(each, tried_ms=9000 + number, proved_ms=9000 + number) for number, each in enumerate(pool)]
    return [first, second, third, certify(*whole, now_ms=2 * DAY_MS, last=third, sums=DrillSums(40, 4, 90 * MIB))]


def spelled(signed: SignedCertificate) -> dict[str, Any]:
    certificate = signed.certificate
    values = {name: getattr(certificate, name) for name in certificate.__struct_fields__}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}


def made() -> dict[str, Any]:
    """`tests/vectors/data/certificate-v1.json`, whose values are never changed."""
    signed = chain()
    return {
        "tag": {"name": Tag.CERTIFICATE.value, "key": Tag.CERTIFICATE.key.hex()},
        "certificates": [
            {"fields": spelled(each), "digest": each.certificate.digest.hex(), "encoded": encode(each).hex()}
            for each in signed
        ],
        "file": encode(CertificateFile(1, tuple(signed))).hex(),
    }
