"""The tables of `agent.db` as the code uses them; a test compares them with the migrations.

What they mean is written in `docs/formats/agent-database.md`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
)

from stook.storage.database import Schema

AGENT_SCHEMA = Schema(name="agent", head="agent_0001")
agent_metadata = MetaData()

segments = Table(
    "segments",
    agent_metadata,
    Column("segment_id", LargeBinary(16), primary_key=True),
    Column("k", SmallInteger, nullable=False),
    Column("r", SmallInteger, nullable=False),
    Column("o", SmallInteger, nullable=False),
    Column("n", SmallInteger, nullable=False),
    Column("shard_bytes", Integer, nullable=False),
    Column("roots", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("released", Boolean, nullable=False),
)

placements = Table(
    "placements",
    agent_metadata,
    Column("contract_id", LargeBinary(32), primary_key=True),
    Column("segment_id", LargeBinary(16), ForeignKey("segments.segment_id"), nullable=False),
    Column("shard_index", SmallInteger, nullable=False),
    Column("copy", SmallInteger, nullable=False),
    Column("farmer", LargeBinary(20), nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("contract", LargeBinary, nullable=False),
    Column("receipt", LargeBinary),
    Column("erased", LargeBinary),
    Column("erased_ms", BigInteger),
    Index("placements_by_segment", "segment_id", "state", "shard_index"),
    Index("placements_by_farmer", "state", "farmer", "contract_id"),
    Index("placements_by_end", "state", "end_ms"),
)

announcements = Table(
    "announcements",
    agent_metadata,
    Column("farmer", LargeBinary(20), primary_key=True),
    Column("issued_ms", BigInteger, nullable=False),
    Column("announcement", LargeBinary, nullable=False),
)

farmer_counters = Table(
    "farmer_counters",
    agent_metadata,
    Column("farmer", LargeBinary(20), primary_key=True),
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("successes", Double, nullable=False),
    Column("failures", Double, nullable=False),
    Column("value_sum", Double, nullable=False),
    Column("value_weight", Double, nullable=False),
    Column("failures_in_a_row", Integer, nullable=False),
    Column("last_ok_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
)
