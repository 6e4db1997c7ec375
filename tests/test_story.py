"""A verification from the callback to the stored result, as a client of the API sees it."""

import asyncio
import secrets

import httpx
import pytest

from app.config import Settings
from app.domain.media import MediaKind
from simulator.media import media_of
from simulator.people import person_of
from tests.support.api import token
from tests.support.servers import S3
from tests.support.service import everything, running, settings_for
from tests.support.simulator import LiveSimulator


async def test_result_and_media_are_stored_after_a_callback(api: httpx.AsyncClient, faceid: LiveSimulator) -> None:
    biz_token = token("passed")

    accepted = await api.post("/v1/callbacks", json={"BizToken": biz_token, "Extra": "case 7"})
    view = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 20})).json()
    identity = (await api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})).json()

    person = person_of(biz_token)
    assert accepted.status_code == 202
    assert accepted.json()["state"] == "pending"
    assert (view["state"], view["outcome"], view["provisional"]) == ("retrieved", "passed", False)
    assert view["identity"] == {
        "name": person.name[0] + "*" * (len(person.name) - 1),
        "id_card": person.id_card[0] + "*" * 16 + person.id_card[-1],
        "ocr_address": "样本省***",
    }
    assert (identity["name"], identity["id_card"], identity["callback_extra"]) == (
        person.name,
        person.id_card,
        "case 7",
    )
    assert [item["kind"] for item in view["media"]] == list(media_of(biz_token))
    for item in view["media"]:
        body = (await api.get(item["href"])).content
        assert body == media_of(biz_token)[MediaKind(item["kind"])]
    calls = [entry for entry in faceid.simulator.ledger.entries if entry.biz_token == biz_token]
    assert [(call.action, call.info_type, call.code) for call in calls] == [("GetDetectInfo", "0", None)]


async def test_concurrent_copies_of_a_callback_are_one_verification(
    api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    biz_token = token("passed")

    answers = await asyncio.gather(*(api.post("/v1/callbacks", json={"BizToken": biz_token}) for _ in range(100)))
    view = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 20})).json()

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["received_at"] for answer in answers}) == 1
    assert (view["state"], view["retrieval"]["attempts"]) == ("retrieved", 1)
    assert sum(entry.biz_token == biz_token for entry in faceid.simulator.ledger.entries) == 1


@pytest.mark.parametrize(
    ("scenario", "state", "outcome", "calls"),
    [
        ("failed-2016", "retrieved", "failed", 1),
        ("unfinished-1", "retrieved", "passed", 2),
        ("throttled-1", "retrieved", "passed", 2),
        ("http502-x1-passed", "retrieved", "passed", 2),
        ("garbage-x1-passed", "retrieved", "passed", 2),
        ("cut-x1-passed", "retrieved", "passed", 2),
        ("slashes", "retrieved", "passed", 1),
        ("expired", "expired", None, 1),
        ("illegal", "failed", None, 1),
    ],
)
async def test_scenario_ends_in_its_state_after_its_number_of_calls(
    api: httpx.AsyncClient, scenario: str, state: str, outcome: str | None, calls: int
) -> None:
    biz_token = token(scenario)

    await api.post("/v1/callbacks", json={"BizToken": biz_token})
    view = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 30})).json()

    assert (view["state"], view["outcome"], view["retrieval"]["attempts"]) == (state, outcome, calls)


async def test_result_without_a_video_is_complete(api: httpx.AsyncClient) -> None:
    biz_token = token("novideo")

    await api.post("/v1/callbacks", json={"BizToken": biz_token})
    view = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 20})).json()

    assert view["state"] == "retrieved"
    assert [item["kind"] for item in view["media"]] == ["id_card_front", "id_card_back", "best_frame"]
    assert (await api.get(f"/v1/verifications/{biz_token}/media/liveness_video")).status_code == 404


async def test_unfinished_verification_stays_pending_and_is_polled_again(api: httpx.AsyncClient) -> None:
    biz_token = token("unfinished")

    await api.post("/v1/callbacks", json={"BizToken": biz_token})
    view = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 1})).json()
    for _ in range(20):
        if view["retrieval"]["attempts"]:
            break
        view = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 1})).json()

    assert (view["state"], view["outcome"], view["retrieval"]["last_error_code"]) == ("pending", None, None)
    assert view["retrieval"]["due_at"] is not None
    assert view["retrieval"]["attempts"] == 1


async def test_media_are_stored_in_the_configured_bucket(
    settings: Settings, s3_server: S3, faceid: LiveSimulator
) -> None:
    bucket = settings_for(
        settings.database.data_dir,
        faceid.url,
        database_url=settings.database.database_url,
        **s3_server.settings(secrets.token_hex(4)),
    )
    biz_token = token("passed")

    async with running(bucket) as service, service.client(await service.key(*everything())) as api:
        await api.post("/v1/callbacks", json={"BizToken": biz_token})
        view = (await api.get(f"/v1/verifications/{biz_token}", params={"wait": 20})).json()
        bodies = {MediaKind(item["kind"]): (await api.get(item["href"])).content for item in view["media"]}

    assert bodies == media_of(biz_token)
