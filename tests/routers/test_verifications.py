"""One verification: register it, wait for it, read it and retrieve it again."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.domain.api_key import Scope
from simulator.people import person_of
from tests.support.api import first_attempt_of, get, hasten, retrieve_new, token, url
from tests.support.service import Running, everything, running
from tests.support.simulator import LiveSimulator

INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{0,5}[1-9])?Z")
FACTS = {
    "rule_id": "7",
    "subject_ref": "loan-4711",
    "created_at": "2026-05-10T15:52:43.289+08:00",
    "purpose": "loan",
}


async def test_registration_is_201_and_repeats_are_200_without_effect(idle_api: httpx.AsyncClient) -> None:
    first = await idle_api.put(url("a"), json=FACTS)
    repeats = [await idle_api.put(url("a"), json=facts) for facts in (FACTS, {}, {"rule_id": "7"})]
    repeats.append(await idle_api.put(url("a")))

    registration = first.json()
    assert first.status_code == 201
    assert [(answer.status_code, answer.json()) for answer in repeats] == [(200, registration)] * 4
    assert INSTANT.fullmatch(registration.pop("registered_at"))
    assert INSTANT.fullmatch(registration["retrieval"].pop("due_at"))
    assert registration == {
        "client": "default",
        "biz_token": "a",
        "rule_id": "7",
        "subject_ref": "loan-4711",
        "state": "pending",
        "retrieval": {
            "attempts": 0,
            "last_request_id": None,
            "last_error_code": None,
            "deadline_at": "2026-05-13T07:52:43.289Z",
        },
        "received_at": None,
        "retrieved_at": None,
    }


@pytest.mark.parametrize(
    "other",
    [{"rule_id": "8"}, {"subject_ref": "loan-1"}, {"created_at": "2026-05-10T15:52:43.290+08:00"}, {"purpose": "x"}],
    ids="".join,
)
async def test_contradicting_fact_is_a_conflict_and_not_stored(
    idle_api: httpx.AsyncClient, other: dict[str, str]
) -> None:
    await idle_api.put(url("a"), json=FACTS)
    before = await get(idle_api, "a")

    answer = await idle_api.put(url("a"), json=FACTS | other)

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert answer.json()["detail"] == f"The verification is already known with another {''.join(other)}."
    assert await get(idle_api, "a") == before


async def test_facts_are_accepted_separately_and_after_the_callback(idle_api: httpx.AsyncClient) -> None:
    await idle_api.post("/v1/callbacks", json={"BizToken": "a", "RuleId": "7"})

    answers = [await idle_api.put(url("a"), json={name: FACTS[name]}) for name in FACTS]
    view = await get(idle_api, "a")

    assert [answer.status_code for answer in answers] == [200] * 4
    assert (view["rule_id"], view["subject_ref"]) == ("7", "loan-4711")
    assert view["registered_at"] > view["received_at"]
    assert view["retrieval"]["deadline_at"] == "2026-05-13T07:52:43.289Z"
    assert (await idle_api.put(url("a"), json={"purpose": "other"})).status_code == 409


async def test_creation_time_sets_the_deadline(idle_api: httpx.AsyncClient) -> None:
    created_at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    assumed = (await idle_api.put(url("a"))).json()
    exact = (await idle_api.put(url("a"), json={"created_at": created_at.isoformat()})).json()

    registered_at = datetime.fromisoformat(assumed["registered_at"])
    assert datetime.fromisoformat(assumed["retrieval"]["deadline_at"]) == registered_at + timedelta(hours=70)
    assert datetime.fromisoformat(exact["retrieval"]["deadline_at"]) == created_at + timedelta(hours=72)


@pytest.mark.parametrize(
    "created_at",
    [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1999-12-31T23:59:59Z",
        "2026-05-10T15:52:43",
        "2026-05-10",
        "2026-05-10T24:00:01Z",
        "2026-02-30T00:00:00Z",
        "2026-05-10T15:52:43+25:00",
        "1715327563",
        1715327563,
        1715327563.5,
        -1,
        True,
        "",
        "now",
        [],
    ],
)
async def test_invalid_creation_time_is_rejected(shared_api: httpx.AsyncClient, created_at: object) -> None:
    biz_token = token()

    answer = await shared_api.put(url(biz_token), json={"created_at": created_at})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == ["body", "created_at"]
    assert (await shared_api.get(url(biz_token))).status_code == 404


async def test_creation_time_may_be_only_a_few_minutes_ahead(shared_api: httpx.AsyncClient) -> None:
    now = datetime.now(UTC)
    answers = [
        await shared_api.put(url(token()), json={"created_at": (now + timedelta(minutes=ahead)).isoformat()})
        for ahead in (4, 6)
    ]

    assert [answer.status_code for answer in answers] == [201, 400]
    assert answers[1].json()["detail"] == "created_at must not be in the future."


async def test_creation_time_is_compared_with_the_clock_of_the_service(settings: Settings) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    async with (
        running(settings, with_worker=False, clock=lambda: tomorrow) as service,
        service.client(await service.key(Scope.CALLBACKS_WRITE)) as api,
    ):
        answer = await api.put(url(token()), json={"created_at": tomorrow.isoformat()})

    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subject_ref", ""),
        ("subject_ref", "two\nlines"),
        ("subject_ref", "nul\x00"),
        ("subject_ref", "x" * 257),
        ("subject_ref", 7),
        ("purpose", "\x1b[0m"),
        ("purpose", {}),
        ("rule_id", ""),
        ("rule_id", "a b"),
        ("rule_id", 1),
        ("nothing", "1"),
    ],
)
async def test_invalid_facts_are_rejected(shared_api: httpx.AsyncClient, name: str, value: object) -> None:
    biz_token = token()

    assert (await shared_api.put(url(biz_token), json={name: value})).status_code == 422
    assert (await shared_api.get(url(biz_token))).status_code == 404


@pytest.mark.parametrize("path", ["a b", "a%00", "a%0A", "%ED%A0%80", "%E5%9D%8F", ".a", "a" * 129])
async def test_invalid_token_in_the_path_is_rejected(shared_api: httpx.AsyncClient, path: str) -> None:
    assert {(await shared_api.request(method, url(path))).status_code for method in ("GET", "PUT")} == {422}


def pop_instants(view: dict[str, Any]) -> list[str]:
    """Removes the unpredictable instants from the view and returns them."""
    names = ("received_at", "retrieved_at", "updated_at")
    return [*(view.pop(name) for name in names), view["retrieval"].pop("deadline_at")]


async def test_retrieved_verification_has_the_documented_form(api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api)
    person = person_of(biz_token)

    view = await get(api, biz_token)

    received_at = view["received_at"]
    for name, days in (("retain_until", 180), ("retain_media_until", 30)):
        assert view.pop(name) == after(received_at, timedelta(days=days))
    instants = pop_instants(view)
    assert [instant for instant in instants if not INSTANT.fullmatch(instant)] == []
    assert re.fullmatch(r"[0-9a-f-]{36}", view["retrieval"].pop("last_request_id"))
    assert view == {
        "client": "default",
        "biz_token": biz_token,
        "rule_id": "1",
        "subject_ref": None,
        "state": "retrieved",
        "outcome": "passed",
        "provisional": False,
        "verdict": {
            "err_code": 0,
            "err_msg": "成功",
            "live_status": 0,
            "live_msg": "成功",
            "compare_status": 0,
            "compare_msg": "成功",
            "similarity": person.similarity,
            "intention_status": None,
            "intention_msg": None,
        },
        "identity": {
            "name": person.name[0] + "**",
            "id_card": person.id_card[0] + "*" * 16 + person.id_card[-1],
            "ocr_address": "样本省***",
        },
        "liveness_attempts": [{"err_code": 0, "err_msg": "成功", "requested_at": first_attempt_of(person)}],
        "media": [
            {
                "kind": kind,
                "content_type": content_type,
                "size_bytes": size_bytes,
                "href": f"/v1/verifications/{biz_token}/media/{kind}",
            }
            for kind, content_type, size_bytes in (
                ("id_card_front", "image/jpeg", 175040),
                ("id_card_back", "image/jpeg", 165784),
                ("best_frame", "image/jpeg", 40819),
                ("liveness_video", "video/mp4", 1000000),
            )
        ],
        "unreadable_media": [],
        "retrieval": {"attempts": 1, "last_error_code": None, "due_at": None},
        "registered_at": None,
        "legal_hold": False,
        "altered": False,
    }


def after(instant: str, span: timedelta) -> str:
    text = f"{datetime.fromisoformat(instant) + span:%Y-%m-%dT%H:%M:%S.%f}"
    return text.rstrip("0").rstrip(".") + "Z"


async def test_missing_values_are_null_or_empty_lists(idle_api: httpx.AsyncClient) -> None:
    await idle_api.post("/v1/callbacks", json={"BizToken": "a"})

    view = await get(idle_api, "a")

    received_at, deadline_at = view["received_at"], view["retrieval"].pop("deadline_at")
    assert datetime.fromisoformat(deadline_at) == datetime.fromisoformat(received_at) + timedelta(hours=70)
    assert view == {
        "client": "default",
        "biz_token": "a",
        "rule_id": "1",
        "subject_ref": None,
        "state": "pending",
        "outcome": None,
        "provisional": False,
        "verdict": dict.fromkeys(
            (
                "err_code",
                "err_msg",
                "live_status",
                "live_msg",
                "compare_status",
                "compare_msg",
                "similarity",
                "intention_status",
                "intention_msg",
            )
        ),
        "identity": {"name": None, "id_card": None, "ocr_address": None},
        "liveness_attempts": [],
        "media": [],
        "unreadable_media": [],
        "retrieval": {"attempts": 0, "last_request_id": None, "last_error_code": None, "due_at": received_at},
        "registered_at": None,
        "received_at": received_at,
        "retrieved_at": None,
        "updated_at": received_at,
        "retain_until": after(received_at, timedelta(days=180)),
        "retain_media_until": after(received_at, timedelta(days=30)),
        "legal_hold": False,
        "altered": False,
    }


async def test_wait_returns_when_the_verification_is_settled(api: httpx.AsyncClient) -> None:
    biz_token = token("latency-300-failed-1001")
    accepted = await api.post("/v1/callbacks", json={"BizToken": biz_token})

    views = await asyncio.gather(*(get(api, biz_token, wait=20) for _ in range(3)))

    assert accepted.json()["state"] == "pending"
    assert [(view["state"], view["outcome"], view["provisional"]) for view in views] == [
        ("retrieved", "failed", True)
    ] * 3


async def test_wait_ends_after_its_seconds_or_immediately_if_settled(
    api: httpx.AsyncClient,
) -> None:
    pending, settled = token("unfinished"), await retrieve_new(api)
    await api.post("/v1/callbacks", json={"BizToken": pending})

    async with asyncio.timeout(30):
        views = [await get(api, pending), await get(api, pending, wait=0.2), await get(api, settled, wait=60)]

    assert [view["state"] for view in views] == ["pending", "pending", "retrieved"]


@pytest.mark.parametrize("wait", ["-0.1", "60.1", "nan", "inf", "-inf", "", "x", "1e3"])
async def test_invalid_wait_is_rejected(shared_api: httpx.AsyncClient, wait: str) -> None:
    assert (await shared_api.get(url("any"), params={"wait": wait})).status_code == 422


@pytest.mark.parametrize(
    ("scenario", "state", "again"),
    [
        ("passed", "retrieved", "retrieved"),
        ("illegal-x1-passed", "failed", "pending"),
        ("expired-x1-passed", "expired", "pending"),
    ],
)
async def test_finished_verification_can_be_retrieved_again(
    service: Running, faceid: LiveSimulator, scenario: str, state: str, again: str
) -> None:
    biz_token = token(scenario)
    async with service.client(await service.key(*everything())) as api:
        await api.post("/v1/callbacks", json={"BizToken": biz_token})
        first = await get(api, biz_token, wait=20)

        answer = await api.post(url(biz_token, "retrieve"))
        await hasten(service.services, biz_token)
        view = await get(api, biz_token, wait=20)
        async with asyncio.timeout(20):
            while view["retrieval"]["attempts"] < 2:
                await asyncio.sleep(0.1)
                view = await get(api, biz_token)

    assert (first["state"], answer.status_code, answer.json()["state"]) == (state, 202, again)
    assert (view["state"], view["outcome"], view["retrieval"]["due_at"]) == ("retrieved", "passed", None)
    assert sum(entry.biz_token == biz_token for entry in faceid.simulator.ledger.entries) == 2
