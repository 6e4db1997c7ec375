"""Wake-ups: something is due, something is settled. Hints only, so that nobody has to wait for the next poll.

Within a process they are events. On Postgres they also travel to the other processes by NOTIFY: after the commit and
gathered for some milliseconds, because a NOTIFY within the transaction makes Postgres commit one after the other.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg
import structlog
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.storage.database import Database

DUE = "due"
_CHANNEL = "faceid_results"
_GATHER_SECONDS = 0.005
_RECONNECT_SECONDS = 1.0
_NOTIFY_SECONDS = 10.0  # a connection that takes longer is dead
_MOST_PER_NOTIFY = 400  # payloads end at 8,000 bytes

log = structlog.get_logger()


class Signals:
    """Events by topic: `DUE`, or the id of a verification that is settled."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.is_over = False

    def end(self) -> None:
        """Wakes everybody, for the last time: the process is about to stop, and nobody should go on waiting."""
        self.is_over = True
        for event in set().union(*self._waiting.values()):
            event.set()

    def send(self, topic: str) -> None:
        """Wakes everybody who waits for the topic."""
        for event in self._waiting.get(topic, ()):
            event.set()

    @contextmanager
    def subscribed(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set by every signal on the topic from now on."""
        event = asyncio.Event()
        self._waiting[topic].add(event)
        try:
            yield event
        finally:
            self._waiting[topic].discard(event)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def aclose(self) -> None:
        """Ends the exchange with other processes."""


class PostgresSignals(Signals):
    """Signals that reach every process on the same database."""

    def __init__(self, url: URL) -> None:
        super().__init__()
        # Not the database's own pool, which a listener would leave one smaller; the URL means the same to both.
        self._engine = create_async_engine(url, hide_parameters=True, poolclass=NullPool)
        self._outgoing: set[str] = set()
        self._pending = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="signals")

    def send(self, topic: str) -> None:
        """Wakes everybody who waits for the topic, here and in the other processes."""
        super().send(topic)
        self._outgoing.add(topic)
        self._pending.set()

    async def aclose(self) -> None:
        """Ends the exchange with other processes."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            try:
                async with self._engine.connect() as connection:
                    exchange: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
                    try:
                        await self._exchange(exchange)
                    finally:
                        exchange.terminate()  # a polite goodbye to a dead server would wait for its answer
            except (OSError, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("signals_interrupted", error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _exchange(self, connection: asyncpg.Connection) -> None:
        connection.add_termination_listener(lambda _: self._pending.set())
        await connection.add_listener(_CHANNEL, self._received)
        while not connection.is_closed():
            await self._pending.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._pending.clear()
            while self._outgoing and not connection.is_closed():
                topics = [self._outgoing.pop() for _ in range(min(len(self._outgoing), _MOST_PER_NOTIFY))]
                await connection.execute(
                    "SELECT pg_notify($1, $2)", _CHANNEL, " ".join(topics), timeout=_NOTIFY_SECONDS
                )

    def _received(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for topic in str(payload).split():
            super().send(topic)


def open_signals(database: Database) -> Signals:
    """The signals that fit the database; on Postgres within a running event loop."""
    if database.is_embedded:
        return Signals()
    return PostgresSignals(database.engine.url)
