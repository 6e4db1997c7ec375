"""The database: one engine, transactions that carry the stores, and the translation of database errors."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import ConfigurationError, DiskFullError, ServiceError, UnavailableError
from app.storage import postgres, sqlite
from app.storage.api_keys import ApiKeyStore
from app.storage.audit import AuditStore
from app.storage.billing import BillingStore
from app.storage.causes import cause_of, place_of
from app.storage.counts import CountStore
from app.storage.deliveries import DeliveryStore
from app.storage.delivery_log import DeliveryLogStore
from app.storage.events import EventStore
from app.storage.installation import InstallationStore
from app.storage.key_usage import KeyUsageStore
from app.storage.pauses import PauseStore
from app.storage.queue import QueueStore
from app.storage.quota import QuotaStore
from app.storage.redirects import RedirectStore
from app.storage.results import ResultStore
from app.storage.sessions import SessionStore
from app.storage.statistics import StatisticsStore
from app.storage.verifications import VerificationStore
from app.storage.webhook_endpoints import WebhookEndpointStore
from app.storage.workers import WorkerStore

TRANSACTION_SECONDS = 10.0
"""The deadline of a transaction, including all waiting. Ours are short; one that takes longer will not finish."""

_REPORT_SECONDS = 60.0
_PORTS = 2**16

log = structlog.get_logger()


class DatabaseSettings(BaseModel):
    """`sqlite+aiosqlite:///file` or `postgresql+asyncpg://…`; by default a SQLite file in `data_dir`.

    `database_listen_url` declares that `database_url` leads to PgBouncer in transaction mode. It is a URL that leads to
    Postgres itself, for LISTEN, or `none` to poll only. `database_service_role` is the role of the service if another
    one migrates.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    database_url: SecretStr | None = None
    database_listen_url: SecretStr | None = None
    database_service_role: str | None = Field(default=None, pattern=r"^\w{1,63}$")
    database_pool_size: int = Field(default=10, ge=1, le=1000)
    data_dir: Path = Path("data")

    def url(self) -> URL:
        """Returns the URL to connect to. It may contain a password.

        Raises:
            ConfigurationError: the database is not supported. The URL is not quoted.
        """
        if not self.database_url:
            return URL.create("sqlite+aiosqlite", database=str(self.data_dir.absolute() / "faceid-results.db"))
        url = _parsed(self.database_url)
        is_file = url.drivername == "sqlite+aiosqlite" and url.database not in {None, "", ":memory:"}
        if not is_file and url.drivername != "postgresql+asyncpg":
            raise ConfigurationError(
                "DATABASE_URL must begin with sqlite+aiosqlite:/// and a file, or postgresql+asyncpg://."
            )
        return _checked("DATABASE_URL", url, sqlite.OPTIONS if is_file else postgres.OPTIONS)

    def listen_url(self) -> URL | None:
        """Returns the URL to listen for wake-ups; None to poll only. It may contain a password.

        Raises:
            ConfigurationError: it is no URL of Postgres. The URL is not quoted.
        """
        if not self.database_listen_url:
            return self.url()
        if self.database_listen_url.get_secret_value() == "none":
            return None
        url = _parsed(self.database_listen_url)
        if url.drivername != "postgresql+asyncpg":
            raise ConfigurationError("DATABASE_LISTEN_URL must begin with postgresql+asyncpg://, or be `none`.")
        return _checked("DATABASE_LISTEN_URL", url, postgres.OPTIONS)

    def direct(self) -> Self:
        """Returns the settings without PgBouncer, for work that needs a session; unchanged without a direct URL."""
        if self.listen_url() is None:
            return self
        url = self.database_listen_url or self.database_url
        return self.model_copy(update={"database_url": url, "database_listen_url": None})


def _parsed(url: SecretStr) -> URL:
    try:
        return make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        return URL.create("unknown")


def _checked(setting: str, url: URL, patterns: Mapping[str, str]) -> URL:
    """Returns the URL if the driver can use its port and options. Otherwise it would raise errors of its own."""
    if "sslmode" in url.query:
        raise ConfigurationError(f"{setting} contains sslmode; with postgresql+asyncpg:// it is called ssl.")
    for option, value in sorted(url.query.items()):
        if option not in patterns:
            raise ConfigurationError(f"{setting} contains an unknown option: {option}.")
        is_repeated = isinstance(value, tuple) and option not in {"host", "port"}
        values = (value,) if isinstance(value, str) else value
        if is_repeated or not all(re.fullmatch(patterns[option], each) for each in values):
            raise ConfigurationError(f"{setting} contains an invalid value of the option {option}.")
    if url.port is not None and not 0 < url.port < _PORTS:
        raise ConfigurationError(f"{setting} contains an invalid port.")
    try:
        url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"{setting} contains several hosts, and not each with a valid port.") from None
    return url


class Transaction:
    """An open transaction and the stores that work in it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.api_keys = ApiKeyStore(connection)
        self.audit = AuditStore(connection)
        self.billing = BillingStore(connection)
        self.deliveries = DeliveryStore(connection)
        self.delivery_log = DeliveryLogStore(connection)
        self.counts = CountStore(connection)
        self.events = EventStore(connection)
        self.installation = InstallationStore(connection)
        self.key_usage = KeyUsageStore(connection)
        self.pauses = PauseStore(connection)
        self.queue = QueueStore(connection)
        self.quota = QuotaStore(connection)
        self.redirects = RedirectStore(connection)
        self.results = ResultStore(connection)
        self.sessions = SessionStore(connection)
        self.statistics = StatisticsStore(connection)
        self.verifications = VerificationStore(connection, self.events, self.counts)
        self.webhook_endpoints = WebhookEndpointStore(connection)
        self.workers = WorkerStore(connection)


class Database:
    """Opens transactions. Close it with `aclose`.

    `on_events` is called after each commit of a transaction that has added events.

    Args:
        settings: the settings.
        is_read_only: whether not to create or change a file of an embedded database, not even its WAL.

    Raises:
        ConfigurationError: the database is not supported.
    """

    def __init__(self, settings: DatabaseSettings, *, is_read_only: bool = False) -> None:
        self._url = url = settings.url()
        self.dialect = url.get_backend_name()
        self.listen_url = settings.listen_url()
        self.engine = _create_engine(url, settings, is_read_only=is_read_only)
        self._writer = asyncio.Lock() if self.is_embedded else None
        self._pool = None if self.is_embedded else postgres.Pool(self.engine)
        self.on_events: Callable[[], None] = lambda: None
        self._failures: Counter[tuple[str, str | None]] = Counter()
        self._reported_at: dict[tuple[str, str | None], float] = {}

    @property
    def folder(self) -> Path | None:
        """The folder of the embedded database; None for a server."""
        return Path(self.engine.url.database or "").absolute().parent if self.is_embedded else None

    @property
    def is_embedded(self) -> bool:
        """Whether this is SQLite."""
        return self.dialect == "sqlite"

    @property
    def place(self) -> str:
        """The absolute path of the file, or the host and port."""
        return place_of(self._url)

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """Opens a read-only transaction, which sees one snapshot.

        Raises:
            UnavailableError: the database does not answer.
        """
        options = {} if self.is_embedded else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return self._begin(None, TRANSACTION_SECONDS, options)

    def write(
        self, seconds: float | None = TRANSACTION_SECONDS, *, has_foreign_keys: bool = True
    ) -> AbstractAsyncContextManager[Transaction]:
        """Opens a transaction that is committed and on disk after the block, or rolled back if the block raises.

        SQLite has one writer. The lock queues the writers of this process fairly, `BEGIN IMMEDIATE` those of others.

        Args:
            seconds: the deadline, including all waiting; None for none.
            has_foreign_keys: whether SQLite checks them. Without them, close all connections afterwards.

        Raises:
            UnavailableError: the database does not answer.
        """
        return self._begin(self._writer, seconds, {"writes": True, "has_foreign_keys": has_foreign_keys})

    @asynccontextmanager
    async def maintain(self) -> AsyncIterator[AsyncConnection]:
        """Opens a connection to Postgres that commits each statement, without a deadline.

        Raises:
            UnavailableError: the database does not answer.
        """
        async with self._translated_errors(), self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    async def truncate_log(self) -> None:
        """Removes deleted content from SQLite's WAL, where it stays after a commit. Does nothing on Postgres.

        A reader that needs the WAL, or a full disk, only delays it: the worker repeats it every minute.
        """
        if not self.is_embedded:
            return
        try:
            async with self._translated_errors(), asyncio.timeout(TRANSACTION_SECONDS):
                is_truncated = await sqlite.truncate_log(self.engine)
        except (UnavailableError, DiskFullError):
            is_truncated = False
        if not is_truncated:
            log.info("log_not_truncated")

    @asynccontextmanager
    async def _begin(
        self, lock: asyncio.Lock | None, seconds: float | None, options: dict[str, Any]
    ) -> AsyncIterator[Transaction]:
        async with (
            self._translated_errors(),
            asyncio.timeout(seconds),
            lock or nullcontext(),
            self._transaction(options) as connection,
        ):
            transaction = Transaction(connection)
            yield transaction
        if transaction.events.has_new:
            self.on_events()

    @asynccontextmanager
    async def _transaction(self, options: dict[str, Any]) -> AsyncIterator[AsyncConnection]:
        """Begins a transaction. If an idle connection turns out to be dead or read-only, a new one replaces it."""
        problem = None
        for _ in range(2):
            async with self.engine.connect() as connection:
                await connection.execution_options(**options)
                async with connection.begin() as transaction:
                    if self._pool:
                        problem = await self._pool.problem_of(connection, is_writer="writes" in options)
                    if problem is None:
                        yield connection
                        return
                    await transaction.rollback()
        raise UnavailableError(f"The database {problem}.")

    @asynccontextmanager
    async def _translated_errors(self) -> AsyncIterator[None]:
        """Replaces driver errors by ours without their text: Postgres quotes whole rows in its DETAIL."""
        try:
            yield
        # SQLAlchemy passes on errors of the driver that occur before the first statement.
        except (DBAPIError, self.engine.dialect.loaded_dbapi.Error, OSError) as error:
            original, cause = getattr(error, "orig", None) or error, cause_of(error, self._url)
            sqlstate = getattr(original, "sqlstate", None)
            self._report(type(original).__name__, sqlstate, cause)
            if self._pool and sqlstate in postgres.GOING_AWAY:
                await self._pool.discard()
            if sqlstate == postgres.DISK_FULL or sqlite.is_disk_full(original):
                raise DiskFullError("The disk of the database is full.") from None
            if isinstance(error, IntegrityError):
                raise ServiceError("The database rejected the write.") from None
            raise UnavailableError("The database does not answer.", cause=cause) from None

    def _report(self, error: str, sqlstate: str | None, cause: str | None) -> None:
        """Logs each kind of failure at most once a minute: in an outage every request fails alike."""
        kind, now = (error, sqlstate), time.monotonic()
        self._failures[kind] += 1
        if now - self._reported_at.get(kind, -_REPORT_SECONDS) >= _REPORT_SECONDS:
            self._reported_at[kind] = now
            log.error("database_failed", error=error, sqlstate=sqlstate, cause=cause, found=self._failures.pop(kind))

    async def aclose(self) -> None:
        """Closes all connections."""
        await self.engine.dispose()


def _create_engine(url: URL, settings: DatabaseSettings, *, is_read_only: bool) -> AsyncEngine:
    is_embedded = url.get_backend_name() == "sqlite"
    engine = create_async_engine(
        sqlite.read_only(url) if is_embedded and is_read_only else url,
        hide_parameters=True,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        # A transaction has one deadline for all its waiting.
        pool_timeout=None,
        # The listeners of app.storage.sqlite begin transactions and reset connections.
        pool_reset_on_return=None if is_embedded else "rollback",
        connect_args=(
            {"async_creator_fn": sqlite.connect, "isolation_level": None}
            if is_embedded
            else postgres.connect_arguments(has_pooler=settings.database_listen_url is not None)
        ),
    )
    if is_embedded:
        sqlite.configure(engine, is_read_only=is_read_only)
    return engine
