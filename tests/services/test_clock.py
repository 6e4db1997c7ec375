"""Wrong clocks: nothing expires and nothing is erased because of one, and what it scheduled comes due again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.config import Settings
from app.domain.decision import LONGEST_STEP
from app.domain.verification import State
from app.factory import RetrievalServices, Services, open_retrieval, open_services
from app.services.clock import SteadyClock
from tests.support.api import call_back, retrieve_new, row_of
from tests.support.clocks import ShiftedClock
from tests.support.rows import lock_row
from tests.support.service import Running, changed, everything, running
from tests.support.worker import retrieve_all, retrieving

NOBODY = "http://127.0.0.1:1"
SOON = timedelta(seconds=30)


@asynccontextmanager
async def worker_at(settings: Settings, ahead: timedelta) -> AsyncIterator[tuple[Services, RetrievalServices]]:
    """Starts a worker on a machine whose clock is ahead, and checks the clock as the worker does at first."""
    clock = SteadyClock(machine=ShiftedClock(ahead))
    async with open_services(settings, clock=clock) as services, open_retrieval(services) as retrieval:
        await services.clocks.check()
        yield services, retrieval


def has_wrong_time(services: Services) -> bool:
    return abs(services.clock() - datetime.now(UTC)) > SOON


async def test_pending_verification_survives_a_clock_days_ahead_without_a_network(
    idle_service: Running, settings: Settings, idle_api: httpx.AsyncClient
) -> None:
    biz_token = await call_back(idle_api)
    async with worker_at(settings, timedelta()):
        pass

    async with worker_at(changed(settings, faceid_endpoint=NOBODY), timedelta(days=4)) as (services, retrieval):
        # The database's clock is not affected.
        has_doubt = services.database.is_embedded
        assert (has_wrong_time(services), services.clocks.is_trusted) == (has_doubt, not has_doubt)
        for _ in range(3):
            await retrieve_all(retrieval)

    row = await row_of(idle_service.services, biz_token)
    assert (row.state, row.attempts) == (State.PENDING, 0 if has_doubt else 1)
    assert row.due_at is not None
    assert row.due_at <= row.deadline_at
    async with worker_at(settings, timedelta()) as (services, retrieval):
        assert services.clocks.is_trusted
        await retrieval.claims.bring_forward()
        await make_due(services)
        assert await retrieve_all(retrieval) == 1
    assert (await row_of(idle_service.services, biz_token)).state is State.RETRIEVED


async def make_due(services: Services) -> None:
    """Makes everything due, however long the next retry would take."""
    async with services.database.write() as tx:
        await tx.queue.bring_forward(["default"], now=services.clock(), farthest=datetime.min.replace(tzinfo=UTC))


@pytest.mark.parametrize("days", [31, 200, -3])
async def test_nothing_is_erased_by_a_clock_that_disagrees_with_tencents(
    service: Running, settings: Settings, api: httpx.AsyncClient, days: int
) -> None:
    await retrieve_new(api)

    async with worker_at(settings, timedelta(days=days)) as (services, _):
        assert services.clocks.is_trusted is not services.database.is_embedded
        assert await services.erase.erase_expired() == 0
        warnings = (await services.health.check()).warnings

    begins = [sentence.startswith("The clock is in doubt since ") for sentence in warnings]
    assert begins == [True] * service.services.database.is_embedded
    async with worker_at(settings, timedelta()) as (services, _):
        assert services.clocks.is_trusted
        assert (await services.health.check()).warnings == []


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_worker_with_a_wrong_clock_works_by_the_databases(
    idle_service: Running, settings: Settings, idle_api: httpx.AsyncClient
) -> None:
    for _ in range(2):
        await call_back(idle_api)

    async with worker_at(settings, timedelta(days=200)) as (services, retrieval):
        (claim, _) = await retrieval.claims.take(2)
        row = await row_of(idle_service.services, claim.verification.biz_token)
        assert row.due_at is not None
        assert timedelta() < row.due_at - datetime.now(UTC) < SOON
        # The simulator checks the time of the signature.
        await retrieval.retrieve.retrieve(claim)
        assert services.clocks.is_trusted

    row = await row_of(idle_service.services, claim.verification.biz_token)
    assert row.state is State.RETRIEVED
    assert row.retrieved_at is not None
    assert abs(row.retrieved_at - datetime.now(UTC)) < SOON


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_running_worker_does_not_follow_a_jump_that_tencent_contradicts(
    idle_service: Running, settings: Settings, idle_api: httpx.AsyncClient
) -> None:
    machine = ShiftedClock()
    async with open_services(settings, clock=SteadyClock(machine)) as services, open_retrieval(services) as retrieval:
        await services.clocks.check()
        machine.ahead = timedelta(days=3)
        biz_token = await call_back(idle_api, "garbage-x1")
        await retrieve_all(retrieval)
        await services.clocks.check()

        assert not has_wrong_time(services)
        assert services.clocks.is_trusted
        row = await row_of(idle_service.services, biz_token)
        assert row.due_at is not None
        assert row.due_at < datetime.now(UTC) + SOON


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_running_worker_follows_a_correction_that_tencent_confirms(
    settings: Settings, idle_api: httpx.AsyncClient
) -> None:
    await call_back(idle_api)
    machine = ShiftedClock(timedelta(days=-3))
    async with open_services(settings, clock=SteadyClock(machine)) as services:
        await services.clocks.check()
        assert not services.clocks.is_trusted
        machine.ahead = timedelta()
        await services.clocks.check()

        assert services.clocks.is_trusted
        assert not has_wrong_time(services)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_steady_clock_is_trusted_without_a_network_after_a_short_stop(settings: Settings) -> None:
    offline = changed(settings, faceid_endpoint=NOBODY)
    async with worker_at(settings, timedelta()):
        pass
    found = []
    for minutes in (1, 14, 40):
        async with worker_at(offline, timedelta(minutes=minutes)) as (services, _):
            found.append(services.clocks.is_trusted)
            has_doubt = await doubted_since(services) is not None
            assert has_doubt is not services.clocks.is_trusted

    assert found == [True, True, False]


@pytest.mark.parametrize("is_new", [True, False])
async def test_first_check_doubts_only_a_database_with_verifications(
    settings: Settings, idle_api: httpx.AsyncClient, is_new: bool
) -> None:
    if not is_new:
        await call_back(idle_api)

    async with worker_at(changed(settings, faceid_endpoint=NOBODY), timedelta()) as (services, _):
        assert services.clocks.is_trusted is is_new


async def test_time_is_not_trusted_while_tencents_is_awaited(settings: Settings) -> None:
    asked = asyncio.Event()

    async def never_answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(60)
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with worker_at(changed(settings, faceid_endpoint=f"http://127.0.0.1:{port}"), timedelta()) as (
            services,
            _,
        ):
            assert services.clocks.is_trusted
            await jump(services)
            check = asyncio.create_task(services.clocks.check())
            await asyncio.wait_for(asked.wait(), 30)

            assert not services.clocks.is_trusted
            check.cancel()
            with pytest.raises(asyncio.CancelledError):
                await check


async def jump(services: Services) -> None:
    """Makes the time of the next check lie 200 days after that of the last one, as if the clock had jumped."""
    async with services.database.write() as tx:
        await tx.installation.save(checked_at=services.clock() - timedelta(days=200))


async def test_jump_is_in_doubt_if_the_private_authority_cannot_be_read(settings: Settings, tmp_path: Path) -> None:
    async with open_services(
        changed(settings, faceid_ca_file=tmp_path / "missing.pem"), clock=SteadyClock()
    ) as services:
        await services.clocks.check()
        assert services.clocks.is_trusted
        await jump(services)

        await services.clocks.check()

        assert not services.clocks.is_trusted
        assert await doubted_since(services) is not None


async def doubted_since(services: Services) -> datetime | None:
    async with services.database.read() as tx:
        installation = await tx.installation.find()
    assert installation
    return installation.doubted_since


async def test_rejected_signature_begins_a_doubt_that_tencent_can_end(
    idle_service: Running, settings: Settings, idle_api: httpx.AsyncClient
) -> None:
    biz_token = await call_back(idle_api, "error-AuthFailure.SignatureExpire-x1")
    async with worker_at(settings, timedelta()) as (services, retrieval):
        await retrieve_all(retrieval)

        assert not services.clocks.is_trusted
        await make_due(services)
        assert await retrieve_all(retrieval) == 0
        await services.clocks.check()
        assert services.clocks.is_trusted
        assert await retrieve_all(retrieval) == 1
    assert (await row_of(idle_service.services, biz_token)).state is State.RETRIEVED


async def test_verification_that_a_wrong_clock_scheduled_comes_due(idle_service: Running, settings: Settings) -> None:
    ahead = ShiftedClock(timedelta(days=3))
    async with (
        running(settings, with_worker=False, clock=ahead) as service,
        service.client(await service.key(*everything())) as api,
    ):
        biz_token = await call_back(api)

    async with retrieving(idle_service) as retrieval:
        assert await retrieve_all(retrieval) == 0
        await retrieval.claims.bring_forward()
        assert await retrieve_all(retrieval) == 1

    assert (await row_of(idle_service.services, biz_token)).state is State.RETRIEVED


@pytest.mark.parametrize(
    ("ahead", "is_due"), [(LONGEST_STEP - timedelta(minutes=1), False), (LONGEST_STEP + timedelta(minutes=1), True)]
)
async def test_only_calls_beyond_the_longest_step_are_brought_forward(
    idle_service: Running, idle_api: httpx.AsyncClient, ahead: timedelta, is_due: bool
) -> None:
    biz_token = await call_back(idle_api)
    services = idle_service.services
    async with services.database.write() as tx:
        row = await lock_row(tx, biz_token)
        assert row is not None
        await tx.verifications.save(row, replace(row, due_at=services.clock() + ahead), services.clock())

    async with retrieving(idle_service) as retrieval:
        await retrieval.claims.bring_forward()
        assert await retrieve_all(retrieval) == is_due


async def test_service_that_checks_its_clock_retrieves(settings: Settings) -> None:
    async with running(settings, clock=None) as service, service.client(await service.key(*everything())) as api:
        await retrieve_new(api)

        assert service.services.clocks.is_trusted
