"""The worker goes on whatever one piece of work does, and leaves nothing behind when it stops."""

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
from app.storage.media import Draft, FolderStore
from app.storage.signals import Signals
from app.worker import Worker
from tests.support.api import call_back, row_of
from tests.support.service import Running

SECONDS = 20


class Fault:
    """Something that breaks down as long as it is told to."""

    is_on = False

    def strike(self) -> None:
        if self.is_on:
            raise ZeroDivisionError


class FragileStore(FolderStore):
    """A media store with a fault of its own, of a kind that nobody has thought of."""

    def __init__(self, settings: Settings, fault: Fault) -> None:
        super().__init__(settings.media_folder)
        self._fault = fault

    def draft(self) -> Draft:
        self._fault.strike()
        return super().draft()


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
        (clock_fault or Fault()).strike()
        return datetime.now(UTC)

    async with open_retrieval(services, clock=clock) as retrieval:
        worker = Worker(
            retrieval,
            services.sweep,
            services.health,
            services.erase,
            services.audit,
            services.signals,
            concurrency=concurrency,
            grace_seconds=grace_seconds,
            renew_seconds=renew_seconds,
        )
        task = asyncio.create_task(worker.run())
        yield worker
        worker.stop()
        await task


async def leased(services: Services, biz_token: str) -> Verification:
    for _ in range(1000):
        row = await row_of(services, biz_token)
        if row.leased:
            return row
        await asyncio.sleep(0.01)
    pytest.fail("Nobody took it.")


async def logged(event: str, logs: Sequence[Mapping[str, object]]) -> None:
    for _ in range(1000):
        if event in [entry["event"] for entry in logs]:
            return
        await asyncio.sleep(0.01)
    pytest.fail("That did not happen.")


async def state(api: httpx.AsyncClient, biz_token: str) -> str:
    answer = await api.get(f"/v1/verifications/{biz_token}", params={"wait": SECONDS})
    told: str = answer.json()["state"]
    return told


async def test_what_is_in_flight_when_it_stops_is_finished(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    biz_token = await call_back(idle_api, "latency-500-passed")

    async with working(idle_service.services):
        await leased(idle_service.services, biz_token)

    row = await row_of(idle_service.services, biz_token)
    assert (row.state, row.leased, row.attempts) == (State.RETRIEVED, False, 1)


async def test_what_cannot_be_finished_in_time_is_handed_back_and_goes_to_the_next(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings
) -> None:
    services = idle_service.services
    biz_token = await call_back(idle_api, "latency-5000-x1-passed")
    async with working(services, grace_seconds=0.05):
        claimed = await leased(services, biz_token)
    handed_back = await row_of(services, biz_token)

    assert handed_back == replace(claimed, leased=False, due_at=handed_back.due_at)
    assert handed_back.due_at is not None
    assert handed_back.due_at <= datetime.now(UTC)
    assert [*settings.media_folder.glob(".spool/*")] == []

    async with working(services):
        assert await state(idle_api, biz_token) == "retrieved"
    assert (await row_of(services, biz_token)).attempts == 1


async def test_a_lease_does_not_end_while_its_worker_lives(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    biz_token = await call_back(idle_api, "latency-500-passed")

    async with working(idle_service.services, renew_seconds=0.02):
        leases = {(await leased(idle_service.services, biz_token)).due_at}
        while (row := await row_of(idle_service.services, biz_token)).leased:
            leases.add(row.due_at)

    assert len(leases) > 2
    assert (row.state, row.claim) == (State.RETRIEVED, 1)


async def test_no_more_is_in_flight_than_it_may(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    tokens = [await call_back(idle_api, "latency-5000-x1-passed") for _ in range(5)]

    async with working(idle_service.services, concurrency=2, grace_seconds=0.05):
        for token in tokens[:2]:
            await leased(idle_service.services, token)

    assert [(await row_of(idle_service.services, token)).claim for token in tokens] == [1, 1, 0, 0, 0]


async def test_what_ends_while_more_is_claimed_makes_room_at_once(
    idle_service: Running, idle_api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.POLL_SECONDS", 3600)
    tokens = [await call_back(idle_api, "passed") for _ in range(30)]

    async with working(idle_service.services):
        states = [await state(idle_api, token) for token in tokens]

    assert states == ["retrieved"] * 30


async def test_a_piece_of_work_that_crashes_ends_no_other(
    idle_service: Running, idle_api: httpx.AsyncClient, settings: Settings
) -> None:
    fault = Fault()
    fault.is_on = True
    services = replace(idle_service.services, media=FragileStore(settings, fault))
    with structlog.testing.capture_logs() as logs:
        async with working(services, concurrency=2):
            crashed = await call_back(idle_api, "passed")
            await leased(services, crashed)
            await logged("work_crashed", logs)
            fault.is_on = False
            good = [await call_back(idle_api, "passed") for _ in range(3)]
            assert [await state(idle_api, token) for token in (crashed, *good)] == ["retrieved"] * 4

    crashes = [entry["error"] for entry in logs if entry["event"] == "work_crashed"]
    assert set(crashes) == {"ZeroDivisionError"}
    assert (await row_of(services, crashed)).attempts == len(crashes) + 1  # each is on record, and retried ever later
    assert crashed not in repr(logs)


async def test_a_claim_that_crashes_does_not_end_the_loop(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    fault = Fault()
    fault.is_on = True
    biz_token = await call_back(idle_api, "passed")
    with structlog.testing.capture_logs() as logs:
        async with working(idle_service.services, clock_fault=fault):
            await logged("work_crashed", logs)
            fault.is_on = False

            assert await state(idle_api, biz_token) == "retrieved"


async def test_a_database_that_was_away_is_found_again(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    services = idle_service.services
    biz_token = await call_back(idle_api, "passed")
    await rename(services, "quota", "away")
    with structlog.testing.capture_logs() as logs:
        async with working(services):
            await logged("work_failed", logs)
            await rename(services, "away", "quota")

            assert await state(idle_api, biz_token) == "retrieved"


async def rename(services: Services, old: str, new: str) -> None:
    async with services.database.write() as tx:
        await tx.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")


async def test_what_is_due_is_found_without_a_signal(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    services = idle_service.services
    async with working(replace(services, signals=Signals())):  # it hears nothing of the others
        biz_token = await call_back(idle_api, "passed")

        assert await state(idle_api, biz_token) == "retrieved"


async def test_it_sweeps_when_it_starts(idle_service: Running, settings: Settings) -> None:
    services = idle_service.services
    with services.media.draft() as draft:
        draft.write(b"orphan")
        file = settings.media_folder / (await services.media.put(draft))[0]
    os.utime(file, (time.time() - 10 * 3600,) * 2)

    async with working(services):
        for _ in range(1000):
            if not file.exists():
                break
            await asyncio.sleep(0.01)

    assert not file.exists()


async def test_it_stops_at_once_when_there_is_nothing_to_do(idle_service: Running) -> None:
    before = asyncio.all_tasks()

    async with working(idle_service.services):
        pass

    assert asyncio.all_tasks() == before
