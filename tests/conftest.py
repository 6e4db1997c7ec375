"""What tests stand on: both databases, a real S3, a live simulator, and the service between them."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.config import Settings
from app.domain.access import Scope
from app.factory import Services
from app.main import create_app
from app.sealing.keyring import KeyRing
from app.simulator.options import DEMO_CREDENTIALS
from app.storage.database import Database, DatabaseSettings
from tests.servers import S3, postgres, s3
from tests.simulator.live import LiveSimulator, live_simulator
from tests.support.databases import PostgresPool, migrate


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs whole services comes first: at the end, one of them would keep the other processes waiting."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.fixture(scope="session")
def faceid() -> Iterator[LiveSimulator]:
    with live_simulator() as running:
        yield running


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    with s3() as server:
        yield server


@pytest.fixture(scope="session")
async def postgres_pool(postgres_server: str) -> AsyncIterator[PostgresPool]:
    """Migrated databases that tests use one after the other."""
    async with PostgresPool(postgres_server) as pool:
        yield pool


@pytest.fixture
async def postgres_url(postgres_pool: PostgresPool) -> AsyncIterator[str]:
    async with postgres_pool.lend() as url:
        yield url


@pytest.fixture(scope="session")
async def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file that tests copy: a copy takes a thousandth of the time of the migrations."""
    path = tmp_path_factory.mktemp("template") / "test.db"
    await migrate(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_template, tmp_path)}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of this version's schema, on both."""
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


def settings_for(folder: Path, faceid_url: str, **others: object) -> Settings:
    """The settings of a service that asks this simulator, whatever stands in the environment."""
    values: dict[str, Any] = {
        "tencentcloud_secret_id": DEMO_CREDENTIALS.secret_id,
        "tencentcloud_secret_key": SecretStr(DEMO_CREDENTIALS.secret_key),
        "tencentcloud_token": None,
        "faceid_endpoint": faceid_url,
        "faceid_rule_id": "1",
        "faceid_info_type": "0",
        "faceid_requests_per_second": 1000,
        "data_dir": folder,
        "database_url": None,
        "media_url": None,
        "keyring_file": None,
    }
    return Settings(**values | others)


@dataclass
class Running:
    """A service as its clients meet it."""

    app: FastAPI

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def key(self, *scopes: Scope, client: str = "default", valid_for: timedelta = timedelta(days=1)) -> str:
        _, text = await self.services.access.create("test", scopes, client=client, valid_for=valid_for)
        return text

    def client(self, key: str | None) -> httpx.AsyncClient:
        headers = {"X-Purpose": "test"} | ({"Authorization": f"Bearer {key}"} if key else {})
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service", headers=headers)


@asynccontextmanager
async def running(settings: Settings, *, with_worker: bool = True) -> AsyncIterator[Running]:
    """The service, started; no server in between."""
    app = create_app(settings, with_worker=with_worker)
    async with app.router.lifespan_context(app):
        yield Running(app)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Running]:
    """The service with its worker, on SQLite and on Postgres."""
    async with running(settings) as started:
        yield started


@pytest.fixture
async def idle_service(settings: Settings) -> AsyncIterator[Running]:
    """The service without a worker: what is due stays due."""
    async with running(settings, with_worker=False) as started:
        yield started


@pytest.fixture
async def api(service: Running) -> AsyncIterator[httpx.AsyncClient]:
    """A client with every scope but admin."""
    async with service.client(await service.key(*everything())) as client:
        yield client


@pytest.fixture
async def idle_api(idle_service: Running) -> AsyncIterator[httpx.AsyncClient]:
    """The same, of the service without a worker."""
    async with idle_service.client(await idle_service.key(*everything())) as client:
        yield client


def everything() -> list[Scope]:
    """Every scope of an ordinary client."""
    return [scope for scope in Scope if scope is not Scope.ADMIN]
