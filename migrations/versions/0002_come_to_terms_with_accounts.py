"""Add accounts: the account, priority and fetched parts of a verification, and the pauses."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "pause",
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("rule_id", sa.String(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("probe_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account", "rule_id", name=op.f("pk_pause")),
    )
    # Adding a column with a constant default rewrites no rows, on either database.
    op.add_column("verification", sa.Column("account", sa.String(), server_default="default", nullable=False))
    op.add_column("verification", sa.Column("priority", sa.Integer(), server_default="1", nullable=False))
    op.add_column("verification", sa.Column("pulled", sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("verification", sa.Column("one_by_one", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.drop_index("ix_verification_due_at", "verification")
    _partial_index("ix_verification_queue", ["account", "priority", "due_at"], "due_at IS NOT NULL")
    _partial_index("ix_verification_deadline_at", ["deadline_at"], "state = 'pending' OR pulled <> ''")


def _partial_index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "verification", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
