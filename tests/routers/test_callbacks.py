"""Callbacks: accepted and rejected bodies, repeats, and the redirect endpoint of browsers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Message

from app.config import Settings
from tests.support.api import PAGE, get, list_tokens, retrieve_new, token, wait_until_received
from tests.support.service import Running, everything, running, settings_for
from tests.support.simulator import LiveSimulator

URL = "/v1/callbacks"
JSON = {"Content-Type": "application/json"}
LIMIT = 8192


@pytest.mark.parametrize(
    ("body", "rule_id"),
    [
        ({"BizToken": "{}"}, "1"),
        ({"biz_token": "{}"}, "1"),
        ({"BizToken": "{}", "RuleId": "7", "Extra": "case"}, "7"),
        ({"biz_token": "{}", "rule_id": "7", "extra": "case"}, "7"),
        ({"BizToken": "{}", "rule_id": "7", "extra": None}, "7"),
    ],
)
async def test_fields_are_accepted_in_both_spellings(
    shared_api: httpx.AsyncClient, body: dict[str, str], rule_id: str
) -> None:
    biz_token = token()

    answer = await shared_api.post(URL, json={name: value and value.format(biz_token) for name, value in body.items()})
    view = await get(shared_api, biz_token)
    identity = await shared_api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})

    assert answer.status_code == 202
    assert answer.json() == {"biz_token": biz_token, "state": "pending", "received_at": view["received_at"]}
    assert view["rule_id"] == rule_id
    assert identity.json()["callback_extra"] == ("case" if "case" in body.values() else None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"bad"',
        b"{}",
        b"{",
        b"BizToken=bad",
        b"\xff\xfe{",
        b"[" * LIMIT,
        b"9" * LIMIT,
        b'{"BizToken": null}',
        b'{"BizToken": ""}',
        b'{"BizToken": 1}',
        b'{"BizToken": NaN}',
        b'{"BizToken": 1e400}',
        b'{"BizToken": true}',
        b'{"BizToken": ["bad"]}',
        b'{"BizToken": "bad bad"}',
        b'{"BizToken": "../bad"}',
        b'{"BizToken": "bad\\n"}',
        b'{"BizToken": "bad\\u0000"}',
        b'{"BizToken": "bad\\ud800"}',
        b'{"BizToken": "\xe5\x9d\x8f"}',
        b'{"BizToken": "%s"}' % (b"a" * 129),
        b'{"BizToken": "bad", "biz_token": "bad"}',
        b'{"BizToken": "bad", "RuleId": {}}',
        b'{"BizToken": "bad", "RuleId": "a b"}',
        b'{"BizToken": "bad", "Extra": 1}',
        b'{"BizToken": "bad", "Extra": "\\u0000"}',
        b'{"BizToken": "bad", "Extra": "\\udfff"}',
        b'{"BizToken": "bad", "Extra": "%s"}' % (b"a" * 2049),
        b'{"BizToken": "bad", "bizToken": "bad"}',
        b'{"BizToken": "bad", "\\ud800": 1}',
    ],
    ids=lambda body: body[:40].decode("ascii", "replace"),
)
async def test_invalid_body_is_rejected_and_not_stored(shared_api: httpx.AsyncClient, body: bytes) -> None:
    known = await list_tokens(shared_api)

    answer = await shared_api.post(URL, content=body, headers=JSON)

    assert answer.status_code in {400, 422}
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert await list_tokens(shared_api) == known


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_body_without_json_content_type_is_rejected(
    shared_api: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}

    assert (await shared_api.post(URL, content=b'{"BizToken": "bad"}', headers=headers)).status_code == 422


def body_of(size: int, biz_token: str) -> bytes:
    body = b'{"BizToken": "%s"' % biz_token.encode()
    return body + b" " * (size - len(body) - 1) + b"}"


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


@pytest.mark.parametrize("chunked", [False, True], ids=["with Content-Length", "chunked"])
async def test_body_above_8_kib_is_rejected(shared_api: httpx.AsyncClient, *, chunked: bool) -> None:
    answers = []
    for size, biz_token in ((LIMIT, token()), (LIMIT + 1, "bad")):
        body = body_of(size, biz_token)
        answers.append(await shared_api.post(URL, content=in_pieces(body) if chunked else body, headers=JSON))

    assert [answer.status_code for answer in answers] == [202, 413]
    assert answers[1].json()["code"] == "payload_too_large"
    assert "bad" not in await list_tokens(shared_api)


async def test_rule_id_is_required_if_no_default_is_set(settings: Settings) -> None:
    bare = settings_for(
        settings.database.data_dir,
        "http://127.0.0.1:9",
        database_url=settings.database.database_url,
        faceid_rule_id=None,
    )
    async with (
        running(bare, with_worker=False) as service,
        service.client(await service.key(*everything())) as api,
    ):
        refused = await api.post(URL, json={"BizToken": "rule-later"})
        nothing = await list_tokens(api)
        accepted = await api.post(URL, json={"BizToken": "rule-later", "RuleId": "2"})
        repeated = await api.post(URL, json={"BizToken": "rule-later"})

    assert (refused.status_code, refused.json()["code"], nothing) == (400, "rule_id_required", [])
    assert (accepted.status_code, repeated.status_code) == (202, 202)


async def test_repeated_callback_changes_nothing(idle_api: httpx.AsyncClient) -> None:
    first = await idle_api.post(URL, json={"BizToken": "repeated", "Extra": "first"})
    before = await identity_and_view(idle_api, "repeated")

    repeats = [
        await idle_api.post(URL, json={"BizToken": "repeated"}),
        await idle_api.post(URL, json={"BizToken": "repeated", "Extra": "second"}),
        await idle_api.post(URL, json={"BizToken": "repeated", "RuleId": "1"}),
    ]
    contradiction = await idle_api.post(URL, json={"BizToken": "repeated", "RuleId": "2"})

    assert [(answer.status_code, answer.json()) for answer in repeats] == [(202, first.json())] * 3
    assert (contradiction.status_code, contradiction.json()["code"]) == (409, "conflict")
    assert await identity_and_view(idle_api, "repeated") == before


async def identity_and_view(api: httpx.AsyncClient, biz_token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    identity = await api.get(f"/v1/verifications/{biz_token}/identity", headers={"X-Purpose": "test"})
    return identity.json(), await get(api, biz_token)


async def test_callback_after_the_result_changes_nothing_and_causes_no_call(
    api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    biz_token = await retrieve_new(api)
    before = await get(api, biz_token)

    answer = await api.post(URL, json={"BizToken": biz_token})

    assert (answer.status_code, answer.json()["state"]) == (202, "retrieved")
    assert await get(api, biz_token) == before
    assert sum(entry.biz_token == biz_token for entry in faceid.simulator.ledger.entries) == 1


async def test_redirect_answers_the_same_for_every_token(shared_service: Running) -> None:
    registered, called_back = token(), token()
    async with shared_service.client(await shared_service.key(*everything())) as api:
        await api.put(f"/v1/verifications/{registered}")
        await api.post(URL, json={"BizToken": called_back})
    tokens: list[str | list[str] | None] = [registered, registered, called_back, "unknown", "", "a b\x00", "坏" * 5000]
    queries: list[dict[str, Any]] = [{"BizToken": biz_token, "Extra": "x"} for biz_token in tokens]

    async with shared_service.client(None) as browser:
        browser.headers["X-Request-Id"] = "the-same-for-all"
        answers = [
            await browser.get(f"{URL}/redirect", params=query)
            for query in (*queries, {}, {"BizToken": [registered, "unknown"]})
        ]

    assert {(answer.status_code, tuple(answer.headers.raw), answer.content) for answer in answers} == {
        (303, tuple(answers[0].headers.raw), b"")
    }
    assert answers[0].headers["Location"] == PAGE


async def test_redirect_wakes_registered_tokens_only(idle_api: httpx.AsyncClient) -> None:
    await idle_api.put("/v1/verifications/registered")
    asleep = await get(idle_api, "registered")

    for biz_token in ("registered", "unknown"):
        await idle_api.get(f"{URL}/redirect", params={"BizToken": biz_token})
    awake = await wait_until_received(idle_api, "registered")

    assert (asleep["received_at"], awake["state"]) == (None, "pending")
    assert asleep["registered_at"] < awake["received_at"] == awake["retrieval"]["due_at"]
    assert awake["retrieval"]["due_at"] < asleep["retrieval"]["due_at"]
    assert await list_tokens(idle_api) == ["registered"]


async def test_redirect_leads_to_the_result_of_a_registered_token(api: httpx.AsyncClient) -> None:
    biz_token = token()
    await api.put(f"/v1/verifications/{biz_token}")

    await api.get(f"{URL}/redirect", params={"BizToken": biz_token})

    assert (await get(api, biz_token, wait=20))["outcome"] == "passed"


async def test_disconnect_during_the_body_registers_nothing(shared_service: Running) -> None:
    biz_token = token()
    key = await shared_service.key(*everything())
    scope = {
        "type": "http",
        "method": "PUT",
        "path": f"/v1/verifications/{biz_token}",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {key}".encode()), (b"content-length", b"30")],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    await shared_service.app(scope, receive, send)

    async with shared_service.client(key) as api:
        assert (sent, biz_token in await list_tokens(api)) == ([], False)
