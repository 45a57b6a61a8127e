"""Versions of objects, what S3 keeps beside an object, multipart uploads, settings of buckets, access keys."""

import sqlalchemy as sa
from alembic import op

revision = "catalog_0004"
down_revision = "catalog_0002"

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("buckets", recreate="always") as batch:
        batch.add_column(sa.Column("versioning", sa.SmallInteger, nullable=False, server_default="0"))
        batch.add_column(sa.Column("lockable", sa.SmallInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("objects", recreate="always") as batch:
        batch.add_column(sa.Column("standing", sa.SmallInteger, nullable=False, server_default="0"))
        batch.add_column(sa.Column("versioned", sa.SmallInteger, nullable=False, server_default="0"))
        batch.drop_constraint("objects_by_name", type_="unique")
        batch.create_unique_constraint("objects_by_version", ["bucket", "name", "version"])
    op.create_index(
        "objects_current",
        "objects",
        ["bucket", "name"],
        unique=True,
        sqlite_where=sa.text("standing = 0"),
        postgresql_where=sa.text("standing = 0"),
    )
    op.create_table(
        "object_facts",
        sa.Column("object", Number, sa.ForeignKey("objects.number"), primary_key=True, autoincrement=False),
        sa.Column("etag", sa.String(80), nullable=False),
        sa.Column("facts", sa.LargeBinary, nullable=False),
        sa.Column("tags", sa.LargeBinary, nullable=False),
        sa.Column("retention", sa.SmallInteger, nullable=False),
        sa.Column("retain_until_ms", sa.BigInteger, nullable=False),
        sa.Column("legal_hold", sa.SmallInteger, nullable=False),
    )
    op.create_table(
        "bucket_settings",
        sa.Column("bucket", Number, sa.ForeignKey("buckets.number"), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "multipart",
        sa.Column("number", Number, primary_key=True),
        sa.Column("multipart_id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("bucket", Number, sa.ForeignKey("buckets.number"), nullable=False),
        sa.Column("name", sa.LargeBinary(1024), nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
    )
    op.create_index("multipart_by_name", "multipart", ["bucket", "name", "multipart_id"])
    op.create_table(
        "multipart_parts",
        sa.Column("multipart", Number, sa.ForeignKey("multipart.number"), primary_key=True, autoincrement=False),
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("modified_ms", sa.BigInteger, nullable=False),
        sa.Column("etag", sa.String(80), nullable=False),
        sa.Column("facts", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "multipart_segments",
        sa.Column("multipart", Number, sa.ForeignKey("multipart.number"), primary_key=True, autoincrement=False),
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("segment", Number, sa.ForeignKey("segments.number"), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("multipart_segments_by_segment", "multipart_segments", ["segment"])
    op.create_table(
        "access_keys",
        sa.Column("key_id", sa.String(128), primary_key=True),
        sa.Column("sealed_secret", sa.LargeBinary, nullable=False),
        sa.Column("rights", sa.LargeBinary, nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger, nullable=False),
    )
