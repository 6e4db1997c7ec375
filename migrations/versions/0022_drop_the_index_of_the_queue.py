"""Drop the index of the queue without clients, which `ix_verification_turns` replaces."""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.drop_index("ix_verification_queue", table_name="verification")
