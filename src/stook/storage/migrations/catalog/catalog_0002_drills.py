"""What restore drills proved, what they cost by day, and the certificates made of it."""

import sqlalchemy as sa
from alembic import op

revision = "catalog_0002"
down_revision = "catalog_0001"

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "proofs",
        sa.Column("segment", Number, sa.ForeignKey("segments.number"), primary_key=True, autoincrement=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("tried_ms", sa.BigInteger, nullable=False),
        sa.Column("proved_ms", sa.BigInteger, nullable=False),
        sa.Column("spot_ms", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("rows", sa.LargeBinary(32), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
    )
    op.create_table(
        "drill_days",
        sa.Column("bucket", Number, sa.ForeignKey("buckets.number"), primary_key=True, autoincrement=False),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("drills", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("fetched_bytes", sa.BigInteger, nullable=False),
        sa.Column("asked", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "certificates",
        sa.Column("bucket", Number, sa.ForeignKey("buckets.number"), primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
    )
