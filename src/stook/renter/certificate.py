"""The restore certificate: what drills of one bucket came to, signed by its owner, checkable by a stranger. Pure.

Nobody is asked to believe more than the numbers give: the share that may be unreadable follows from the other fields,
and whoever checks a certificate computes it again (`docs/formats/certificate.md`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Annotated

from msgspec import Meta

from stook.audits.confidence import largest_unseen_fraction
from stook.codec import Record, decode, encode
from stook.errors import MisbehaviourError, ReasonCode
from stook.hashing import DIGEST_BYTES, Tag, tagged_hash
from stook.identity.keys import NodeKey
from stook.identity.keys import verify as verify_signature
from stook.ids import Bytes32Field, NetworkId, NetworkIdField, PublicKeyField, SignatureField, U63Field
from stook.storage.drill_ports import DrillSums, DrillTarget
from stook.storage.renter_ports import Bucket, BucketTotals

CERTIFICATE_VERSION = 1
FILE_VERSION = 1
MAX_CHAIN = 1000
PERIOD_MS = 30 * 24 * 3_600_000
MILLION = 1_000_000
CONFIDENCE_PPM = 950_000
NO_PREVIOUS = bytes(DIGEST_BYTES)

_Version = Annotated[int, Meta(ge=1, le=255)]


class Certificate(Record):
    """The signed text. Field order is the format."""

    version: _Version
    network: NetworkIdField
    owner_key: PublicKeyField
    bucket_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    sequence: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    previous: Bytes32Field
    """Digest of the bucket's certificate before; zeros in the first."""
    from_ms: U63Field
    until_ms: U63Field
    objects: U63Field
    object_bytes: U63Field
    segments: U63Field
    segment_bytes: U63Field
    proved_segments: U63Field
    proved_bytes: U63Field
    failing_segments: U63Field
    failing_bytes: U63Field
    oldest_proof_ms: U63Field
    drills: U63Field
    drills_failed: U63Field
    fetched_bytes: U63Field
    shards_asked: U63Field
    shards_refused: U63Field
    settled_bytes: U63Field
    settled_proved_bytes: U63Field
    spot_checks: U63Field
    confidence_ppm: Annotated[int, Meta(ge=0, lt=MILLION)]
    unreadable_ppm: Annotated[int, Meta(ge=0, le=MILLION)]

    def __post_init__(self) -> None:
        parts = (
            (self.from_ms, self.until_ms),
            (self.proved_segments + self.failing_segments, self.segments),
            (self.proved_bytes + self.failing_bytes, self.segment_bytes),
            (self.drills_failed, self.drills),
            (self.shards_refused, self.shards_asked),
            (self.settled_bytes, self.segment_bytes),
            (self.settled_proved_bytes, min(self.settled_bytes, self.proved_bytes)),
            (self.proved_bytes - self.settled_proved_bytes, self.segment_bytes - self.settled_bytes),
            (self.spot_checks, self.proved_segments),
        )
        if any(part > whole for part, whole in parts):
            raise ValueError("the numbers of a certificate contradict each other")
        if (self.sequence == 1) != (self.previous == NO_PREVIOUS):
            raise ValueError("the first certificate of a bucket has none before it, every other has one")

    @property
    def digest(self) -> bytes:
        """What the owner signs."""
        return tagged_hash(Tag.CERTIFICATE, encode(self))

    @property
    def unproved_bytes(self) -> int:
        """Bytes in segments whose last drill did not pass, or not in the period."""
        return self.segment_bytes - self.proved_bytes


class SignedCertificate(Record):
    """A certificate with its owner's signature."""

    certificate: Certificate
    signature: SignatureField


class CertificateFile(Record):
    """Certificates of one bucket, each the next of the one before."""

    version: _Version
    certificates: Annotated[tuple[SignedCertificate, ...], Meta(min_length=1, max_length=MAX_CHAIN)]


# --- what a certificate claims ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What drills made of a bucket's segments in a period: the numbers that the claim follows from."""

    segment_bytes: int
    proved_bytes: int
    failing_segments: int
    settled_bytes: int
    settled_proved_bytes: int
    spot_checks: int


def unreadable_at_most(found: Found, confidence_ppm: int = CONFIDENCE_PPM) -> int:
    """The largest share of the bytes that could be unreadable at this confidence, in millionths, rounded up.

    Certain is what was not proved. While nothing is failing, spot checks say more: had they missed a larger share of
    what was there all the time, that would have been a surprise.
    """
    if not found.segment_bytes:
        return 0
    unproved = found.segment_bytes - found.proved_bytes
    worst = Fraction(unproved)
    if not found.failing_segments:
        settled = found.settled_bytes - found.settled_proved_bytes
        share = Fraction(largest_unseen_fraction(found.spot_checks, confidence_ppm / MILLION))
        worst = (unproved - settled) + min(Fraction(settled), found.settled_bytes * share)
    return ceil(worst * MILLION / found.segment_bytes)


def _claims(certificate: Certificate) -> Found:
    return Found(*(getattr(certificate, name) for name in Found.__dataclass_fields__))


# --- making ----------------------------------------------------------------------------------------------------------


def period_of(targets: Iterable[DrillTarget], now_ms: int) -> tuple[int, int]:
    """The period of a certificate that is issued now: 30 days, or less while the oldest segment is younger in the pool.

    It does not hang on how any drill went, which a sample needs.
    """
    first = min((target.since_ms for target in targets), default=now_ms)
    return min(now_ms, max(0, now_ms - PERIOD_MS, first)), now_ms


def is_proved(target: DrillTarget, from_ms: int) -> bool:
    """Whether its last drill passed, and not before the period."""
    return not target.failures and target.proved_ms > 0 and target.proved_ms >= from_ms


def draft_certificate(
    bucket: Bucket,
    totals: BucketTotals,
    targets: Sequence[DrillTarget],
    sums: DrillSums,
    period: tuple[int, int],
    *,
    network: NetworkId,
    key: NodeKey,
    last: SignedCertificate | None,
) -> Certificate:
    """The next certificate of a bucket. `targets` are all its segments, `sums` those of the days of `period`."""
    from_ms, until_ms = period
    proved = [each for each in targets if is_proved(each, from_ms)]
    failing = [each for each in targets if each.failures]
    settled = [each for each in targets if each.since_ms <= from_ms]
    settled_proved = [each for each in settled if is_proved(each, from_ms)]
    found = Found(
        segment_bytes=_bytes(targets),
        proved_bytes=_bytes(proved),
        failing_segments=len(failing),
        settled_bytes=_bytes(settled),
        settled_proved_bytes=_bytes(settled_proved),
        spot_checks=sum(each.spot_ms > 0 and each.spot_ms >= from_ms for each in settled_proved),
    )
    return Certificate(
        version=CERTIFICATE_VERSION,
        network=network,
        owner_key=key.public_key,
        bucket_id=bucket.bucket_id,
        sequence=1 if last is None else last.certificate.sequence + 1,
        previous=NO_PREVIOUS if last is None else last.certificate.digest,
        from_ms=from_ms,
        # The machine's clock may have been set back; a chain runs forward all the same.
        until_ms=until_ms if last is None else max(until_ms, last.certificate.until_ms),
        objects=totals.objects,
        object_bytes=totals.size_bytes,
        segments=len(targets),
        segment_bytes=found.segment_bytes,
        proved_segments=len(proved),
        proved_bytes=found.proved_bytes,
        failing_segments=len(failing),
        failing_bytes=_bytes(failing),
        oldest_proof_ms=min((each.proved_ms for each in proved), default=0),
        drills=sums.drills,
        drills_failed=sums.failed,
        fetched_bytes=sums.fetched_bytes,
        shards_asked=sums.asked,
        shards_refused=sums.refused,
        settled_bytes=found.settled_bytes,
        settled_proved_bytes=found.settled_proved_bytes,
        spot_checks=found.spot_checks,
        confidence_ppm=CONFIDENCE_PPM,
        unreadable_ppm=unreadable_at_most(found),
    )


def _bytes(targets: Iterable[DrillTarget]) -> int:
    return sum(target.plain_bytes for target in targets)


def sign_certificate(certificate: Certificate, key: NodeKey) -> SignedCertificate:
    """The owner's signature under it. Raises `ValueError` when `key` is not the owner's."""
    if key.public_key != certificate.owner_key:
        raise ValueError("only a bucket's owner signs its certificates")
    return SignedCertificate(certificate, key.sign(certificate.digest))


# --- checking --------------------------------------------------------------------------------------------------------


def verify_certificate(signed: SignedCertificate, before: SignedCertificate | None = None) -> None:
    """Whether a certificate holds by itself, and follows the one `before` if that is given.

    Raises `MisbehaviourError`: WRONG_VERSION; BAD_SIGNATURE; BAD_TERMS when it claims another share than its numbers
    give; HASH_MISMATCH when it is not the next.
    """
    certificate = signed.certificate
    if certificate.version != CERTIFICATE_VERSION:
        raise _fault(ReasonCode.WRONG_VERSION, f"certificate version {certificate.version}, not {CERTIFICATE_VERSION}")
    if not verify_signature(certificate.owner_key, certificate.digest, signed.signature):
        raise _fault(ReasonCode.BAD_SIGNATURE, "its owner did not sign this certificate")
    given = unreadable_at_most(_claims(certificate), certificate.confidence_ppm)
    if abs(given - certificate.unreadable_ppm) > 1:
        raise _fault(
            ReasonCode.BAD_TERMS, f"it claims {certificate.unreadable_ppm} millionths, its numbers give {given}"
        )
    if before is not None and not _follows(certificate, before.certificate):
        raise _fault(
            ReasonCode.HASH_MISMATCH, f"number {certificate.sequence} does not follow {before.certificate.sequence}"
        )


def _follows(later: Certificate, earlier: Certificate) -> bool:
    return (
        (later.network, later.owner_key, later.bucket_id) == (earlier.network, earlier.owner_key, earlier.bucket_id)
        and later.sequence == earlier.sequence + 1
        and later.previous == earlier.digest
        and later.until_ms >= earlier.until_ms
    )


def read_certificate_file(data: bytes) -> CertificateFile:
    """The certificates of a file, not verified yet. Raises `MalformedError`, `MisbehaviourError` (WRONG_VERSION)."""
    file = decode(CertificateFile, data)
    if file.version != FILE_VERSION:
        raise _fault(ReasonCode.WRONG_VERSION, f"file version {file.version}, not {FILE_VERSION}")
    return file


def verify_chain(certificates: Sequence[SignedCertificate]) -> None:
    """Whether each holds and follows the one before it. Raises as `verify_certificate`."""
    for signed in certificates[:1]:
        verify_certificate(signed)
    for before, signed in pairwise(certificates):
        verify_certificate(signed, before)


def _fault(code: ReasonCode, message: str) -> MisbehaviourError:
    return MisbehaviourError(code, message)
