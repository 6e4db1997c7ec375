"""Wake-ups: something is due, or a verification has changed. Losing one is harmless; it only saves the next poll.

Within a process they are events. On Postgres they also reach the other processes by NOTIFY, after the commit and
collected for some milliseconds: a NOTIFY inside the transaction would make Postgres commit transactions one by one.
"""

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import structlog
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app import tasks
from app.storage import postgres
from app.storage.causes import cause_of
from app.storage.database import Database

DUE = "due"
EVENTS = "events"
"""Events without a position have been committed."""
POSITIONS = "positions"
"""Events have positions."""
DELIVERIES = "deliveries"
"""Deliveries have been added, or have come due."""
_CHANNEL = "faceid_results"
_COLLECT_SECONDS = 0.005
_RECONNECT_SECONDS = 1.0
# A connection that takes longer is dead.
_NOTIFY_SECONDS = 10.0
# A payload holds at most 8,000 bytes.
_MAX_PER_NOTIFY = 400
# While the server is away, further topics are dropped: their subscribers find out by polling.
_MAX_OUTGOING = 10_000
# Between log lines while the server is away.
_REPORT_SECONDS = 60.0

log = structlog.get_logger()


class Wakeups:
    """Wake-ups by topic: one of the constants, `topic_of` a client, or the id of a verification that has changed."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.is_over = False

    def end(self) -> None:
        """Wakes all subscribers for the last time, before the process stops."""
        self.is_over = True
        for event in set().union(*self._waiting.values()):
            event.set()

    def send(self, topic: str) -> None:
        """Wakes the subscribers of a topic."""
        for event in self._waiting.get(topic, ()):
            event.set()

    @contextmanager
    def subscribed(self, topic: str) -> Iterator[asyncio.Event]:
        """Subscribes to a topic; yields an event that each wake-up sets."""
        event = asyncio.Event()
        self._waiting[topic].add(event)
        try:
            yield event
        finally:
            self._waiting[topic].discard(event)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def aclose(self) -> None:
        """Stops the exchange with other processes."""


class PostgresWakeups(Wakeups):
    """Wake-ups that reach every process on the same database."""

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._url = url
        # A listener holds its connection, so it does not take one from the database's pool.
        self._engine = create_async_engine(
            url, hide_parameters=True, poolclass=NullPool, connect_args={"timeout": postgres.CONNECT_SECONDS}
        )
        self._outgoing: set[str] = set()
        self._pending = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="wakeups")

    def send(self, topic: str) -> None:
        """Wakes the subscribers of a topic in this process and the others."""
        super().send(topic)
        if len(self._outgoing) < _MAX_OUTGOING:
            self._outgoing.add(topic)
        self._pending.set()

    async def aclose(self) -> None:
        """Stops the exchange with other processes."""
        await tasks.end(self._task)

    async def _run(self) -> None:
        reported_at = -_REPORT_SECONDS
        while True:
            try:
                async with self._engine.connect() as connection:
                    exchange: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
                    try:
                        await self._exchange(exchange)
                    finally:
                        # Closing gracefully would wait for an answer of a dead server.
                        exchange.terminate()
            except (DBAPIError, *postgres.DRIVER_ERRORS) as error:
                if time.monotonic() - reported_at >= _REPORT_SECONDS:
                    reported_at = time.monotonic()
                    cause = cause_of(error, self._url)
                    log.warning("signals_interrupted", error=type(error).__name__, cause=cause)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _exchange(self, connection: asyncpg.Connection) -> None:
        connection.add_termination_listener(lambda _: self._pending.set())
        await connection.add_listener(_CHANNEL, self._on_notify)
        while not connection.is_closed():
            await self._pending.wait()
            await asyncio.sleep(_COLLECT_SECONDS)
            self._pending.clear()
            while self._outgoing and not connection.is_closed():
                topics = [self._outgoing.pop() for _ in range(min(len(self._outgoing), _MAX_PER_NOTIFY))]
                await connection.execute(
                    "SELECT pg_notify($1, $2)", _CHANNEL, " ".join(topics), timeout=_NOTIFY_SECONDS
                )

    def _on_notify(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for topic in str(payload).split():
            super().send(topic)


def topic_of(client: str) -> str:
    """Returns the topic on which new positions of a client's events are sent. It is short and has no blanks."""
    return "e" + hashlib.sha256(client.encode()).hexdigest()[:14]


def open_wakeups(database: Database) -> Wakeups:
    """Returns the wake-ups for the database. Call it within a running event loop."""
    if database.is_embedded or database.listen_url is None:
        return Wakeups()
    return PostgresWakeups(database.listen_url)
