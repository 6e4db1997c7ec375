"""Streams of events: complete and in order over reconnects, limited, and ended with the key and the process."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from app.config import Settings
from app.domain import lifecycle
from app.domain.api_key import Scope
from app.domain.events import EVENT_RETENTION, Event, EventFilter, EventType
from app.factory import Services
from tests.support.api import EXAMPLE
from tests.support.processes import until
from tests.support.service import Running, actor, changed, everything, served

NOW = datetime.now(UTC)
BOUND_SECONDS = 20
PATH = "/v1/events/stream"


@dataclass
class Stream:
    """An open stream, and the events that were received so far as id, type and data."""

    response: httpx.Response
    events: list[tuple[int, str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    async def read(self, count: int) -> Sequence[int]:
        """Reads until so many events have been received in total; returns their positions."""
        async with asyncio.timeout(BOUND_SECONDS):
            while len(self.events) < count:
                self._accept(await anext(self._blocks))
        return [position for position, _, _ in self.events]

    async def read_to_the_end(self) -> Sequence[int]:
        async with asyncio.timeout(BOUND_SECONDS):
            async for block in self._blocks:
                self._accept(block)
        return [position for position, _, _ in self.events]

    def __post_init__(self) -> None:
        self._blocks = self._read_blocks()

    async def _read_blocks(self) -> AsyncIterator[list[str]]:
        block: list[str] = []
        async for line in self.response.aiter_lines():
            if line:
                block.append(line)
            else:
                yield block
                block = []

    def _accept(self, block: list[str]) -> None:
        values = dict(line.split(": ", 1) for line in block)
        if "id" in values:
            assert list(values) == ["id", "event", "data"]
            self.events.append((int(values["id"]), values["event"], values["data"]))
        else:
            self.others += block


@asynccontextmanager
async def streaming(
    api: httpx.AsyncClient, headers: dict[str, str] | None = None, **params: Any
) -> AsyncIterator[Stream]:
    async with api.stream("GET", PATH, params=params, headers=headers, timeout=None) as response:
        assert response.status_code == HTTPStatus.OK, await response.aread()
        yield Stream(response)


async def add_events(services: Services, *clients: str, kind: EventType = EventType.TEST, at: datetime = NOW) -> None:
    """Adds an event for each client, and gives them positions."""
    async with services.database.write() as tx:
        await tx.events.add_all(
            [Event(public_id=f"evt_{client}", type=kind, client=client, at=at, details="{}") for client in clients]
        )
    await services.outbox.sequence()


@asynccontextmanager
async def client_of(
    service: Running, port: int, *scopes: Scope, client: str = "shop"
) -> AsyncIterator[httpx.AsyncClient]:
    key = await service.key(*scopes, client=client)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as api:
        yield api


def gauge() -> float | None:
    return REGISTRY.get_sample_value("faceid_streams")


async def until_closed() -> None:
    async def are_closed() -> bool:
        return gauge() == 0

    async with asyncio.timeout(BOUND_SECONDS):
        await until(are_closed)


async def test_stream_sends_the_events_of_the_client_and_of_the_types(settings: Settings) -> None:
    async with (
        served(settings) as (service, port),
        client_of(service, port, Scope.RESULTS_READ) as api,
        client_of(service, port, Scope.ADMIN, client="ops") as admin,
    ):
        await add_events(service.services, "shop")
        async with (
            streaming(api) as new,
            streaming(api, after=0) as all_of_shop,
            streaming(api, after=0, types="verification.failed,verification.expired") as typed,
            streaming(admin, after=1) as everyone,
            streaming(admin, client="bank") as of_bank,
        ):
            await add_events(service.services, "bank", "shop")
            await add_events(service.services, "shop", kind=EventType.FAILED)
            positions = [
                await new.read(2),
                await all_of_shop.read(3),
                await typed.read(1),
                await everyone.read(3),
                await of_bank.read(1),
            ]
            feed = (await api.get("/v1/events", params={"after": 0})).text
            count = gauge()
        await until_closed()

    assert positions == [[3, 4], [1, 3, 4], [4], [2, 3, 4], [2]]
    # The data are the items of the change feed, byte for byte.
    items = ",".join(data for _, _, data in all_of_shop.events)
    assert feed == f'{{"items":[{items}],"next_after":4}}'
    assert [kind for _, kind, _ in all_of_shop.events] == ["test", "test", "verification.failed"]
    retry, ok = new.others
    assert 1000 <= int(retry.removeprefix("retry: ")) <= 5000
    assert (ok, count) == (": ok", 5)
    assert {name: new.response.headers[name] for name in ("Content-Type", "Cache-Control", "X-Accel-Buffering")} == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store, no-transform",
        "X-Accel-Buffering": "no",
    }


async def test_stream_resumes_over_a_restart_without_gap_or_repeat(settings: Settings) -> None:
    received: list[int] = []
    for _ in range(3):
        async with served(settings) as (service, port), client_of(service, port, Scope.RESULTS_READ) as api:
            headers = {"Last-Event-ID": str(received[-1])} if received else {}
            # The header of a reconnecting client is newer than its address.
            async with streaming(api, headers, after=0) as stream:
                await add_events(service.services, *(["shop"] * 30))
                # The client has not seen all of them when the server stops.
                received += await stream.read(20)
            await add_events(service.services, *(["shop"] * 7))
    async with (
        served(settings) as (service, port),
        client_of(service, port, Scope.RESULTS_READ) as api,
        streaming(api, {"Last-Event-ID": str(received[-1])}) as stream,
    ):
        received += await stream.read(111 - len(received))

    assert received == list(range(1, 112))


async def test_stream_that_is_far_behind_reads_pages_of_the_database(settings: Settings) -> None:
    async with served(settings) as (service, port), client_of(service, port, Scope.RESULTS_READ) as api:
        # More than the frames that the process keeps.
        for number in range(5):
            await add_events(service.services, *(["bank"] * 500 if number % 2 else ["shop"] * 500))
        async with streaming(api, after=0) as late, streaming(api) as new:
            await add_events(service.services, "bank", "shop")
            positions = await late.read(1501)
            assert await new.read(1) == [2502]

    assert positions == [*range(1, 501), *range(1001, 1501), *range(2001, 2501), 2502]


@pytest.mark.parametrize("after", [1, 5])
async def test_position_that_is_not_kept_is_gone_before_the_stream_begins(settings: Settings, after: int) -> None:
    async with served(settings) as (service, port), client_of(service, port, Scope.RESULTS_READ) as api:
        await add_events(service.services, *(["shop"] * 3), at=NOW - EVENT_RETENTION - timedelta(days=1))
        await add_events(service.services, "shop")
        await service.services.outbox.remove_old()
        answers = [
            await api.get(PATH, params={"after": after}),
            await api.get(PATH, params={"after": 3}, headers={"Last-Event-ID": str(after)}),
        ]
        async with streaming(api, after=0) as stream:
            assert await stream.read(1) == [4]
        await until_closed()

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(410, "position_gone")] * 2
    assert answers[0].headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("params", "headers", "status"),
    [
        ({"after": -1}, {}, 422),
        ({"typo": 1}, {}, 422),
        ({"types": "nonsense"}, {}, 422),
        ({}, {"Last-Event-ID": "evt_1"}, 422),
        ({"client": "bank"}, {}, 403),
        ({}, {"Authorization": "Bearer nonsense"}, 401),
    ],
)
async def test_invalid_request_is_answered_as_a_problem(
    shared_service: Running, params: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    async with shared_service.client(await shared_service.key(Scope.RESULTS_READ)) as api:
        answer = await api.get(PATH, params=params, headers=headers)

    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


async def test_streams_of_a_key_and_of_the_process_are_limited(settings: Settings) -> None:
    limits = changed(settings, streams_per_key=1, streams_per_process=2)
    async with (
        served(limits) as (service, port),
        client_of(service, port, Scope.RESULTS_READ) as api,
        client_of(service, port, Scope.RESULTS_READ) as other,
        client_of(service, port, Scope.ADMIN) as third,
    ):
        async with streaming(api):
            of_key = await api.get(PATH)
            async with streaming(other):
                of_process = await third.get(PATH)
                reads = await third.get("/v1/events")
        await until_closed()
        async with streaming(api):
            pass

    assert [answer.status_code for answer in (of_key, of_process, reads)] == [429, 429, 200]
    assert [answer.json()["code"] for answer in (of_key, of_process)] == ["too_many_streams"] * 2
    assert of_key.json()["detail"] == "This API key has 1 open streams; end one, or retry later."
    assert of_process.json()["detail"] == "The service holds too many streams; retry later."
    assert of_key.headers["Retry-After"] == "1"


async def test_stream_of_a_revoked_key_ends(settings: Settings) -> None:
    async with served(settings) as (service, port), client_of(service, port, Scope.RESULTS_READ) as other:
        key, text = await service.services.api_keys.create(
            actor(), "test", everything(), client="shop", valid_for=timedelta(days=1)
        )
        headers = {"Authorization": f"Bearer {text}"}
        async with (
            httpx.AsyncClient(base_url=other.base_url, headers=headers) as api,
            streaming(api) as stream,
            streaming(other) as lasting,
        ):
            await service.services.api_keys.revoke(actor(), key.id)
            ended = await stream.read_to_the_end()
            await add_events(service.services, "shop")
            assert await lasting.read(1) == [1]

    assert ended == []


async def test_streams_end_when_the_process_stops(settings: Settings) -> None:
    async with served(settings) as (service, port), client_of(service, port, Scope.RESULTS_READ) as api:
        await add_events(service.services, "shop")
        async with streaming(api, after=0) as stream:
            await stream.read(1)
            service.services.wakeups.end()
            assert await stream.read_to_the_end() == [1]
        async with streaming(api, after=0) as late:
            assert await late.read_to_the_end() == []

    assert stream.others[-1] == late.others[-1] == ": bye"


async def test_disconnected_client_leaves_no_stream(settings: Settings) -> None:
    async with served(settings) as (service, port), client_of(service, port, Scope.RESULTS_READ) as api:
        for _ in range(3):
            async with streaming(api):
                assert gauge() == 1
            await until_closed()


async def test_reader_that_accepts_nothing_is_disconnected(idle_service: Running) -> None:
    is_stuck = asyncio.Event()
    streams = idle_service.services.streams
    before = time.monotonic()
    async with streams.open(actor(), EventFilter(), after=None) as stream:
        stream.on_stuck = is_stuck.set
        stream.tend(before + 29)
        begin = is_stuck.is_set()
        stream.tend(time.monotonic() + 31)

    assert (begin, is_stuck.is_set()) == (False, True)


async def test_erasure_removes_the_verdict_from_frames_that_are_kept(settings: Settings) -> None:
    async with served(settings) as (service, port), client_of(service, port, *everything()) as api:
        services = service.services
        await api.put(f"/v1/verifications/{EXAMPLE}", json={"subject_ref": "loan-4711"})
        async with services.database.write() as tx:
            (known,) = await tx.verifications.find_all([EXAMPLE])
            await tx.verifications.save(known, lifecycle.rejected(known, "InvalidParameter"), NOW)
        await services.outbox.sequence()
        async with streaming(api, after=0) as before:
            await before.read(1)
            await api.delete(f"/v1/verifications/{EXAMPLE}")
            await services.outbox.sequence()
            await before.read(2)
            async with streaming(api, after=0) as after:
                await after.read(2)

    assert "loan-4711" in before.events[0][2]
    assert after.events[0][2] == before.events[0][2].replace('"loan-4711"', "null")
    assert after.events[1] == before.events[1]


async def test_stream_is_left_out_of_the_durations_of_requests(settings: Settings) -> None:
    async with served(settings) as (service, port), client_of(service, port, Scope.RESULTS_READ) as api:
        async with streaming(api):
            pass
        await until_closed()
        await api.get("/v1/events")

    def count(route: str) -> float | None:
        labels = {"method": "GET", "route": route, "status": "200"}
        return REGISTRY.get_sample_value("faceid_http_request_seconds_count", labels)

    assert (count("/v1/events/stream"), (count("/v1/events") or 0) > 0) == (None, True)
