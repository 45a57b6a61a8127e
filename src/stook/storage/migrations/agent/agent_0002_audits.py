"""Audits and repair: what was proved when, farmers' dossiers and histories, challenges, losses, receipts, flights."""

import sqlalchemy as sa
from alembic import op

from stook.codec import decode
from stook.contracts.contract import Contract
from stook.contracts.receipt import SignedStorageReceipt

revision = "agent_0002"
down_revision = "agent_0001"


def upgrade() -> None:
    with op.batch_alter_table("placements") as placements:
        placements.add_column(sa.Column("stored_ms", sa.BigInteger, nullable=False, server_default="0"))
        placements.add_column(sa.Column("proved_ms", sa.BigInteger, nullable=False, server_default="0"))
        placements.add_column(sa.Column("audit_interval_ms", sa.BigInteger, nullable=False, server_default="0"))
        placements.add_column(sa.Column("audit_leaves", sa.BigInteger, nullable=False, server_default="0"))
    _fill()
    op.create_table(
        "dossiers",
        sa.Column("farmer", sa.LargeBinary(20), primary_key=True),
        sa.Column("score", sa.LargeBinary, nullable=False),
        sa.Column("base", sa.LargeBinary, nullable=False),
        sa.Column("silence", sa.LargeBinary, nullable=False),
        sa.Column("next_due_ms", sa.BigInteger, nullable=False),
        sa.Column("first_due_ms", sa.BigInteger, nullable=False),
        sa.Column("beat_ms", sa.BigInteger, nullable=False),
        sa.Column("heard_ms", sa.BigInteger, nullable=False),
        sa.Column("known_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "farmer_events",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("farmer", sa.LargeBinary(20), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
    )
    op.create_index("farmer_events_by_farmer", "farmer_events", ["farmer", "number"])
    op.create_table(
        "open_challenges",
        sa.Column("farmer", sa.LargeBinary(20), primary_key=True),
        sa.Column("challenge", sa.LargeBinary, nullable=False),
        sa.Column("first", sa.Boolean, nullable=False),
    )
    op.create_table(
        "noted_losses",
        sa.Column("contract_id", sa.LargeBinary(32), primary_key=True),
        sa.Column("farmer", sa.LargeBinary(20), nullable=False),
        sa.Column("noted", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit_receipts",
        sa.Column("challenge", sa.LargeBinary(32), primary_key=True),
        sa.Column("farmer", sa.LargeBinary(20), nullable=False),
        sa.Column("judged_ms", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.SmallInteger, nullable=False),
        sa.Column("sent", sa.Boolean, nullable=False),
        sa.Column("file", sa.LargeBinary, nullable=False),
    )
    op.create_index("audit_receipts_by_farmer", "audit_receipts", ["farmer", "judged_ms"])
    op.create_index("audit_receipts_by_time", "audit_receipts", ["judged_ms"])
    op.create_table(
        "allowances",
        sa.Column("name", sa.LargeBinary, primary_key=True),
        sa.Column("per_day", sa.BigInteger, nullable=False),
        sa.Column("burst", sa.BigInteger, nullable=False),
        sa.Column("level", sa.LargeBinary(16), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "outages",
        sa.Column("begin_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("end_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "flights",
        sa.Column("segment_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("shard_index", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("copy", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("begun_ms", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.LargeBinary, nullable=False),
    )


def _fill() -> None:
    """What contracts and receipts say of placements that exist already."""
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT contract_id, contract, receipt FROM placements")).fetchall()
    statement = sa.text(
        "UPDATE placements SET stored_ms = :stored, audit_interval_ms = :interval, audit_leaves = :leaves "
        "WHERE contract_id = :contract_id"
    )
    for contract_id, contract, receipt in rows:
        terms = decode(Contract, contract).terms
        stored = 0 if receipt is None else decode(SignedStorageReceipt, receipt).receipt.stored_at_ms
        connection.execute(
            statement,
            {
                "contract_id": contract_id,
                "stored": min(stored, terms.consign_by_ms),
                "interval": terms.audit.interval_ms,
                "leaves": terms.audit.leaves_per_interval,
            },
        )
