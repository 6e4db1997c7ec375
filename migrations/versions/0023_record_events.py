"""Record events: the outbox, the counter of its positions, and what verifications need for it."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_HAS_POSITION = sa.text("position IS NOT NULL")
_HAS_NO_POSITION = sa.text("position IS NULL")


def upgrade() -> None:
    # None of the three columns rewrites rows, on either database.
    op.add_column("verification", sa.Column("err_code", sa.BigInteger()))
    op.add_column("verification", sa.Column("event_count", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "verification", sa.Column("is_expiry_announced", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.create_table(
        "event",
        sa.Column("id", _ID, nullable=False),
        sa.Column("public_id", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger()),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verification_id", sa.BigInteger()),
        sa.Column("biz_token", sa.String()),
        sa.Column("rule_id", sa.String()),
        sa.Column("subject_ref", sa.String()),
        sa.Column("state", sa.String()),
        sa.Column("outcome", sa.String(), server_default=sa.text("''"), nullable=False),
        sa.Column("provisional", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("err_code", sa.BigInteger()),
        sa.Column("revision", sa.Integer()),
        sa.Column("details", sa.String()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_event_verification_id_id"), "event", ["verification_id", "id"])
    op.create_index("ix_event_new", "event", ["id"], sqlite_where=_HAS_NO_POSITION, postgresql_where=_HAS_NO_POSITION)
    for name, columns, unique in (("position", ["position"], True), ("client_position", ["client", "position"], False)):
        op.create_index(
            f"ix_event_{name}",
            "event",
            columns,
            unique=unique,
            sqlite_where=_HAS_POSITION,
            postgresql_where=_HAS_POSITION,
        )
    op.create_table(
        "event_counter",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_counter")),
    )
