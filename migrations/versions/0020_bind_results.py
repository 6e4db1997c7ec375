"""Add the digest that binds a verification and its result, and the number of its results."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    # Neither column rewrites rows, on either database.
    op.add_column("verification", sa.Column("digest", sa.LargeBinary(), nullable=True))
    op.add_column("verification", sa.Column("revision", sa.Integer(), server_default="0", nullable=False))
