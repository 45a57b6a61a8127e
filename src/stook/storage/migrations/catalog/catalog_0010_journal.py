"""What changed since the catalog was last saved on the network, and what is saved there (`docs/formats/journal.md`)."""

import sqlalchemy as sa
from alembic import op

revision = "catalog_0010"
down_revision = "catalog_0004"

Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "journal_state",
        sa.Column("number", Number, primary_key=True, autoincrement=False),
        sa.Column("writer", sa.LargeBinary(16), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("saved", sa.BigInteger, nullable=False),
        sa.Column("saved_ms", sa.BigInteger, nullable=False),
        sa.Column("frozen", sa.BigInteger, nullable=False),
        sa.Column("whole", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("alarm", sa.String(500), nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    # A key column keeps whatever type the key of its table has, hence no type at all.
    op.execute(
        "CREATE TABLE journal_changes ("
        "source VARCHAR(64) NOT NULL, key1 BLOB NOT NULL, key2 BLOB NOT NULL, key3 BLOB NOT NULL, "
        "generation BIGINT NOT NULL, PRIMARY KEY (source, key1, key2, key3)) WITHOUT ROWID"
    )
    op.create_index("journal_changes_by_generation", "journal_changes", ["generation"])
    op.create_table(
        "journal_saves",
        sa.Column("sequence", Number, primary_key=True, autoincrement=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("parts", sa.LargeBinary, nullable=False),
        sa.Column("ref", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "journal_points",
        sa.Column("sequence", Number, primary_key=True, autoincrement=False),
        sa.Column("saved_ms", sa.BigInteger, nullable=False),
        sa.Column("chain", sa.LargeBinary, nullable=False),
    )
    op.execute(
        "INSERT INTO journal_state (number, writer, epoch, counter, generation, saved, saved_ms, frozen, whole, alarm, "
        "record) VALUES (1, randomblob(16), 0, 0, 1, 0, 0, 0, 1, '', x'')"
    )
