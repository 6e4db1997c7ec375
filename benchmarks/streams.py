"""The cost of a thousand streams of events: memory of each, CPU per event and stream, and the delay to all of them."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from app.domain.events import Event, EventType, new_public_id
from app.factory import Services, open_services
from app.services.clock import now
from benchmarks import harness
from benchmarks.figures import Line, resident_mb
from benchmarks.harness import Server
from tests.support.postgres import durable_postgres
from tests.support.service import UNLIMITED, set_up, settings_for

# Opened and closed before the measurement, so the server's first allocations do not count.
_WARM = 50
_INTERVAL_SECONDS = 0.2
_BOUND_SECONDS = 60
# The resolution of the CPU of another process.
_TICK_SECONDS = 0.01
_ASK = "GET /v1/events/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n"


class _Tally:
    """Counts the events that all listeners have received, and shows when they are as many as wanted."""

    def __init__(self) -> None:
        self._received = 0
        self._wanted = 0
        self._is_reached = asyncio.Event()

    def add(self, events: int) -> None:
        """Counts events."""
        self._received += events
        if self._received >= self._wanted:
            self._is_reached.set()

    async def until(self, more: int) -> None:
        """Waits for so many further events than were wanted before."""
        self._wanted += more
        self._is_reached.clear()
        self.add(0)
        async with asyncio.timeout(_BOUND_SECONDS):
            await self._is_reached.wait()


class _Listener(asyncio.Protocol):
    """A client of a stream that counts its events."""

    def __init__(self, tally: _Tally) -> None:
        self._tally = tally
        self.is_open = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Counts. Each frame is sent in one piece, so it arrives in one."""
        self._tally.add(data.count(b"\nevent: "))
        if b": ok\n" in data:
            self.is_open.set()


async def lines(folder: Path, *, streams: int, events: int, seconds: float) -> AsyncIterator[Line]:
    """Opens so many streams, waits so long, and then adds events one by one."""
    # The server runs as another user.
    await asyncio.to_thread(folder.chmod, 0o711)
    async with durable_postgres(folder) as postgres:
        media = (folder / "media").as_uri()
        settings = settings_for(folder, "http://127.0.0.1:1", database_url=postgres.url, media_url=media, **UNLIMITED)
        key = await set_up(settings)
        async with harness.serving(settings, "--no-worker") as server, open_services(settings, clock=now) as services:
            async with _listening(server, key, _WARM) as warm:
                await _deliver(services, warm, _WARM, 2)
            for line in await _measured(key, server, services, streams, events, seconds):
                yield line


async def _measured(
    key: str, server: Server, services: Services, streams: int, events: int, seconds: float
) -> list[Line]:
    pid = server.child.pid or 0
    held, cpu = resident_mb(pid), server.cpu
    async with _listening(server, key, streams) as tally:
        connected = server.cpu - cpu
        before = server.cpu
        await asyncio.sleep(seconds)
        idle = (server.cpu - before) / seconds
        before, start = server.cpu, time.monotonic()
        delays = await _deliver(services, tally, streams, events)
        used = server.cpu - before - idle * (time.monotonic() - start)
        grown = resident_mb(pid) - held
    what = f"{streams:,} streams"
    return [
        Line.plain(f"{what}: memory of each", "KiB", grown * 1024 / streams, most=25),
        Line.plain(
            f"{what}: CPU per event and stream", "µs", max(used, _TICK_SECONDS) / events / streams * 1e6, most=25
        ),
        Line.plain(f"{what}: CPU to open each", "ms", connected / streams * 1000),
        Line.plain(f"{what}: without events", "% of a core", idle * 100),
        Line.plain(f"{what}: from position to all, median", "ms", statistics.median(delays)),
        Line.plain(f"{what}: from position to all, p95", "ms", statistics.quantiles(delays, n=20)[-1]),
    ]


@asynccontextmanager
async def _listening(server: Server, key: str, count: int) -> AsyncIterator[_Tally]:
    """Opens streams, all of one key."""
    loop, tally, transports = asyncio.get_running_loop(), _Tally(), []
    async with asyncio.timeout(_BOUND_SECONDS):
        for _ in range(count):
            transport, listener = await loop.create_connection(partial(_Listener, tally), "127.0.0.1", server.port)
            transport.write(_ASK.format(key=key).encode())
            transports.append(transport)
            await listener.is_open.wait()
    yield tally
    for transport in transports:
        transport.abort()


async def _deliver(services: Services, tally: _Tally, streams: int, events: int) -> list[float]:
    """Adds events one by one; returns the milliseconds from each position to its arrival at all streams."""
    delays = []
    for _ in range(events):
        async with services.database.write() as tx:
            await tx.events.add_all(
                [Event(public_id=new_public_id(), type=EventType.TEST, client="default", at=now(), details="{}")]
            )
        await services.outbox.sequence()
        start = time.monotonic()
        await tally.until(streams)
        delays.append((time.monotonic() - start) * 1000)
        await asyncio.sleep(_INTERVAL_SECONDS)
    return delays
