"""Sealing what the client knows of its segments and objects, so that its catalog could lie in a stranger's hands.

Contexts (`docs/formats/record.md`): a segment's record belongs to its segment id and no bucket; an object's record to
its bucket's id, its encrypted name and its version, under a key of that bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeVar

from stook.clock import Entropy
from stook.codec import decode, encode
from stook.errors import CorruptionError, MalformedError
from stook.ids import NetworkId
from stook.shards.cipher import (
    RECORD_FORMAT,
    SALT_BYTES,
    RecordContext,
    encrypt_name,
    name_key,
    open_record,
    seal_record,
)
from stook.shards.derive import Purpose, derive_key
from stook.shards.pointer import AnyObjectRecord, SegmentRecord, decode_object
from stook.storage.renter_ports import Bucket, ObjectEntry, SegmentEntry

T = TypeVar("T")


class Vault:
    """Everything the content root is used for outside of segments themselves."""

    def __init__(self, content_root: bytes, network: NetworkId, entropy: Entropy) -> None:
        self._root = content_root
        self._network = network
        self._entropy = entropy
        self._bucket_keys = lru_cache(maxsize=256)(self._derive_bucket_keys)

    def _derive_bucket_keys(self, bucket_id: bytes, salt: bytes) -> tuple[bytes, bytes]:
        root = derive_key(self._root, Purpose.RECORD, bucket_id, salt=salt)
        return root, name_key(root, bucket_id)

    def _segment_context(self, segment_id: bytes) -> RecordContext:
        return RecordContext(RECORD_FORMAT, self._network, b"", segment_id, 0)

    def seal_segment(self, record: SegmentRecord) -> SegmentEntry:
        """The segment as the catalog keeps it."""
        context = self._segment_context(record.segment_id)
        return SegmentEntry(
            segment_id=record.segment_id,
            sealed_record=seal_record(self._root, context, encode(record), salt=self._entropy(SALT_BYTES)),
            plain_bytes=record.plain_bytes,
            plain_hash=record.plain_hash,
            k=record.k,
            total=record.total,
            shard_bytes=record.shard_bytes,
        )

    def open_segment(self, entry: SegmentEntry) -> SegmentRecord:
        """The segment's record. Raises `CorruptionError` when it is not the one that belongs there."""
        plain = open_record(self._root, self._segment_context(entry.segment_id), entry.sealed_record)
        record = _decoded(partial(decode, SegmentRecord), plain)
        if record.segment_id != entry.segment_id:
            raise CorruptionError("a segment's record is about another segment")
        return record

    def _object_context(self, bucket: Bucket, name: str, version: int) -> tuple[bytes, RecordContext]:
        root, names = self._bucket_keys(bucket.bucket_id, bucket.salt)
        return root, RecordContext(RECORD_FORMAT, self._network, bucket.bucket_id, encrypt_name(names, name), version)

    def seal_object(self, bucket: Bucket, name: str, version: int, record: AnyObjectRecord) -> bytes:
        """The object's record, sealed for this place and version alone."""
        root, context = self._object_context(bucket, name, version)
        return seal_record(root, context, encode(record), salt=self._entropy(SALT_BYTES))

    def open_object(self, bucket: Bucket, entry: ObjectEntry) -> AnyObjectRecord:
        """The object's record. Raises `CorruptionError` when it was changed, moved or is of another version."""
        root, context = self._object_context(bucket, entry.name, entry.version)
        record = _decoded(decode_object, open_record(root, context, entry.sealed_record))
        if (record.size, record.content_hash) != (entry.size_bytes, entry.content_hash):
            raise CorruptionError(f"{entry.bucket}/{entry.name}: the catalog and the sealed record disagree")
        return record

    def _secret_context(self, key_id: str) -> RecordContext:
        return RecordContext(RECORD_FORMAT, self._network, b"", b"access-key:" + key_id.encode(), 0)

    def seal_secret(self, key_id: str, secret: str) -> bytes:
        """The secret of an access key as the catalog keeps it."""
        return seal_record(self._root, self._secret_context(key_id), secret.encode(), salt=self._entropy(SALT_BYTES))

    def open_secret(self, key_id: str, sealed: bytes) -> str:
        """The secret. Raises `CorruptionError` when it belongs to another key."""
        return open_record(self._root, self._secret_context(key_id), sealed).decode()


def _decoded(read: Callable[[bytes], T], plain: bytes) -> T:
    try:
        return read(plain)
    except MalformedError as error:
        raise CorruptionError(f"a sealed record does not decode: {error}") from error
