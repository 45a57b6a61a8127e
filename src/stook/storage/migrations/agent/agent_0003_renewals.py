"""Renewals that were asked for and not answered; and when a farmer means to be gone."""

import sqlalchemy as sa
from alembic import op

revision = "agent_0003"
down_revision = "agent_0002"


def upgrade() -> None:
    op.create_table(
        "renewals",
        sa.Column("contract_id", sa.LargeBinary(32), primary_key=True),
        sa.Column("request", sa.LargeBinary, nullable=False),
    )
    with op.batch_alter_table("dossiers") as dossiers:
        dossiers.add_column(sa.Column("leaving_by_ms", sa.BigInteger, nullable=False, server_default="0"))
