"""Remember which media Tencent's answers lacked or contained in no readable form."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("verification", sa.Column("awaited_parts", sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("verification", sa.Column("media_polls", sa.Integer(), server_default="0", nullable=False))
    op.add_column("verification", sa.Column("unreadable", sa.String(), server_default=sa.text("''"), nullable=False))
