"""Alembic's entry point: runs the migrations on the connection that the application passes."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, TypeDecorator

from app.storage import schema


def _render_item(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    """Renders our own column types as plain types, because migrations must not depend on them."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, TypeDecorator) else False


connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=schema.metadata,
    # SQLite alters tables by copying them.
    render_as_batch=True,
    transaction_per_migration=False,
    render_item=_render_item,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
