"""Statistics over HTTP: the counts are those of the verifications."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.domain.api_key import Scope
from app.domain.counts import day_of, group_of
from app.domain.listing import VerificationFilter
from app.storage.tables import count_change, count_total
from tests.support.api import call_back, get, retrieve_new, token, url
from tests.support.service import Running, everything

URL = "/v1/stats"
ALL = "day,client,rule_id,state,outcome,err_code"


async def counts(api: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await api.get(URL, params=query)
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def fill(api: httpx.AsyncClient) -> None:
    """Makes verifications of every state but erased."""
    for scenario in ("passed", "passed", "failed-1001", "failed-2016"):
        await retrieve_new(api, scenario)
    expired = await call_back(api, "expired")
    assert (await get(api, expired, wait=20))["state"] == "expired"
    await api.put(url(token()), json={"rule_id": "7"})


async def rebuilt(service: Running) -> Counter[Any]:
    """Counts the verifications themselves."""
    async with service.services.database.read() as tx:
        rows = await tx.verifications.search(VerificationFilter(), limit=1000, after=None)
    return Counter(map(group_of, rows))


async def stored(service: Running) -> int:
    async with service.services.database.read() as tx:
        return (await tx.connection.execute(select(func.count()).select_from(count_change))).scalar_one()


async def test_counts_are_those_of_a_rebuild_before_and_after_they_are_collected(
    service: Running, api: httpx.AsyncClient
) -> None:
    await fill(api)
    today = day_of(service.services.clock())

    before = await counts(api, by=ALL)
    await asyncio.gather(*(service.services.counts.collect() for _ in range(3)))
    after = await counts(api, by=ALL)

    expected = [
        {
            "day": f"{group.day}",
            "client": group.client,
            "rule_id": group.rule_id,
            "state": group.state,
            "outcome": group.outcome,
            "err_code": group.err_code,
            "count": number,
        }
        for group, number in (await rebuilt(service)).items()
    ]
    assert sorted(before, key=str) == sorted(after, key=str) == sorted(expected, key=str)
    assert await stored(service) == 0
    by_outcome = await counts(api, by="outcome", **{"from": f"{today}", "to": f"{today}"})
    assert by_outcome == [
        {"outcome": None, "count": 2},
        {"outcome": "failed", "count": 2},
        {"outcome": "passed", "count": 2},
    ]
    assert await counts(api, by="day", to=f"{today - timedelta(days=1)}") == []


async def test_erasure_leaves_the_counts(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api)
    before = await counts(api, by="outcome,state")
    await service.services.counts.collect()

    await api.delete(url(biz_token))

    assert await counts(api, by="outcome,state") == before == [{"outcome": "passed", "state": "retrieved", "count": 1}]
    async with service.services.database.read() as tx:
        total = (await tx.connection.execute(select(func.sum(count_total.c.number)))).scalar_one()
    assert total == 1


async def test_clients_count_their_own_verifications_and_admins_all(service: Running, api: httpx.AsyncClient) -> None:
    await retrieve_new(api)
    async with (
        service.client(await service.key(*everything(), client="other")) as other,
        service.client(await service.key(Scope.ADMIN, client="operations")) as admin,
    ):
        nothing = await counts(other)
        foreign = await other.get(URL, params={"client": "default"})
        all_of_them = await counts(admin, by="client")
        of_one = await counts(admin, by="client", client="other")

    assert nothing == of_one == []
    assert foreign.status_code == 403
    assert all_of_them == [{"client": "default", "count": 1}]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"from": "2026-02-01", "to": "2026-01-31"}, 400, "invalid_request"),
        ({"from": "2020-01-01", "to": "2026-01-31"}, 400, "invalid_request"),
        ({"by": "name"}, 422, "invalid_input"),
        ({"by": ""}, 422, "invalid_input"),
        ({"from": "yesterday"}, 422, "invalid_input"),
    ],
)
async def test_impossible_query_is_rejected(
    idle_api: httpx.AsyncClient, query: dict[str, str], status: int, code: str
) -> None:
    answer = await idle_api.get(URL, params=query)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
