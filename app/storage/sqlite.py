"""SQLite as our database: how its file is made, how a connection is set up, and one way to its thread per statement."""

import os
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_SECONDS = 8  # how long a second process waits for the writer

Parameters = Sequence[Any]


def connect(database: str, **options: object) -> "_Connection":
    """For SQLAlchemy's `async_creator_fn`."""
    return _Connection(partial(sqlite3.connect, database, **options))


def set_up(engine: AsyncEngine) -> None:
    """Makes all that comes from this engine as it is to be."""
    event.listen(engine.sync_engine, "do_connect", _make_file)
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)


class _Connection(aiosqlite.Connection):
    """A connection whose cursors fetch and close with the statement.

    aiosqlite goes to its thread and back four times for one `SELECT`; that is most of what a statement costs.
    """

    def __init__(self, connector: partial[sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=1)
        self._thread.daemon = True  # as SQLAlchemy makes it
        self._beginning = ""

    def cursor(self) -> "_Cursor":  # type: ignore[override]  # it is what SQLAlchemy needs of one
        return _Cursor(self)

    def begin_with(self, statement: str) -> None:
        """Runs this before the first statement of the transaction, on the same way; again before the next if it fails.

        Nothing of a transaction that could not begin is ever run outside of one.
        """
        self._beginning = statement

    async def run(self, statement: "partial[sqlite3.Cursor]") -> "tuple[sqlite3.Cursor, list[Any]]":
        """The cursor after the statement, and all of its rows."""

        def ran() -> tuple[sqlite3.Cursor, list[Any]]:
            if self._beginning:
                self._conn.execute(self._beginning)
                self._beginning = ""
            cursor = statement()
            return cursor, cursor.fetchall() if cursor.description else []

        done: tuple[sqlite3.Cursor, list[Any]] = await self._execute(ran)  # type: ignore[no-untyped-call]
        return done

    async def rollback(self) -> None:
        """Nothing to do after a commit, though a pool asks for it each time."""
        if self.in_transaction:
            await super().rollback()


class _Cursor:
    """What SQLAlchemy's dialect asks of a cursor."""

    arraysize = 1

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Parameters = ()) -> None:
        await self._run(partial(self._connection._conn.execute, sql, parameters))

    async def executemany(self, sql: str, parameters: Iterable[Parameters]) -> None:
        await self._run(partial(self._connection._conn.executemany, sql, parameters))

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def close(self) -> None:
        self._rows = []

    async def _run(self, statement: "partial[sqlite3.Cursor]") -> None:
        cursor, self._rows = await self._connection.run(statement)
        self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid


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


def _set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
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


def _begin(connection: Connection) -> None:
    """The driver begins no transaction by itself; a writer takes the lock at once, so that it cannot fail halfway."""
    writes = connection.get_execution_options().get("writes", False)
    driver = cast("_Connection", connection.connection.driver_connection)
    driver.begin_with("BEGIN IMMEDIATE" if writes else "BEGIN")
