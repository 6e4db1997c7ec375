"""Alembic's entry: runs the migrations on the connection that the application hands over."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, TypeDecorator

from app.storage import schema


def _render_item(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    """Keeps our own types out of the migrations, which must outlive them."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, TypeDecorator) else False


connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=schema.metadata,
    render_as_batch=True,  # SQLite alters tables by copying them
    transaction_per_migration=False,
    render_item=_render_item,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
