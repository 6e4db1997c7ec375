"""Fixtures of the console: a service with results that many tests read, and one whose clock a test moves."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from app.config import Settings
from app.domain.api_key import Scope
from tests.support.api import get, retrieve_new
from tests.support.clocks import ShiftedClock
from tests.support.console import visiting
from tests.support.service import Running, everything, running, settings_for
from tests.support.simulator import LiveSimulator


@dataclass(frozen=True)
class Console:
    """A running service, the key of an administrator, tokens with a result, and a webhook endpoint with a delivery."""

    service: Running
    key: str
    passed: str
    failed: str
    endpoint: str
    delivery: str


@pytest.fixture(scope="session")
async def console(tmp_path_factory: pytest.TempPathFactory, faceid: LiveSimulator) -> AsyncIterator[Console]:
    """Yields a console on SQLite with one result of each kind."""
    async with running(settings_for(tmp_path_factory.mktemp("console"), faceid.url)) as service:
        key = await service.key(*everything(), Scope.ADMIN)
        async with service.client(key) as api:
            passed, failed = await retrieve_new(api), await retrieve_new(api, "failed-2016")
            assert (await get(api, failed))["outcome"] == "failed"
        delivery = await service.delivery_id()
        yield Console(service, key, passed, failed, await service.endpoint_id(), delivery)


@pytest.fixture
async def admin(console: Console) -> AsyncIterator[httpx.AsyncClient]:
    """Yields an administrator who has signed in."""
    async with visiting(console.service, console.key) as client:
        yield client


@pytest.fixture
async def clocked(settings: Settings) -> AsyncIterator[tuple[Running, ShiftedClock]]:
    """Yields a service without a worker, and its clock."""
    clock = ShiftedClock()
    async with running(settings, with_worker=False, clock=clock) as service:
        yield service, clock
