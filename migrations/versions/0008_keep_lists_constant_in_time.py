"""Index each kind of list instead of each column, so lists take constant time.

A missing outcome becomes an empty text. Nulls cannot be compared, so no index leads to them in the order of a list.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_OLD = ("client", "state", "outcome", "rule_id", "subject_ref", "received_at")
_NEW = (
    ("client", "state", "outcome", "id"),
    ("client", "rule_id", "state", "outcome", "id"),
    ("client", "state", "outcome", "received_at", "id"),
    ("client", "rule_id", "state", "outcome", "received_at", "id"),
    ("state", "outcome", "id"),
    ("rule_id", "state", "outcome", "id"),
    ("state", "outcome", "received_at", "id"),
)


def upgrade() -> None:
    for column in _OLD:
        op.drop_index(op.f(f"ix_verification_{column}_id"), "verification")
    _fill_outcome()
    for columns in _NEW:
        op.create_index(op.f(f"ix_verification_{'_'.join(columns)}"), "verification", list(columns))
    has_subject = sa.text("subject_ref IS NOT NULL")
    op.create_index(
        "ix_verification_subject_ref_id",
        "verification",
        ["subject_ref", "id"],
        sqlite_where=has_subject,
        postgresql_where=has_subject,
    )


def _fill_outcome() -> None:
    empty = sa.text("''")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("UPDATE verification SET outcome = '' WHERE outcome IS NULL")
        op.alter_column("verification", "outcome", existing_type=sa.String(), nullable=False, server_default=empty)
        return
    # Alembic would copy the table. Dropping the original would delete the results, which refer to it.
    op.add_column("verification", sa.Column("outcome_or_none", sa.String(), server_default=empty, nullable=False))
    op.execute("UPDATE verification SET outcome_or_none = outcome WHERE outcome IS NOT NULL")
    op.execute("ALTER TABLE verification DROP COLUMN outcome")
    op.execute("ALTER TABLE verification RENAME COLUMN outcome_or_none TO outcome")
