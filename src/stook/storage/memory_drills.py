"""What restore drills leave behind, in memory: the twin of `catalog_drills`, beside the `MemoryCatalog`."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from stook.errors import ConflictError, NotFoundError
from stook.ids import SegmentId
from stook.storage.drill_ports import (
    DAY_MS,
    BucketProof,
    DrillOutcome,
    DrillSums,
    DrillTarget,
    ObjectProof,
    after,
)
from stook.storage.names import name_bytes
from stook.storage.renter_ports import ObjectEntry, SegmentEntry

Entries = Callable[[], Mapping[str, Mapping[str, ObjectEntry]]]
"""Buckets' objects by name, as they are now."""


class MemoryDrills:
    """`drill_ports.Drills` in dictionaries, under the catalog's lock."""

    def __init__(self, lock: threading.RLock, entries: Entries, segments: Mapping[SegmentId, SegmentEntry]) -> None:
        self._lock = lock
        self._entries = entries
        self._segments = segments
        self._pool: dict[SegmentId, DrillTarget] = {}
        self._days: defaultdict[tuple[str, int], DrillSums] = defaultdict(DrillSums)
        self._certificates: defaultdict[str, list[bytes]] = defaultdict(list)

    def enlist(self, now_ms: int) -> int:
        """See the port."""
        with self._lock:
            fresh = self._used(None) - self._pool.keys()
            for each in fresh:
                entry = self._segments[each]
                self._pool[each] = DrillTarget(each, entry.k, entry.plain_bytes, now_ms)
            return len(fresh)

    def targets(self, buckets: Iterable[str] | None = None) -> list[DrillTarget]:
        """See the port."""
        with self._lock:
            return [self._pool[each] for each in sorted(self._used(buckets)) if each in self._pool]

    def objects_of(self, segment_id: SegmentId) -> list[ObjectEntry]:
        """See the port."""
        with self._lock:
            held = [entry for of in self._entries().values() for entry in of.values()]
        users = [entry for entry in held if segment_id in entry.segment_ids]
        return sorted(users, key=lambda entry: (entry.bucket.encode(), entry.name.encode()))

    def record(self, outcome: DrillOutcome) -> None:
        """See the port."""
        with self._lock:
            before = self._pool.get(outcome.segment_id)
            if before is None:
                return
            self._pool[outcome.segment_id] = after(before, outcome)
            for bucket, held in self._entries().items():
                if any(outcome.segment_id in entry.segment_ids for entry in held.values()):
                    key = bucket, outcome.at_ms // DAY_MS
                    self._days[key] = _plus(
                        self._days[key],
                        DrillSums(1, not outcome.passed, outcome.fetched_bytes, outcome.asked, outcome.refused),
                    )

    def object_proofs(self, bucket: str, names: Iterable[str]) -> Mapping[str, ObjectProof]:
        """See the port."""
        wanted = [name for name in names if name_bytes(name)]
        with self._lock:
            held = self._of(bucket)
            return {name: self._proof(held[name]) for name in wanted if name in held and held[name].segment_ids}

    def bucket_proof(self, bucket: str) -> BucketProof:
        """See the port."""
        with self._lock:
            proofs = [self._proof(entry) for entry in self._of(bucket).values() if entry.segment_ids]
        known = [proof.proved_ms for proof in proofs if proof.proved_ms]
        return BucketProof(
            never=len(proofs) - len(known),
            failing=sum(proof.failing for proof in proofs),
            oldest_ms=min(known, default=0),
            newest_ms=max(known, default=0),
        )

    def sums(self, bucket: str, from_ms: int, until_ms: int) -> DrillSums:
        """See the port."""
        with self._lock:
            self._of(bucket)
            total = DrillSums()
            for (where, day), sums in self._days.items():
                if where == bucket and from_ms // DAY_MS <= day <= until_ms // DAY_MS:
                    total = _plus(total, sums)
            return total

    def fetched_on(self, now_ms: int) -> int:
        """See the port."""
        with self._lock:
            return sum(sums.fetched_bytes for (_, day), sums in self._days.items() if day == now_ms // DAY_MS)

    def add_certificate(self, bucket: str, sequence: int, certificate: bytes) -> None:
        """See the port."""
        with self._lock:
            self._of(bucket)
            last = len(self._certificates[bucket])
            if sequence != last + 1:
                raise ConflictError(f"the next certificate of {bucket!r} is number {last + 1}, not {sequence}")
            self._certificates[bucket].append(certificate)

    def certificates(self, bucket: str, limit: int | None = None) -> Sequence[bytes]:
        """See the port."""
        with self._lock:
            self._of(bucket)
            held = self._certificates[bucket]
            return held[-limit:] if limit else list(held)

    # -- what the catalog forgets

    def forget_bucket(self, bucket: str) -> None:
        """The bucket is deleted. The lock is held."""
        self._certificates.pop(bucket, None)
        for key in [key for key in self._days if key[0] == bucket]:
            del self._days[key]

    def forget_segment(self, segment_id: SegmentId) -> None:
        """The segment is deleted. The lock is held."""
        self._pool.pop(segment_id, None)

    # -- looking

    def _of(self, bucket: str) -> Mapping[str, ObjectEntry]:
        entries = self._entries()
        if bucket not in entries:
            raise NotFoundError(f"there is no bucket {bucket!r}")
        return entries[bucket]

    def _used(self, buckets: Iterable[str] | None) -> set[SegmentId]:
        names = self._entries() if buckets is None else buckets
        return {each for name in names for entry in self._of(name).values() for each in entry.segment_ids}

    def _proof(self, entry: ObjectEntry) -> ObjectProof:
        held = [self._pool.get(each) for each in entry.segment_ids]
        return ObjectProof(
            proved_ms=min(target.proved_ms if target is not None else 0 for target in held),
            failing=any(target is not None and target.failures for target in held),
        )


def _plus(first: DrillSums, second: DrillSums) -> DrillSums:
    return DrillSums(
        first.drills + second.drills,
        first.failed + second.failed,
        first.fetched_bytes + second.fetched_bytes,
        first.asked + second.asked,
        first.refused + second.refused,
    )
