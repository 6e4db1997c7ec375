"""The worker continues after every failure of its work, and leaves nothing behind when it stops."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
import structlog

from app.config import Settings
from app.domain.verification import State, Verification
from app.factory import Services, open_retrieval
from app.storage.media import FolderStore, SpoolFile
from app.storage.wakeups import Wakeups
from app.worker import Chore, Worker
from tests.support.api import call_back, row_of
from tests.support.service import Running, with_services
from tests.support.worker import with_clock

SECONDS = 20


class Fault:
    """A failure that a test switches on and off."""

    is_on = False

    def raise_if_on(self) -> None:
        if self.is_on:
            raise ZeroDivisionError


class FragileStore(FolderStore):
    """A media store that fails with an unexpected kind of error while its fault is on."""

    def __init__(self, settings: Settings, fault: Fault) -> None:
        super().__init__(settings.media.media_folder)
        self._fault = fault

    def new_file(self) -> SpoolFile:
        self._fault.raise_if_on()
        return super().new_file()


@asynccontextmanager
async def working(
    services: Services,
    *,
    concurrency: int = 4,
    grace_seconds: float = SECONDS,
    renew_seconds: float = SECONDS,
    clock_fault: Fault | None = None,
) -> AsyncIterator[Worker]:
    def clock() -> datetime:
        (clock_fault or Fault()).raise_if_on()
        return datetime.now(UTC)

    async with open_retrieval(with_clock(services, clock)) as retrieval:
        worker = Worker(
            retrieval,
            services.wakeups,
            [Chore(services.orphans.sweep, SECONDS)],
            concurrency=concurrency,
            grace_seconds=grace_seconds,
            renew_seconds=renew_seconds,
        )
        task = asyncio.create_task(worker.run())
        yield worker
        worker.stop()
        await task


async def wait_until_leased(services: Services, biz_token: str) -> Verification:
    for _ in range(1000):
        row = await row_of(services, biz_token)
        if row.is_leased:
            return row
        await asyncio.sleep(0.01)
    pytest.fail("No worker claimed the verification.")


async def wait_until_logged(event: str, logs: Sequence[Mapping[str, object]]) -> None:
    for _ in range(1000):
        if event in [entry["event"] for entry in logs]:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{event} was not logged.")


async def state(api: httpx.AsyncClient, biz_token: str) -> str:
    answer = await api.get(f"/v1/verifications/{biz_token}", params={"wait": SECONDS})
    current: str = answer.json()["state"]
    return current


async def test_fetch_in_flight_is_finished_on_stop(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    biz_token = await call_back(idle_api, "latency-500-passed")

    async with working(idle_service.services):
        await wait_until_leased(idle_service.services, biz_token)

    row = await row_of(idle_service.services, biz_token)
    assert (row.state, row.is_leased, row.attempts) == (State.RETRIEVED, False, 1)


async def test_fetch_beyond_the_grace_period_is_handed_back(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings
) -> None:
    services = idle_service.services
    biz_token = await call_back(idle_api, "latency-5000-x1-passed")
    async with working(services, grace_seconds=0.05):
        claimed = await wait_until_leased(services, biz_token)
    handed_back = await row_of(services, biz_token)

    assert handed_back == replace(claimed, is_leased=False, due_at=handed_back.due_at)
    assert handed_back.due_at is not None
    assert handed_back.due_at <= datetime.now(UTC)
    assert [*settings.media.media_folder.glob(".spool/*")] == []

    async with working(services):
        assert await state(idle_api, biz_token) == "retrieved"
    assert (await row_of(services, biz_token)).attempts == 1


async def test_lease_is_renewed_while_the_fetch_runs(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    biz_token = await call_back(idle_api, "latency-500-passed")

    async with working(idle_service.services, renew_seconds=0.02):
        leases = {(await wait_until_leased(idle_service.services, biz_token)).due_at}
        while (row := await row_of(idle_service.services, biz_token)).is_leased:
            leases.add(row.due_at)

    assert len(leases) > 2
    assert (row.state, row.claim) == (State.RETRIEVED, 1)


async def test_fetches_in_flight_are_limited_by_the_concurrency(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    tokens = [await call_back(idle_api, "latency-5000-x1-passed") for _ in range(5)]

    async with working(idle_service.services, concurrency=2, grace_seconds=0.05):
        for token in tokens[:2]:
            await wait_until_leased(idle_service.services, token)

    assert [(await row_of(idle_service.services, token)).claim for token in tokens] == [1, 1, 0, 0, 0]


async def test_finished_fetch_makes_room_without_waiting_for_a_poll(
    idle_service: Running, idle_api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.POLL_SECONDS", 3600)
    tokens = [await call_back(idle_api, "passed") for _ in range(30)]

    async with working(idle_service.services):
        states = [await state(idle_api, token) for token in tokens]

    assert states == ["retrieved"] * 30


async def test_crashed_fetch_does_not_stop_the_others(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings
) -> None:
    fault = Fault()
    fault.is_on = True
    services, store = idle_service.services, FragileStore(settings, fault)
    # The orphans are looked for in a store that works.
    services = with_services(services, media_store=store, orphans=services.orphans)
    with structlog.testing.capture_logs() as logs:
        async with working(services, concurrency=2):
            crashed = await call_back(idle_api, "passed")
            await wait_until_leased(services, crashed)
            await wait_until_logged("work_crashed", logs)
            fault.is_on = False
            next_tokens = [await call_back(idle_api, "passed") for _ in range(3)]
            assert [await state(idle_api, token) for token in (crashed, *next_tokens)] == ["retrieved"] * 4

    crashes = [entry["error"] for entry in logs if entry["event"] == "work_crashed"]
    assert set(crashes) == {"ZeroDivisionError"}
    # Each crash is recorded as an attempt.
    assert (await row_of(services, crashed)).attempts == len(crashes) + 1
    assert crashed not in repr(logs)


async def test_crashed_claim_does_not_stop_the_worker(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    fault = Fault()
    fault.is_on = True
    biz_token = await call_back(idle_api, "passed")
    with structlog.testing.capture_logs() as logs:
        async with working(idle_service.services, clock_fault=fault):
            await wait_until_logged("work_crashed", logs)
            fault.is_on = False

            assert await state(idle_api, biz_token) == "retrieved"


async def test_worker_continues_after_a_database_failure(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    services = idle_service.services
    biz_token = await call_back(idle_api, "passed")
    await rename(services, "quota", "away")
    with structlog.testing.capture_logs() as logs:
        async with working(services):
            await wait_until_logged("work_failed", logs)
            await rename(services, "away", "quota")

            assert await state(idle_api, biz_token) == "retrieved"


async def rename(services: Services, old: str, new: str) -> None:
    async with services.database.write() as tx:
        await tx.connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")


async def test_due_verification_is_found_without_a_wakeup(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    services = idle_service.services
    # These wake-ups receive nothing from the API.
    async with working(with_services(services, wakeups=Wakeups())):
        biz_token = await call_back(idle_api, "passed")

        assert await state(idle_api, biz_token) == "retrieved"


async def test_worker_sweeps_on_start(idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings) -> None:
    services = idle_service.services
    # The sweep does nothing with an empty database.
    await call_back(idle_api)
    with services.media_store.new_file() as spool_file:
        spool_file.write(b"orphan")
        file = settings.media.media_folder / (await services.media_store.put(spool_file))[0]
    os.utime(file, (time.time() - 10 * 3600,) * 2)

    async with working(services):
        for _ in range(1000):
            if not file.exists():
                break
            await asyncio.sleep(0.01)

    assert not file.exists()


async def test_idle_worker_stops_without_leaving_tasks(idle_service: Running) -> None:
    before = asyncio.all_tasks()

    async with working(idle_service.services):
        pass

    assert asyncio.all_tasks() == before
