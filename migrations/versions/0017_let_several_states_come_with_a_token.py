"""Add the nonces that browsers have brought, each with its token: several states may come with one token."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "redirect_nonce",
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("biz_token", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_redirect_nonce")),
    )
