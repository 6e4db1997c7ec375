"""Held requests: they end with their callers, are limited per key and process, and check the key again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_network

import httpx
import pytest
from sqlalchemy import update

from app.config import Settings
from app.domain.api_key import Scope
from app.storage.tables import api_key
from tests.support.api import token, url
from tests.support.clocks import FixedClock
from tests.support.operations import REQUEST_ID
from tests.support.service import Running, actor, changed, everything, running, served

# Far below the longest wait.
BOUND_SECONDS = 20
FULL = {
    "type": "/docs/errors#too_many_waits",
    "title": "Too Many Requests",
    "status": 429,
    "code": "too_many_waits",
    "request_id": REQUEST_ID,
}


async def wait(api: httpx.AsyncClient, biz_token: str, *, seconds: float = 60) -> httpx.Response:
    headers = {"X-Request-Id": REQUEST_ID}
    return await api.get(url(biz_token), params={"wait": seconds}, headers=headers, timeout=None)


async def registered(api: httpx.AsyncClient) -> str:
    biz_token = token()
    assert (await api.put(url(biz_token))).status_code == HTTPStatus.CREATED
    return biz_token


async def until_refused(api: httpx.AsyncClient, biz_token: str) -> httpx.Response:
    """Returns the answer to a short wait that is refused because others are held."""
    async with asyncio.timeout(BOUND_SECONDS):
        while (answer := await wait(api, biz_token, seconds=0.01)).status_code != HTTPStatus.TOO_MANY_REQUESTS:
            pass
    return answer


async def until_accepted(api: httpx.AsyncClient, biz_token: str) -> None:
    """Waits until a short wait is accepted."""
    async with asyncio.timeout(BOUND_SECONDS):
        while (await wait(api, biz_token, seconds=0.01)).status_code != HTTPStatus.OK:
            pass


@asynccontextmanager
async def held(api: httpx.AsyncClient, biz_token: str) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """Holds a wait during the block. It is sent again while other waits of the test are held."""

    async def hold() -> httpx.Response:
        while (answer := await wait(api, biz_token)).status_code == HTTPStatus.TOO_MANY_REQUESTS:
            pass
        return answer

    task = asyncio.create_task(hold())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_wait_of_a_disconnected_caller_is_freed(settings: Settings) -> None:
    async with served(changed(settings, waits_per_key=1)) as (service, port):
        key = await service.key(*everything())
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}
        ) as api:
            biz_token = await registered(api)
            # Cancelling the request closes its connection.
            async with held(api, biz_token):
                refused = await until_refused(api, biz_token)
            await until_accepted(api, biz_token)
    # A refused caller must not keep its connection.
    assert (refused.headers["Connection"], refused.headers["Retry-After"]) == ("close", "1")


async def test_waits_of_a_key_are_limited_and_others_are_served(settings: Settings) -> None:
    async with running(changed(settings, waits_per_key=1), with_worker=False) as service:
        one, other = await service.key(*everything()), await service.key(*everything())
        async with service.client(one) as api, service.client(other) as beside:
            biz_token = await registered(api)
            async with held(api, biz_token):
                refused = await until_refused(api, biz_token)
                read = await api.get(url(biz_token))
                called_back = await api.post("/v1/callbacks", json={"BizToken": biz_token})
                waited = await wait(beside, biz_token, seconds=0.01)

    assert refused.json() == FULL | {"detail": "This API key has 1 open waits; end one, or retry later."}
    assert [answer.status_code for answer in (read, called_back, waited)] == [200, 202, 200]


async def test_waits_of_the_process_are_limited_and_other_requests_are_served(settings: Settings) -> None:
    limits = changed(settings, waits_per_key=0, waits_per_process=2)
    async with running(limits, with_worker=False) as service:
        one, other = await service.key(*everything()), await service.key(*everything())
        async with service.client(one) as api, service.client(other) as beside:
            biz_token = await registered(api)
            async with held(api, biz_token), held(api, biz_token):
                refused = await until_refused(beside, biz_token)
                called_back = await beside.post("/v1/callbacks", json={"BizToken": biz_token})
                probes = [await beside.get(path) for path in ("/livez", "/readyz")]

    detail = "The service holds too many waits; retry later."
    assert refused.json() == FULL | {"detail": detail}
    assert [answer.status_code for answer in (called_back, *probes)] == [202, 200, 200]


async def test_settled_verification_is_answered_whatever_is_held(service: Running) -> None:
    key = await service.key(*everything())
    async with service.client(key) as api:
        biz_token = token()
        await api.post("/v1/callbacks", json={"BizToken": biz_token})
        first = await wait(api, biz_token, seconds=BOUND_SECONDS)
        service.services.read.limits.settings = service.services.read.limits.settings.model_copy(
            update={"waits_per_process": 0}
        )

        again = await wait(api, biz_token)

    assert (first.status_code, again.json()) == (200, first.json())


@pytest.mark.parametrize("end", ["revoked", "expired", "altered"])
async def test_key_that_ends_during_a_wait_gets_401(settings: Settings, end: str) -> None:
    clock = FixedClock(datetime.now(UTC))
    async with running(changed(settings, waits_per_key=1), with_worker=False, clock=clock) as service:
        key, text = await service.services.api_keys.create(
            actor(), "test", everything(), client="default", valid_for=timedelta(days=1)
        )
        async with service.client(text) as api, service.client(await service.key(Scope.ADMIN)) as admin:
            biz_token = await registered(api)
            async with held(api, biz_token) as waiting:
                await until_refused(api, biz_token)
                if end == "revoked":
                    await service.services.api_keys.revoke(actor(), key.id)
                elif end == "expired":
                    clock.now += timedelta(days=2)
                else:
                    # The cache of the process ends after some seconds.
                    async with service.services.database.write() as tx:
                        values = {"networks": [ip_network("203.0.113.0/24")]}
                        await tx.connection.execute(update(api_key).where(api_key.c.id == key.id).values(values))
                answer = await asyncio.wait_for(waiting, BOUND_SECONDS)
            await service.services.audit.aclose()
            audited = (await admin.get("/v1/audit", params={"action": "authentication"})).json()["items"]

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert [(item["outcome"], item["key_id"]) for item in audited] == [(end, key.id)]


async def test_result_that_arrives_is_not_sent_to_a_revoked_key(settings: Settings) -> None:
    async with running(changed(settings, waits_per_key=1)) as service:
        key, text = await service.services.api_keys.create(
            actor(), "test", everything(), client="default", valid_for=timedelta(days=1)
        )
        async with service.client(text) as api, service.client(await service.key(*everything())) as other:
            biz_token = await registered(api)
            async with held(api, biz_token) as waiting:
                await until_refused(api, biz_token)
                await asyncio.gather(
                    service.services.api_keys.revoke(actor(), key.id),
                    other.post("/v1/callbacks", json={"BizToken": biz_token}),
                )
                answer = await asyncio.wait_for(waiting, BOUND_SECONDS)
            settled = (await wait(other, biz_token)).json()

    assert (answer.status_code, settled["state"]) == (401, "retrieved")
