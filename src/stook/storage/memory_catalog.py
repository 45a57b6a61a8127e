"""A catalog in memory, for the simulator and for tests. It keeps every promise of the port but the durable ones."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stook.errors import ConflictError, NotFoundError
from stook.ids import SegmentId
from stook.storage.memory_drills import MemoryDrills
from stook.storage.names import bucket_name_bytes, common_prefix, name_bytes, prefix_bytes
from stook.storage.renter_ports import (
    MAX_LIST,
    Bucket,
    BucketTotals,
    Listing,
    ObjectEntry,
    ObjectSummary,
    SegmentEntry,
    Upload,
    UploadOverError,
    VersionConflictError,
)


@dataclass(slots=True)
class _Bucket:
    facts: Bucket
    floor: int = 0
    objects: dict[str, ObjectEntry] = field(default_factory=dict)


@dataclass(slots=True)
class _Upload:
    facts: Upload
    segments: dict[int, SegmentId] = field(default_factory=dict)


class MemoryCatalog:
    """`renter_ports.Catalog` in dictionaries, under one lock. What is garbage is found by looking at everything."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._buckets: dict[str, _Bucket] = {}
        self._segments: dict[SegmentId, SegmentEntry] = {}
        self._uploads: dict[bytes, _Upload] = {}
        self.drills = MemoryDrills(
            self._lock, lambda: {name: each.objects for name, each in self._buckets.items()}, self._segments
        )

    def close(self) -> None:
        """Nothing to let go of."""

    # -- buckets

    def create_bucket(self, bucket: Bucket) -> None:
        """See the port."""
        bucket_name_bytes(bucket.name)
        with self._lock:
            if bucket.name in self._buckets:
                raise ConflictError(f"there is a bucket {bucket.name!r} already")
            self._buckets[bucket.name] = _Bucket(bucket)

    def bucket(self, name: str) -> Bucket:
        """See the port."""
        with self._lock:
            return self._of(name).facts

    def buckets(self) -> list[Bucket]:
        """See the port."""
        with self._lock:
            return [self._buckets[name].facts for name in sorted(self._buckets, key=str.encode)]

    def delete_bucket(self, name: str) -> None:
        """See the port."""
        with self._lock:
            if self._of(name).objects:
                raise ConflictError(f"the bucket {name!r} is not empty")
            del self._buckets[name]
            self.drills.forget_bucket(name)
            self._uploads = {key: each for key, each in self._uploads.items() if each.facts.bucket != name}

    def totals(self, bucket: str) -> BucketTotals:
        """See the port."""
        with self._lock:
            held = self._of(bucket).objects.values()
            return BucketTotals(len(held), sum(each.size_bytes for each in held))

    # -- objects

    def next_versions(self, bucket: str, names: Iterable[str]) -> Mapping[str, int]:
        """See the port."""
        with self._lock:
            of = self._of(bucket)
            return {name: self._highest(of, name) + 1 for name in names if name_bytes(name)}

    def commit(
        self,
        entries: Sequence[ObjectEntry],
        segments: Sequence[SegmentEntry] = (),
        *,
        upload_id: bytes | None = None,
        expected: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        """See the port."""
        with self._lock:
            self._check_versions(entries, expected or {})
            fresh = self._check_new(segments)
            if upload_id is not None and upload_id not in self._uploads:
                raise UploadOverError(upload_id)
            dead = self._dead()
            for segment_id in (each for entry in entries for each in entry.segment_ids):
                if segment_id in dead:
                    raise ConflictError(f"segment {segment_id.hex()} is given up already: seal it anew")
                if segment_id not in self._segments and segment_id not in fresh:
                    raise NotFoundError(f"there is no segment {segment_id.hex()}")
            self._segments.update(fresh)
            if upload_id is not None:
                del self._uploads[upload_id]
            for entry in entries:
                self._buckets[entry.bucket].objects[entry.name] = entry

    def get(self, bucket: str, name: str) -> ObjectEntry | None:
        """See the port."""
        return self.get_many(bucket, [name]).get(name)

    def get_many(self, bucket: str, names: Iterable[str]) -> Mapping[str, ObjectEntry]:
        """See the port."""
        wanted = [name for name in names if name_bytes(name)]
        with self._lock:
            held = self._of(bucket).objects
            return {name: held[name] for name in wanted if name in held}

    def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """See the port."""
        if not 1 <= limit <= MAX_LIST:
            raise ValueError(f"a page has 1 to {MAX_LIST} names, not {limit}")
        begin, mark, low = prefix_bytes(prefix), prefix_bytes(delimiter), prefix_bytes(after)
        shown: list[ObjectEntry | str] = []
        more = False
        with self._lock:
            for entry in sorted(self._of(bucket).objects.values(), key=lambda each: each.name.encode()):
                name = entry.name.encode()
                folded = common_prefix(name, begin, mark)
                if not name.startswith(begin) or name <= low or (folded is not None and low.startswith(folded)):
                    continue
                item = entry if folded is None else folded.decode()
                if shown and shown[-1] == item:
                    continue
                if len(shown) == limit:
                    more = True
                    break
                shown.append(item)
        last = shown[-1] if more else None
        return Listing(
            objects=tuple(
                ObjectSummary(each.name, each.version, each.size_bytes, each.modified_ms, each.content_hash)
                for each in shown
                if isinstance(each, ObjectEntry)
            ),
            prefixes=tuple(each for each in shown if isinstance(each, str)),
            next_after=last.name if isinstance(last, ObjectEntry) else last,
        )

    def delete(self, bucket: str, name: str, *, expected: int | None = None, at_ms: int = 0) -> bool:
        """See the port."""
        name_bytes(name)
        with self._lock:
            present = self._of(bucket).objects.get(name)
            if expected is not None and expected != (0 if present is None else present.version):
                raise VersionConflictError([(bucket, name)])
            return bool(self.delete_many(bucket, [name]))

    def delete_many(self, bucket: str, names: Iterable[str], *, at_ms: int = 0) -> frozenset[str]:
        """See the port."""
        wanted = [name for name in names if name_bytes(name)]
        with self._lock:
            of = self._of(bucket)
            gone = frozenset(name for name in wanted if name in of.objects)
            for name in gone:
                of.floor = max(of.floor, of.objects.pop(name).version)
            return gone

    # -- segments

    def segments(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, SegmentEntry]:
        """See the port."""
        with self._lock:
            return {each: self._segments[each] for each in segment_ids if each in self._segments}

    def segment_ids(self, after: bytes, limit: int) -> list[SegmentId]:
        """See the port."""
        with self._lock:
            entries = (entry for bucket in self._buckets.values() for entry in bucket.objects.values())
            used = {each for entry in entries for each in entry.segment_ids}
            return sorted(each for each in used if each > after)[:limit]

    def known_segments(self, segment_ids: Iterable[SegmentId]) -> frozenset[SegmentId]:
        """See the port."""
        return frozenset(self.segments(segment_ids))

    def garbage(self, limit: int) -> list[SegmentId]:
        """See the port."""
        with self._lock:
            dead = self._dead()
            return [each for each in self._segments if each in dead][:limit]

    def confirm_released(self, segment_ids: Iterable[SegmentId]) -> None:
        """See the port."""
        with self._lock:
            for each in self._dead().intersection(segment_ids):
                del self._segments[each]
                self.drills.forget_segment(each)

    # -- uploads

    def begin_upload(self, upload: Upload) -> Upload:
        """See the port."""
        name_bytes(upload.name)
        with self._lock:
            self._of(upload.bucket)
            what = (upload.bucket, upload.name, upload.fingerprint)
            for each in self._uploads.values():
                if (each.facts.bucket, each.facts.name, each.facts.fingerprint) == what:
                    each.facts = replace(each.facts, touched_ms=upload.touched_ms)
                    return each.facts
            if upload.upload_id in self._uploads:
                raise ConflictError("one of these uploads exists already")
            self._uploads[upload.upload_id] = _Upload(upload)
            return upload

    def add_upload_segment(self, upload_id: bytes, ordinal: int, segment: SegmentEntry, at_ms: int) -> None:
        """See the port."""
        with self._lock:
            upload = self._uploads.get(upload_id)
            if upload is None:
                raise UploadOverError(upload_id)
            self._segments.update(self._check_new([segment]))
            upload.segments[ordinal] = segment.segment_id
            upload.facts = replace(upload.facts, touched_ms=at_ms)

    def upload_segments(self, upload_id: bytes) -> Mapping[int, SegmentEntry]:
        """See the port."""
        with self._lock:
            upload = self._uploads.get(upload_id)
            held = {} if upload is None else upload.segments
            return {ordinal: self._segments[held[ordinal]] for ordinal in sorted(held)}

    def abandon_upload(self, upload_id: bytes) -> bool:
        """See the port."""
        with self._lock:
            return self._uploads.pop(upload_id, None) is not None

    def stale_uploads(self, touched_before_ms: int, limit: int) -> list[Upload]:
        """See the port."""
        with self._lock:
            stale = [each.facts for each in self._uploads.values() if each.facts.touched_ms < touched_before_ms]
        return sorted(stale, key=lambda each: each.touched_ms)[:limit]

    # -- rules

    def _of(self, name: str) -> _Bucket:
        if name not in self._buckets:
            raise NotFoundError(f"there is no bucket {name!r}")
        return self._buckets[name]

    def _highest(self, of: _Bucket, name: str) -> int:
        return of.objects[name].version if name in of.objects else of.floor

    def _check_versions(self, entries: Sequence[ObjectEntry], expected: Mapping[tuple[str, str], int]) -> None:
        wrong = []
        for (bucket, name), version in expected.items():
            present = self._of(bucket).objects.get(name)
            if version != (0 if present is None else present.version):
                wrong.append((bucket, name))
        seen = set()
        for each in entries:
            name_bytes(each.name)
            key = (each.bucket, each.name)
            if each.version <= self._highest(self._of(each.bucket), each.name) or key in seen:
                wrong.append(key)
            seen.add(key)
        if wrong:
            raise VersionConflictError(wrong)

    def _check_new(self, segments: Sequence[SegmentEntry]) -> dict[SegmentId, SegmentEntry]:
        fresh = {each.segment_id: each for each in segments}
        if len(fresh) < len(segments) or fresh.keys() & self._segments.keys():
            raise ConflictError("one of these segments exists already")
        return fresh

    def _dead(self) -> set[SegmentId]:
        dead = set(self._segments)
        for bucket in self._buckets.values():
            for entry in bucket.objects.values():
                dead.difference_update(entry.segment_ids)
        for upload in self._uploads.values():
            dead.difference_update(upload.segments.values())
        return dead
