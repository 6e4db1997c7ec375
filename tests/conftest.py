"""Fixtures for all tests: databases, an S3 server, a simulator, a receiver of webhooks, the service and its command."""

import gc
import logging
import os
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import structlog
from hypothesis import settings as settings_of_hypothesis
from pydantic import SecretStr

from app.cli.server import exclude_startup_from_gc
from app.config import Settings
from app.sealing.keyring import KeyRing
from app.storage.database import Database, DatabaseSettings
from simulator.options import DEMO_CREDENTIALS
from tests.support.databases import PostgresPool, postgres_template_of, sqlite_template_at
from tests.support.dialects import share_compiled_statements
from tests.support.installation import Installation
from tests.support.receiver import Receiver, receiving
from tests.support.servers import S3, postgres, s3
from tests.support.service import Running, everything, running, settings_for
from tests.support.sharing import shared
from tests.support.simulator import LiveSimulator, live_simulator

# No test asserts a time.
settings_of_hypothesis.register_profile("tests", deadline=None)
settings_of_hypothesis.load_profile("tests")
share_compiled_statements()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of whole services first: started last, one of them would delay the end of the run."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the modules and the tests out of garbage collection, like the server, which saves a tenth of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        exclude_startup_from_gc()
        gc.enable()


@pytest.fixture(scope="session")
def faceid() -> Iterator[LiveSimulator]:
    with live_simulator() as running:
        yield running


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of this run, which is the same in all of its processes."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def postgres_server(run_folder: Path) -> Iterator[str]:
    with shared(run_folder / "postgres", str, postgres) as url:
        yield url


@pytest.fixture(scope="session")
def s3_server(run_folder: Path) -> Iterator[S3]:
    with shared(run_folder / "s3", S3, s3) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(run_folder: Path, postgres_server: str) -> Iterator[str]:
    with shared(run_folder / "postgres-template", str, partial(postgres_template_of, postgres_server)) as name:
        yield name


@pytest.fixture(scope="session")
async def postgres_pool(postgres_server: str, postgres_template: str) -> AsyncIterator[PostgresPool]:
    """Yields a pool of migrated databases that tests use one after the other."""
    async with PostgresPool(postgres_server, postgres_template) as pool:
        yield pool


@pytest.fixture
async def postgres_url(postgres_pool: PostgresPool) -> AsyncIterator[str]:
    async with postgres_pool.lend() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(run_folder: Path) -> Iterator[Path]:
    """Yields a migrated file that tests copy."""
    with shared(run_folder / "sqlite-template", str, partial(sqlite_template_at, run_folder / "test.db")) as path:
        yield Path(path)


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_template, tmp_path)}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Returns the URL of an empty database with the current schema, on SQLite and on Postgres."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(DatabaseSettings(database_url=SecretStr(database_url)))
    yield opened
    await opened.aclose()


@pytest.fixture
def settings(tmp_path: Path, database_url: str, faceid: LiveSimulator) -> Settings:
    KeyRing.create(tmp_path / "keyring.json")
    return settings_for(tmp_path, faceid.url, database_url=database_url)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
async def module_settings(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_pool: PostgresPool,
    faceid: LiveSimulator,
) -> AsyncIterator[Settings]:
    """Yields the settings of a service that the tests of a module share, on SQLite and on Postgres."""
    folder = tmp_path_factory.mktemp("module")
    KeyRing.create(folder / "keyring.json")
    if request.param == "sqlite":
        yield settings_for(folder, faceid.url)
    else:
        async with postgres_pool.lend() as url:
            yield settings_for(folder, faceid.url, database_url=url)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as server:
        yield server


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Running]:
    """Yields the service with its worker, on SQLite and on Postgres."""
    async with running(settings) as started:
        yield started


@pytest.fixture
async def idle_service(settings: Settings) -> AsyncIterator[Running]:
    """Yields the service without a worker, so due verifications stay due."""
    async with running(settings, with_worker=False) as started:
        yield started


@pytest.fixture
async def api(service: Running) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client with every scope except admin."""
    async with service.client(await service.key(*everything())) as client:
        yield client


@pytest.fixture
async def idle_api(idle_service: Running) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of the service without a worker, with every scope except admin."""
    async with idle_service.client(await idle_service.key(*everything())) as client:
        yield client


@pytest.fixture
def here(tmp_path: Path, faceid: LiveSimulator, sqlite_template: Path) -> Installation:
    """Returns an installation with a migrated database, because a first start takes half a second."""
    (tmp_path / "data").mkdir(mode=0o700)
    shutil.copy(sqlite_template, tmp_path / "data/faceid-results.db")
    return Installation(
        tmp_path,
        {
            "FACEID_ENDPOINT": faceid.url,
            "FACEID_RULE_ID": "1",
            "TENCENTCLOUD_SECRET_ID": DEMO_CREDENTIALS.secret_id,
            "TENCENTCLOUD_SECRET_KEY": DEMO_CREDENTIALS.secret_key,
        },
    )


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Restores the logging configuration after the test."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.setLevel(level)
    root.handlers[:] = handlers
