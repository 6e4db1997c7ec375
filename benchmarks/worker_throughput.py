"""The throughput of a worker whose upstream costs nothing.

`python -m benchmarks.worker_throughput COUNT FOLDER [--database URL]`: everything of a retrieval except the call, that
is claim, quota, decode, seal and record. The results are text; `benchmarks.retrieval` measures media. It prints
verifications per second and milliseconds of CPU of each, as JSON.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

import uvloop
from pydantic import SecretStr

from app.config import Settings
from app.domain.detection import InfoType
from app.domain.rule import Enhanced
from app.domain.verification import UpstreamCall
from app.faceid.client import DetectAnswer, FaceIdClient
from app.faceid.lifter import S
from app.factory import RetrievalServices, Services, open_retrieval, open_services
from app.observability import configure_logging
from app.sealing.keyring import KeyRing
from app.services.clock import now
from app.worker import Worker
from benchmarks import harness
from benchmarks.contenders import stored
from benchmarks.figures import Line, measured
from benchmarks.upstream import answer_of, decoded
from tests.support.databases import migrate
from tests.support.postgres import durable_postgres
from tests.support.service import actor, settings_for

# Not measured: they open connections and build statements.
_WARM = 100
_AT_ONCE = 32


async def lines(folder: Path, *, rounds: int, count: int) -> AsyncIterator[Line]:
    """Measures the worker on SQLite, and on a Postgres that syncs."""
    # The server runs as another user.
    await asyncio.to_thread(folder.chmod, 0o755)
    for database, least in (("SQLite", 300), ("Postgres", 600)):
        rounds_ = [await _measured_on(await asyncio.to_thread(_folder, folder), count, database) for _ in range(rounds)]
        rate, cpu = (statistics.median(one[figure] for one in rounds_) for figure in ("rate", "cpu"))
        yield Line.plain(f"worker, free upstream, {database}", "verifications/s", rate, least=least)
        yield Line.plain(f"worker, free upstream, {database}", "ms CPU", cpu)


def _folder(folder: Path) -> Path:
    new = Path(mkdtemp(dir=folder))
    new.chmod(0o755)
    return new


async def _measured_on(folder: Path, count: int, database: str) -> Mapping[str, float]:
    if database == "SQLite":
        return await _measured_in_process(folder, count)
    async with durable_postgres(folder) as postgres:
        return await _measured_in_process(folder, count, "--database", postgres.url)


async def _measured_in_process(folder: Path, count: int, *more: str) -> Mapping[str, float]:
    command = [sys.executable, "-m", "benchmarks.worker_throughput", str(count), str(folder), *more]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=harness.environment())
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("The worker failed.")
    figures: Mapping[str, float] = json.loads(output)
    return figures


class FreeUpstream(FaceIdClient):
    """Answers at once with a prepared result, which it decodes as often as it is called."""

    _ANSWER = answer_of(0, parts=frozenset("1"))

    async def get_detect_info(
        self,
        *,
        biz_token: str,
        rule_id: str,
        info_type: InfoType,
        open_sink: Callable[[], S],
        enhanced: Enhanced | None = None,
    ) -> DetectAnswer[S]:
        """Decodes the prepared answer."""
        del biz_token, rule_id, open_sink, enhanced
        call = UpstreamCall(
            called_at=datetime.now(UTC),
            action="GetDetectInfo",
            info_type=str(info_type),
            request_id="bench",
            error_code=None,
            duration_ms=0,
            bytes_received=len(self._ANSWER),
        )
        return DetectAnswer(call, decoded(self._ANSWER))


async def measure(settings: Settings, count: int) -> Mapping[str, float]:
    """Accepts so many callbacks, and measures the retrieval of their results."""
    if url := settings.database.database_url:
        await migrate(url.get_secret_value())
    # The free upstream has no time to compare with.
    async with open_services(settings, clock=now) as services:
        await _call_back(services, count)
        async with _working(services):
            await stored(_WARM)
            with measured() as cost:
                await stored(count)
    left = count - _WARM
    return {"rate": left / cost.seconds, "cpu": cost.cpu / left * 1000}


@asynccontextmanager
async def _working(services: Services) -> AsyncIterator[None]:
    """Runs a worker without chores, whose accounts have a free upstream."""
    concurrency = services.settings.process.worker_concurrency
    async with open_retrieval(services) as opened:
        accounts = [
            replace(account, faceid=FreeUpstream(services.settings.faceid, account.name, connections=1))
            for account in opened.claims.accounts
        ]
        claims = replace(opened.claims, accounts=accounts)
        retrieval = RetrievalServices(
            claims=claims,
            retrieve=replace(opened.retrieve, claims=claims),
            pauses=opened.pauses,
            billing=opened.billing,
        )
        worker = Worker(retrieval, services.wakeups, concurrency=concurrency)
        task = asyncio.create_task(worker.run())
        yield
        worker.stop()
        await task


async def _call_back(services: Services, count: int) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with turns:
            await services.intake.call_back(actor(), f"passed-{number}", "1", None)

    await asyncio.gather(*map(one, range(count)))


def main() -> None:
    """Measures once and prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--database", type=SecretStr)
    arguments = parser.parse_args()
    # To stderr: the figures alone go to stdout.
    configure_logging("ERROR")
    KeyRing.create(arguments.folder / "keyring.json")
    settings = settings_for(
        arguments.folder, "http://127.0.0.1:1", faceid_info_type="1", database_url=arguments.database
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.write(json.dumps(runner.run(measure(settings, arguments.count))))


if __name__ == "__main__":
    main()
