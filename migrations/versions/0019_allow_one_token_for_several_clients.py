"""Remove the constraint that a token is unique for all clients.

On Postgres `app.storage.schema` removes it afterwards, when the index of 0018 exists. SQLite cannot remove a
constraint, so the rows move to a new table with the same columns. It gets AUTOINCREMENT again, which 0006 lost in the
same way. Foreign keys must be off, because removing the old table would delete all results.
"""

import re

import sqlalchemy as sa
from alembic import op

from app.errors import ConfigurationError

revision = "0019"
down_revision = "0018"

_UNIQUE = re.compile(r",\s*CONSTRAINT uq_verification_biz_token UNIQUE \(biz_token\)")
_PRIMARY_KEY = re.compile(r",\s*(?:CONSTRAINT pk_verification )?PRIMARY KEY \(id\)")
_ID = re.compile(r"\bid INTEGER NOT NULL(?: PRIMARY KEY AUTOINCREMENT)?")
_PARTS = sa.text("SELECT sql FROM sqlite_master WHERE tbl_name = 'verification' AND type = :type AND sql IS NOT NULL")
_GET_LAST_ID = sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'verification'")
_SET_LAST_ID = sa.text("UPDATE sqlite_sequence SET seq = max(seq, :last_id) WHERE name = 'verification'")


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    if connection.scalar(sa.text("PRAGMA foreign_keys")):
        raise ConfigurationError("The migration would delete all results. Please report this.")
    (old,) = connection.scalars(_PARTS, {"type": "table"})
    indexes = connection.scalars(_PARTS, {"type": "index"}).all()
    columns, removed = _UNIQUE.subn("", old[old.index("(") :])
    columns = _ID.sub("id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", _PRIMARY_KEY.sub("", columns), count=1)
    if removed != 1:
        raise ConfigurationError("The table of verifications was changed by hand. Nothing was migrated.")
    op.execute(f"CREATE TABLE verification_new {columns}")
    op.execute("INSERT INTO verification_new SELECT * FROM verification")
    last_id = connection.scalar(_GET_LAST_ID)
    op.drop_table("verification")
    op.rename_table("verification_new", "verification")
    connection.execute(_SET_LAST_ID, {"last_id": last_id or 0})
    for index in indexes:
        op.execute(index)
    if connection.execute(sa.text("PRAGMA foreign_key_check")).first():
        raise ConfigurationError("A result has no verification. Nothing was migrated.")
