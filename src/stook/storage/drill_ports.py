"""What restore drills leave behind in the owner's catalog: which segment was proved when, and the signed certificates.

The same promises hold as for the `Catalog`, of which this is a part: calls block, are safe from several threads and
processes, and each writing call is one transaction (`docs/formats/catalog.md`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stook.ids import SegmentId
from stook.merkle import UNIT_BYTES
from stook.storage.renter_ports import ObjectEntry

DAY_MS = 24 * 3_600_000
ROWS_BYTES = 32
"""A bit for each of the 255 code rows, row 0 being the lowest bit of the first byte."""
MAX_WHY_CHARS = 500


@dataclass(frozen=True, slots=True)
class DrillTarget:
    """One segment that objects refer to, and what drills made of it so far. Times are 0 for never."""

    segment_id: SegmentId
    k: int
    plain_bytes: int
    since_ms: int
    """When it came into the pool that drills are drawn from."""
    tried_ms: int = 0
    proved_ms: int = 0
    """The last drill that brought every byte back."""
    spot_ms: int = 0
    """The last such drill that was drawn over everything, whatever its age."""
    failures: int = 0
    """Drills that failed since it was proved last."""
    rows: bytes = bytes(ROWS_BYTES)
    """Code rows whose farmers gave them back since the last time around."""
    why: str = ""
    """What the last failure was; empty when the last drill passed."""

    @property
    def fetch_bytes(self) -> int:
        """What a drill of it fetches, as long as every farmer does what it should."""
        stripe = self.k * UNIT_BYTES
        return -(-self.plain_bytes // stripe) * stripe


@dataclass(frozen=True, slots=True)
class DrillOutcome:
    """How one drill of one segment ended."""

    segment_id: SegmentId
    at_ms: int
    passed: bool
    spot: bool
    rows: bytes
    """`DrillTarget.rows` from now on."""
    fetched_bytes: int
    asked: int
    """Shards that farmers were asked for."""
    refused: int
    """Those among them that did not come, or came false."""
    why: str = ""


def after(target: DrillTarget, outcome: DrillOutcome) -> DrillTarget:
    """The target once the outcome is recorded. Pure."""
    now = replace(target, tried_ms=outcome.at_ms, rows=outcome.rows)
    if not outcome.passed:
        return replace(now, failures=target.failures + 1, why=outcome.why[:MAX_WHY_CHARS])
    spot_ms = outcome.at_ms if outcome.spot else target.spot_ms
    return replace(now, proved_ms=outcome.at_ms, spot_ms=spot_ms, failures=0, why="")


@dataclass(frozen=True, slots=True)
class ObjectProof:
    """When every byte of an object was last proved to come back: the oldest proof among its segments."""

    proved_ms: int
    """0: some of it never was."""
    failing: bool
    """The last drill of one of its segments failed."""


@dataclass(frozen=True, slots=True)
class BucketProof:
    """`ObjectProof` over a bucket's objects. Empty ones have nothing at farmers and are not counted."""

    never: int
    """Objects of which some bytes were never proved."""
    failing: int
    oldest_ms: int
    """Of those that were proved, the oldest; 0 for none."""
    newest_ms: int


@dataclass(frozen=True, slots=True)
class DrillSums:
    """What drills of a bucket's segments came to over some whole days (UTC)."""

    drills: int = 0
    failed: int = 0
    fetched_bytes: int = 0
    asked: int = 0
    refused: int = 0


class Drills(Protocol):
    """The catalog's memory of restore drills."""

    def enlist(self, now_ms: int) -> int:
        """Put segments that objects refer to into the pool, as of now; how many were new to it."""
        ...

    def targets(self, buckets: Iterable[str] | None = None) -> list[DrillTarget]:
        """The pool, of these buckets' objects or of all, each segment once, in order of segment id.

        Raises `NotFoundError` without one of the buckets.
        """
        ...

    def objects_of(self, segment_id: SegmentId) -> list[ObjectEntry]:
        """The objects that refer to a segment, by bucket and name; none for an unknown one."""
        ...

    def record(self, outcome: DrillOutcome) -> None:
        """Keep how a drill ended: with its segment, and in the sums of every bucket that uses it.

        A segment that is not in the pool any more is ignored: its objects were removed meanwhile.
        """
        ...

    def object_proofs(self, bucket: str, names: Iterable[str]) -> Mapping[str, ObjectProof]:
        """For those of `names` that exist and have bytes at farmers. Raises `NotFoundError` without the bucket."""
        ...

    def bucket_proof(self, bucket: str) -> BucketProof:
        """Raises `NotFoundError` without the bucket."""
        ...

    def sums(self, bucket: str, from_ms: int, until_ms: int) -> DrillSums:
        """Over the days that these two moments and all between lie in. Raises `NotFoundError` without the bucket."""
        ...

    def fetched_on(self, now_ms: int) -> int:
        """Bytes that drills fetched on the day (UTC) of `now_ms`, all buckets together."""
        ...

    def add_certificate(self, bucket: str, sequence: int, certificate: bytes) -> None:
        """Keep the next certificate of a bucket: `sequence` is one more than the last, or 1.

        Raises `ConflictError` for any other number, `NotFoundError` without the bucket. They go with their bucket.
        """
        ...

    def certificates(self, bucket: str, limit: int | None = None) -> Sequence[bytes]:
        """The newest `limit`, or all, in order of their numbers. Raises `NotFoundError` without the bucket."""
        ...
