"""Segments, placements, announcements and farmers' counters."""

import sqlalchemy as sa
from alembic import op

revision = "agent_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "segments",
        sa.Column("segment_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("k", sa.SmallInteger, nullable=False),
        sa.Column("r", sa.SmallInteger, nullable=False),
        sa.Column("o", sa.SmallInteger, nullable=False),
        sa.Column("n", sa.SmallInteger, nullable=False),
        sa.Column("shard_bytes", sa.Integer, nullable=False),
        sa.Column("roots", sa.LargeBinary, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("released", sa.Boolean, nullable=False),
    )
    op.create_table(
        "placements",
        sa.Column("contract_id", sa.LargeBinary(32), primary_key=True),
        sa.Column("segment_id", sa.LargeBinary(16), sa.ForeignKey("segments.segment_id"), nullable=False),
        sa.Column("shard_index", sa.SmallInteger, nullable=False),
        sa.Column("copy", sa.SmallInteger, nullable=False),
        sa.Column("farmer", sa.LargeBinary(20), nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger, nullable=False),
        sa.Column("contract", sa.LargeBinary, nullable=False),
        sa.Column("receipt", sa.LargeBinary),
        sa.Column("erased", sa.LargeBinary),
        sa.Column("erased_ms", sa.BigInteger),
    )
    op.create_index("placements_by_segment", "placements", ["segment_id", "state", "shard_index"])
    op.create_index("placements_by_farmer", "placements", ["state", "farmer", "contract_id"])
    op.create_index("placements_by_end", "placements", ["state", "end_ms"])
    op.create_table(
        "announcements",
        sa.Column("farmer", sa.LargeBinary(20), primary_key=True),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("announcement", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "farmer_counters",
        sa.Column("farmer", sa.LargeBinary(20), primary_key=True),
        sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("successes", sa.Double, nullable=False),
        sa.Column("failures", sa.Double, nullable=False),
        sa.Column("value_sum", sa.Double, nullable=False),
        sa.Column("value_weight", sa.Double, nullable=False),
        sa.Column("failures_in_a_row", sa.Integer, nullable=False),
        sa.Column("last_ok_ms", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
    )
