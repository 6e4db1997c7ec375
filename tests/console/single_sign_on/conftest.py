"""Fixtures of the single sign-on: a provider, and a service that knows it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.config import Settings
from app.sealing.keyring import KeyRing
from tests.support.oidc import SETTINGS, Provider, providing
from tests.support.service import Running, running, settings_for
from tests.support.simulator import LiveSimulator

ROLES = {
    "support": {"client": "shop", "scopes": ["results:read"]},
    "reviewers": {"client": "shop", "scopes": ["results:read", "results:reveal"]},
    "bank": {"client": "bank", "scopes": ["results:read", "media:read"]},
}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with providing() as started:
        yield started


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Returns the URL of a database, on SQLite unless a test says otherwise."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def settings(tmp_path: Path, database_url: str, faceid: LiveSimulator, provider: Provider) -> Settings:
    KeyRing.create(tmp_path / "keyring.json")
    values = SETTINGS | {"database_url": database_url, "oidc_roles": ROLES}
    return settings_for(tmp_path, faceid.url, oidc_issuer=provider.url, **values)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings, with_worker=False) as started:
        yield started
