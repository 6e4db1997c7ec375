"""Erasure on request and at the end of the retention, and legal holds that prevent both."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import structlog
from sqlalchemy import text

from app.config import Settings
from app.domain.api_key import OPERATOR, Actor, Scope
from app.factory import open_retrieval, open_services
from tests.support.api import get, retrieve_new, token, url
from tests.support.service import Running, everything

ERASED_TABLES = ("detection", "liveness_attempt", "media", "upstream_call")


def objects(settings: Settings) -> list[Path]:
    return list((settings.database.data_dir / "media").glob("[0-9a-f][0-9a-f]/*"))


async def remaining_rows(service: Running) -> dict[str, int]:
    async with service.services.database.read() as tx:
        return {name: await tx.connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in ERASED_TABLES}


async def test_delete_removes_rows_key_and_objects(
    service: Running, settings: Settings, api: httpx.AsyncClient
) -> None:
    biz_token = await retrieve_new(api)
    assert len(objects(settings)) == 4

    assert [(await api.delete(url(biz_token))).status_code for _ in range(2)] == [204, 204]

    assert await remaining_rows(service) == dict.fromkeys(ERASED_TABLES, 0)
    assert objects(settings) == []
    async with service.services.database.read() as tx:
        row = (await tx.connection.execute(text("SELECT * FROM verification"))).one()
    assert (row.state, row.sealed_key, row.outcome, row.last_request_id) == ("erased", None, "", None)
    reads = [await api.get(f"{url(biz_token)}{rest}") for rest in ("", "?wait=5", "/identity", "/media/best_frame")]
    reads.append(await api.post(url(biz_token, "retrieve")))
    assert [(read.status_code, read.json()["code"]) for read in reads] == [(410, "erased")] * 5
    (item,) = (await api.get("/v1/verifications")).json()["items"]
    assert (item["state"], item["identity"]["name"], item["media"], item["outcome"]) == ("erased", None, [], None)


def is_stored(settings: Settings, content: bytes) -> dict[str, bool]:
    """Returns which files of the embedded database contain these bytes."""
    path = Path(str(settings.database.url().database))
    return {part: content in path.with_name(f"{path.name}{part}").read_bytes() for part in ("", "-wal")}


async def sealed_key(service: Running) -> bytes:
    async with service.services.database.read() as tx:
        return bytes(await tx.connection.scalar(text("SELECT sealed_key FROM verification")))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_delete_leaves_the_key_neither_in_the_file_nor_in_its_wal(
    service: Running, settings: Settings, api: httpx.AsyncClient
) -> None:
    biz_token = await retrieve_new(api)
    key = await sealed_key(service)
    before = is_stored(settings, key)

    assert (await api.delete(url(biz_token))).status_code == 204

    assert any(before.values())
    assert is_stored(settings, key) == {"": False, "-wal": False}
    async with service.services.database.read() as tx:
        pragmas = [await tx.connection.scalar(text(f"PRAGMA {name}")) for name in ("secure_delete", "busy_timeout")]
    assert pragmas == [1, 8000]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_reader_only_delays_the_removal_of_the_key_from_the_wal(
    idle_service: Running, settings: Settings, idle_api: httpx.AsyncClient
) -> None:
    biz_token = token("passed")
    await idle_api.post("/v1/callbacks", json={"BizToken": biz_token})
    database = idle_service.services.database
    key = await sealed_key(idle_service)

    async with database.read() as reader:
        await reader.connection.scalar(text("SELECT count(*) FROM verification"))
        assert (await idle_api.delete(url(biz_token))).status_code == 204
        during = is_stored(settings, key)
        assert await reader.connection.scalar(text("SELECT sealed_key FROM verification")) == key
    await idle_service.services.erase.erase_expired()

    assert any(during.values())
    assert is_stored(settings, key) == {"": False, "-wal": False}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_retention_and_revocation_leave_nothing_in_the_wal(
    service: Running, settings: Settings, api: httpx.AsyncClient
) -> None:
    await retrieve_new(api)
    key, database = await sealed_key(service), service.services.database
    async with database.read() as tx:
        key_id, digest = (await tx.connection.execute(text("SELECT id, sealed_digest FROM api_key"))).one()

    async with open_services(settings, clock=lambda: datetime.now(UTC) + timedelta(days=181)) as later:
        await later.erase.erase_expired()
    before = is_stored(settings, bytes(digest))
    async with database.read() as tx:
        assert await tx.connection.scalar(text("SELECT state FROM verification")) == "erased"
    await service.services.api_keys.revoke(Actor(caller=OPERATOR, request_id="test"), key_id)

    assert any(before.values())
    assert is_stored(settings, key) == is_stored(settings, bytes(digest)) == {"": False, "-wal": False}


async def test_objects_that_cannot_be_deleted_are_left_to_the_sweeper(
    service: Running, settings: Settings, api: httpx.AsyncClient
) -> None:
    biz_token = await retrieve_new(api)
    stuck, *others = objects(settings)
    content = stuck.read_bytes()
    stuck.unlink()
    stuck.mkdir()  # unlink cannot remove a folder

    with structlog.testing.capture_logs() as logs:
        assert (await api.delete(url(biz_token))).status_code == 204

    assert [(log["log_level"], log["found"]) for log in logs if log["event"] == "objects_left_to_the_sweeper"] == [
        ("warning", 1)
    ]
    assert await remaining_rows(service) == dict.fromkeys(ERASED_TABLES, 0)
    assert (await api.get(url(biz_token))).status_code == 410
    assert not any(path.exists() for path in others)

    stuck.rmdir()
    stuck.write_bytes(content)
    os.utime(stuck, (time.time() - 24 * 3600,) * 2)
    assert await service.services.orphans.sweep() == 1
    assert objects(settings) == []


async def test_later_messages_do_not_restore_an_erased_verification(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api)
    await api.delete(url(biz_token))

    again = await api.post("/v1/callbacks", json={"BizToken": biz_token, "Extra": "again"})
    registered = await api.put(url(biz_token), json={"subject_ref": "again"})
    await api.get("/v1/callbacks/redirect", params={"BizToken": biz_token})

    assert [(answer.status_code, answer.json()["state"]) for answer in (again, registered)] == [
        (202, "erased"),
        (200, "erased"),
    ]
    async with service.services.database.read() as tx:
        row = (await tx.connection.execute(text("SELECT due_at, callback_extra, subject_ref FROM verification"))).one()
    assert tuple(row) == (None, None, None)


async def test_first_callback_after_the_erasure_is_accepted_and_idempotent(
    idle_api: httpx.AsyncClient,
) -> None:
    biz_token = token("passed")
    await idle_api.put(url(biz_token), json={})
    await idle_api.delete(url(biz_token))

    first, repeated = [await idle_api.post("/v1/callbacks", json={"BizToken": biz_token}) for _ in range(2)]

    assert (first.status_code, first.json()["state"]) == (202, "erased")
    assert repeated.json() == first.json()


async def test_fetch_in_flight_during_the_erasure_stores_nothing(
    idle_service: Running, settings: Settings, idle_api: httpx.AsyncClient
) -> None:
    biz_token = token("latency-300-passed")
    await idle_api.post("/v1/callbacks", json={"BizToken": biz_token})
    async with open_retrieval(idle_service.services) as retrieval:
        (claim,) = await retrieval.claims.take(16)
        fetch = asyncio.create_task(retrieval.retrieve.retrieve(claim))
        for _ in range(500):
            if list((settings.database.data_dir / "media").rglob("*")):
                break
            await asyncio.sleep(0.01)

        assert (await idle_api.delete(url(biz_token))).status_code == 204
        await fetch

    assert {name: count for name, count in (await remaining_rows(idle_service)).items() if name != "upstream_call"} == {
        "detection": 0,
        "liveness_attempt": 0,
        "media": 0,
    }
    assert objects(settings) == []
    assert (await idle_api.get(url(biz_token))).status_code == 410


async def test_legal_hold_prevents_erasure_until_it_is_released(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api)
    async with service.client(await service.key(Scope.ADMIN)) as admin:
        assert (await admin.put(url(biz_token, "legal-hold"))).status_code == 204
        refused = await api.delete(url(biz_token))
        assert (await get(api, biz_token))["legal_hold"] is True
        assert (await admin.delete(url(biz_token, "legal-hold"))).status_code == 204

    assert (refused.status_code, refused.json()["code"]) == (409, "legal_hold")
    assert (await api.delete(url(biz_token))).status_code == 204


@pytest.mark.parametrize(("days", "state", "media"), [(29, "retrieved", 4), (31, "retrieved", 0), (181, "erased", 0)])
async def test_retention_erases_media_first_and_everything_later(
    service: Running, settings: Settings, api: httpx.AsyncClient, days: int, state: str, media: int
) -> None:
    biz_token, held = await retrieve_new(api), await retrieve_new(api)
    async with service.client(await service.key(Scope.ADMIN)) as admin:
        await admin.put(url(held, "legal-hold"))

    async with open_services(settings, clock=lambda: datetime.now(UTC) + timedelta(days=days)) as later:
        swept = await asyncio.gather(later.erase.erase_expired(), later.erase.erase_expired())

    assert sum(swept) == (days > 30)
    items = {item["biz_token"]: item for item in (await api.get("/v1/verifications")).json()["items"]}
    assert (items[biz_token]["state"], len(items[biz_token]["media"])) == (state, media)
    assert (items[held]["state"], len(items[held]["media"])) == ("retrieved", 4)
    assert len(objects(settings)) == 4 + media
    assert (items[biz_token]["identity"]["name"] is None) is (state == "erased")


async def test_deleting_a_foreign_or_unknown_token_is_404(service: Running) -> None:
    async with service.client(await service.key(*everything(), client="owner")) as owner:
        biz_token = await retrieve_new(owner)
        async with service.client(await service.key(*everything(), client="stranger")) as stranger:
            answers = [await stranger.delete(url(name)) for name in (biz_token, "unknown")]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert (await get(owner, biz_token))["state"] == "retrieved"


async def test_erasures_disclosures_and_holds_are_audited(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api)
    await api.get(url(biz_token, "identity"))
    await api.get(url(biz_token, "media/best_frame"), headers={"Range": "bytes=0-9"})
    await api.head(url(biz_token, "media/best_frame"))
    async with service.client(await service.key(Scope.ADMIN)) as admin:
        await admin.put(url(biz_token, "legal-hold"))
        await admin.delete(url(biz_token, "legal-hold"))
        await api.delete(url(biz_token))
        page = (await admin.get("/v1/audit", params={"biz_token": biz_token})).json()
        keys = (await admin.get("/v1/audit", params={"action": "key_created"})).json()["items"]
        refused = await api.get("/v1/audit")

    assert [(item["action"], item["purpose"]) for item in page["items"]] == [
        ("erase", None),
        ("release", "test"),
        ("hold", "test"),
        ("media", "test"),
        ("identity", "test"),
    ]
    assert page["items"][3]["fields"] == ["best_frame"]
    assert "id_card" in page["items"][4]["fields"]
    assert (page["next_cursor"], len(keys), keys[0]["biz_token"]) == (None, 2, None)
    assert refused.status_code == 403
