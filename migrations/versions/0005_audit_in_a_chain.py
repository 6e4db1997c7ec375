"""Audit more than disclosures, and chain the rows. The table is empty, because 0004 requires an empty database."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("audit") as audit:
        audit.add_column(sa.Column("who", sa.String(), nullable=False))
        audit.add_column(sa.Column("subject", sa.String(), nullable=True))
        audit.add_column(sa.Column("fields", sa.String(), nullable=False))
        audit.add_column(sa.Column("outcome", sa.String(), nullable=False))
        audit.alter_column("verification_id", existing_type=sa.BigInteger(), nullable=True)
        audit.alter_column("purpose", existing_type=sa.String(), nullable=True)
    op.create_index(op.f("ix_audit_verification_id_id"), "audit", ["verification_id", "id"])
    op.create_table(
        "audit_link",
        sa.Column(
            "position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("audit_id", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_link")),
        sa.UniqueConstraint("audit_id", name=op.f("uq_audit_link_audit_id")),
    )
