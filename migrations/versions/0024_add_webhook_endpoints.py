"""Add the endpoints that webhooks are sent to."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("client", sa.String, nullable=False),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("description", sa.String),
        sa.Column("events", sa.String, nullable=False, server_default=sa.text("''")),
        sa.Column("outcomes", sa.String, nullable=False, server_default=sa.text("''")),
        sa.Column("rule_ids", sa.String, nullable=False, server_default=sa.text("''")),
        sa.Column("max_per_second", sa.Integer),
        sa.Column("sealed_secret", sa.LargeBinary, nullable=False),
        sa.Column("previous_secret", sa.LargeBinary),
        sa.Column("previous_until", sa.DateTime(timezone=True)),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("disabled_reason", sa.String),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failing_since", sa.DateTime(timezone=True)),
        sa.Column("last_success_at", sa.DateTime(timezone=True)),
        sa.Column("last_failure_at", sa.DateTime(timezone=True)),
        sa.Column("last_fault", sa.String),
        sa.Column("pauses", sa.Integer, nullable=False, server_default="0"),
        sa.Column("paused_until", sa.DateTime(timezone=True)),
        sa.Column("concurrency", sa.Integer, nullable=False, server_default="4"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoint"),
    )
    op.create_index("ix_webhook_endpoint_client_id", "webhook_endpoint", ["client", "id"])
