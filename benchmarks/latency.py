"""The time that the service adds between the callback and the waiting client's response: `make bench-latency`.

The embedded set-up, idle, with a simulator with its default options. In turns: a callback and a waiting GET, and a
plain GetDetectInfo whose answer is discarded. The added time is the difference of each pair.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from app.config import Settings
from app.observability import configure_logging
from app.storage import tables
from app.storage.database import Database
from benchmarks import harness
from simulator.server import create_simulator
from tests.support.service import UNLIMITED, set_up, settings_for
from tests.support.simulator import Caller

MOST_ADDED_MS = 25.0
# Between two calls, so neither affects the other.
_IDLE_SECONDS = 0.05

# Only signs the direct calls.
_SIGNER = Caller(create_simulator())


async def run(times: int) -> Mapping[str, Sequence[float]]:
    """Returns the milliseconds of each part by its name, in the order of the calls.

    Raises:
        RuntimeError: a process did not start, or a wait was answered without a result.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="latency-")))
        faceid = await stack.enter_async_context(harness.simulator(folder))
        settings = settings_for(
            folder,
            str(faceid.base_url),
            media_url=(folder / "media").as_uri(),
            faceid_requests_per_second=46,
            **UNLIMITED,
        )
        api = await stack.enter_async_context(harness.api(settings, await set_up(settings)))
        pairs = [(await _direct(faceid, number), *await _through(api, number)) for number in range(-1, times)]
        fetched = await _fetched(settings)
    # The first pair opened the connections.
    direct, answered, waited = zip(*pairs[1:], strict=True)
    through = [sum(parts) for parts in zip(answered, waited, strict=True)]
    return {
        "callback to answered wait": through,
        "a direct GetDetectInfo": direct,
        "added": [one - other for one, other in zip(through, direct, strict=True)],
        "- the callback's own answer": answered,
        "- GetDetectInfo as the worker saw it": fetched[1:],
        "- all else": [both - call for both, call in zip(waited, fetched[1:], strict=True)],
    }


async def _direct(faceid: httpx.AsyncClient, number: int) -> float:
    body = json.dumps({"BizToken": f"passed-direct-{number}", "RuleId": "1", "InfoType": "0"}).encode()
    headers = _SIGNER.headers("GetDetectInfo", body)
    await asyncio.sleep(_IDLE_SECONDS)
    start = time.perf_counter()
    await faceid.post("/", headers=headers, content=body)
    return _ms_since(start)


async def _through(api: httpx.AsyncClient, number: int) -> tuple[float, float]:
    """Returns the milliseconds until the callback was answered, and from then until the wait was."""
    biz_token = f"passed-through-{number}"
    await asyncio.sleep(_IDLE_SECONDS)
    start = time.perf_counter()
    await api.post("/v1/callbacks", json={"BizToken": biz_token})
    answered, start = _ms_since(start), time.perf_counter()
    answer = await api.get(f"/v1/verifications/{biz_token}", params={"wait": 20})
    waited = _ms_since(start)
    if answer.json().get("outcome") != "passed":
        raise RuntimeError(f"The wait was answered with {answer.status_code} and no result.")
    return answered, waited


async def _fetched(settings: Settings) -> Sequence[float]:
    """Returns the milliseconds of the worker's calls, including the decoding of media."""
    database, table = Database(settings.database), tables.upstream_call
    async with database.read() as tx:
        durations = (await tx.connection.scalars(select(table.c.duration_ms).order_by(table.c.id))).all()
    await database.aclose()
    return durations


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000


def table(measured: Mapping[str, Sequence[float]]) -> Table:
    """Returns a line for each part."""
    drawn = Table(
        "ms", "median", "p95", "worst", title="From callback to answered wait", title_justify="left", box=SIMPLE
    )
    for name, values in measured.items():
        p95 = statistics.quantiles(values, n=20, method="inclusive")[-1]
        drawn.add_row(name, *(f"{value:.1f}" for value in (statistics.median(values), p95, max(values))))
    return drawn


def main() -> int:
    """Measures and prints the table. Exit code 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="make bench-latency", description="Times a callback up to its result.")
    parser.add_argument("--times", type=int, default=100)
    configure_logging("ERROR")
    measured = asyncio.run(run(parser.parse_args().times))
    Console().print(table(measured))
    return int(statistics.median(measured["added"]) > MOST_ADDED_MS)


if __name__ == "__main__":
    sys.exit(main())
