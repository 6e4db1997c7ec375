"""Add the retention: how long data is kept, and when the next erasure is due."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("verification") as verification:
        verification.add_column(sa.Column("retain_until", _INSTANT, nullable=False))
        verification.add_column(sa.Column("retain_media_until", _INSTANT, nullable=False))
        verification.add_column(sa.Column("erase_at", _INSTANT, nullable=True))
        verification.add_column(sa.Column("erased_at", _INSTANT, nullable=True))
        verification.add_column(sa.Column("legal_hold", sa.Boolean(), server_default=sa.false(), nullable=False))
    where = sa.text("erase_at IS NOT NULL")
    op.create_index(
        "ix_verification_erase_at", "verification", ["erase_at"], sqlite_where=where, postgresql_where=where
    )
