"""Deliveries that a test sends by hand, with a clock of its own, and reads by the API."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.services.deliver import DeliverService
from tests.support.api import url
from tests.support.clocks import FixedClock
from tests.support.receiver import Message
from tests.support.service import Running

PATH = "/v1/webhook-endpoints"


async def create(api: httpx.AsyncClient, to: str, **values: object) -> dict[str, Any]:
    """Creates a webhook endpoint with this URL; returns its view."""
    created: dict[str, Any] = (await api.post(PATH, json={"url": to, **values})).raise_for_status().json()
    return created


async def deliveries(api: httpx.AsyncClient, endpoint: dict[str, Any], **filters: str) -> list[dict[str, Any]]:
    """Returns the deliveries of the endpoint that pass these filters."""
    page = await api.get(f"{PATH}/{endpoint['id']}/deliveries", params=filters)
    items: list[dict[str, Any]] = page.raise_for_status().json()["items"]
    return items


async def settled(
    api: httpx.AsyncClient, endpoint: dict[str, Any], count: int, state: str = "delivered"
) -> list[dict[str, Any]]:
    """Returns the deliveries of the endpoint when so many have the state."""
    for _ in range(500):
        items = await deliveries(api, endpoint, state=state)
        if len(items) == count:
            return items
        await asyncio.sleep(0.02)
    pytest.fail(f"{count} deliveries should be {state}: {await deliveries(api, endpoint)}")


def event_of(message: Message) -> dict[str, Any]:
    """Returns the event in a request."""
    event: dict[str, Any] = json.loads(message.body)
    return event


def stopped_clock() -> FixedClock:
    """Returns a clock that stands ahead of the service's, so no test depends on its own speed."""
    return FixedClock(datetime.now(UTC) + timedelta(minutes=1))


def by_hand(service: Running, clock: FixedClock) -> DeliverService:
    """Returns a sender with a clock that is ahead, for a service without a worker."""
    known = service.services.deliver
    return DeliverService(database=known.database, secrets=known.secrets, client=known.client, clock=clock)


async def send_due(service: Running, sender: DeliverService) -> int:
    """Sends what is due once; returns how many deliveries."""
    await service.services.outbox.sequence()
    claims = await sender.take(64)
    await asyncio.gather(*map(sender.deliver, claims))
    return len(claims)


async def erase_new(api: httpx.AsyncClient, count: int = 1) -> list[str]:
    """Registers tokens and erases them, which is one event each; returns the tokens."""
    tokens = [f"erased-{number}-{datetime.now(UTC).timestamp()}" for number in range(count)]
    for biz_token in tokens:
        (await api.put(url(biz_token))).raise_for_status()
        (await api.delete(url(biz_token))).raise_for_status()
    return tokens
