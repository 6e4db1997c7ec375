"""Whether a flood of forged redirects costs Tencent's quota or honest callers anything: `make bench-flood`.

The real service with its worker and a simulator. One process sends redirects with random tokens, every other one with a
forged state, at a steady rate that does not depend on the responses. This process calls back with a key, ten times a
second. The time of an answer counts from when its request was due.
"""

import argparse
import asyncio
import itertools
import json
import math
import secrets
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from app.observability import configure_logging
from benchmarks import harness
from tests.support.postgres import durable_postgres
from tests.support.processes import temporary_folder
from tests.support.service import set_up, settings_for

MOST_P99_MS = 250.0
LEAST_SENT_PERCENT = 95.0

_HONEST = "passed-honest-"
_HONEST_PER_SECOND = 10
_CONNECTIONS = 8
_TICK_SECONDS = 0.01
# For the last answers.
_LAST_SECONDS = 30.0
_LAST = b"GET /v1/callbacks/redirect HTTP/1.1\r\nHost: flood\r\nConnection: close\r\n\r\n"
# The answers have no body.
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run. `rate` is the number of forged redirects per second."""

    seconds: float = 60.0
    rate: int = 1000
    database: str = "sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a run: the milliseconds of each answer, and the calls to Tencent."""

    options: Options
    honest: Sequence[float]
    redirects: Sequence[float]
    calls: int
    forged_calls: int

    @property
    def per_second(self) -> float:
        """Redirects per second that got the right answer."""
        return len(self.redirects) / self.options.seconds

    @property
    def is_good(self) -> bool:
        """Whether the targets are met."""
        is_quick = _quantile(self.honest, 99) <= MOST_P99_MS
        return not self.forged_calls and is_quick and self.per_second >= self.options.rate * LEAST_SENT_PERCENT / 100


async def run(options: Options) -> Report:
    """Sets everything up, floods, and cleans up.

    Raises:
        RuntimeError: a process did not start, or an answer was wrong.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        postgres = await stack.enter_async_context(durable_postgres(folder)) if options.database == "postgres" else None
        faceid = await stack.enter_async_context(harness.simulator(folder))
        settings = settings_for(
            folder,
            str(faceid.base_url),
            database_url=postgres and postgres.url,
            media_url=(folder / "media").as_uri(),
            # Media would measure the simulator, which runs on the same machine.
            faceid_info_type="1",
            faceid_requests_per_second=46,
        )
        api = await stack.enter_async_context(harness.api(settings, await set_up(settings)))
        redirects, honest = await asyncio.gather(_flooded(api.base_url.port or 0, options), _called_back(api, options))
        ledger = (await faceid.get("/_simulator/ledger")).json()["entries"]
    return Report(
        options=options,
        honest=honest,
        redirects=redirects,
        calls=len(ledger),
        forged_calls=sum(not entry["biz_token"].startswith(_HONEST) for entry in ledger),
    )


async def _called_back(api: httpx.AsyncClient, options: Options) -> Sequence[float]:
    async def one(number: int, due_at: float) -> float:
        await asyncio.sleep(due_at - time.perf_counter())
        answer = await api.post("/v1/callbacks", json={"BizToken": f"{_HONEST}{number}"})
        if answer.status_code != httpx.codes.ACCEPTED:
            raise RuntimeError(f"A callback was answered with {answer.status_code}.")
        return (time.perf_counter() - due_at) * 1000

    start = time.perf_counter()
    count = int(options.seconds * _HONEST_PER_SECOND)
    return await asyncio.gather(*(one(number, start + number / _HONEST_PER_SECOND) for number in range(count)))


async def _flooded(port: int, options: Options) -> Sequence[float]:
    """Sends the flood from another process, so it does not slow down the honest caller."""
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else "benchmarks.flood", "--into", str(port)]
    command += ["--seconds", str(options.seconds), "--rate", str(options.rate)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("The flood failed.")
    took: Sequence[float] = json.loads(output)
    return took


async def _pour(port: int, options: Options) -> Sequence[float]:
    """Sends the redirects and returns the milliseconds of each answer."""
    pipes = [await _Pipe.connect(port) for _ in range(_CONNECTIONS)]
    readers = [asyncio.create_task(pipe.read()) for pipe in pipes]
    turns, requests = itertools.cycle(pipes), _requests()
    start, sent, total = time.perf_counter(), 0, int(options.seconds * options.rate)
    while sent < total:
        await asyncio.sleep(_TICK_SECONDS)
        due = min(int((time.perf_counter() - start) * options.rate) + 1, total) - sent
        next(turns).send(list(itertools.islice(requests, due)), [start + (sent + n) / options.rate for n in range(due)])
        sent += due
    for pipe in pipes:
        pipe.send([_LAST], [math.nan])
    async with asyncio.timeout(_LAST_SECONDS):
        return [ms for took in await asyncio.gather(*readers) for ms in took]


def _requests() -> Iterator[bytes]:
    for number in itertools.count():
        query = f"BizToken={secrets.token_hex(16).upper()}"
        if number % 2:
            query += f"&state={secrets.token_urlsafe(90)}.{secrets.token_urlsafe(32)}"
        yield f"GET /v1/callbacks/redirect?{query} HTTP/1.1\r\nHost: flood\r\n\r\n".encode()


@dataclass(slots=True)
class _Pipe:
    """A connection with HTTP pipelining: requests are sent before earlier ones are answered."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    due: deque[float]

    @classmethod
    async def connect(cls, port: int) -> "_Pipe":
        return cls(*await asyncio.open_connection("127.0.0.1", port), deque())

    def send(self, requests: Sequence[bytes], due: Sequence[float]) -> None:
        self.due.extend(due)
        self.writer.write(b"".join(requests))

    async def read(self) -> Sequence[float]:
        """Returns the milliseconds of each answer except the last one, after which the server closes the connection."""
        took, rest = [], b""
        while pieces := await self.reader.read(65536):
            *heads, rest = (rest + pieces).split(_END_OF_HEAD)
            now = time.perf_counter()
            for head in heads:
                if not head.startswith(b"HTTP/1.1 303 "):
                    raise RuntimeError(head.decode(errors="replace"))
                took.append((now - self.due.popleft()) * 1000)
        return took[:-1]


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(report: Report) -> Table:
    """Returns a line for each kind of caller."""
    title = f"{report.options.seconds:g} s on {report.options.database}: {report.calls} calls to Tencent, "
    title += f"{report.forged_calls} of them for forged tokens"
    drawn = Table(
        "answers", "per second", "p50 ms", "p99 ms", "worst ms", title=title, title_justify="left", box=SIMPLE
    )
    for name, values in _lines(report).items():
        figures = (_quantile(values, 50), _quantile(values, 99), max(values))
        drawn.add_row(name, f"{len(values) / report.options.seconds:.1f}", *(f"{figure:.1f}" for figure in figures))
    return drawn


def _lines(report: Report) -> Mapping[str, Sequence[float]]:
    return {"honest callbacks, 202": report.honest, "forged redirects, 303": report.redirects}


def main() -> int:
    """Floods and prints the table. Exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="make bench-flood", description="Floods the redirect with forged tokens.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=1000, help="forged redirects per second")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--into", type=int, metavar="PORT", help="only send the flood, and print the times")
    arguments = parser.parse_args()
    options = Options(seconds=arguments.seconds, rate=arguments.rate, database=arguments.database)
    if arguments.into:
        sys.stdout.write(json.dumps(asyncio.run(_pour(arguments.into, options))))
        return 0
    configure_logging("ERROR")
    report = asyncio.run(run(options))
    Console().print(table(report))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
