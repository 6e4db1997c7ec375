"""Count the slots of the quota by the minute, and let workers report themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    # Constant defaults, so no row is rewritten.
    op.add_column("quota", sa.Column("minute", sa.BigInteger(), nullable=False, server_default="0"))
    for name in ("slots", "slots_before"):
        op.add_column("quota", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "worker",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
