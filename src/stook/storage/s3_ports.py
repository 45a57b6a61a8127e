"""What the catalog keeps for S3 beside buckets and objects, as promises (`docs/formats/catalog.md`).

Everything that two gateways could race for is decided inside one transaction of the catalog: conditions of a write,
which version is current, what a lock forbids. No caller holds an answer in memory and acts on it later.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from msgspec import Meta

from stook.codec import Record
from stook.errors import ConflictError, NotFoundError, StookError, UserError
from stook.ids import SegmentId
from stook.shards.pointer import MAX_EXTENTS, Extent
from stook.storage.renter_ports import Bucket, ObjectEntry

MAX_PARTS = 10_000
MAX_FACT_BYTES = 1 << 20
"""An upper bound on any encoded blob beside an object, a part or a bucket."""

_Text = Annotated[str, Meta(max_length=16_384)]
_Word = Annotated[str, Meta(max_length=128)]
Pairs = Annotated[tuple[tuple[_Text, _Text], ...], Meta(max_length=2_100)]
"""Names and values: more do not fit into a request's headers."""


class ConditionFailedError(ConflictError):
    """A write or delete came with a condition that does not hold now; nothing was changed."""

    def __init__(self, condition: str, message: str) -> None:
        super().__init__(message)
        self.condition = condition
        """The header's name."""


class MissingError(NotFoundError):
    """A condition names what is there, and nothing is; or there is no such version, upload or part."""


class BucketStateError(ConflictError):
    """The bucket's state forbids it: suspending versions of a bucket with object lock, for one."""


class LockedError(UserError):
    """A retention or a legal hold keeps this version."""

    exit_code = ConflictError.exit_code


class Versioning(enum.IntEnum):
    """What an overwrite does to what was there. The numbers are the stored format."""

    NEVER = 0
    ENABLED = 1
    SUSPENDED = 2


class Standing(enum.IntEnum):
    """What a row of `objects` is. The numbers are the stored format."""

    CURRENT = 0
    """What the name stands for now."""
    OLD = 1
    """A version that another has taken the place of."""
    MARKER = 2
    """A delete marker: as the latest version, it means that the name stands for nothing."""


class Retention(enum.IntEnum):
    """The numbers are the stored format."""

    NONE = 0
    GOVERNANCE = 1
    COMPLIANCE = 2


@dataclass(frozen=True, slots=True)
class Lock:
    """What keeps one version from being deleted."""

    retention: Retention = Retention.NONE
    until_ms: int = 0
    legal_hold: bool = False

    def forbids(self, now_ms: int, *, bypass: bool) -> bool:
        """Whether the version must stay; `bypass` is leave to pass over GOVERNANCE."""
        if self.legal_hold:
            return True
        if self.retention is Retention.NONE or self.until_ms <= now_ms:
            return False
        return not (bypass and self.retention is Retention.GOVERNANCE)


class ObjectFacts(Record):
    """What S3 clients said of an object, to be said back to them. Field order is the format."""

    headers: Pairs
    """Content-Type and its like, names in lower case, ascending."""
    metadata: Pairs
    """What came as ``x-amz-meta-…``, names in lower case without that, ascending."""
    checksum: tuple[_Word, _Word, _Word] | None
    """Algorithm, value in base64, FULL_OBJECT or COMPOSITE."""
    part_bytes: Annotated[tuple[int, ...], Meta(max_length=MAX_PARTS)]
    """Sizes of its parts, when it came in parts."""
    multipart_id: Annotated[bytes, Meta(max_length=16)]
    """The upload it came by, so that completing that again is answered again."""


def make_facts(
    headers: Pairs = (),
    metadata: Pairs = (),
    checksum: tuple[str, str, str] | None = None,
    part_bytes: tuple[int, ...] = (),
    multipart_id: bytes = b"",
) -> ObjectFacts:
    """`ObjectFacts` of what there is: records themselves have no defaults, for a value has one encoding."""
    return ObjectFacts(headers, metadata, checksum, part_bytes, multipart_id)


class MultipartPlan(Record):
    """What an upload in parts was begun with. Field order is the format."""

    facts: ObjectFacts
    tags: Pairs
    algorithm: _Word
    """The checksum algorithm, or empty."""
    checksum_type: _Word
    retention: int
    retain_until_ms: int
    legal_hold: bool
    owner: _Word
    """The access key that began it."""


class PartFacts(Record):
    """One uploaded part. Field order is the format."""

    extents: Annotated[tuple[Extent, ...], Meta(max_length=MAX_EXTENTS)]
    checksum: tuple[_Word, _Word] | None
    """Algorithm and value in base64."""


class Right(Record):
    """What an access key may do. Field order is the format."""

    bucket: _Word
    """A bucket's name, or ``*`` for all, those to come included."""
    read: bool
    write: bool


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One key of the gateway; `sealed_secret` opens with the owner's content keys alone."""

    key_id: str
    sealed_secret: bytes
    rights: tuple[Right, ...]
    note: str
    created_ms: int
    revoked_ms: int = 0
    """0: in force."""

    def may(self, bucket: str, *, write: bool) -> bool:
        """Whether it may read, or write, in a bucket."""
        return not self.revoked_ms and any(
            right.bucket in ("*", bucket) and (right.write if write else right.read) for right in self.rights
        )


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """A bucket and its state."""

    bucket: Bucket
    versioning: Versioning
    lockable: bool


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold for a write. Entity tags without quotes; ``*`` stands for any."""

    if_match: str = ""
    if_none_match: str = ""


@dataclass(frozen=True, slots=True)
class ObjectDraft:
    """An object about to exist. `seal` makes the record for the version that the transaction gives it."""

    bucket: Bucket
    name: str
    size_bytes: int
    modified_ms: int
    content_hash: bytes
    segment_ids: tuple[SegmentId, ...]
    seal: Callable[[int], bytes]
    etag: str
    facts: ObjectFacts
    tags: Pairs = ()
    lock: Lock = Lock()
    conditions: Conditions = Conditions()
    upload_id: bytes | None = None
    """An upload of the catalog's (`Catalog.begin_upload`) that is over with this."""
    multipart_id: bytes | None = None
    """An upload in parts that is over with this."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a name, or a delete marker."""

    name: str
    version: int
    version_id: str
    """What clients call it: ``null`` when the bucket kept no versions then."""
    standing: Standing
    latest: bool
    size_bytes: int
    modified_ms: int
    content_hash: bytes
    etag: str

    @property
    def marker(self) -> bool:
        """Whether it is a delete marker."""
        return self.standing is Standing.MARKER


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One version with everything known of it."""

    version: Version
    entry: ObjectEntry
    facts: ObjectFacts
    tags: Pairs
    lock: Lock


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: names, or versions, and common prefixes, together in order."""

    items: tuple[Version, ...]
    prefixes: tuple[str, ...]
    truncated: bool
    last_name: str = ""
    """The last name or common prefix of the page."""
    last_version: int = 0
    """With a listing of versions: the version behind which the next page begins; 0 behind the whole name."""


@dataclass(frozen=True, slots=True)
class Gone:
    """What a deletion came to."""

    name: str
    version_id: str = ""
    """The version removed, or the marker that was made; empty when there is none to name."""
    marker: bool = False
    """A delete marker was made, or removed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One deletion asked for. Without a version the name is deleted, whatever that means in its bucket."""

    name: str
    version_id: str = ""
    if_match: str = ""


@dataclass(frozen=True, slots=True)
class Multipart:
    """An upload in parts under way."""

    multipart_id: bytes
    bucket: str
    name: str
    started_ms: int
    plan: MultipartPlan


@dataclass(frozen=True, slots=True)
class Part:
    """One part that is durable."""

    number: int
    size_bytes: int
    modified_ms: int
    etag: str
    facts: PartFacts


class S3Store(Protocol):
    """The S3 half of a catalog. All calls block; each writing call is one transaction."""

    # -- buckets

    def make_bucket(self, bucket: Bucket, *, lockable: bool) -> None:
        """As `Catalog.create_bucket`; a lockable one keeps versions from the beginning."""
        ...

    def bucket(self, name: str) -> BucketFacts:
        """Raises `NotFoundError`."""
        ...

    def buckets(self) -> list[BucketFacts]:
        """All, in byte order of their names."""
        ...

    def set_versioning(self, name: str, versioning: Versioning) -> None:
        """Raises `NotFoundError`; `BucketStateError` when a bucket with object lock is to be suspended."""
        ...

    def set_lockable(self, name: str) -> None:
        """Allow object lock for good. Raises `BucketStateError` unless versions are kept."""
        ...

    def setting(self, bucket: str, kind: str) -> bytes | None:
        """A document kept for the bucket, or None. Raises `NotFoundError` without the bucket."""
        ...

    def set_setting(self, bucket: str, kind: str, value: bytes | None) -> None:
        """Keep it, or none. Raises `NotFoundError` without the bucket."""
        ...

    def settings(self, bucket: str) -> Mapping[str, bytes]:
        """All documents kept for the bucket, by kind. Raises `NotFoundError`."""
        ...

    def highest_version(self, bucket: str) -> int:
        """The highest version that any name of the bucket ever had. Raises `NotFoundError`."""
        ...

    def remake_bucket(self, facts: BucketFacts, settings: Mapping[str, bytes], floor: int) -> None:
        """A bucket that was removed, in one step: as it was, its versions all above `floor`. Raises `ConflictError`."""
        ...

    # -- objects

    def commit(self, drafts: Sequence[ObjectDraft], finished: Sequence[bytes] = ()) -> list[Version | StookError]:
        """Make objects exist in one transaction, each only if its own conditions hold; `finished` uploads are over.

        An answer is an error where that draft came to nothing: `ConditionFailedError`, `MissingError` (a condition
        names an entity tag and there is no object; the upload in parts is over), `NotFoundError` (no bucket),
        `ConflictError` (the bucket was remade, or a segment is garbage). Its uploads are then over as well.
        """
        ...

    def find(self, bucket: str, name: str, version_id: str = "") -> StoredObject | Version | None:
        """The current object, or one version; a bare `Version` for a delete marker; None for nothing.

        Raises `NotFoundError` without the bucket.
        """
        ...

    def list_names(self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int) -> Page:
        """Current objects above `after`, as `Catalog.list_objects`, with entity tags. `limit` may be 0."""
        ...

    def list_versions(
        self, bucket: str, *, prefix: str, delimiter: str, after: str, after_version: int, limit: int
    ) -> Page:
        """Versions and markers by name, the newest of each first, beginning behind `after_version` of `after`.

        0 begins behind all versions of `after`.
        """
        ...

    def delete(self, bucket: str, wanted: Sequence[Wanted], *, now_ms: int, bypass: bool) -> list[Gone | StookError]:
        """Delete names or versions in one transaction, each for itself; what came of each.

        Errors: `LockedError`, `ConditionFailedError`, `MissingError` (a condition on nothing). Raises `NotFoundError`
        without the bucket.
        """
        ...

    def set_tags(self, bucket: str, name: str, version_id: str, tags: Pairs) -> str:
        """Replace the tags of an object or version; its version id. Raises `MissingError`."""
        ...

    def set_lock(
        self,
        bucket: str,
        name: str,
        version_id: str,
        *,
        now_ms: int,
        bypass: bool = False,
        retention: tuple[Retention, int] | None = None,
        legal_hold: bool | None = None,
    ) -> str:
        """Change the retention or the legal hold of a version; its version id.

        Raises `MissingError`, `BucketStateError` without object lock, `LockedError` for shortening what holds.
        """
        ...

    # -- uploads in parts

    def begin_multipart(self, upload: Multipart) -> None:
        """Keep a new one. Raises `NotFoundError` without the bucket."""
        ...

    def multipart(self, bucket: str, name: str, multipart_id: bytes) -> Multipart:
        """Raises `MissingError`."""
        ...

    def multiparts(self, bucket: str, *, prefix: str, after: str, after_id: bytes, limit: int) -> list[Multipart]:
        """By name, then id, above the pair given (an empty id: above all uploads of that name)."""
        ...

    def put_part(self, multipart_id: bytes, part: Part, upload_id: bytes) -> None:
        """Keep a part, instead of an earlier one of its number; the upload it was sent under is over.

        Raises `MissingError` when the upload in parts is over.
        """
        ...

    def parts(self, multipart_id: bytes, *, after: int = 0, limit: int = MAX_PARTS) -> list[Part]:
        """Parts with numbers above `after`, ascending."""
        ...

    def abort_multipart(self, bucket: str, name: str, multipart_id: bytes) -> None:
        """Forget it; its segments become garbage. Raises `MissingError`."""
        ...

    # -- access keys

    def add_key(self, key: AccessKey) -> None:
        """Raises `ConflictError` when the id is taken."""
        ...

    def put_key(self, key: AccessKey) -> bool:
        """Keep it; one that is there gets its secret and keeps its rights. False for one that is revoked, which stays
        so.
        """
        ...

    def key(self, key_id: str) -> AccessKey | None:
        """Revoked ones included."""
        ...

    def keys(self) -> list[AccessKey]:
        """All, by id."""
        ...

    def revoke_key(self, key_id: str, now_ms: int) -> bool:
        """Whether it was in force."""
        ...


def version_id_of(version: int, versioned: int) -> str:
    """What clients call a version."""
    return f"{version:016x}" if versioned else "null"


def version_of_id(version_id: str) -> int | None:
    """The number in a version id; None for ``null`` and for what is none (see `is_version_id`)."""
    return int(version_id, 16) if is_version_id(version_id) and version_id != "null" else None


def is_version_id(version_id: str) -> bool:
    """Whether it could be one."""
    return version_id == "null" or (len(version_id) == 16 and all(char in "0123456789abcdef" for char in version_id))


def segments_of(extents: Iterable[Extent]) -> tuple[SegmentId, ...]:
    """The segments that extents lie in, each once, in order."""
    return tuple(dict.fromkeys(extent.segment_id for extent in extents))
