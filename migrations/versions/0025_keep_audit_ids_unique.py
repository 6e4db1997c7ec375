"""Index the nonces of states by their token, and never assign the id of a removed audit row again.

Only SQLite needs the second: 0005 lost AUTOINCREMENT when it replaced the table. A new row with the id of a removed one
would have the link of that one, and would never get a link of its own. On Postgres `app.storage.schema` builds the
index afterwards, without blocking writers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

_CREATE = """
CREATE TABLE audit_new (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at DATETIME NOT NULL,
    key_id VARCHAR NOT NULL,
    client VARCHAR NOT NULL,
    action VARCHAR NOT NULL,
    verification_id BIGINT,
    purpose VARCHAR,
    request_id VARCHAR NOT NULL,
    who VARCHAR NOT NULL,
    subject VARCHAR,
    fields VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL
)
"""
_COPY = """
INSERT INTO audit_new
SELECT id, at, key_id, client, action, verification_id, purpose, request_id, who, subject, fields, outcome FROM audit
"""
# Ids of removed rows that still have a link.
_RESERVE = sa.text(
    "UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(audit_id), 0) FROM audit_link))"
    " WHERE name = 'audit'"
)
_BEGIN_SEQUENCE = sa.text(
    "INSERT INTO sqlite_sequence (name, seq) SELECT 'audit', 0 WHERE NOT EXISTS"
    " (SELECT 1 FROM sqlite_sequence WHERE name = 'audit')"
)


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    op.create_index("ix_redirect_nonce_biz_token_client", "redirect_nonce", ["biz_token", "client"])
    op.execute(_CREATE)
    op.execute(_COPY)
    op.drop_table("audit")
    op.rename_table("audit_new", "audit")
    connection.execute(_BEGIN_SEQUENCE)
    connection.execute(_RESERVE)
    op.create_index("ix_audit_verification_id_id", "audit", ["verification_id", "id"])
    op.create_index("ix_audit_subject", "audit", ["subject"], sqlite_where=sa.text("subject IS NOT NULL"))
