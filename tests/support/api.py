"""Requests to the HTTP API that many tests make."""

import asyncio
import secrets
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.domain.verification import Verification
from app.factory import Services
from app.storage.verifications import VerificationStore
from simulator.people import Person

PAGE = "https://shop.test/ok"
STATEFUL = "stateful"  # the rule with redirect_state
SECRETS = {name: f"whsec_{b64encode(name.encode() * 8).decode()}" for name in ("old", "new", "shop")}
EXAMPLE = "CE661F1A-0F1E-45BD-BE13-34C05CEA7681"  # the description's


def token(scenario: str = "passed") -> str:
    """A new BizToken that the simulator answers with this scenario."""
    return f"{scenario}-r{secrets.token_hex(6)}"


async def retrieved(api: httpx.AsyncClient, scenario: str = "passed") -> str:
    """Calls back a new token of this scenario and waits for its result."""
    biz_token = await call_back(api, scenario)
    view = await get(api, biz_token, wait=20)
    assert view["state"] == "retrieved"
    return biz_token


async def get(api: httpx.AsyncClient, biz_token: str, *, wait: float = 0) -> dict[str, Any]:
    """Reads a verification that is there."""
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
    """The time of the first liveness attempt, as the API writes it."""
    at = datetime.fromtimestamp(person.first_attempt_ms // 1000, UTC)
    fraction = f".{person.first_attempt_ms % 1000:03}".rstrip("0").rstrip(".")
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"


async def call_back(api: httpx.AsyncClient, scenario: str = "passed") -> str:
    """Calls back a new token of this scenario."""
    biz_token = token(scenario)
    assert (await api.post("/v1/callbacks", json={"BizToken": biz_token})).status_code == 202
    return biz_token


async def called_back(api: httpx.AsyncClient, biz_token: str) -> dict[str, Any]:
    """Waits until a redirect has been recorded; returns the verification."""
    for _ in range(1000):
        view = await get(api, biz_token)
        if view["received_at"]:
            return view
        await asyncio.sleep(0.01)
    pytest.fail("Nobody looked at it.")


async def row_of(services: Services, biz_token: str) -> Verification:
    """Reads the row of a token that is there."""
    async with services.database.read() as tx:
        row = await VerificationStore().find(tx, biz_token)
    assert row is not None
    return row
