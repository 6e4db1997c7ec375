"""Keep lists constant in time: one index for each kind of list in place of one for each column."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_OLD = ("client", "state", "outcome", "rule_id", "subject_ref", "received_at")
_NEW = (
    ("client", "state", "outcome", "id"),
    ("client", "rule_id", "state", "outcome", "id"),
    ("client", "state", "outcome", "received_at", "id"),
    ("state", "outcome", "id"),
    ("rule_id", "state", "outcome", "id"),
    ("state", "outcome", "received_at", "id"),
)


def upgrade() -> None:
    for column in _OLD:
        op.drop_index(op.f(f"ix_verification_{column}_id"), "verification")
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
