"""Keep the result of the confirmation of an intention."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    # Adding a column with a constant default rewrites no rows, on either database.
    op.add_column(
        "detection", sa.Column("is_intention_required", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("detection", sa.Column("intention_status", sa.BigInteger()))
    op.add_column("detection", sa.Column("intention_msg", sa.String()))
