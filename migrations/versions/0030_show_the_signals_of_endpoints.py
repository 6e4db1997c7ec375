"""Name the endpoint of each attempt, and find audit rows by action and by key.

On Postgres `app.storage.schema` builds the indexes afterwards, without blocking writers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    # The attempts that exist stay without an endpoint: signals are of the last day, and the partial index is empty.
    op.add_column("delivery_attempt", sa.Column("endpoint_id", sa.String()))
    if op.get_bind().dialect.name != "sqlite":
        return
    op.create_index(
        "ix_delivery_attempt_signals",
        "delivery_attempt",
        ["endpoint_id", "at", "fault", "duration_ms"],
        sqlite_where=sa.text("endpoint_id IS NOT NULL"),
    )
    op.create_index("ix_audit_action_id", "audit", ["action", "id"])
    op.create_index("ix_audit_key_id_id", "audit", ["key_id", "id"])
