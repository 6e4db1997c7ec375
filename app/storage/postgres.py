"""Postgres: how connections are made, checked before each transaction, and discarded all at once."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

CONNECT_SECONDS = 5.0
# A server on the same network answers within milliseconds. A dropped connection never does.
_PING_TICKS, _TICK_SECONDS = 15, 0.1
# The server looks for dead clients after this, and its probes keep an idle connection alive in a NAT's table.
_KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
_FIND_READ_ONLY = text("SELECT current_setting('transaction_read_only') = 'on'")
_FIND_NOTHING = text("SELECT false")

OPTIONS = {
    "host": ".+",
    "port": "[0-9]{1,5}",
    "ssl": "disable|allow|prefer|require|verify-ca|verify-full",
    "passfile": ".+",
    "target_session_attrs": "any|primary|standby|read-write|read-only|prefer-standby",
    "krbsrvname": ".+",
    "gsslib": "gssapi|sspi",
    "prepared_statement_cache_size": "[0-9]{1,6}",
}
"""The options that a URL may contain, with the patterns of their values. asyncpg does not read its others from text."""

DRIVER_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""All that a connection of asyncpg raises when it fails. Its classes have no common one."""

READ_ONLY = "25006"
"""The SQLSTATE of a write on a server that takes none, such as the former primary after a switchover."""

DISK_FULL = "53100"
"""The SQLSTATE of a write for which the server has no room."""

GOING_AWAY = {READ_ONLY, "57P01", "57P02", "57P03"}
"""SQLSTATEs that say the same of all connections to this server: read-only, shutting down, crashed, starting."""


def connect_arguments(*, has_pooler: bool) -> Mapping[str, Any]:
    """Returns the arguments to connect with.

    Args:
        has_pooler: whether PgBouncer gives each transaction another connection. Statements that an earlier transaction
            prepared do not exist there, so none is kept. It also rejects settings of the server.
    """
    if has_pooler:
        return {"timeout": CONNECT_SECONDS, "statement_cache_size": 0, "prepared_statement_cache_size": 0}
    return {"timeout": CONNECT_SECONDS, "server_settings": _KEEPALIVE}


class _PingDeadline:
    """Terminates a connection whose ping is not answered. Cancelling the statement would wait for the server again.

    Counts ticks of the event loop. A blocked loop reads no answers, and its time must not count.
    """

    def __init__(self, terminate: Callable[[], object]) -> None:
        self._terminate = terminate
        self._wait(_PING_TICKS)

    def cancel(self) -> None:
        """Ends the deadline."""
        self._timer.cancel()

    def _wait(self, ticks: int) -> None:
        loop = asyncio.get_running_loop()
        self._timer = (
            loop.call_later(_TICK_SECONDS, self._wait, ticks - 1) if ticks else loop.call_soon(self._terminate)
        )


class Pool:
    """Discards all idle connections of an engine at once. Closing them one by one would wait for a dead server."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._generation = 0
        self._idle: set[Any] = set()
        event.listen(engine.sync_engine, "connect", self._on_connect)
        event.listen(engine.sync_engine, "checkout", self._on_checkout)
        event.listen(engine.sync_engine, "checkin", self._on_checkin)

    async def discard(self) -> None:
        """Ends all idle connections without a farewell, and those in use as soon as they are returned."""
        self._generation += 1
        idle, self._idle = self._idle, set()
        for connection in idle:
            connection.terminate()
        await self._engine.dispose(close=False)

    async def problem_of(self, connection: AsyncConnection, *, is_writer: bool) -> str | None:
        """Returns why a connection cannot be used, None if it can. A useless one is discarded with the idle ones."""
        is_current = connection.info.get("generation") == self._generation
        driver: Any = (await connection.get_raw_connection()).driver_connection
        deadline = _PingDeadline(driver.terminate)
        try:
            is_read_only = await connection.scalar(_FIND_READ_ONLY if is_writer else _FIND_NOTHING)
            problem = "accepts no writes" if is_read_only else None
        except (DBAPIError, self._engine.dialect.loaded_dbapi.Error, OSError):
            problem = "does not answer"
        finally:
            deadline.cancel()
        if problem:
            driver.terminate()
            await connection.invalidate()
            if is_current:
                await self.discard()
        return problem

    def _on_connect(self, _: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        entry.info["generation"] = self._generation

    def _on_checkout(self, _: DBAPIConnection, entry: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
        self._idle.discard(entry.driver_connection)

    def _on_checkin(self, connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        driver: Any = entry.driver_connection
        # There is none if the connection was discarded while it was in use.
        if connection and entry.info.get("generation") == self._generation:
            self._idle.add(driver)
        elif connection:
            driver.terminate()
