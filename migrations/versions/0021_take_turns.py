"""Add the time of the last call, and the index of the queue by client.

On Postgres `app.storage.schema` builds the index afterwards, without blocking writers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("verification", sa.Column("called_at", sa.DateTime(timezone=True)))
    if op.get_bind().dialect.name == "sqlite":
        op.create_index(
            "ix_verification_turns",
            "verification",
            ["account", "priority", "client", "due_at"],
            sqlite_where=sa.text("due_at IS NOT NULL"),
        )
