"""The database: one engine, two kinds of transaction, and one place where its troubles become ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import ServiceError, SetUpError, UnavailableError
from app.storage import sqlite

Transaction = AsyncConnection
"""What services pass on to the stores; only the stores use it."""

TRANSACTION_SECONDS = 10.0  # all waiting included: ours are short, and what takes longer will not come to an end

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
        connect_args={"async_creator_fn": sqlite.connect} if is_embedded else {},
    )
    if is_embedded:
        sqlite.set_up(engine)
    return engine
