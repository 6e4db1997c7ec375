"""Several clients may have the same token, each with a verification of its own."""

import httpx
import pytest

from app.domain.api_key import Scope
from tests.support.api import get, retrieve_new, token, url, wait_until_received
from tests.support.redirects import browse
from tests.support.service import Running, everything

CLIENTS = ("bank", "shop")


async def register_for(service: Running, client: str, biz_token: str) -> httpx.Response:
    async with service.client(await service.key(*everything(), client=client)) as api:
        return await api.put(url(biz_token), json={"subject_ref": client})


async def test_redirect_wakes_the_verifications_of_all_clients(idle_service: Running) -> None:
    for client in CLIENTS:
        assert (await register_for(idle_service, client, "both")).status_code == 201
    await browse(idle_service, "both")

    views = []
    for client in CLIENTS:
        async with idle_service.client(await idle_service.key(*everything(), client=client)) as api:
            views.append(await wait_until_received(api, "both"))
    assert [(view["client"], view["received_at"] == view["retrieval"]["due_at"]) for view in views] == [
        (client, True) for client in CLIENTS
    ]


async def test_erasure_by_one_client_leaves_the_result_of_the_other(service: Running) -> None:
    keys = [await service.key(*everything(), client=client) for client in CLIENTS]
    async with service.client(keys[0]) as bank, service.client(keys[1]) as shop:
        biz_token = await retrieve_new(bank)
        await shop.post("/v1/callbacks", json={"BizToken": biz_token})
        before = await get(shop, biz_token, wait=20)
        assert (await bank.delete(url(biz_token))).status_code == 204
        gone = await bank.get(url(biz_token))
        media = [await shop.get(item["href"]) for item in before["media"]]

        assert gone.status_code == 410
        assert [(item.status_code, len(item.content)) for item in media] == [
            (200, item["size_bytes"]) for item in before["media"]
        ]
        assert len(media) == 4
        assert await get(shop, biz_token) == before


async def test_admin_follows_the_links_to_the_media_of_each_client(service: Running) -> None:
    biz_token = token()
    for client in (*CLIENTS, "R&D 研发"):
        async with service.client(await service.key(*everything(), client=client)) as api:
            await api.post("/v1/callbacks", json={"BizToken": biz_token})
            await get(api, biz_token, wait=20)
    async with service.client(await service.key(Scope.ADMIN, client="shop")) as admin:
        items = (await admin.get("/v1/verifications", params={"order": "asc"})).json()["items"]
        links = {item["client"]: item["media"][0]["href"] for item in items}
        answers = [(await admin.get(link)).status_code for link in links.values()]

    path = url(biz_token, "media", "id_card_front")
    assert links == {
        "bank": f"{path}?client=bank",
        "shop": path,
        "R&D 研发": f"{path}?client=R%26D+%E7%A0%94%E5%8F%91",
    }
    assert answers == [200] * 3


async def test_audit_of_a_token_has_the_disclosures_of_all_clients(service: Running) -> None:
    biz_token = token()
    for client in CLIENTS:
        async with service.client(await service.key(*everything(), client=client)) as api:
            await api.post("/v1/callbacks", json={"BizToken": biz_token})
            await get(api, biz_token, wait=20)
            await api.get(url(biz_token, "identity"))
    async with service.client(await service.key(Scope.ADMIN)) as admin:
        page = (await admin.get("/v1/audit", params={"biz_token": biz_token})).json()
        nothing = (await admin.get("/v1/audit", params={"biz_token": "unknown"})).json()

    assert [(item["client"], item["action"], item["biz_token"]) for item in page["items"]] == [
        ("shop", "identity", biz_token),
        ("bank", "identity", biz_token),
    ]
    assert nothing == {"items": [], "next_cursor": None}


async def test_client_of_an_admin_is_preferred(idle_service: Running) -> None:
    for client in CLIENTS:
        await register_for(idle_service, client, "both")
    async with idle_service.client(await idle_service.key(Scope.ADMIN, client="shop")) as admin:
        views = [(await admin.get(url("both"), params=params)).json() for params in ({}, {"client": "bank"})]
        created = await admin.put(url("both"), params={"client": "third"}, json={"rule_id": "1"})

    assert [view["client"] for view in views] == ["shop", "bank"]
    assert (created.status_code, created.json()["client"]) == (201, "third")


@pytest.mark.parametrize("path", ["", "/identity", "/media/best_frame"])
async def test_client_may_name_itself_and_no_other(idle_service: Running, path: str) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="shop")) as api:
        answers = [await api.get(f"{url('none')}{path}", params={"client": name}) for name in ("shop", "bank", "")]

    assert [answer.status_code for answer in answers] == [404, 403, 422]
    assert answers[1].json()["detail"] == "This API key can only see the verifications of its own client."


async def test_registration_before_the_migration_is_finished_is_a_conflict(idle_service: Running) -> None:
    statuses = [(await register_for(idle_service, "bank", "both")).status_code]
    async with idle_service.services.database.write() as tx:
        await tx.connection.exec_driver_sql("CREATE UNIQUE INDEX of_earlier_versions ON verification (biz_token)")
    statuses.append((await register_for(idle_service, "shop", "both")).status_code)
    async with idle_service.services.database.write() as tx:
        await tx.connection.exec_driver_sql("DROP INDEX of_earlier_versions")
    statuses.append((await register_for(idle_service, "shop", "both")).status_code)

    assert statuses == [201, 409, 201]
