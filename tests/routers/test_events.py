"""The change feed: in order, by client, resumable, held while there is nothing, and honest about what is gone."""

import asyncio
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.domain.api_key import Scope
from app.domain.events import EVENT_RETENTION, Event, EventType
from app.factory import Services
from tests.support.api import retrieve_new, token, url
from tests.support.operations import REQUEST_ID
from tests.support.service import Running, actor, changed, everything, running

NOW = datetime.now(UTC)
BOUND_SECONDS = 20


async def feed(api: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    answer = await api.get("/v1/events", params=params, timeout=None)
    assert answer.status_code == HTTPStatus.OK, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def until(api: httpx.AsyncClient, count: int, **params: Any) -> list[dict[str, Any]]:
    """Follows the feed until it has returned so many events."""
    items: list[dict[str, Any]] = []
    after = 0
    async with asyncio.timeout(BOUND_SECONDS):
        while len(items) < count:
            page = await feed(api, after=after, wait=5, **params)
            after = page["next_after"]
            items += page["items"]
    return items


async def add_events(services: Services, *clients: str, at: datetime = NOW) -> None:
    """Adds an event for each client, and gives them positions."""
    async with services.database.write() as tx:
        await tx.events.add_all(
            [
                Event(public_id=f"evt_{client}", type=EventType.TEST, client=client, at=at, details="{}")
                for client in clients
            ]
        )
    await services.outbox.sequence()


async def test_feed_reports_a_whole_life_once_and_in_order(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = token("failed-2016")
        body = {"rule_id": "1", "subject_ref": "loan-4711"}
        assert (await api.put(url(biz_token), json=body)).status_code == HTTPStatus.CREATED
        await api.post("/v1/callbacks", json={"BizToken": biz_token})
        (retrieved,) = await until(api, 1)
        await retrieve_new(api)
        await api.delete(url(biz_token))
        items = await until(api, 2, biz_token=biz_token)
        everyone = await until(api, 3)

    def data(revision: int, **values: object) -> dict[str, object]:
        known = {"biz_token": biz_token, "rule_id": "1", "client": "default", "provisional": False}
        unknown = {"subject_ref": None, "outcome": None, "err_code": None}
        return known | unknown | {"revision": revision, "href": url(biz_token)} | values

    verdict = {"subject_ref": "loan-4711", "outcome": "failed", "err_code": 2016, "provisional": True}
    assert (retrieved["type"], retrieved["data"]) == (
        "verification.retrieved",
        data(1, state="retrieved") | verdict,
    )
    # Only the reference and the verdict have gone, because the verification was erased.
    assert items[0] == retrieved | {"data": data(1, state="retrieved")}
    assert (items[1]["type"], items[1]["data"]) == ("verification.erased", data(2, state="erased"))
    assert [item["id"] for item in everyone if item in items] == [item["id"] for item in items]
    assert len({item["id"] for item in everyone}) == 3


async def test_pages_continue_without_gap_or_repeat(idle_service: Running) -> None:
    await add_events(idle_service.services, *"abcde")
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        pages, after = [], 0
        for _ in range(4):
            pages.append(await feed(admin, after=after, limit=2))
            after = pages[-1]["next_after"]

    assert [[item["id"] for item in page["items"]] for page in pages] == [
        ["evt_a", "evt_b"],
        ["evt_c", "evt_d"],
        ["evt_e"],
        [],
    ]
    assert [page["next_after"] for page in pages] == [2, 4, 5, 5]


async def test_reader_sees_its_own_client_and_an_admin_all(idle_service: Running) -> None:
    await add_events(idle_service.services, "shop", "bank", "shop-2")
    admin_key, key = await idle_service.key(Scope.ADMIN), await idle_service.key(Scope.RESULTS_READ, client="shop")
    async with idle_service.client(admin_key) as admin, idle_service.client(key) as shop:
        pages = [
            await feed(shop),
            await feed(shop, client="shop"),
            await feed(admin),
            await feed(admin, client="bank"),
            await feed(admin, types="test,verification.failed"),
            await feed(admin, types=["verification.failed", "verification.expired"]),
        ]
        refused = await shop.get("/v1/events", params={"client": "bank"})

    assert [[item["id"].removeprefix("evt_") for item in page["items"]] for page in pages] == [
        ["shop"],
        ["shop"],
        ["shop", "bank", "shop-2"],
        ["bank"],
        ["shop", "bank", "shop-2"],
        [],
    ]
    # Events that a filter skips are not examined again.
    assert {page["next_after"] for page in pages} == {3}
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_wait_is_answered_by_the_next_event_of_the_client(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(Scope.RESULTS_READ, client="shop")) as api:
        waiting = asyncio.create_task(feed(api, wait=60))
        await add_events(idle_service.services, "bank")
        assert (await feed(api, wait=0.01))["items"] == []
        await add_events(idle_service.services, "shop")
        page = await asyncio.wait_for(waiting, BOUND_SECONDS)

    assert ([item["id"] for item in page["items"]], page["next_after"]) == (["evt_shop"], 2)


async def test_waits_of_a_key_are_limited_and_end_with_the_key(settings: Settings) -> None:
    async with running(changed(settings, waits_per_key=1), with_worker=False) as service:
        key, text = await service.services.api_keys.create(
            actor(), "test", everything(), client="default", valid_for=timedelta(days=1)
        )
        async with service.client(text) as api:

            async def hold() -> httpx.Response:
                # Sent again while one of the short waits is held.
                params = {"wait": 60}
                while (held := await api.get("/v1/events", params=params, timeout=None)).status_code == 429:
                    pass
                return held

            waiting = asyncio.create_task(hold())
            async with asyncio.timeout(BOUND_SECONDS):
                while (answer := await api.get("/v1/events", params={"wait": 0.01})).status_code == HTTPStatus.OK:
                    pass
            await service.services.api_keys.revoke(actor(), key.id)
            ended = await asyncio.wait_for(waiting, BOUND_SECONDS)

    assert [each.json()["code"] for each in (answer, ended)] == ["too_many_waits", "unauthenticated"]


@pytest.mark.parametrize("after", [1, 2, 5, 2**63 - 1])
async def test_position_that_is_not_kept_is_gone(idle_service: Running, after: int) -> None:
    services = idle_service.services
    await add_events(services, "a", "b", "c", at=NOW - EVENT_RETENTION - timedelta(days=1))
    await add_events(services, "d")
    await services.outbox.remove_old()
    async with idle_service.client(await idle_service.key(Scope.ADMIN)) as admin:
        answer = await admin.get("/v1/events", params={"after": after}, headers={"X-Request-Id": REQUEST_ID})
        kept = [await feed(admin, after=position) for position in (0, 3, 4)]

    assert (answer.status_code, answer.json()) == (
        410,
        {
            "type": "/docs/errors#position_gone",
            "title": "Gone",
            "status": 410,
            "detail": "Events behind this position are no longer kept, or it is of another database. The oldest kept "
            "position is 4. Read again what you need, then continue with after=0.",
            "code": "position_gone",
            "request_id": REQUEST_ID,
        },
    )
    assert [[item["id"] for item in page["items"]] for page in kept] == [["evt_d"], ["evt_d"], []]


async def test_unknown_and_foreign_tokens_have_the_same_empty_feed(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
        head = len(await until(api, 1)) and (await feed(api))["next_after"]
    async with service.client(await service.key(*everything(), client="shop")) as other:
        pages = [await feed(other, biz_token=each) for each in (biz_token, token())]

    assert pages == [{"items": [], "next_after": head}] * 2
