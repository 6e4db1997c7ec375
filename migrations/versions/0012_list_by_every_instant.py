"""Add the time of the last update, and the indexes of the lists by registration, retrieval, update and result code.

On Postgres `app.storage.schema` builds the indexes and fills the column afterwards, without blocking writers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_LISTS = (("client", "state", "outcome"), ("state", "outcome"))


def upgrade() -> None:
    # A constant default rewrites no rows, and rows of the earlier version get it, too.
    default = sa.text("'2000-01-01 00:00:00'")
    op.add_column(
        "verification", sa.Column("updated_at", sa.DateTime(timezone=True), server_default=default, nullable=False)
    )
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        "UPDATE verification SET updated_at = max("
        "'2000-01-01 00:00:00.000000', coalesce(registered_at, ''), coalesce(received_at, ''),"
        " coalesce(retrieved_at, ''), coalesce(erased_at, ''))"
    )
    for first in _LISTS:
        columns = [*first, "updated_at", "id"]
        op.create_index(op.f(f"ix_verification_{'_'.join(columns)}"), "verification", columns)
        for at in ("registered_at", "retrieved_at"):
            columns = [*first, at, "id"]
            op.create_index(
                f"ix_verification_{'_'.join(columns)}",
                "verification",
                columns,
                sqlite_where=sa.text(f"{at} IS NOT NULL"),
            )
    op.create_index(op.f("ix_detection_err_code_verification_id"), "detection", ["err_code", "verification_id"])
