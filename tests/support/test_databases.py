"""An emptied database equals a new one."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime

from sqlalchemy import String, Table, TypeDecorator, insert, text

from app.storage import schema
from tests.support.databases import PostgresPool, fresh_database, migrate, opened

VALUES = {str: "x", int: 1, bool: True, bytes: b"x", datetime: datetime(2026, 1, 2, tzinfo=UTC), date: date(2026, 1, 2)}
# Everything that a database consists of, and everything that a test can leave in one.
PARTS = {
    "relations": "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "columns": (
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public'"
    ),
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "constraints": (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
    ),
    "sequences": "SELECT sequencename, last_value FROM pg_sequences",
    "sessions": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()",
    "advisory locks": (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE locktype = 'advisory' AND datname = current_database()"
    ),
    **{table: f"SELECT * FROM {table}" for table in [*schema.metadata.tables, "alembic_version"]},
}


async def parts_of(url: str) -> Mapping[str, Sequence[str]]:
    async with opened(url) as database, database.read() as tx:
        return {
            name: sorted(map(str, await tx.connection.execute(text(statement)))) for name, statement in PARTS.items()
        }


def row_of(table: Table) -> dict[str, object]:
    """Returns values for a row of the table, without those that the database or SQLAlchemy provides."""
    types = {
        column.key: column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
        for column in table.c
        if (column.name != "id" or isinstance(column.type, String)) and column.server_default is None
    }
    return {name: VALUES[column_type.python_type] for name, column_type in types.items()}


async def test_emptied_database_equals_a_migrated_one(postgres_server: str, postgres_template: str) -> None:
    async with fresh_database(postgres_server) as url:
        await migrate(url)
        migrated = await parts_of(url)

    async with PostgresPool(postgres_server, postgres_template) as pool, AsyncExitStack() as stack:
        async with pool.lend() as used_url:
            used = await stack.enter_async_context(opened(used_url))
            async with used.write() as tx:
                for table in schema.metadata.sorted_tables:
                    await tx.connection.execute(insert(table), row_of(table))
                await tx.connection.execute(text("SELECT pg_advisory_lock(1)"))
                await tx.connection.execute(text("LISTEN topic"))
            full = await parts_of(used_url)
        async with pool.lend() as emptied_url:
            emptied = await parts_of(emptied_url)

    assert {name for name in full if full[name] != migrated[name]} == {
        *schema.metadata.tables,
        "sequences",
        "sessions",
        "advisory locks",
    }
    assert emptied_url == used_url
    assert emptied == migrated


async def test_database_with_another_schema_is_not_lent_again(postgres_server: str, postgres_template: str) -> None:
    async with PostgresPool(postgres_server, postgres_template) as pool:
        for statement in ("ALTER TABLE media RENAME TO away", "UPDATE alembic_version SET version_num = '0'"):
            async with pool.lend() as changed_url, opened(changed_url) as changed, changed.write() as tx:
                await tx.connection.execute(text(statement))

            async with pool.lend() as url, opened(url) as database:
                assert url != changed_url
                assert await schema.is_current(database)
