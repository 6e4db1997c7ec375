"""SQLite: how its file is created and how connections are configured."""

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Self, cast
from urllib.parse import quote

import aiosqlite
from sqlalchemy import URL, Connection, event
from sqlalchemy.engine import AdaptedConnection, Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

BUSY_TIMEOUT_SECONDS = 8
"""How long a second process waits for the writer."""

_BUSY_TIMEOUT = f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}"
_TRUNCATE_ATTEMPTS = 20
_TRUNCATE_PAUSE_SECONDS = 0.05

OPTIONS = {"timeout": "[0-9]{1,6}", "cached_statements": "[0-9]{1,6}"}
"""The options that a URL may contain, with the patterns of their values. The others of the driver are ours to set."""


def is_disk_full(error: BaseException | None) -> bool:
    """Returns whether SQLite found no room on the disk."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


async def connect(database: str, **options: Any) -> "_Connection":
    """Connects for SQLAlchemy's `async_creator_fn`."""
    # A thread is a daemon if the thread that creates it is one. Otherwise the connection's own thread would keep the
    # process alive if the connection is never closed.
    created: list[aiosqlite.Connection] = []
    creator = Thread(
        target=lambda: created.append(aiosqlite.connect(database, factory=_BufferedConnection, **options)), daemon=True
    )
    creator.start()
    creator.join()
    return _Connection(await created[0])


def configure(engine: AsyncEngine, *, is_read_only: bool) -> None:
    """Configures every connection of the engine."""
    if not is_read_only:
        event.listen(engine.sync_engine, "do_connect", _create_file)
        event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)
    event.listen(engine.sync_engine, "reset", _reset)


def read_only(url: URL) -> URL:
    """Returns the URL for connections that write no file.

    Without a WAL no process has the database open. SQLite would create one for the reader, unless it may assume that
    the file does not change.
    """
    path = Path(url.database or "").absolute()
    has_wal = path.with_name(f"{path.name}-wal").exists()
    query = {"uri": "true", "mode": "ro"} | ({} if has_wal else {"immutable": "1"})
    return url.set(database=f"file:{quote(str(path))}", query=query)


async def truncate_log(engine: AsyncEngine) -> bool:
    """Copies the WAL into the database and truncates it; returns False if a reader needs it for longer than a second.

    While SQLite waits for a reader, it blocks all writers. So it does not wait, and is asked again.
    """
    async with engine.connect() as connection:
        await connection.execution_options(has_transaction=False)
        await connection.exec_driver_sql("PRAGMA busy_timeout=0")
        try:
            for _ in range(_TRUNCATE_ATTEMPTS):
                # The first of three columns is 1 if a reader or a writer prevented it.
                if (await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")).scalar() == 0:
                    return True
                await asyncio.sleep(_TRUNCATE_PAUSE_SECONDS)
        finally:
            # A cancelled statement closes its connection. Another one would replace the cancellation by an error.
            if not connection.invalidated:
                await connection.exec_driver_sql(_BUSY_TIMEOUT)
    return False


_TOLERANT = partial(str, encoding="utf-8", errors="replace")


class _BufferedConnection(sqlite3.Connection):
    """A connection that reads all rows of a statement at once. `rows` are those of the last one.

    A statement with unread rows keeps a closed connection open, with its transaction and lock, until its cursor is
    freed. The garbage collector may free the cursor of a cancelled task much later.
    """

    rows: Sequence[Any] = ()

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        cursor = super().execute(sql, cast("Sequence[Any]", parameters))
        self.rows = rows = list[Any]()
        try:
            rows.extend(cursor)
        except sqlite3.OperationalError as error:
            if hasattr(error, "sqlite_errorcode"):
                raise
            # Not SQLite's error but Python's, about a text that is not UTF-8. Its row was not consumed.
            self.text_factory = _TOLERANT
            rows.extend(cursor)
        finally:
            self.text_factory = str
        return cursor


class _Connection:
    """An aiosqlite connection whose cursors need one switch to its thread per statement instead of four."""

    def __init__(self, driver: aiosqlite.Connection) -> None:
        self._driver = driver

    def cursor(self) -> "_Cursor":
        return _Cursor(self._driver)

    def __getattr__(self, name: str) -> object:
        return getattr(self._driver, name)


class _Cursor:
    """The part of a cursor that SQLAlchemy uses: created with its statement, whose rows were read at once."""

    arraysize = 1

    def __init__(self, driver: aiosqlite.Connection) -> None:
        self._driver = driver
        self._cursor: aiosqlite.Cursor | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        self._cursor = await self._driver.execute(sql, parameters)

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        self._cursor = await self._driver.executemany(sql, parameters)

    async def fetchall(self) -> Iterable[Any]:
        """Returns the rows of the statement. SQLAlchemy fetches them before the next one."""
        connection = cast("_BufferedConnection", cast("aiosqlite.Cursor", self._cursor).connection)
        rows, connection.rows = connection.rows, ()
        return rows

    async def close(self) -> None:
        self._cursor = None

    def __getattr__(self, name: str) -> object:
        """Returns `description`, `rowcount` or `lastrowid`."""
        return getattr(self._cursor, name, None)


def _create_file(_: Dialect, __: ConnectionPoolEntry, arguments: list[str], ___: dict[str, Any]) -> None:
    """Creates a missing database, readable only by this user and already in WAL mode.

    Two processes cannot switch one file to WAL at once, so the file gets its name afterwards. An existing file must not
    be opened outside SQLite: closing it drops all locks of this process on it, and the next process that leaves removes
    the WAL (https://sqlite.org/howtocorrupt.html, section 2.2).
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


def _set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute(_BUSY_TIMEOUT)
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        # Overwrites deleted content with zeros.
        "secure_delete=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Begins the transaction, which the driver does not do. A writer locks at once, so it cannot fail halfway."""
    options = connection.get_execution_options()
    if not options.get("has_transaction", True):
        return
    if not options.get("has_foreign_keys", True):
        # It has no effect within a transaction.
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    writes = options.get("writes", False)
    # As a statement of SQLAlchemy's: if it is cancelled, the connection is closed instead of returned to the pool.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _reset(connection: DBAPIConnection, _: ConnectionPoolEntry, state: PoolResetState) -> None:
    """Rolls back a transaction that is still open. Mostly there is none, which saves a switch to the thread."""
    is_adapted = isinstance(connection, AdaptedConnection)
    if state.asyncio_safe and is_adapted and connection.driver_connection.in_transaction:
        connection.rollback()
