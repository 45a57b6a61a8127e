"""Buckets, segments, objects, what refers to what, garbage and uploads."""

import sqlalchemy as sa
from alembic import op

revision = "catalog_0001"
down_revision = None

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("next", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "object", "next": 1}, {"name": "segment", "next": 1}])
    op.create_table(
        "buckets",
        sa.Column("number", Number, primary_key=True),
        sa.Column("name", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("bucket_id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("salt", sa.LargeBinary(32), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("version_floor", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "segments",
        sa.Column("number", Number, primary_key=True, autoincrement=False),
        sa.Column("segment_id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("sealed_record", sa.LargeBinary, nullable=False),
        sa.Column("plain_bytes", sa.BigInteger, nullable=False),
        sa.Column("plain_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("k", sa.SmallInteger, nullable=False),
        sa.Column("total", sa.SmallInteger, nullable=False),
        sa.Column("shard_bytes", sa.Integer, nullable=False),
    )
    op.create_table(
        "objects",
        sa.Column("number", Number, primary_key=True, autoincrement=False),
        sa.Column("bucket", Number, sa.ForeignKey("buckets.number"), nullable=False),
        sa.Column("name", sa.LargeBinary(1024), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("modified_ms", sa.BigInteger, nullable=False),
        sa.Column("content_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("sealed_record", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("bucket", "name", name="objects_by_name"),
    )
    op.create_table(
        "object_segments",
        sa.Column("object", Number, sa.ForeignKey("objects.number"), primary_key=True),
        sa.Column("ordinal", sa.Integer, primary_key=True),
        sa.Column("segment", Number, sa.ForeignKey("segments.number"), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("object_segments_by_segment", "object_segments", ["segment"])
    op.create_table(
        "uploads",
        sa.Column("number", Number, primary_key=True),
        sa.Column("upload_id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("bucket", Number, sa.ForeignKey("buckets.number"), nullable=False),
        sa.Column("name", sa.LargeBinary(1024), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("touched_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("bucket", "name", "fingerprint", name="uploads_by_name"),
    )
    op.create_table(
        "upload_segments",
        sa.Column("upload", Number, sa.ForeignKey("uploads.number"), primary_key=True),
        sa.Column("ordinal", sa.Integer, primary_key=True),
        sa.Column("segment", Number, sa.ForeignKey("segments.number"), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("upload_segments_by_segment", "upload_segments", ["segment"])
    op.create_table(
        "garbage",
        sa.Column("segment", Number, sa.ForeignKey("segments.number"), primary_key=True, autoincrement=False),
    )
