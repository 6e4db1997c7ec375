"""Webhook endpoints over HTTP: created with a secret that is shown once, seen by their client only, and tested."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from standardwebhooks import Webhook, WebhookVerificationError

from app.config import Settings
from app.domain.api_key import Caller, Scope
from app.domain.deliveries import DeliveryFilter, ReplayKind
from app.domain.events import EventType
from app.domain.webhook_endpoint import MAX_PER_CLIENT
from app.errors import ForbiddenError
from app.services.webhook_endpoints import EndpointFacts
from tests.support.receiver import Receiver, answer
from tests.support.service import Running, actor, changed, everything, running

PATH = "/v1/webhook-endpoints"
NEW: dict[str, Any] = {
    "url": "https://receiver.invalid/hooks?key=1",
    "events": ["verification.retrieved"],
    "outcomes": ["passed"],
}


async def create(api: httpx.AsyncClient, url: str = "http://127.0.0.1:9/", **values: object) -> dict[str, Any]:
    answered = await api.post(PATH, json={"url": url, **values})
    assert answered.status_code == 201, answered.text
    created: dict[str, Any] = answered.json()
    return created


async def test_endpoint_is_created_read_changed_and_deleted(idle_api: httpx.AsyncClient) -> None:
    created = await create(idle_api, **NEW, rule_ids=["1"], description="shop", max_per_second=5)
    secret, path = created.pop("secret"), f"{PATH}/{created['id']}"
    read = (await idle_api.get(path)).json()
    changed_to = (await idle_api.patch(path, json={"events": [], "description": None, "max_per_second": 7})).json()
    listed = (await idle_api.get(PATH)).json()
    deleted = await idle_api.delete(path)

    assert secret.startswith("whsec_")
    assert read == created | {"pending_count": 0}
    assert created | {"id": "", "created_at": "", "updated_at": ""} == {
        "id": "",
        "client": "default",
        "url": "https://receiver.invalid/hooks?key=1",
        "host": "receiver.invalid",
        "description": "shop",
        "events": ["verification.retrieved"],
        "outcomes": ["passed"],
        "rule_ids": ["1"],
        "max_per_second": 5,
        "state": "enabled",
        **dict.fromkeys(("disabled_reason", "disabled_at", "failing_since", "last_success_at", "last_failure_at")),
        **dict.fromkeys(("last_error", "paused_until", "previous_secret_until")),
        "created_at": "",
        "updated_at": "",
    }
    updated = {"events": [], "description": None, "max_per_second": 7, "updated_at": changed_to["updated_at"]}
    assert changed_to == created | updated
    assert listed == {"items": [changed_to | {"url": None}], "next_cursor": None}
    assert (deleted.status_code, (await idle_api.get(path)).status_code) == (204, 404)


async def test_endpoints_belong_to_one_client_and_are_seen_by_admins(shared_service: Running) -> None:
    keys = {name: await shared_service.key(*everything(), client=name) for name in ("one", "two")}
    keys["admin"] = await shared_service.key(Scope.ADMIN, client="three")
    async with shared_service.client(keys["one"]) as api:
        endpoint_id = (await create(api))["id"]

    seen, forbidden = {}, {}
    for name, key in keys.items():
        async with shared_service.client(key) as api:
            path = f"{PATH}/{endpoint_id}"
            items = (await api.get(PATH, params={"limit": 200})).json()["items"]
            seen[name] = endpoint_id in {item["id"] for item in items}, (await api.get(path)).status_code
            forbidden[name] = [
                (await api.get(PATH, params={"client": "one"})).status_code,
                (await api.post(PATH, json={"url": "http://127.0.0.1:9/", "client": "one"})).status_code,
            ]
            foreign = [await api.patch(path, json={}), await api.post(f"{path}/test"), await api.post(f"{path}/rotate")]
            assert {each.status_code for each in foreign} == {404 if name == "two" else 200}

    assert seen == {"one": (True, 200), "two": (False, 404), "admin": (True, 200)}
    assert forbidden == {"one": [200, 201], "two": [403, 403], "admin": [200, 201]}


async def test_list_has_pages(shared_service: Running) -> None:
    async with shared_service.client(await shared_service.key(*everything(), client="pages")) as api:
        created = {(await create(api))["id"] for _ in range(5)}
        seen: list[str] = []
        cursor = None
        while cursor is not None or not seen:
            page = (await api.get(PATH, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        wrong = await api.get(PATH, params={"cursor": "MQ"})

    assert (seen, wrong.json()["code"]) == (sorted(created), "invalid_cursor")


async def test_client_has_a_bounded_number_of_endpoints_however_they_are_created(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="many")) as api:
        new = [api.post(PATH, json={"url": "http://127.0.0.1:9/"}) for _ in range(MAX_PER_CLIENT + 5)]
        answers = await asyncio.gather(*new)

    assert [answer.status_code for answer in answers].count(201) == MAX_PER_CLIENT
    assert {answer.json()["code"] for answer in answers if answer.is_error} == {"conflict"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"url": "https://10.0.0.1/"}, 400, "refused_address"),
        ({"url": "https://169.254.169.254/"}, 400, "refused_address"),
        ({"url": "http://8.8.8.8/"}, 400, "refused_address"),
        ({"url": "ftp://receiver.invalid/"}, 400, "invalid_url"),
        ({"url": ""}, 400, "invalid_url"),
        ({"url": "x" * 3000}, 422, "invalid_input"),
        ({}, 422, "invalid_input"),
        ({"url": "http://127.0.0.1:9/", "events": ["no.such"]}, 422, "invalid_input"),
        ({"url": "http://127.0.0.1:9/", "max_per_second": 0}, 422, "invalid_input"),
        ({"url": "http://127.0.0.1:9/", "rule_ids": ["a b"]}, 422, "invalid_input"),
        ({"url": "http://127.0.0.1:9/", "secret": "whsec_x"}, 422, "invalid_input"),
    ],
)
async def test_wrong_values_are_rejected(
    shared_api: httpx.AsyncClient, body: dict[str, object], status: int, code: str
) -> None:
    refused = await shared_api.post(PATH, json=body)

    assert (refused.status_code, refused.json()["code"]) == (status, code)


async def test_refusal_of_a_private_address_names_the_setting(shared_api: httpx.AsyncClient) -> None:
    path = f"{PATH}/{(await create(shared_api))['id']}"
    refused = [
        await shared_api.post(PATH, json={"url": "https://10.0.0.1/"}),
        await shared_api.patch(path, json={"url": "https://10.0.0.1/"}),
    ]

    assert {each.json()["detail"] for each in refused} == {
        "10.0.0.1 is a private address. To reach it, the operator adds its network to WEBHOOK_ALLOWED_NETWORKS."
    }


async def test_test_event_is_signed_and_its_answer_is_returned(
    shared_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.answer = lambda _: answer(202, b"thanks\x00")
    created = await create(shared_api, receiver.url())
    found = (await shared_api.post(f"{PATH}/{created['id']}/test", json={"type": "verification.retrieved"})).json()
    plain = (await shared_api.post(f"{PATH}/{created['id']}/test")).json()

    events = [Webhook(created["secret"]).verify(message.body, dict(message.headers)) for message in receiver.messages]
    assert (
        found | {"duration_ms": 0}
        == plain | {"duration_ms": 0}
        == {
            "status": 202,
            "duration_ms": 0,
            "error": None,
            "detail": None,
            "response_head": "thanks",
        }
    )
    assert [(event["type"], event["data"]["test"]) for event in events] == [
        (EventType.RETRIEVED, True),
        (EventType.TEST, True),
    ]
    assert [event["id"] for event in events] == [message.headers["webhook-id"] for message in receiver.messages]


async def test_failed_test_is_explained(shared_api: httpx.AsyncClient) -> None:
    created = await create(shared_api, "http://127.0.0.1:1/")

    found = (await shared_api.post(f"{PATH}/{created['id']}/test")).json()

    assert (found["status"], found["error"], found["detail"]) == (
        None,
        "connect",
        "The host did not accept the connection.",
    )


async def test_both_secrets_sign_until_the_earlier_one_ends(shared_api: httpx.AsyncClient, receiver: Receiver) -> None:
    first = await create(shared_api, receiver.url())
    path = f"{PATH}/{first['id']}"
    second = (await shared_api.post(f"{path}/rotate", json={"keep_for": "7d"})).json()
    await shared_api.post(f"{path}/test")
    third = (await shared_api.post(f"{path}/rotate", json={"keep_for": "0s"})).json()
    await shared_api.post(f"{path}/test")

    def valid(message: int) -> list[bool]:
        sent = receiver.messages[message]
        found = []
        for secret in (first["secret"], second["secret"], third["secret"]):
            try:
                Webhook(secret).verify(sent.body, dict(sent.headers))
                found.append(True)
            except WebhookVerificationError:
                found.append(False)
        return found

    until = datetime.fromisoformat(second["previous_secret_until"])
    assert abs(until - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=1)
    assert third["previous_secret_until"] is None
    assert [valid(0), valid(1)] == [[True, True, False], [False, False, True]]


@pytest.mark.parametrize("span", ["8d", "1w", "-1h", "24", "", "9999999h"])
async def test_span_beyond_a_week_is_rejected(shared_api: httpx.AsyncClient, span: str) -> None:
    path = f"{PATH}/{(await create(shared_api))['id']}/rotate"

    refused = await shared_api.post(path, json={"keep_for": span})

    assert (refused.status_code, refused.json()["detail"].startswith("keep_for must be ")) == (422, True)


async def test_secret_stays_valid_for_another_url(shared_api: httpx.AsyncClient, receiver: Receiver) -> None:
    created = await create(shared_api)
    path = f"{PATH}/{created['id']}"
    await shared_api.patch(path, json={"url": receiver.url("/new")})
    await shared_api.post(f"{path}/test")

    (message,) = receiver.messages
    assert message.target == "/new"
    Webhook(created["secret"]).verify(message.body, dict(message.headers))


async def test_url_that_was_changed_in_the_database_receives_nothing(
    idle_service: Running, idle_api: httpx.AsyncClient, receiver: Receiver
) -> None:
    created = await create(idle_api)
    async with idle_service.services.database.write() as tx:
        await tx.connection.execute(text("UPDATE webhook_endpoint SET url = :url"), {"url": receiver.url()})

    refused = await idle_api.post(f"{PATH}/{created['id']}/test")

    assert (refused.status_code, refused.json()["code"], receiver.connections) == (500, "altered", 0)


async def test_endpoint_is_disabled_and_enabled(idle_api: httpx.AsyncClient) -> None:
    path = f"{PATH}/{(await create(idle_api))['id']}"
    views = [
        (await idle_api.patch(path, json={"state": state})).json() for state in ("disabled", "disabled", "enabled")
    ]

    assert [(view["state"], view["disabled_reason"]) for view in views] == [
        ("disabled", "requested"),
        ("disabled", "requested"),
        ("enabled", None),
    ]
    assert views[0]["disabled_at"] == views[1]["disabled_at"]
    assert (await idle_api.patch(path, json={"state": "failing"})).status_code == 422


async def test_changes_are_audited_without_values(shared_service: Running) -> None:
    async with shared_service.client(await shared_service.key(*everything(), client="audited")) as api:
        path = f"{PATH}/{(await create(api, **NEW))['id']}"
        await api.patch(path, json={"description": "a", "state": "disabled"})
        await api.post(f"{path}/rotate")
        await api.delete(path)
    async with shared_service.client(await shared_service.key(Scope.ADMIN)) as admin:
        items = (await admin.get("/v1/audit", params={"limit": 200})).json()["items"]

    rows = [item for item in reversed(items) if item["client"] == "audited"]
    assert [(row["action"], row["fields"], row["outcome"]) for row in rows] == [
        ("webhook_created", [], "done"),
        ("webhook_changed", ["description", "state"], "done"),
        ("webhook_rotated", [], "done"),
        ("webhook_deleted", [], "done"),
    ]
    assert {row["subject"] for row in rows} == {path.removeprefix(f"{PATH}/")}
    assert "receiver.invalid" not in str(items)


async def test_private_networks_are_reached_only_by_the_setting(settings: Settings) -> None:
    own = changed(settings, webhook_allowed_networks="10.0.0.0/8")
    async with running(own, with_worker=False) as service, service.client(await service.key(*everything())) as api:
        answers = [await api.post(PATH, json={"url": url}) for url in ("http://10.1.2.3/", "http://127.0.0.1/")]

    assert [each.status_code for each in answers] == [201, 400]


async def test_services_refuse_callers_without_the_scope(shared_service: Running) -> None:
    services = shared_service.services
    stranger = actor(Caller(id="", name="", client="default", scopes=frozenset({Scope.RESULTS_READ})))
    endpoint_id, at = await shared_service.endpoint_id(), services.clock()
    attempts: list[Awaitable[object]] = [
        services.webhook_endpoints.create(stranger, EndpointFacts(url="http://127.0.0.1:9/")),
        services.webhook_endpoints.list(stranger),
        services.webhook_endpoints.get(stranger, endpoint_id),
        services.webhook_endpoints.change(stranger, endpoint_id, {}),
        services.webhook_endpoints.rotate(stranger, endpoint_id, keep_for=timedelta()),
        services.webhook_endpoints.test(stranger, endpoint_id, EventType.TEST),
        services.webhook_endpoints.delete(stranger, endpoint_id),
        services.deliveries.list(stranger, DeliveryFilter(endpoint_id=endpoint_id), limit=1, cursor=None),
        services.deliveries.count_pending(stranger, endpoint_id, at_most=1),
        services.deliveries.signals(stranger, [endpoint_id], at_most=1),
        services.deliveries.get(stranger, 1),
        services.deliveries.retry(stranger, 1),
        services.deliveries.replay(stranger, endpoint_id, ReplayKind.ALL, start=at - timedelta(1), end=at),
    ]

    for attempt in attempts:
        with pytest.raises(ForbiddenError):
            await attempt
