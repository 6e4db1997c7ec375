"""Index tokens and their clients: a token is to be unique for each client, and no longer for all of them.

On Postgres `app.storage.schema` builds the index afterwards, without blocking writers.
"""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("ix_verification_biz_token_client", "verification", ["biz_token", "client"], unique=True)
