"""Fixtures of the HTTP tests: settings for redirects and signatures, and a shared service without a worker."""

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.domain.api_key import Scope
from app.services.rule_settings import RuleSettings
from app.services.webhook_signatures import CallbackSettings
from tests.support.api import PAGE, SECRETS, STATEFUL
from tests.support.service import Running, changed, everything, running, settings_for

ACCESS = {
    "redirect_page_url": PAGE,
    "rules": {STATEFUL: RuleSettings(redirect_state=True)},
    "callback_secrets": SecretStr(f"{SECRETS['old']} {SECRETS['new']}"),
    "callbacks": {"shop": CallbackSettings(secrets=[SecretStr(SECRETS["shop"])])},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Returns the common settings, with a page for browsers, a rule with redirect_state and callback secrets."""
    return changed(settings, **ACCESS)


@pytest.fixture(scope="module")
def module_settings(module_settings: Settings) -> Settings:
    """Returns the same for a service that the tests of a module share."""
    return changed(module_settings, **ACCESS)


@pytest.fixture(scope="session")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_for(tmp_path_factory.mktemp("shared"), "http://127.0.0.1:9", **ACCESS)


@pytest.fixture(scope="session")
async def shared_service(shared_settings: Settings) -> AsyncIterator[Running]:
    """Yields a service on SQLite without a worker, for tests that depend on neither."""
    async with running(shared_settings, with_worker=False) as started:
        yield started


@pytest.fixture(scope="session")
async def shared_api(shared_service: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with shared_service.client(await shared_service.key(*everything(), Scope.ADMIN)) as client:
        yield client
