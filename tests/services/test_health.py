"""Warnings for operators: the number of persons with a stored face, and pending work without a worker."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial

import httpx
import pytest
import structlog

from app.domain.events import Event, EventType, new_public_id
from app.domain.rule import DEFAULT_CLIENT
from app.factory import Services
from app.services.health import FILING_THRESHOLD, FILING_WARNING, HealthService
from app.services.webhook_endpoints import EndpointFacts
from app.services.workers import WorkerService
from tests.support.api import call_back, row_of
from tests.support.rows import MINIMAL
from tests.support.service import Running, actor
from tests.support.worker import retrieve_all, retrieving

# Digests of ID numbers, and media rows. This connection does not check foreign keys, so no verifications are needed.
_ADD_PERSONS = (
    """
    INSERT INTO detection (verification_id, id_card_index)
    WITH RECURSIVE person(id) AS (SELECT :first UNION ALL SELECT id + 1 FROM person WHERE id < :last)
    SELECT id, CAST(id AS BLOB) FROM person
    """,
    """
    INSERT INTO media (verification_id, kind, object_key, content_type, size_bytes, sha256, sealed_key, stored_at)
    WITH RECURSIVE person(id) AS (SELECT :first UNION ALL SELECT id + 1 FROM person WHERE id < :last)
    SELECT id, 'best_frame', id, 'image/jpeg', 1, '', x'00', '2026-01-01 00:00:00' FROM person
    """,
)


def add_persons(sqlite_url: str, first: int, last: int) -> None:
    with closing(sqlite3.connect(sqlite_url.partition("///")[2])) as database, database:
        for statement in _ADD_PERSONS:
            database.execute(statement, {"first": first, "last": last})


async def count(service: Running, api: httpx.AsyncClient) -> tuple[int, str, list[tuple[str, int]]]:
    """Returns the count, the line of the metric, and the level and number of each alarm."""
    with structlog.testing.capture_logs() as logs:
        persons = await service.services.health.count_persons()
    metrics = (await api.get("/metrics")).text.splitlines()
    (metric,) = [line for line in metrics if line.startswith("faceid_persons_with_face ")]
    return (
        persons,
        metric,
        [(log["log_level"], log["persons"]) for log in logs if log["event"] == "persons_to_be_filed"],
    )


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_filing_alarm_warns_from_80000_persons_and_is_error_from_100000(
    idle_service: Running, idle_api: httpx.AsyncClient, sqlite_url: str
) -> None:
    found, last = [], 0
    for persons in (FILING_WARNING - 1, FILING_WARNING, FILING_THRESHOLD - 1, FILING_THRESHOLD):
        add_persons(sqlite_url, last + 1, persons)
        last = persons
        found.append(await count(idle_service, idle_api))

    assert (FILING_WARNING, FILING_THRESHOLD) == (80_000, 100_000)
    assert found == [
        (79_999, "faceid_persons_with_face 79999.0", []),
        (80_000, "faceid_persons_with_face 80000.0", [("warning", 80_000)]),
        (99_999, "faceid_persons_with_face 99999.0", [("warning", 99_999)]),
        (100_000, "faceid_persons_with_face 100000.0", [("error", 100_000)]),
    ]


async def test_persons_with_a_stored_face_are_counted_once_each(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    first, second, _ = [await call_back(idle_api) for _ in range(3)]
    async with retrieving(idle_service) as retrieval:
        await retrieve_all(retrieval)
    async with retrieving(idle_service, faceid_info_type="1") as retrieval:
        await call_back(idle_api)
        await retrieve_all(retrieval)

    assert await idle_service.services.health.count_persons() == 3

    rows = [await row_of(idle_service.services, biz_token) for biz_token in (first, second)]
    async with idle_service.services.database.write() as tx:
        # Makes the second verification one of the first person.
        await tx.connection.exec_driver_sql(
            "UPDATE detection SET id_card_index ="
            f" (SELECT id_card_index FROM detection WHERE verification_id = {rows[0].id})"
            f" WHERE verification_id = {rows[1].id}"
        )
    assert await idle_service.services.health.count_persons() == 2

    await idle_api.delete(f"/v1/verifications/{first}")
    assert await idle_service.services.health.count_persons() == 2
    await idle_api.delete(f"/v1/verifications/{second}")
    assert await idle_service.services.health.count_persons() == 1


async def add_verification(services: Services) -> None:
    now = services.clock()
    async with services.database.write() as tx:
        await tx.verifications.add_all([replace(MINIMAL, received_at=now, deadline_at=now + timedelta(hours=60))])


async def add_delivery(services: Services) -> None:
    await services.webhook_endpoints.create(actor(), EndpointFacts(url="http://127.0.0.1:9"))
    event = Event(
        public_id=new_public_id(), type=EventType.TEST, client=DEFAULT_CLIENT, at=services.clock(), details="{}"
    )
    async with services.database.write() as tx:
        await tx.events.add_all([event])
    await services.outbox.sequence()


@pytest.mark.parametrize("add", [add_verification, add_delivery])
async def test_work_without_a_worker_is_a_warning(
    idle_service: Running, add: Callable[[Services], Awaitable[None]]
) -> None:
    services = idle_service.services
    begun = services.clock()
    await add(services)
    ended = services.clock()
    ages = (timedelta(seconds=59), timedelta(seconds=61))
    early, late = (
        HealthService(database=services.database, clock=partial(at.__add__, age))
        for at, age in zip((begun, ended), ages, strict=True)
    )
    warned = [(await each.measure()).warnings for each in (early, late)]
    await WorkerService(database=services.database, clock=late.clock).report()
    warned.append((await late.measure()).warnings)

    assert [len(warnings) for warnings in warned] == [0, 1, 0]
    assert "no worker has reported within a minute" in warned[1][0]
