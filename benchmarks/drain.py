"""What a worker makes of an upstream that costs nothing: `python -m benchmarks.drain COUNT FOLDER [--database URL]`.

Everything of a retrieval but the call: claim, quota, decode, seal, record. The results are text; media cost what
`benchmarks.retrieval` says. It prints how many a second and the milliseconds of CPU of each, as JSON.
"""

import argparse
import asyncio
import json
import logging
import statistics
import sys
from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

import structlog
import uvloop
from pydantic import SecretStr

from app.config import Settings
from app.domain.access import OPERATOR
from app.faceid.client import FaceIdClient
from app.faceid.lifter import LiftedBody
from app.factory import Services, open_services
from app.sealing.keyring import KeyRing
from app.storage import schema
from app.storage.database import Database
from app.worker import working
from benchmarks import stage
from benchmarks.figures import Line, measured
from benchmarks.upstream import answer_of
from benchmarks.ways import stored
from tests.support.postgres import durable_postgres
from tests.support.service import settings_for

_WARM = 100  # connections are open and statements made
_AT_ONCE = 32


async def lines(folder: Path, *, rounds: int, count: int) -> AsyncIterator[Line]:
    """The worker on SQLite and on a Postgres that waits for the disk."""
    await asyncio.to_thread(folder.chmod, 0o755)  # the server runs as another user
    for database, least in (("SQLite", 300), ("Postgres", 600)):
        told = [await _drained(await asyncio.to_thread(_folder, folder), count, database) for _ in range(rounds)]
        rate, cpu = (statistics.median(one[figure] for one in told) for figure in ("rate", "cpu"))
        yield Line.plain(f"worker, free upstream, {database}", "verifications/s", rate, least=least)
        yield Line.plain(f"worker, free upstream, {database}", "ms CPU", cpu)


def _folder(folder: Path) -> Path:
    new = Path(mkdtemp(dir=folder))
    new.chmod(0o755)
    return new


async def _drained(folder: Path, count: int, database: str) -> Mapping[str, float]:
    if database == "SQLite":
        return await _went(folder, count)
    async with durable_postgres(folder) as postgres:
        return await _went(folder, count, "--database", postgres.url)


async def _went(folder: Path, count: int, *more: str) -> Mapping[str, float]:
    command = [sys.executable, "-m", "benchmarks.drain", str(count), str(folder), *more]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=stage.environment())
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("The worker broke off.")
    figures: Mapping[str, float] = json.loads(told)
    return figures


async def drain(settings: Settings, count: int) -> Mapping[str, float]:
    """Takes so many in, and then measures their retrieval."""
    answer = answer_of(0, parts=frozenset("1"))

    async def free(*_: object) -> LiftedBody[BytesIO]:
        return LiftedBody(answer, {}, BytesIO)

    if settings.database_url:
        database = Database(settings)
        await schema.migrate(database)
        await database.aclose()
    with patch.object(FaceIdClient, "_receive", free):
        async with open_services(settings) as services:
            await _take_in(services, count)
            async with working(services):
                await stored(_WARM)
                with measured() as cost:
                    await stored(count)
    left = count - _WARM
    return {"rate": left / cost.seconds, "cpu": cost.cpu / left * 1000}


async def _take_in(services: Services, count: int) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with turns:
            await services.receive.call_back(OPERATOR, f"passed-{number}", "1", None)

    await asyncio.gather(*map(one, range(count)))


def main() -> None:
    """Drains once and prints what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--database", type=SecretStr)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    KeyRing.create(asked.folder / "keyring.json")
    settings = settings_for(asked.folder, "http://127.0.0.1:1", faceid_info_type="1", database_url=asked.database)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.write(json.dumps(runner.run(drain(settings, asked.count))))


if __name__ == "__main__":
    main()
