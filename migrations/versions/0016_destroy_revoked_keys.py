"""Destroy the digests of revoked API keys, and index the audit by the key that an action is about.

On Postgres `app.storage.schema` builds the index afterwards, without blocking writers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0013"


def upgrade() -> None:
    op.get_bind().execute(
        sa.text("UPDATE api_key SET sealed_digest = :destroyed WHERE revoked_at IS NOT NULL"), {"destroyed": b""}
    )
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("ix_audit_subject", "audit", ["subject"], sqlite_where=sa.text("subject IS NOT NULL"))
