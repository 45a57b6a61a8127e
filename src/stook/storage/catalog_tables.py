"""The tables of `catalog.db` as the code uses them; a test compares them with the migrations.

What they mean is written in `docs/formats/catalog.md`. Rows are joined by small numbers taken from `counters`,
ascending, so that a batch of inserts appends to each table and the columns that say what refers to what take a few
bytes. Names are bytes: UTF-8 compared bytewise is the order we promise, and a NUL is a byte like any other.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    literal_column,
    text,
)

from stook.storage.database import Schema

CATALOG_SCHEMA = Schema(name="catalog", head="catalog_0010")
catalog_metadata = MetaData()

Number = BigInteger().with_variant(Integer, "sqlite")
"""SQLite stores a table in the order of an INTEGER key, but not of a BIGINT one."""

counters = Table(
    "counters",
    catalog_metadata,
    Column("name", String(16), primary_key=True),
    Column("next", BigInteger, nullable=False),
)

buckets = Table(
    "buckets",
    catalog_metadata,
    Column("number", Number, primary_key=True),
    Column("name", LargeBinary, nullable=False, unique=True),
    Column("bucket_id", LargeBinary(16), nullable=False, unique=True),
    Column("salt", LargeBinary(32), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("version_floor", BigInteger, nullable=False),
    Column("versioning", SmallInteger, nullable=False, server_default="0"),
    Column("lockable", SmallInteger, nullable=False, server_default="0"),
)

segments = Table(
    "segments",
    catalog_metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    Column("segment_id", LargeBinary(16), nullable=False, unique=True),
    Column("sealed_record", LargeBinary, nullable=False),
    Column("plain_bytes", BigInteger, nullable=False),
    Column("plain_hash", LargeBinary(32), nullable=False),
    Column("k", SmallInteger, nullable=False),
    Column("total", SmallInteger, nullable=False),
    Column("shard_bytes", Integer, nullable=False),
)

objects = Table(
    "objects",
    catalog_metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    Column("bucket", Number, ForeignKey("buckets.number"), nullable=False),
    Column("name", LargeBinary(1024), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("content_hash", LargeBinary(32), nullable=False),
    Column("sealed_record", LargeBinary, nullable=False),
    Column("standing", SmallInteger, nullable=False, server_default="0"),
    Column("versioned", SmallInteger, nullable=False, server_default="0"),
    UniqueConstraint("bucket", "name", "version", name="objects_by_version"),
    Index(
        "objects_current",
        "bucket",
        "name",
        unique=True,
        sqlite_where=text("standing = 0"),
        postgresql_where=text("standing = 0"),
    ),
)

CURRENT = objects.c.standing == literal_column("0")
"""Restricts a query to what a name stands for now. Written out, for SQLite takes a partial index for no parameter."""

object_segments = Table(
    "object_segments",
    catalog_metadata,
    Column("object", Number, ForeignKey("objects.number"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("segment", Number, ForeignKey("segments.number"), nullable=False),
    Index("object_segments_by_segment", "segment"),
    sqlite_with_rowid=False,
)

uploads = Table(
    "uploads",
    catalog_metadata,
    Column("number", Number, primary_key=True),
    Column("upload_id", LargeBinary(16), nullable=False, unique=True),
    Column("bucket", Number, ForeignKey("buckets.number"), nullable=False),
    Column("name", LargeBinary(1024), nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("touched_ms", BigInteger, nullable=False),
    UniqueConstraint("bucket", "name", "fingerprint", name="uploads_by_name"),
)

upload_segments = Table(
    "upload_segments",
    catalog_metadata,
    Column("upload", Number, ForeignKey("uploads.number"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("segment", Number, ForeignKey("segments.number"), nullable=False),
    Index("upload_segments_by_segment", "segment"),
    sqlite_with_rowid=False,
)

garbage = Table(
    "garbage",
    catalog_metadata,
    Column("segment", Number, ForeignKey("segments.number"), primary_key=True, autoincrement=False),
)

proofs = Table(
    "proofs",
    catalog_metadata,
    Column("segment", Number, ForeignKey("segments.number"), primary_key=True, autoincrement=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("tried_ms", BigInteger, nullable=False),
    Column("proved_ms", BigInteger, nullable=False),
    Column("spot_ms", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("rows", LargeBinary(32), nullable=False),
    Column("why", String(500), nullable=False),
)

drill_days = Table(
    "drill_days",
    catalog_metadata,
    Column("bucket", Number, ForeignKey("buckets.number"), primary_key=True, autoincrement=False),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("drills", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("fetched_bytes", BigInteger, nullable=False),
    Column("asked", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
)

certificates = Table(
    "certificates",
    catalog_metadata,
    Column("bucket", Number, ForeignKey("buckets.number"), primary_key=True, autoincrement=False),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("certificate", LargeBinary, nullable=False),
)

object_facts = Table(
    "object_facts",
    catalog_metadata,
    Column("object", Number, ForeignKey("objects.number"), primary_key=True, autoincrement=False),
    Column("etag", String(80), nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Column("tags", LargeBinary, nullable=False),
    Column("retention", SmallInteger, nullable=False),
    Column("retain_until_ms", BigInteger, nullable=False),
    Column("legal_hold", SmallInteger, nullable=False),
)

bucket_settings = Table(
    "bucket_settings",
    catalog_metadata,
    Column("bucket", Number, ForeignKey("buckets.number"), primary_key=True, autoincrement=False),
    Column("kind", String(16), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

multipart = Table(
    "multipart",
    catalog_metadata,
    Column("number", Number, primary_key=True),
    Column("multipart_id", LargeBinary(16), nullable=False, unique=True),
    Column("bucket", Number, ForeignKey("buckets.number"), nullable=False),
    Column("name", LargeBinary(1024), nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Index("multipart_by_name", "bucket", "name", "multipart_id"),
)

multipart_parts = Table(
    "multipart_parts",
    catalog_metadata,
    Column("multipart", Number, ForeignKey("multipart.number"), primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("etag", String(80), nullable=False),
    Column("facts", LargeBinary, nullable=False),
)

multipart_segments = Table(
    "multipart_segments",
    catalog_metadata,
    Column("multipart", Number, ForeignKey("multipart.number"), primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("segment", Number, ForeignKey("segments.number"), nullable=False),
    Index("multipart_segments_by_segment", "segment"),
    sqlite_with_rowid=False,
)

access_keys = Table(
    "access_keys",
    catalog_metadata,
    Column("key_id", String(128), primary_key=True),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("rights", LargeBinary, nullable=False),
    Column("note", String(200), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger, nullable=False),
)
