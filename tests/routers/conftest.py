"""What the tests of the HTTP API share: a service for what does not depend on the database, and a result to look at."""

import secrets
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.domain.access import Scope
from app.services.rules import RuleSettings
from app.services.signatures import CallbackSettings
from simulator.people import Person
from tests.conftest import Running, everything, running, settings_for

PAGE = "https://shop.test/ok"
STATEFUL = "stateful"  # the rule with redirect_state
SECRETS = {name: f"whsec_{b64encode(name.encode() * 8).decode()}" for name in ("old", "new", "shop")}
ACCESS = {
    "redirect_page_url": PAGE,
    "rules": {STATEFUL: RuleSettings(redirect_state=True)},
    "callback_secrets": SecretStr(f"{SECRETS['old']} {SECRETS['new']}"),
    "callbacks": {"shop": CallbackSettings(secrets=[SecretStr(SECRETS["shop"])])},
}
EXAMPLE = "CE661F1A-0F1E-45BD-BE13-34C05CEA7681"  # the description's


def token(scenario: str = "passed") -> str:
    return f"{scenario}-r{secrets.token_hex(6)}"


async def retrieved(api: httpx.AsyncClient, scenario: str = "passed") -> str:
    """A new token of this scenario, whose result is here."""
    biz_token = token(scenario)
    await api.post("/v1/callbacks", json={"BizToken": biz_token})
    view = await get(api, biz_token, wait=20)
    assert view["state"] == "retrieved"
    return biz_token


async def get(api: httpx.AsyncClient, biz_token: str, *, wait: float = 0) -> dict[str, Any]:
    answer = await api.get(f"/v1/verifications/{biz_token}", params={"wait": wait})
    assert answer.status_code == 200
    view: dict[str, Any] = answer.json()
    return view


async def listed(api: httpx.AsyncClient) -> list[str]:
    """The tokens of all verifications, the newest first; there are fewer than a page of them."""
    page = (await api.get("/v1/verifications", params={"limit": 200})).json()
    assert page["next_cursor"] is None
    return [item["biz_token"] for item in page["items"]]


def first_attempt_of(person: Person) -> str:
    at = datetime.fromtimestamp(person.first_attempt_ms // 1000, UTC)
    fraction = f".{person.first_attempt_ms % 1000:03}".rstrip("0").rstrip(".")
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"


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
