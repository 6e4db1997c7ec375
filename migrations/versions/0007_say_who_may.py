"""Add the networks of API keys, and the nonce of verifications that a signed redirect created."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # Adding a column with a constant default rewrites no rows, on either database.
    op.add_column("api_key", sa.Column("networks", sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("verification", sa.Column("nonce", sa.String(), nullable=True))
    has_nonce = sa.text("nonce IS NOT NULL")
    op.create_index(
        "ix_verification_nonce",
        "verification",
        ["nonce"],
        unique=True,
        sqlite_where=has_nonce,
        postgresql_where=has_nonce,
    )
