"""Requests to the HTTP API that many tests send."""

import asyncio
import secrets
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from app.domain.verification import Verification
from app.factory import Services
from app.storage.wakeups import DUE
from simulator.people import Person
from tests.support.rows import find_row, lock_row

PAGE = "https://shop.test/ok"
STATEFUL = "stateful"
"""The RuleId of the rule with redirect_state."""
SECRETS = {name: f"whsec_{b64encode(name.encode() * 8).decode()}" for name in ("old", "new", "shop")}
SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
EXAMPLE = "CE661F1A-0F1E-45BD-BE13-34C05CEA7681"
"""The BizToken of the examples in the API description."""


def signed(secret: str, body: bytes, *, age: timedelta = timedelta(0)) -> dict[str, str]:
    """Returns the headers of a callback with this body, signed with a secret of `SECRETS`."""
    at = datetime.now(UTC) - age
    values = ("msg_1", str(int(at.timestamp())), Webhook(SECRETS[secret]).sign("msg_1", at, body.decode()))
    return {"Content-Type": "application/json", **dict(zip(SIGNATURE_HEADERS, values, strict=True))}


def url(biz_token: str, *parts: str) -> str:
    """Returns the path of a verification, or of one of its parts."""
    return "/".join(("/v1/verifications", biz_token, *parts))


def token(scenario: str = "passed") -> str:
    """Returns a new BizToken for which the simulator plays this scenario."""
    return f"{scenario}-r{secrets.token_hex(6)}"


async def retrieve_new(api: httpx.AsyncClient, scenario: str = "passed") -> str:
    """Calls back a new token of this scenario, waits for its result and returns the token."""
    biz_token = await call_back(api, scenario)
    view = await get(api, biz_token, wait=20)
    assert view["state"] == "retrieved"
    return biz_token


async def get(api: httpx.AsyncClient, biz_token: str, *, wait: float = 0) -> dict[str, Any]:
    """Returns a verification that exists, after waiting up to `wait` seconds until it is settled."""
    response = await api.get(f"/v1/verifications/{biz_token}", params={"wait": wait})
    assert response.status_code == 200
    view: dict[str, Any] = response.json()
    return view


async def list_tokens(api: httpx.AsyncClient) -> list[str]:
    """Returns the tokens of all verifications, newest first. They must fit on one page."""
    page = (await api.get("/v1/verifications", params={"limit": 200})).json()
    assert page["next_cursor"] is None
    return [item["biz_token"] for item in page["items"]]


def first_attempt_of(person: Person) -> str:
    """Returns the time of the first liveness attempt in the format of the API."""
    at = datetime.fromtimestamp(person.first_attempt_ms // 1000, UTC)
    fraction = f".{person.first_attempt_ms % 1000:03}".rstrip("0").rstrip(".")
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"


async def call_back(api: httpx.AsyncClient, scenario: str = "passed") -> str:
    """Calls back a new token of this scenario and returns the token."""
    biz_token = token(scenario)
    assert (await api.post("/v1/callbacks", json={"BizToken": biz_token})).status_code == 202
    return biz_token


async def wait_until_received(api: httpx.AsyncClient, biz_token: str) -> dict[str, Any]:
    """Waits until a redirect of the token has been recorded and returns the verification."""
    for _ in range(1000):
        view = await get(api, biz_token)
        if view["received_at"]:
            return view
        await asyncio.sleep(0.01)
    pytest.fail("The redirect was not recorded.")


async def hasten(services: Services, biz_token: str) -> None:
    """Makes the next call for a verification of the default client due now, instead of after the usual interval."""
    async with services.database.write() as tx:
        row, now = await lock_row(tx, biz_token), services.clock()
        # A worker may have claimed it already.
        if row and row.due_at and not row.is_leased:
            await tx.verifications.save(row, replace(row, due_at=now), now)
    services.wakeups.send(DUE)


async def row_of(services: Services, biz_token: str) -> Verification:
    """Returns the row of a token that exists."""
    async with services.database.read() as tx:
        row = await find_row(tx, biz_token)
    assert row is not None
    return row
