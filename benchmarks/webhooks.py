"""Webhooks: the time from a callback to the receiver, also beside one that hangs, and the deliveries per second."""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx

from app.config import Settings
from app.domain.events import Event, EventType, new_public_id
from app.factory import Services, open_services
from app.services.webhook_endpoints import EndpointFacts
from benchmarks import harness
from benchmarks.figures import Line
from benchmarks.long_poll import Scene, scenes
from tests.support.receiver import NO_CONTENT, Message, receiving
from tests.support.service import actor

_MOST_MS = 60.0
_LEAST_PER_SECOND = 500.0
_MOST_BESIDE = 1.1
_ENDPOINTS = 16
# Between two callbacks: longer than events wait for one another, so neither affects the other.
_IDLE_SECONDS = 0.2
_LONGEST_SECONDS = 120


@dataclass
class _Arrivals:
    """The times of messages at a receiver, by token or, if there is none, by event."""

    times: dict[str, float] = field(default_factory=dict)
    count: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, message: Message) -> bytes | None:
        """Records a message. The path `/hangs` gets no answer."""
        if message.target == "/hangs":
            return None
        event = json.loads(message.body)
        self.times.setdefault(event["data"].get("biz_token") or message.headers["webhook-id"], time.perf_counter())
        self.count += 1
        self.arrived.set()
        return NO_CONTENT

    async def until(self, is_done: Callable[[], bool]) -> None:
        """Waits until a message makes the condition true."""
        async with asyncio.timeout(_LONGEST_SECONDS):
            while not is_done():
                self.arrived.clear()
                await self.arrived.wait()


async def lines(folder: Path, *, callbacks: int, deliveries: int) -> AsyncIterator[Line]:
    """Measures on SQLite and on Postgres."""
    async for scene in scenes(folder):
        alone, beside = await _delays(scene, callbacks)
        what = f"webhooks, {scene.name}"
        yield Line.plain(f"{what}: from callback to receiver, median", "ms", statistics.median(alone))
        yield Line.plain(f"{what}: from callback to receiver, p95", "ms", _p95(alone), most=_MOST_MS)
        yield Line.at_most(
            f"{what}: beside a receiver that hangs, p95", "ms", _p95(beside), _p95(alone), "alone", most=_MOST_BESIDE
        )
        rate = await _rate(scene.settings, deliveries)
        yield Line.plain(f"{what}: one worker", "deliveries/s", rate, least=_LEAST_PER_SECOND)


async def _delays(scene: Scene, callbacks: int) -> tuple[Sequence[float], Sequence[float]]:
    """Returns the milliseconds from each callback to its arrival: alone, and beside an endpoint that hangs."""
    arrivals = _Arrivals()
    async with (
        receiving() as receiver,
        open_services(scene.settings) as services,
        harness.serving(scene.settings) as api,
    ):
        receiver.answer = arrivals.note
        await _create(services, receiver.url("/works"))
        headers = {"Authorization": f"Bearer {scene.key}"}
        url = f"http://127.0.0.1:{api.port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            alone = await _called_back(client, arrivals, "alone", callbacks)
            await _create(services, receiver.url("/hangs"))
            beside = await _called_back(client, arrivals, "beside", callbacks)
    return alone, beside


async def _called_back(client: httpx.AsyncClient, arrivals: _Arrivals, name: str, count: int) -> Sequence[float]:
    sent: dict[str, float] = {}
    for number in range(-1, count):
        biz_token = f"passed-{name}-{number}"
        await asyncio.sleep(_IDLE_SECONDS)
        sent[biz_token] = time.perf_counter()
        (await client.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": "1"})).raise_for_status()
        await arrivals.until(partial(arrivals.times.__contains__, biz_token))
    # The first one opened the connections.
    return [(arrivals.times[biz_token] - at) * 1000 for biz_token, at in list(sent.items())[1:]]


async def _rate(settings: Settings, deliveries: int) -> float:
    """Returns how many deliveries per second one worker makes to 16 endpoints, from the first to the last."""
    arrivals = _Arrivals()
    async with receiving() as receiver:
        receiver.answer = arrivals.note
        async with open_services(settings) as services:
            for number in range(_ENDPOINTS):
                await _create(services, receiver.url(f"/{number}"), client="bench")
            await _add_events(services, deliveries // _ENDPOINTS)
        async with harness.workers(settings, 1):
            await arrivals.until(lambda: arrivals.count > 0)
            begun, before = time.perf_counter(), arrivals.count
            await arrivals.until(lambda: arrivals.count >= deliveries // _ENDPOINTS * _ENDPOINTS)
            return (arrivals.count - before) / (time.perf_counter() - begun)


async def _create(services: Services, url: str, *, client: str = "default") -> str:
    endpoint, _ = await services.webhook_endpoints.create(actor(), EndpointFacts(url=url), client=client)
    return endpoint.id


async def _add_events(services: Services, count: int) -> None:
    events = [
        Event(
            public_id=new_public_id(),
            type=EventType.TEST,
            client="bench",
            at=datetime.now(UTC),
            details='{"test":true}',
        )
        for _ in range(count)
    ]
    async with services.database.write() as tx:
        await tx.events.add_all(events)
    await services.outbox.sequence()


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
