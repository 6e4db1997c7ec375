"""Add the sessions of the console."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.create_table(
        "console_session",
        sa.Column("id_hash", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.String),
        sa.Column("caller_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("client", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("sealed_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id_hash", name="pk_console_session"),
    )
    op.create_index("ix_console_session_expires_at", "console_session", ["expires_at"])
