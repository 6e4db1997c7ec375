"""What the tests of the HTTP API share: a service for what does not depend on the database, and a result to look at."""

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.domain.access import Scope
from app.services.rules import RuleSettings
from app.services.signatures import CallbackSettings
from tests.support.api import PAGE, SECRETS, STATEFUL
from tests.support.service import Running, everything, running, settings_for

ACCESS = {
    "redirect_page_url": PAGE,
    "rules": {STATEFUL: RuleSettings(redirect_state=True)},
    "callback_secrets": SecretStr(f"{SECRETS['old']} {SECRETS['new']}"),
    "callbacks": {"shop": CallbackSettings(secrets=[SecretStr(SECRETS["shop"])])},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As everywhere, and a page of its own for browsers, a rule with states, and secrets to sign with."""
    return settings.model_copy(update=ACCESS)


@pytest.fixture(scope="session")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_for(tmp_path_factory.mktemp("shared"), "http://127.0.0.1:9", **ACCESS)


@pytest.fixture(scope="session")
async def shared_service(shared_settings: Settings) -> AsyncIterator[Running]:
    """An embedded service without a worker, for what depends on neither."""
    async with running(shared_settings, with_worker=False) as started:
        yield started


@pytest.fixture(scope="session")
async def shared_api(shared_service: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with shared_service.client(await shared_service.key(*everything(), Scope.ADMIN)) as client:
        yield client
