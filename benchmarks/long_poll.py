"""The cost of a thousand callers that wait for results, the delay of their answers, and the cost of an idle service."""

import asyncio
import json
import statistics
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.config import Settings
from app.domain.verification import TokenFacts
from app.factory import open_services
from benchmarks import harness, upstream
from benchmarks.figures import Line, resident_mb
from benchmarks.harness import Server, answers_to
from benchmarks.load import Load
from tests.support.postgres import durable_postgres
from tests.support.service import UNLIMITED, actor, set_up, settings_for

# The longest wait of a caller, in seconds.
_WAIT = 50
# Callbacks and reads per second.
_CALLBACKS = 200
_READS = 50
_ASK = "GET /v1/verifications/passed-{number}?wait={wait} HTTP/1.1\r\nHost: bench\r\nAuthorization: {key}\r\n\r\n"
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Scene:
    """The settings of a service with a worker, and a key for it."""

    name: str
    settings: Settings
    key: str


async def waiting(folder: Path, *, waiters: int, seconds: float) -> AsyncIterator[Line]:
    """Measures callers that hold one request each. After `seconds` their tokens are called back one by one."""
    async for scene in scenes(folder):
        await _register(scene.settings, waiters)
        async with harness.serving(scene.settings) as server:
            for line in await _waited(scene, server, waiters, seconds):
                yield line


async def idle(folder: Path, *, seconds: float) -> AsyncIterator[Line]:
    """Measures a service that has answered some requests and then has nothing to do."""
    async for scene in scenes(folder):
        await _register(scene.settings, _AT_ONCE)
        async with harness.serving(scene.settings) as server:
            await answers_to(_reads(scene, _AT_ONCE, 1), server.port)
            before = server.cpu
            await asyncio.sleep(seconds)
            yield Line.plain(f"idle service, {scene.name}", "MB", resident_mb(server.child.pid or 0), most=120)
            percent = (server.cpu - before) / seconds * 100
            yield Line.plain(f"idle service, {scene.name}", "% of a core", percent, most=1)


async def scenes(folder: Path) -> AsyncIterator[Scene]:
    """Yields a new service on SQLite and one on Postgres, with an upstream that costs little."""
    # The server runs as another user.
    await asyncio.to_thread(folder.chmod, 0o711)
    async with durable_postgres(folder) as postgres, upstream.running(folder, 0) as faceid:
        for name, url in (("SQLite", None), ("Postgres", postgres.url)):
            home = folder / name
            await asyncio.to_thread(home.mkdir)
            media = (home / "media").as_uri()
            settings = settings_for(home, faceid, database_url=url, media_url=media, faceid_info_type="1", **UNLIMITED)
            yield Scene(name, settings, await set_up(settings))


async def _register(settings: Settings, count: int) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)
    async with open_services(settings) as services:

        async def one(number: int) -> None:
            async with turns:
                await services.intake.register(actor(), f"passed-{number}", TokenFacts(rule_id="1"))

        await asyncio.gather(*map(one, range(count)))


async def _waited(scene: Scene, server: Server, waiters: int, seconds: float) -> Sequence[Line]:
    pid = server.child.pid or 0
    alone = await answers_to(_reads(scene, waiters, seconds), server.port)
    held, cpu = resident_mb(pid), server.cpu
    callers = [asyncio.create_task(_delay(server.port, scene.key, number)) for number in range(waiters)]
    # Until all of them wait.
    await asyncio.sleep(1)
    before, start = server.cpu, asyncio.get_running_loop().time()
    await asyncio.sleep(seconds)
    percent = (server.cpu - before) / (asyncio.get_running_loop().time() - start) * 100
    beside = await answers_to(_reads(scene, waiters, seconds), server.port)
    grown = resident_mb(pid) - held
    calls = Load(
        path="/v1/callbacks",
        method="POST",
        body='{"BizToken": "passed-{n}", "RuleId": "1"}',
        headers={"Authorization": f"Bearer {scene.key}"},
        clients=10,
        rate=_CALLBACKS,
        seconds=waiters / _CALLBACKS,
        status=202,
    )
    await answers_to(calls, server.port)
    delays = await asyncio.gather(*callers)
    what = f"{waiters:,} waiters, {scene.name}"
    return [
        Line.plain(f"{what}: from stored to told, median", "ms", statistics.median(delays)),
        Line.plain(f"{what}: from stored to told, p95", "ms", statistics.quantiles(delays, n=20)[-1]),
        Line.plain(f"{what}: while they wait", "% of a core", percent),
        Line.plain(f"{what}: while they wait", "MB more", grown),
        Line.plain(f"{what}: their whole wait", "ms CPU each", (server.cpu - cpu) * 1000 / waiters),
        Line.at_most(f"{what}: reads beside them, p95", "ms", beside.percentile(95), alone.percentile(95), "alone"),
    ]


def _reads(scene: Scene, numbers: int, seconds: float) -> Load:
    return Load(
        path="/v1/verifications/passed-{n}",
        headers={"Authorization": f"Bearer {scene.key}"},
        clients=10,
        rate=_READS,
        seconds=seconds,
        numbers=numbers,
    )


async def _delay(port: int, key: str, number: int) -> float:
    """Returns the milliseconds from storing a result until the caller has it.

    Raises:
        RuntimeError: the caller got none.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_ASK.format(number=number, wait=_WAIT, key=f"Bearer {key}").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    answer = json.loads(await reader.readexactly(length))
    now = datetime.now(UTC)
    writer.close()
    if answer.get("retrieved_at") is None:
        raise RuntimeError(f"A caller got {head[9:12].decode()} without a result.")
    return (now - datetime.fromisoformat(answer["retrieved_at"])).total_seconds() * 1000
