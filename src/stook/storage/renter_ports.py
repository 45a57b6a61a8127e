"""What the renter keeps, as promises, in two halves that may live on two machines.

The `AgentStore` knows segments, contracts and farmers: no names, no content keys. The `Catalog` knows buckets, names
and sealed records: what the owner alone can read. Every adapter passes the suites in `tests/conformance/`
(`docs/formats/agent-database.md`, `docs/formats/catalog.md`).

All calls block and may sync to disk; callers on an event loop go through `stook.clock.Offload`. Calls are safe from
several threads and, for stored adapters, several processes. A call that returns has done what it says durably; a
process killed inside a call leaves either the state before or the state after it. Every writing call is one
transaction: all of it or nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stook.contracts.announcement import SignedAnnouncement
from stook.contracts.contract import Contract
from stook.contracts.receipt import SignedEraseReceipt, SignedStorageReceipt
from stook.errors import ConflictError, NotFoundError
from stook.ids import ContractId, NodeId, SegmentId, ShardRoot
from stook.shards.geometry import Policy
from stook.storage.agent_audit_ports import AuditStore
from stook.storage.agent_upkeep_ports import UpkeepStore

if TYPE_CHECKING:
    from stook.storage.drill_ports import Drills

MAX_NAME_BYTES = 1024
"""An object's name in UTF-8; the S3 limit."""
MAX_BUCKET_NAME_CHARS = 63
MAX_LIST = 10_000

# --------------------------------------------------------------------------------------------------- the agent's half


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """One sealed segment as the agent knows it. `shard_bytes` is the size of each shard."""

    segment_id: SegmentId
    policy: Policy
    total: int
    """Code indices that exist: 0 up to, not including, `total` (n and the spares)."""
    shard_bytes: int
    roots: tuple[ShardRoot, ...]
    """Roots of copy 0 by index, `total` of them; empty bytes where a rebuilt database does not know one yet."""
    created_ms: int

    @property
    def k(self) -> int:
        """Any this many shards rebuild the segment."""
        return self.policy.k


class PlacementState(enum.IntEnum):
    """Where one placement stands. The numbers are the stored format."""

    CLAIMED = 1
    """Both parties signed; no receipt yet. Binding: it must be consigned, or cancelled, or it runs out."""
    STORED = 2
    """The farmer's signed storage receipt is held."""
    CANCELLING = 3
    """The farmer is to be told to erase it. Only ERASED follows."""
    ERASED = 4
    """The farmer signed that it erased it, or knows nothing of it. Nothing follows."""
    LOST = 5
    """The farmer has lost it or is given up. A new receipt makes it STORED, a cancellation CANCELLING."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One shard under one contract at one farmer. Its name is the contract's id.

    Two placements may share segment, index and copy: a replacement while the first is slow or lost.
    """

    segment_id: SegmentId
    index: int
    copy: int
    root: ShardRoot
    """Equal to ``contract.terms.shard_root``."""
    farmer: NodeId
    """The id that follows from ``contract.terms.farmer_key``."""
    contract: Contract
    state: PlacementState = PlacementState.CLAIMED
    receipt: SignedStorageReceipt | None = None
    erased: SignedEraseReceipt | None = None
    stored_ms: int = 0
    """When its farmer signed for it, `stored_when`; 0: it never did, or it is back after it was gone."""
    proved_ms: int = 0
    """When it last was part of a passed audit; 0: never."""

    @property
    def contract_id(self) -> ContractId:
        """The contract's id, stable through renewals."""
        return self.contract.contract_id


def stored_when(signed: SignedStorageReceipt, contract: Contract) -> int:
    """When a shard was stored, as far as its farmer is believed: no later than it had to be."""
    return min(signed.receipt.stored_at_ms, contract.terms.consign_by_ms)


@dataclass(frozen=True, slots=True)
class Wanting:
    """A segment with fewer than n distinct indices STORED; `stored` says how many."""

    facts: SegmentFacts
    stored: int

    @property
    def margin(self) -> int:
        """How many more shards may go before it cannot be rebuilt; negative when it cannot be now."""
        return self.stored - self.facts.policy.k


class OutcomeKind(enum.IntEnum):
    """What was asked of a farmer. The numbers are the stored format."""

    REACH = 1
    CLAIM = 2
    CONSIGN = 3
    RETRIEVE = 4
    AUDIT = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One dealing with a farmer. `value` is a speed in bytes per second, or 0 when nothing was measured."""

    farmer: NodeId
    kind: OutcomeKind
    ok: bool
    value: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class FarmerStats:
    """What past dealings of one kind with one farmer weigh; old ones fade (half weight each `HALF_LIFE_MS`)."""

    farmer: NodeId
    kind: OutcomeKind
    successes: float
    failures: float
    value: float
    """Weighted mean of the values of successes above 0; 0 when there is none."""
    failures_in_a_row: int
    last_ok_ms: int
    """0: never."""
    last_ms: int


HALF_LIFE_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class AgentCounts:
    """Sums for `status`, derived from the rows, never counted beside them. Released segments count in `released`."""

    segments: int
    released: int
    wanting: int
    """Segments below n stored indices."""
    endangered: int
    """Segments below r."""
    unreadable: int
    """Segments below k."""
    placements: Mapping[PlacementState, int]
    stored_bytes: int
    """Shard bytes in state STORED."""
    farmers: int


class AgentStore(AuditStore, UpkeepStore, Protocol):
    """Segments, who holds their shards under which contract, and what is known of farmers."""

    # -- segments and placements

    def add_segments(self, segments: Sequence[SegmentFacts]) -> None:
        """Keep new ones. Raises `ConflictError` on a known id, `ValueError` when roots are not `total` in number."""
        ...

    def append_roots(self, segment_id: SegmentId, roots: Sequence[ShardRoot]) -> SegmentFacts:
        """Give the segment further code indices (`total` grows); the new facts. Raises `NotFoundError`."""
        ...

    def segment(self, segment_id: SegmentId) -> SegmentFacts | None:
        """The segment's facts, or None; released segments included until forgotten."""
        ...

    def segments(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, SegmentFacts]:
        """The facts of those of `segment_ids` that are known."""
        ...

    def segment_ids(self, created_before_ms: int, after: bytes, limit: int) -> list[SegmentId]:
        """Ids above `after` in order, of segments that are not released and are older than `created_before_ms`.

        For the look for orphans: segments placed by a client that died before its catalog knew them
        (see `Catalog.known_segments`).
        """
        ...

    def add_claims(self, placements: Sequence[Placement]) -> None:
        """Keep placements; durable before a countersigned contract is sent.

        Raises `ConflictError` on a known contract id or a released segment, `NotFoundError` on an unknown segment.
        """
        ...

    def record_receipts(self, receipts: Sequence[SignedStorageReceipt]) -> frozenset[ContractId]:
        """Keep receipts; CLAIMED and LOST placements become STORED, CANCELLING and ERASED ones stay what they are.

        The first receipt says when a shard was stored. Returns the contracts of those that stayed: their shards will
        be erased. The caller verified the receipts. Raises `NotFoundError` on an unknown contract.
        """
        ...

    def placement(self, contract_id: ContractId) -> Placement | None:
        """The placement under a contract, or None."""
        ...

    def placements(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, tuple[Placement, ...]]:
        """Placements of each segment in every state but ERASED, by index, copy, contract id; all ids are keys."""
        ...

    def placements_at(self, farmer: NodeId, after: bytes, limit: int) -> list[Placement]:
        """Placements in every state but ERASED at one farmer with contract ids above `after`, in order of id."""
        ...

    def stored_at(self, farmer: NodeId) -> list[Placement]:
        """Everything that one farmer holds, STORED, in order of contract id: what a round is drawn over."""
        ...

    def segments_wanting(self, limit: int, after: Wanting | None = None) -> list[Wanting]:
        """Segments with fewer than n STORED indices and not released, smallest margin first; `after` pages on."""
        ...

    # -- the way out

    def release(self, segment_ids: Iterable[SegmentId]) -> None:
        """Give segments up: CLAIMED, STORED and LOST placements become CANCELLING, before any network call.

        Idempotent; unknown ids are ignored (so a repeated release after a crash is harmless).
        """
        ...

    def cancel(self, contract_ids: Iterable[ContractId]) -> None:
        """CLAIMED and LOST placements become CANCELLING; all other ids are ignored, those of stored shards too.

        Whoever gives a claim up may have read it long ago, and another process have stored its shard since.
        """
        ...

    def claimed(self, limit: int, after: bytes = b"") -> list[Placement]:
        """CLAIMED placements with contract ids above `after`, in order of id."""
        ...

    def farmers_to_cancel(self) -> Mapping[NodeId, int]:
        """How many placements are CANCELLING, by farmer, so that one dead farmer holds up no other."""
        ...

    def cancelling(self, farmer: NodeId, limit: int, after: bytes = b"") -> list[Placement]:
        """CANCELLING placements at one farmer with contract ids above `after`, in order of id."""
        ...

    def record_erased(self, erasures: Sequence[tuple[ContractId, SignedEraseReceipt | None]], at_ms: int) -> None:
        """Placements become ERASED, from any state; None: the farmer does not know the contract.

        Unknown ids are ignored; the first receipt stays.
        """
        ...

    def mark_lost(self, contract_ids: Iterable[ContractId]) -> None:
        """CLAIMED and STORED placements become LOST; others and unknown ids are ignored."""
        ...

    def forget(self, before_ms: int) -> list[SegmentId]:
        """Delete what is over: placements ERASED before `before_ms`, CANCELLING ones whose contract ended before it,
        and then released segments with no placement left. The ids of the segments deleted.
        """
        ...

    def adopt(self, segments: Sequence[SegmentFacts], placements: Sequence[Placement]) -> int:
        """Take in what farmers' LIST_CONTRACTS said, after the database was lost; the number of placements added.

        Known segments keep their facts, and only learn unknown roots and further indices. Known placements keep their
        state and take a later revision of the contract. Raises `NotFoundError` on a placement of an unknown segment.
        """
        ...

    # -- farmers

    def save_announcements(self, announcements: Sequence[SignedAnnouncement]) -> None:
        """Keep verified announcements; of two of one farmer the one issued later stays."""
        ...

    def announcements(self) -> list[SignedAnnouncement]:
        """The newest announcement of each farmer, in order of node id."""
        ...

    def forget_farmers(self, issued_before_ms: int) -> frozenset[NodeId]:
        """Drop announcements issued before of farmers without placements, dossiers, outcomes; whose they were."""
        ...

    def note_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Add dealings to the farmers' fading counters."""
        ...

    def farmer_stats(self, now_ms: int) -> list[FarmerStats]:
        """All counters, faded to `now_ms`, by farmer and kind."""
        ...

    def counts(self) -> AgentCounts:
        """Sums for `status`."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Idempotent; no other call may follow."""
        ...


# ------------------------------------------------------------------------------------------------ the owner's own half


class VersionConflictError(ConflictError):
    """Somebody changed these names meanwhile. `names` are (bucket, name) pairs; nothing was committed.

    Ask `Catalog.next_versions` again, seal the records anew, and commit again.
    """

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        shown = ", ".join(f"{bucket}/{name}" for bucket, name in names[:3])
        super().__init__(f"changed meanwhile: {shown}{' and others' if len(names) > 3 else ''}")
        self.names = tuple(names)


class UploadOverError(NotFoundError):
    """The upload is not there any more: another process finished it, or gave it up, with the same object."""

    exit_code = ConflictError.exit_code

    def __init__(self, upload_id: bytes) -> None:
        super().__init__(
            f"there is no upload {upload_id.hex()} any more: the same object was stored or removed at the same time"
        )


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket. Id and salt are random, made by the caller; neither changes while the bucket lives."""

    name: str
    bucket_id: bytes
    """16 random bytes: the bucket's name wherever it leaves the owner's machine."""
    salt: bytes
    """32 random bytes: keys of the bucket's names and records are derived with it."""
    created_ms: int


@dataclass(frozen=True, slots=True)
class BucketTotals:
    """Sums over a bucket's objects, derived from them."""

    objects: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One sealed segment as its owner knows it; the key is inside `sealed_record`."""

    segment_id: SegmentId
    sealed_record: bytes
    plain_bytes: int
    plain_hash: bytes
    """32 bytes: a resumed upload reuses the segment only when the plaintext still has this hash."""
    k: int
    total: int
    shard_bytes: int


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """One object. `segment_ids` are the segments its record refers to, in order, each once; none for an empty one."""

    bucket: str
    name: str
    version: int
    """Larger than any this name ever had (see `Catalog.next_versions`); part of what seals the record."""
    size_bytes: int
    modified_ms: int
    content_hash: bytes
    """32 bytes."""
    sealed_record: bytes
    segment_ids: tuple[SegmentId, ...]


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """What a listing shows of an object."""

    name: str
    version: int
    size_bytes: int
    modified_ms: int
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of names in byte order of their UTF-8, objects and common prefixes apart."""

    objects: tuple[ObjectSummary, ...]
    prefixes: tuple[str, ...]
    """With a delimiter: what names have in common up to and with its first occurrence after the prefix, each once."""
    next_after: str | None
    """Pass as `after` for the next page; None: this was the last."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload under way, or left behind."""

    upload_id: bytes
    bucket: str
    name: str
    fingerprint: bytes
    started_ms: int
    touched_ms: int


class Catalog(Protocol):
    """Buckets, objects by name, the segments they are made of, and uploads under way.

    A segment lives while an object or an upload refers to it. When the last reference goes, the same transaction puts
    it on the garbage list; from then on nothing can refer to it again.
    """

    @property
    def drills(self) -> Drills:
        """What restore drills of these objects came to."""
        ...

    # -- buckets

    def create_bucket(self, bucket: Bucket) -> None:
        """Raises `ConflictError` when the name is taken, `UserError` when it is empty, too long or not printable."""
        ...

    def bucket(self, name: str) -> Bucket:
        """Raises `NotFoundError`."""
        ...

    def buckets(self) -> list[Bucket]:
        """All buckets, in byte order of their names."""
        ...

    def delete_bucket(self, name: str) -> None:
        """Raises `NotFoundError`, or `ConflictError` while it holds objects. Its uploads are abandoned, and what drills
        of it left behind is gone.
        """
        ...

    def totals(self, bucket: str) -> BucketTotals:
        """Raises `NotFoundError`."""
        ...

    # -- objects

    def next_versions(self, bucket: str, names: Iterable[str]) -> Mapping[str, int]:
        """The version to seal and commit for each name: above every version it had, also before a deletion.

        Raises `NotFoundError` without the bucket, `UserError` for a name that is empty, over `MAX_NAME_BYTES`, or no
        valid UTF-8 (a lone surrogate).
        """
        ...

    def commit(
        self,
        entries: Sequence[ObjectEntry],
        segments: Sequence[SegmentEntry] = (),
        *,
        upload_id: bytes | None = None,
        expected: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        """Make objects exist, all in one transaction, replacing those of the same names.

        `segments` are new; entries may also refer to segments the catalog knows already. With `upload_id` the upload
        is finished, and those of its segments that no entry refers to become garbage. `expected` maps (bucket, name)
        to the version that must be there now, 0 for none.

        Raises `VersionConflictError` when an entry's version is not above what its name had, a name comes twice, or
        `expected` does not hold; `ConflictError` when a segment id is taken or a segment is garbage already;
        `NotFoundError` for an unknown bucket or segment, `UploadOverError` for an unknown upload; `UserError` for a bad
        name.
        """
        ...

    def get(self, bucket: str, name: str) -> ObjectEntry | None:
        """The object, or None. Raises `NotFoundError` without the bucket."""
        ...

    def get_many(self, bucket: str, names: Iterable[str]) -> Mapping[str, ObjectEntry]:
        """Those of `names` that exist. Raises `NotFoundError` without the bucket."""
        ...

    def list_objects(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """Names above `after` that begin with `prefix`; objects and common prefixes together at most `limit`.

        A common prefix with which `after` itself begins is not shown again, nor are its names. Raises `NotFoundError`
        without the bucket, `ValueError` for a limit outside 1 to `MAX_LIST`.
        """
        ...

    def delete(self, bucket: str, name: str, *, expected: int | None = None, at_ms: int = 0) -> bool:
        """Whether it existed. `expected`: the version it must have, else `VersionConflictError`.

        `at_ms` dates the delete marker that a bucket with versions (`s3_ports`) gets.

        Raises `NotFoundError` without the bucket.
        """
        ...

    def delete_many(self, bucket: str, names: Iterable[str], *, at_ms: int = 0) -> frozenset[str]:
        """Delete all that exist, in one transaction; their names. Raises `NotFoundError` without the bucket."""
        ...

    # -- segments

    def segments(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, SegmentEntry]:
        """Those of `segment_ids` that are known, garbage included."""
        ...

    def segment_ids(self, after: bytes, limit: int) -> list[SegmentId]:
        """Ids above `after`, in order, of segments that objects refer to."""
        ...

    def known_segments(self, segment_ids: Iterable[SegmentId]) -> frozenset[SegmentId]:
        """Those of `segment_ids` that are known, garbage included."""
        ...

    def garbage(self, limit: int) -> list[SegmentId]:
        """Segments nothing refers to, oldest first, until `confirm_released`.

        Where the catalog is saved, only those that the saved one does not name either; none while there is an alarm.
        """
        ...

    def confirm_released(self, segment_ids: Iterable[SegmentId]) -> None:
        """The agent has released these durably: forget them. Ids that are not garbage are ignored."""
        ...

    # -- uploads

    def begin_upload(self, upload: Upload) -> Upload:
        """Begin, or resume: with the same bucket, name and fingerprint the earlier upload is touched and returned.

        Raises `NotFoundError` without the bucket, `UserError` for a bad name.
        """
        ...

    def add_upload_segment(self, upload_id: bytes, ordinal: int, segment: SegmentEntry, at_ms: int) -> None:
        """Keep a segment for an upload; one kept under the same ordinal before becomes garbage.

        Best called before the segment is placed, so that no placement is ever without an owner; whether it is durable
        is then asked of the agent. Raises `UploadOverError` for an unknown upload, `ConflictError` for a known segment.
        """
        ...

    def upload_segments(self, upload_id: bytes) -> Mapping[int, SegmentEntry]:
        """The upload's segments by ordinal, in order; empty for an unknown upload."""
        ...

    def abandon_upload(self, upload_id: bytes) -> bool:
        """Whether it existed; its segments become garbage."""
        ...

    def stale_uploads(self, touched_before_ms: int, limit: int) -> list[Upload]:
        """Uploads not touched since, longest ago first."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Idempotent; no other call may follow."""
        ...
