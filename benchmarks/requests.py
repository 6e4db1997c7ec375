"""The cost of requests, callbacks and reads of one result, compared with minimal handlers."""

import asyncio
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import make_url

from app.config import Settings
from app.factory import open_services
from app.worker import working
from benchmarks import baseline, harness, upstream
from benchmarks.contenders import count_stored, stored
from benchmarks.figures import Line
from benchmarks.harness import Server, answers_to
from benchmarks.load import Load
from tests.support.postgres import durable_postgres
from tests.support.service import UNLIMITED, actor, set_up, settings_for

_CLIENTS = 50
# Callbacks per second.
_STEADY = 200
_PEERS: Mapping[str, Sequence[str]] = {"bare": (), "bare asyncpg": ("--driver", "asyncpg")}
# Small, because only its row is read.
_VIDEO_BYTES = 200_000


@dataclass(slots=True)
class _Measured:
    """The figures of a server for one kind of request, round by round."""

    per_second: list[float] = field(default_factory=list)
    p95_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


async def lines(folder: Path, *, rounds: int, seconds: float, results: int) -> AsyncIterator[Line]:
    """Measures both on SQLite and on a Postgres that syncs. Only the latter has peers."""
    # The server runs as another user.
    await asyncio.to_thread(folder.chmod, 0o711)
    async with durable_postgres(folder) as postgres, upstream.running(folder, _VIDEO_BYTES) as faceid:
        for name, url in (("SQLite", None), ("Postgres", postgres.url)):
            home = folder / name
            await asyncio.to_thread(home.mkdir)
            settings = settings_for(home, faceid, database_url=url, media_url=(home / "media").as_uri(), **UNLIMITED)
            headers = {"Authorization": f"Bearer {await set_up(settings)}"}
            await retrieve(settings, results)
            async with AsyncExitStack() as stack:
                servers = {"ours": await stack.enter_async_context(harness.serving(settings, "--no-worker"))}
                for peer, more in _PEERS.items() if url else ():
                    serving = harness.python("benchmarks.baseline", "--database", postgres.url, *more)
                    servers[peer] = await stack.enter_async_context(serving)
                for line in await _compared(name, servers, headers, rounds, seconds, results):
                    yield line
                if url:
                    rate = await baseline.alone(make_url(url), seconds)
                    yield Line.plain("the insert alone, raw asyncpg, Postgres", "inserts/s", rate)


async def _compared(
    name: str, servers: Mapping[str, Server], headers: Mapping[str, str], rounds: int, seconds: float, results: int
) -> list[Line]:
    read = Load(
        path="/v1/verifications/passed-{n}", numbers=results, headers=headers, clients=_CLIENTS, seconds=seconds
    )
    intake = Load(
        path="/v1/callbacks",
        method="POST",
        body='{"BizToken": "passed-{run}-{n}", "RuleId": "1"}',
        headers=headers,
        clients=_CLIENTS,
        seconds=seconds,
        status=202,
    )
    alone = {"ours": servers["ours"]}
    return [
        *_lines(f"one result by token, {name}", await _rounds(servers, read, rounds), least=0.6, most_ms=24),
        *_lines(f"intake, {name}", await _rounds(servers, intake, rounds), least=0.75),
        *_lines(
            f"intake, {name}, {_STEADY}/s", await _rounds(alone, replace(intake, rate=_STEADY), rounds), most_ms=12.7
        ),
    ]


async def _rounds(servers: Mapping[str, Server], load: Load, rounds: int) -> Mapping[str, _Measured]:
    """Measures the servers in turns, after a short round that opens connections and builds statements."""
    measured: defaultdict[str, _Measured] = defaultdict(_Measured)
    for server in servers.values():
        await answers_to(replace(load, seconds=load.seconds / 4), server.port)
    for _ in range(rounds):
        for name, server in servers.items():
            before = server.cpu
            answers = await answers_to(load, server.port)
            measured[name].per_second.append(answers.per_second)
            measured[name].p95_ms.append(answers.percentile(95))
            measured[name].cpu_ms.append((server.cpu - before) * 1000 / len(answers.took))
    return measured


def _lines(
    what: str, measured: Mapping[str, _Measured], *, least: float | None = None, most_ms: float | None = None
) -> Iterator[Line]:
    ours, *peers = measured.items()
    figures = ours[1]
    yield Line.plain(f"{what}, p95", "ms", statistics.median(figures.p95_ms), most=most_ms)
    yield Line.plain(f"{what}", "ms CPU", statistics.median(figures.cpu_ms))
    for peer, theirs in peers:
        pair = statistics.median(figures.p95_ms), statistics.median(theirs.p95_ms)
        yield Line.at_most(f"{what}, p95", "ms", *pair, peer)
        pair = statistics.median(figures.per_second), statistics.median(theirs.per_second)
        yield Line.at_least(what, "requests/s", *pair, peer, least=least)


async def retrieve(settings: Settings, count: int) -> None:
    """Retrieves so many results with the worker."""
    async with open_services(settings) as services:
        for number in range(count):
            await services.intake.call_back(actor(), f"passed-{number}", "1", None)
        before = count_stored()
        async with working(services):
            await stored(before + count)
