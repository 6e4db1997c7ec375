"""Add the deliveries of events to webhook endpoints, and their attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_AT = sa.DateTime(timezone=True)
_HAS_DUE, _IS_PENDING, _HAS_HEAD = map(sa.text, ("due_at IS NOT NULL", "state = 'pending'", "head IS NOT NULL"))


def upgrade() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", _ID, nullable=False),
        sa.Column("endpoint_id", sa.String, nullable=False),
        sa.Column("event_id", _ID, nullable=False),
        sa.Column("verification_id", sa.BigInteger),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("due_at", _AT),
        sa.Column("claim", sa.Integer, nullable=False),
        sa.Column("is_leased", sa.Boolean, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("ended_at", _AT),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoint.id"],
            name="fk_delivery_endpoint_id_webhook_endpoint",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name="fk_delivery_event_id_event", ondelete="CASCADE"),
        sa.UniqueConstraint("event_id", "endpoint_id", name="uq_delivery_event_id_endpoint_id"),
    )
    op.create_index("ix_delivery_endpoint_id_state_id", "delivery", ["endpoint_id", "state", "id"])
    for name, columns, sqlite_where, postgresql_where in (
        ("due", ["endpoint_id", "priority", "due_at"], _HAS_DUE, _HAS_DUE),
        ("order", ["endpoint_id", "verification_id", "position"], _IS_PENDING, _IS_PENDING),
        ("leased", ["endpoint_id"], sa.text("is_leased = 1"), sa.text("is_leased")),
    ):
        op.create_index(
            f"ix_delivery_{name}", "delivery", columns, sqlite_where=sqlite_where, postgresql_where=postgresql_where
        )
    op.create_table(
        "delivery_attempt",
        sa.Column("id", _ID, nullable=False),
        sa.Column("delivery_id", _ID, nullable=False),
        sa.Column("at", _AT, nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("address", sa.String),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("fault", sa.String),
        sa.Column("detail", sa.String),
        sa.Column("head", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_delivery_attempt"),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["delivery.id"], name="fk_delivery_attempt_delivery_id_delivery", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_delivery_attempt_delivery_id_id", "delivery_attempt", ["delivery_id", "id"])
    op.create_index(
        "ix_delivery_attempt_head", "delivery_attempt", ["at"], sqlite_where=_HAS_HEAD, postgresql_where=_HAS_HEAD
    )
