"""Count verifications by day, client, rule, state, outcome and result code."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_NAMES = ("day", "client", "rule_id", "state", "outcome", "err_code")
_FILL = """
INSERT INTO count_total (day, client, rule_id, state, outcome, err_code, number)
SELECT {day}, client, rule_id, state, outcome, coalesce(CAST(err_code AS varchar), ''), count(*)
FROM verification WHERE state <> 'erased' AND coalesce(registered_at, received_at) IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6
"""
# In Beijing time. SQLite's min() of two values is null if one of them is.
_DAYS = {
    "postgresql": "CAST(least(registered_at, received_at) AT TIME ZONE 'Asia/Shanghai' AS date)",
    "sqlite": "date(min(coalesce(registered_at, received_at), coalesce(received_at, registered_at)), '+8 hours')",
}


def upgrade() -> None:
    op.create_table(
        "count_change",
        sa.Column("id", _ID, nullable=False),
        *_columns(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_count_change")),
    )
    op.create_table("count_total", *_columns(), sa.PrimaryKeyConstraint(*_NAMES, name=op.f("pk_count_total")))
    op.create_index(op.f("ix_count_total_client_day"), "count_total", ["client", "day"])
    # Reads the table once and locks no row. Processes of the earlier version do not count until they are replaced.
    op.execute(_FILL.format(day=_DAYS[op.get_bind().dialect.name]))


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in _NAMES[1:]),
        sa.Column("number", sa.BigInteger(), nullable=False),
    ]
