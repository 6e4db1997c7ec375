"""Databases for tests: a new one if the test needs it, otherwise an emptied one, which takes a tenth of the time."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.errors import UnavailableError
from app.storage import schema
from app.storage.database import Database, DatabaseSettings

T = TypeVar("T")

_END_OTHER_SESSIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
# TRUNCATE would take thirty times as long, because it replaces the files of all tables and indexes.
_DELETE_ALL_ROWS = text(
    "WITH " + ", ".join(f"of_{name} AS (DELETE FROM {name})" for name in schema.metadata.tables) + " SELECT"
)
_RESTART_IDENTITIES = text(
    "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) FROM pg_sequences"
    " WHERE last_value IS NOT NULL"
)
_COUNT_BLOCKED_SESSIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@asynccontextmanager
async def fresh_database(server_url: str, options: str = "") -> AsyncIterator[str]:
    """Creates a database without a schema and yields its URL. The database is dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    await _execute(server_url, f"CREATE DATABASE {name} {options}")
    try:
        yield _url_of(server_url, name)
    finally:
        await _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def opened(url: str, **settings: int) -> AsyncIterator[Database]:
    """Opens the database with these settings and closes it at the end."""
    database = Database(DatabaseSettings.model_validate({"database_url": SecretStr(url), **settings}))
    try:
        yield database
    finally:
        await database.aclose()


async def migrate(url: str) -> None:
    """Migrates the database to the newest schema."""
    async with opened(url) as database:
        await schema.migrate(database)


@contextmanager
def sqlite_template_at(path: Path) -> Iterator[str]:
    """Creates a migrated file that tests copy. A copy takes a thousandth of the time of the migrations."""
    _run(migrate(f"sqlite+aiosqlite:///{path}"))
    yield str(path)


@contextmanager
def postgres_template_of(server_url: str) -> Iterator[str]:
    """Creates a migrated database for `CREATE DATABASE … TEMPLATE` and yields its name. It is dropped at the end."""
    name = f"template_{secrets.token_hex(6)}"
    _run(_execute(server_url, f"CREATE DATABASE {name}"))
    try:
        _run(migrate(_url_of(server_url, name)))
        yield name
    finally:
        _run(_execute(server_url, f"DROP DATABASE {name} WITH (FORCE)"))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a thread, because the event loop of the tests belongs to theirs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def wait_for_blocked_sessions(database: Database, count: int) -> None:
    """Returns when so many sessions of this Postgres database wait for a lock."""
    for _ in range(1000):
        async with database.read() as tx:
            if await tx.connection.scalar(_COUNT_BLOCKED_SESSIONS) == count:
                return
        await asyncio.sleep(0.01)
    pytest.fail(f"{count} sessions should wait for a lock, and do not.")


class PostgresPool:
    """Lends copies of a migrated, empty database. A returned one is emptied, which is faster than another copy."""

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url = server_url
        self._template = template
        self._free: list[str] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[str]:
        """Yields the URL of a database that is used by this block only."""
        url = self._free.pop() if self._free else await self._create()
        try:
            yield url
        finally:
            if await _empty(url):
                self._free.append(url)

    async def _create(self) -> str:
        return await self._stack.enter_async_context(fresh_database(self._server_url, f"TEMPLATE {self._template}"))


async def _empty(url: str) -> bool:
    """Resets a database to the state after its migrations. Returns False if a test has changed the schema.

    The migrations write no rows of their own. Listeners and advisory locks end with the sessions that hold them.
    """
    try:
        async with opened(url) as database:
            async with database.write() as tx:
                for statement in (_END_OTHER_SESSIONS, _DELETE_ALL_ROWS, _RESTART_IDENTITIES):
                    await tx.connection.execute(statement)
            return await schema.is_current(database)
    except UnavailableError:
        return False


def _url_of(server_url: str, name: str) -> str:
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


async def _execute(server_url: str, statement: str) -> None:
    engine = create_async_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(statement))
