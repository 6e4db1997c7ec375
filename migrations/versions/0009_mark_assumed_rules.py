"""Mark the rules that nobody stated, so a statement may replace them. The rules of existing rows count as stated."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # Adding a column with a constant default rewrites no rows, on either database.
    op.add_column("verification", sa.Column("is_rule_assumed", sa.Boolean(), server_default=sa.false(), nullable=False))
