"""Identify the installation, and record how far its clock can be trusted."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("database_id", sa.String(32), nullable=False),
        sa.Column("checked_at", _INSTANT),
        sa.Column("doubted_since", _INSTANT),
        sa.Column("erasure_stopped_at", _INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
