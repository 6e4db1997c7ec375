"""The database: one engine, two kinds of transaction, and one place where its troubles become ours."""

import asyncio
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy import URL, Connection, event
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import ServiceError, SetUpError, UnavailableError

Transaction = AsyncConnection
"""What services pass on to the stores; only the stores use it."""

TRANSACTION_SECONDS = 10.0  # all waiting included: ours are short, and what takes longer will not come to an end
BUSY_TIMEOUT_SECONDS = 8  # SQLite: how long a second process waits for the writer

log = structlog.get_logger()


class DatabaseSettings(BaseModel):
    """Where the database is: `sqlite+aiosqlite:///file`, `postgresql+asyncpg://…`, by default a file in `data_dir`."""

    model_config = ConfigDict(hide_input_in_errors=True)

    database_url: SecretStr | None = None
    database_pool_size: int = Field(default=10, ge=1, le=1000)
    data_dir: Path = Path("data")

    def url(self) -> URL:
        """The URL to connect to; it may hold a password.

        Raises:
            SetUpError: it is not one of a supported database. It is not quoted.
        """
        if not self.database_url:
            return URL.create("sqlite+aiosqlite", database=str(self.data_dir.absolute() / "faceid-results.db"))
        try:
            url = make_url(self.database_url.get_secret_value())
        except (ArgumentError, ValueError):
            url = URL.create("unknown")
        is_file = url.drivername == "sqlite+aiosqlite" and url.database not in {None, "", ":memory:"}
        if not is_file and url.drivername != "postgresql+asyncpg":
            raise SetUpError("DATABASE_URL must begin with sqlite+aiosqlite:/// and a file, or postgresql+asyncpg://.")
        if "sslmode" in url.query:
            raise SetUpError("DATABASE_URL says sslmode: with postgresql+asyncpg:// it is called ssl.")
        return url


class Database:
    """Opens transactions. Close it with `aclose`.

    Raises:
        SetUpError: the URL is not one of a supported database.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        url = settings.url()
        self.dialect = url.get_backend_name()
        self.engine = _engine(url, settings.database_pool_size)
        self._writer = asyncio.Lock() if self.is_embedded else None

    @property
    def is_embedded(self) -> bool:
        """Whether this is SQLite."""
        return self.dialect == "sqlite"

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that only reads: all of it sees the same instant.

        Raises:
            UnavailableError: the database does not answer.
        """
        options = {} if self.is_embedded else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return self._begin(None, TRANSACTION_SECONDS, options)

    def write(self, seconds: float | None = TRANSACTION_SECONDS) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that writes: committed and on disk when the block is left, rolled back if it raises.

        SQLite has one writer: the lock queues this process's writers fairly, `BEGIN IMMEDIATE` those of others.

        Args:
            seconds: how long it may take, waiting included; None for as long as it needs.

        Raises:
            UnavailableError: the database does not answer.
        """
        return self._begin(self._writer, seconds, {"writes": True})

    @asynccontextmanager
    async def _begin(
        self, lock: asyncio.Lock | None, seconds: float | None, options: dict[str, Any]
    ) -> AsyncIterator[Transaction]:
        async with (
            _our_errors(),
            asyncio.timeout(seconds),
            lock or nullcontext(),
            self.engine.connect() as connection,
        ):
            await connection.execution_options(**options)
            async with connection.begin():
                yield connection

    async def aclose(self) -> None:
        """Closes all connections."""
        await self.engine.dispose()


@asynccontextmanager
async def _our_errors() -> AsyncIterator[None]:
    """Turns the driver's errors into ours, without their text: Postgres quotes whole rows in its DETAIL."""
    try:
        yield
    except (DBAPIError, OSError) as error:
        original = getattr(error, "orig", None)
        log.error(
            "database_failed",
            error=type(original or error).__name__,
            sqlstate=getattr(original, "sqlstate", None),
        )
        if isinstance(error, IntegrityError):
            raise ServiceError("The database refuses what is to be written.") from None
        raise UnavailableError("The database does not answer.") from None


def _engine(url: URL, pool_size: int) -> AsyncEngine:
    is_embedded = url.get_backend_name() == "sqlite"
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=None,  # a transaction has one deadline for all of its waiting
        pool_pre_ping=not is_embedded,
    )
    if is_embedded:
        event.listen(engine.sync_engine, "do_connect", _make_file)
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _make_file(_: Dialect, __: ConnectionPoolEntry, arguments: list[str], ___: dict[str, Any]) -> None:
    """Makes a new database readable for us alone, and gives it its name when it keeps a log already.

    Two processes cannot switch one file to a log at once. And a file that is there must not be opened beside SQLite:
    closing it again drops all locks of this process on it, and the next process to leave takes the log away from under
    us (https://sqlite.org/howtocorrupt.html, section 2.2).
    """
    path = Path(arguments[0])
    if path.exists():
        return
    new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    with suppress(FileExistsError):
        path.hardlink_to(new)
    new.unlink()


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",  # what is deleted is overwritten
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """The driver begins no transaction by itself; a writer takes the lock at once, so that it cannot fail halfway."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
