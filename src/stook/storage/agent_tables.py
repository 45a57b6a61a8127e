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

AGENT_SCHEMA = Schema(name="agent", head="agent_0003")
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
    Column("stored_ms", BigInteger, nullable=False, server_default="0"),
    Column("proved_ms", BigInteger, nullable=False, server_default="0"),
    Column("audit_interval_ms", BigInteger, nullable=False, server_default="0"),
    Column("audit_leaves", BigInteger, nullable=False, server_default="0"),
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

dossiers = Table(
    "dossiers",
    agent_metadata,
    Column("farmer", LargeBinary(20), primary_key=True),
    Column("score", LargeBinary, nullable=False),
    Column("base", LargeBinary, nullable=False),
    Column("silence", LargeBinary, nullable=False),
    Column("next_due_ms", BigInteger, nullable=False),
    Column("first_due_ms", BigInteger, nullable=False),
    Column("beat_ms", BigInteger, nullable=False),
    Column("heard_ms", BigInteger, nullable=False),
    Column("known_ms", BigInteger, nullable=False),
    Column("leaving_by_ms", BigInteger, nullable=False, server_default="0"),
)

farmer_events = Table(
    "farmer_events",
    agent_metadata,
    Column("number", Integer, primary_key=True),
    Column("farmer", LargeBinary(20), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", LargeBinary, nullable=False),
    Index("farmer_events_by_farmer", "farmer", "number"),
)

open_challenges = Table(
    "open_challenges",
    agent_metadata,
    Column("farmer", LargeBinary(20), primary_key=True),
    Column("challenge", LargeBinary, nullable=False),
    Column("first", Boolean, nullable=False),
)

noted_losses = Table(
    "noted_losses",
    agent_metadata,
    Column("contract_id", LargeBinary(32), primary_key=True),
    Column("farmer", LargeBinary(20), nullable=False),
    Column("noted", LargeBinary, nullable=False),
)

audit_receipts = Table(
    "audit_receipts",
    agent_metadata,
    Column("challenge", LargeBinary(32), primary_key=True),
    Column("farmer", LargeBinary(20), nullable=False),
    Column("judged_ms", BigInteger, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("sent", Boolean, nullable=False),
    Column("file", LargeBinary, nullable=False),
    Index("audit_receipts_by_farmer", "farmer", "judged_ms"),
    Index("audit_receipts_by_time", "judged_ms"),
)

allowances = Table(
    "allowances",
    agent_metadata,
    Column("name", LargeBinary, primary_key=True),
    Column("per_day", BigInteger, nullable=False),
    Column("burst", BigInteger, nullable=False),
    Column("level", LargeBinary(16), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

outages = Table(
    "outages",
    agent_metadata,
    Column("begin_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("end_ms", BigInteger, nullable=False),
)

flights = Table(
    "flights",
    agent_metadata,
    Column("segment_id", LargeBinary(16), primary_key=True),
    Column("shard_index", SmallInteger, primary_key=True, autoincrement=False),
    Column("copy", SmallInteger, primary_key=True, autoincrement=False),
    Column("begun_ms", BigInteger, nullable=False),
    Column("owner", LargeBinary, nullable=False),
)

renewals = Table(
    "renewals",
    agent_metadata,
    Column("contract_id", LargeBinary(32), primary_key=True),
    Column("request", LargeBinary, nullable=False),
)
