"""One run: starts everything, plays the plan, waits until everything is retrieved, and checks the result."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from app.config import Settings
from app.errors import UnavailableError
from app.storage.database import Database
from tests.chaos.inbox import open_inbox
from tests.chaos.plan import draw_plan
from tests.chaos.reconcile import Bucket, Findings, Folder, Store, count_open, reconcile
from tests.chaos.scene import BreakableMedia, Scene, breakable_bucket, breakable_folder
from tests.chaos.upstream import Upstream
from tests.support.postgres import Postgres, durable_postgres
from tests.support.processes import Child, Command, answers, minded, temporary_folder
from tests.support.relay import relaying
from tests.support.servers import free_ports, s3, script_path
from tests.support.service import UNLIMITED, environment_of, set_up, settings_for

QUIET_SECONDS = 60.0
"""The time after the last fault within which everything must be retrieved."""
CALL_SECONDS = 5
"""FACEID_TIMEOUT_SECONDS of the processes. With less than the default of 30, a killed worker's rows are due sooner."""

_REQUESTS_PER_SECOND = 46  # the default
# Distinguishes late results from missing ones.
_PATIENCE_SECONDS = 3 * QUIET_SECONDS
_POLL_SECONDS = 0.25
_REQUEST_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run. `pace` is the mean of the seconds between two kills; `seconds` ends the faults early.

    `database` is `sqlite` or `postgres`, `media` is `folder` or `bucket`.
    """

    database: str
    media: str = "folder"
    seed: int = 1
    kills: int = 100
    pace: float = 0.5
    seconds: float = float("inf")
    call_seconds: int = CALL_SECONDS


@dataclass(frozen=True, kw_only=True)
class Report:
    """The figures of a run."""

    options: Options
    tokens: int
    fault_seconds: float
    seconds_to_quiet: float
    scene: Scene
    findings: Findings

    @property
    def children(self) -> Sequence[Child]:
        """The supervised processes."""
        return list(self.scene.children.values())

    @property
    def zeros(self) -> Mapping[str, int]:
        """The counts that must be zero, by name."""
        found, statuses = self.findings, self.scene.statuses
        return {
            "never acknowledged": len(self.scene.sent_tokens) - len(self.scene.acknowledged),
            "acknowledged and lost": len(found.lost),
            "not retrieved": len(found.open),
            "retrieved too late": int(self.seconds_to_quiet > QUIET_SECONDS),
            "wrong or mixed up": len(found.wrong),
            "rows without their object": len(found.dangling),
            "events or deliveries missing or wrong": len(found.unreported),
            "orphans after the sweep": found.objects_after,
            "spool files after the sweep": found.spool_files_after,
            "answers 500 or 4xx": sum(n for status, n in statuses.items() if status == "500" or status[:1] == "4"),
            "processes that did not stop": sum(child.was_stuck for child in self.children),
        }

    @property
    def most_per_second(self) -> int:
        """The largest number of calls that reached FaceID within one second."""
        return self.scene.upstream.simulator.ledger.peaks["GetDetectInfo"]


async def run(options: Options) -> Report:
    """Runs the plan and returns the report. Leaves nothing behind.

    Raises:
        RuntimeError: a process did not come up.
    """
    plan = draw_plan(seed=options.seed, kills=options.kills, database=options.database, pace=options.pace)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        upstream = Upstream()
        await stack.enter_async_context(upstream.served())
        postgres = await stack.enter_async_context(durable_postgres(folder)) if options.database == "postgres" else None
        media, store, media_settings = await _open_media(stack, folder, options.media)
        settings = settings_for(
            folder,
            upstream.url,
            database_url=postgres and postgres.url,
            **media_settings,
            faceid_requests_per_second=_REQUESTS_PER_SECOND,
            faceid_timeout_seconds=options.call_seconds,
            **UNLIMITED,
        )
        key = await set_up(settings)
        inbox = await stack.enter_async_context(open_inbox(settings))
        async with _processes(folder, settings, key, postgres) as (client, children):
            scene = Scene(
                settings=settings, upstream=upstream, media=media, children=children, postgres=postgres, client=client
            )
            start = time.monotonic()
            await scene.play(plan, start + options.seconds)
            await _until_quiet(settings, scene.mended_at + _PATIENCE_SECONDS)
            quiet_at = time.monotonic()
        return Report(
            options=options,
            tokens=len(plan.tokens),
            fault_seconds=scene.mended_at - start,
            seconds_to_quiet=quiet_at - scene.mended_at,
            scene=scene,
            findings=await reconcile(
                plan.tokens,
                scene.acknowledged,
                settings,
                store,
                list(upstream.simulator.ledger.entries),
                inbox,
            ),
        )


async def _open_media(
    stack: AsyncExitStack, folder: Path, kind: str
) -> tuple[BreakableMedia, Store, Mapping[str, object]]:
    """Opens a folder or a bucket; returns it as something to break, to read, and as settings."""
    if kind == "folder":
        media = breakable_folder(folder / "media", folder / "objects")
        return media, Folder(folder / "objects"), {"media_url": (folder / "media").as_uri()}
    server = stack.enter_context(s3())
    host, port = urlsplit(server.endpoint).netloc.split(":")
    relay = await stack.enter_async_context(relaying(lambda: asyncio.open_connection(host, int(port))))
    settings = server.settings("chaos") | {"aws_endpoint_url": f"http://127.0.0.1:{relay.port}"}
    return breakable_bucket(relay), Bucket(server, "chaos", folder / "spool"), settings


@asynccontextmanager
async def _processes(
    folder: Path, settings: Settings, key: str, postgres: Postgres | None
) -> AsyncIterator[tuple[httpx.AsyncClient, Mapping[str, Child]]]:
    """Runs the API and two workers; yields a client of the API, and everything that can be killed."""
    port = free_ports(["api"])["api"]
    environment, program = environment_of(settings), script_path("faceid-results")
    api = [program, "serve", "--no-worker", "--port", str(port)]
    commands = {
        "api": Command(api, environment, folder, up=partial(answers, "127.0.0.1", port)),
        **{
            f"worker-{number}": Command([program, "worker"], environment, folder, up="worker_started")
            for number in (1, 2)
        },
    }
    children = {name: Child(name, command) for name, command in commands.items()}
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": f"Bearer {key}"},
        timeout=_REQUEST_SECONDS,
        trust_env=False,
    )
    async with client, minded(children.values()):
        yield client, children | ({"postgres": postgres.child} if postgres else {})


async def _until_quiet(settings: Settings, give_up_at: float) -> None:
    database = Database(settings.database)
    try:
        while await _count_open(database):
            if time.monotonic() > give_up_at:
                break
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await database.aclose()


async def _count_open(database: Database) -> int:
    try:
        return await count_open(database)
    except UnavailableError:  # Postgres was killed last
        return 1
