"""What the client keeps about a segment and an object, as it is sealed into metadata records.

With these and the mask root anybody can read the object: they never leave the client unsealed
(`cipher.seal_record`, `docs/formats/record.md`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.hashing import Tag, tagged_hash
from stook.ids import Bytes32Field, SegmentIdField, ShardRootField, U63Field
from stook.shards.geometry import MAX_SHARDS, SegmentShape

POINTER_VERSION = 1
INLINE_VERSION = 2
MAX_INLINE_BYTES = 65_536
"""What a record may hold of content at most; writers of ours stop far below (`docs/decisions/0333`)."""
MAX_EXTENTS = 16_384
_Version = Annotated[int, Meta(ge=1, le=255)]
_ShardCount = Annotated[int, Meta(ge=1, le=MAX_SHARDS)]


class SegmentRecord(Record):
    """One sealed segment: what opens it, and what its shards must hash to. Field order is the format."""

    version: _Version
    segment_id: SegmentIdField
    key: Bytes32Field
    """The content key, used for this sealing alone."""
    k: _ShardCount
    total: _ShardCount
    shard_bytes: Annotated[int, Meta(ge=1, le=8 << 20)]
    plain_bytes: U63Field
    plain_hash: Bytes32Field
    roots: Annotated[tuple[ShardRootField, ...], Meta(min_length=1, max_length=MAX_SHARDS)]
    """By code row; those beyond `total` were added later."""

    def __post_init__(self) -> None:
        if not (1 <= self.plain_bytes <= self.shape.capacity and len(self.roots) >= self.total):
            raise ValueError("the sizes of a segment record contradict each other")

    def __repr__(self) -> str:
        return f"SegmentRecord({self.segment_id.hex()}, {self.k} of {self.total} x {self.shard_bytes})"

    @property
    def shape(self) -> SegmentShape:
        """The segment's shape."""
        return SegmentShape(self.k, self.total, self.shard_bytes)


class Extent(Record):
    """`length` bytes of an object: those from `offset` on in the plaintext of one segment."""

    segment_id: SegmentIdField
    offset: U63Field
    length: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    plain_hash: Bytes32Field
    """Tagged hash (PLAINTEXT) of these bytes; equals the segment's when the object has it to itself."""


class ObjectRecord(Record):
    """One version of an object: its extents in order, and what the owner's file system said of it."""

    version: _Version
    size: U63Field
    content_hash: Bytes32Field
    extents: Annotated[tuple[Extent, ...], Meta(max_length=MAX_EXTENTS)]
    modified_ns: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    metadata: Annotated[tuple[tuple[str, str], ...], Meta(max_length=64)]
    """The owner's own keys and values, keys ascending."""

    def __post_init__(self) -> None:
        if sum(extent.length for extent in self.extents) != self.size:
            raise ValueError("an object's extents do not add up to its size")
        _check_keys(self.metadata)

    @property
    def data(self) -> bytes:
        """Content inside the record: none."""
        return b""


class InlineRecord(Record):
    """One version of a tiny object, its content included: it has no segment, and is as durable as the catalog."""

    version: _Version
    data: Annotated[bytes, Meta(min_length=1, max_length=MAX_INLINE_BYTES)]
    modified_ns: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    metadata: Annotated[tuple[tuple[str, str], ...], Meta(max_length=64)]

    def __post_init__(self) -> None:
        if self.version != INLINE_VERSION:
            raise ValueError("no record of this kind has this version")
        _check_keys(self.metadata)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return len(self.data)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """None: nothing of it is in segments."""
        return ()

    @property
    def content_hash(self) -> bytes:
        """The same as if it were stored in one piece in a segment."""
        return tagged_hash(Tag.CONTENT, encode([(len(self.data), tagged_hash(Tag.PLAINTEXT, self.data))]))


AnyObjectRecord = ObjectRecord | InlineRecord


def decode_object(plain: bytes) -> AnyObjectRecord:
    """The record of an object, of either kind. Raises `MalformedError`."""
    if plain[:2] == bytes([0x95, INLINE_VERSION]):  # an array of five, the first of them the version
        return decode(InlineRecord, plain)
    return decode(ObjectRecord, plain)


def _check_keys(metadata: tuple[tuple[str, str], ...]) -> None:
    keys = [key for key, _ in metadata]
    if keys != sorted(set(keys)):
        raise ValueError("an object's metadata keys are not ascending")


def content_hash(extents: tuple[Extent, ...]) -> bytes:
    """The hash of an object's content: tagged hash (CONTENT) over its extents' lengths and plaintext hashes.

    Every byte is hashed once, by the seal; the price is that the same bytes cut otherwise have another content hash.
    """
    return tagged_hash(Tag.CONTENT, encode([(extent.length, extent.plain_hash) for extent in extents]))
