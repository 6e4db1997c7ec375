"""The database: one engine, two kinds of transaction, and one place where its troubles become ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import structlog
from pydantic import BaseModel, SecretStr
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import SetUpError, UnavailableError

Transaction = AsyncConnection
"""What services pass on to the stores; only the stores use it."""

BUSY_TIMEOUT_SECONDS = 10  # SQLite: how long a second process waits for the writer
POOL_WAIT_SECONDS = 5  # an API answer that waits longer for a connection is a 503

log = structlog.get_logger()


class DatabaseSettings(BaseModel):
    """Where the database is: `sqlite+aiosqlite:///file`, `postgresql+asyncpg://…`, by default a file in `data_dir`."""

    database_url: SecretStr | None = None
    database_pool_size: int = 10
    data_dir: Path = Path("data")

    def url(self) -> str:
        """The URL to connect to; it may hold a password."""
        if self.database_url:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir.absolute() / 'faceid-results.db'}"


class Database:
    """Opens transactions. Close it with `aclose`.

    Raises:
        SetUpError: the URL is not one of a supported database.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        try:
            url = make_url(settings.url())
            self.dialect = url.get_backend_name()
            self.engine = _engine(url.render_as_string(hide_password=False), settings.database_pool_size)
        except (ArgumentError, ImportError):
            raise SetUpError("DATABASE_URL must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://.") from None
        self._writer = asyncio.Lock() if self.is_embedded else None

    @property
    def is_embedded(self) -> bool:
        """Whether this is SQLite."""
        return self.dialect == "sqlite"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A transaction that only reads.

        Raises:
            UnavailableError: the database does not answer.
        """
        async with _our_errors(), self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """A transaction that writes: committed and on disk when the block is left, rolled back if it raises.

        SQLite has one writer: the lock queues this process's writers fairly, `BEGIN IMMEDIATE` those of others.

        Raises:
            UnavailableError: the database does not answer.
        """
        async with _our_errors(), self._writer or nullcontext(), self.engine.connect() as connection:
            await connection.execution_options(writes=True)
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
    except IntegrityError:
        raise
    except (DBAPIError, PoolTimeoutError, OSError) as error:
        original = getattr(error, "orig", None)
        log.error(
            "database_failed",
            error=type(original or error).__name__,
            sqlstate=getattr(original, "sqlstate", None),
        )
        raise UnavailableError("The database does not answer.") from None


def _engine(url: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=not url.startswith("sqlite"),
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """The driver begins no transaction by itself; a writer takes the lock at once, so that it cannot fail halfway."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
