"""Signed callbacks: accepted like those with a key, rejected like those without one."""

import json
from datetime import timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.api_key import Scope
from tests.support.api import SIGNATURE_HEADERS, get, list_tokens, retrieve_new, signed, token, url
from tests.support.service import Running
from tests.support.simulator import LiveSimulator

URL = "/v1/callbacks"


def body_for(biz_token: str) -> bytes:
    return json.dumps({"BizToken": biz_token}).encode()


async def post(service: Running, body: bytes, headers: dict[str, str] | list[tuple[bytes, bytes]]) -> httpx.Response:
    async with service.client(None) as stranger:
        return await stranger.post(URL, content=body, headers=headers)


@pytest.mark.parametrize(("secret", "client"), [("old", "default"), ("new", "default"), ("shop", "shop")])
async def test_signed_callback_belongs_to_the_client_of_the_secret(
    shared_service: Running, secret: str, client: str
) -> None:
    biz_token = token()
    answer = await post(shared_service, body_for(biz_token), signed(secret, body_for(biz_token)))

    async with shared_service.client(await shared_service.key(Scope.RESULTS_READ, client=client)) as api:
        view = await get(api, biz_token)
    assert (answer.status_code, answer.json()) == (
        202,
        {"biz_token": biz_token, "state": "pending", "received_at": view["received_at"]},
    )


async def test_replayed_callback_changes_nothing_and_causes_no_call(
    service: Running, api: httpx.AsyncClient, faceid: LiveSimulator
) -> None:
    biz_token = await retrieve_new(api)
    before, headers = await get(api, biz_token), signed("old", body_for(biz_token))

    answers = [await post(service, body_for(biz_token), headers) for _ in range(100)]

    assert {answer.status_code for answer in answers} == {202}
    assert await get(api, biz_token) == before
    assert sum(entry.biz_token == biz_token for entry in faceid.simulator.ledger.entries) == 1


async def test_token_of_another_client_is_a_new_one_of_the_signer(
    shared_service: Running, shared_api: httpx.AsyncClient
) -> None:
    biz_token = token()
    await shared_api.post(URL, json={"BizToken": biz_token})

    answer = await post(shared_service, body_for(biz_token), signed("shop", body_for(biz_token)))

    views = [await shared_api.get(url(biz_token), params={"client": client}) for client in ("default", "shop")]
    assert answer.status_code == 202
    assert [view.json()["client"] for view in views] == ["default", "shop"]


async def test_invalid_key_is_rejected_despite_a_valid_signature(shared_service: Running) -> None:
    body = body_for("bad-key")
    for authorization in ("Bearer bad", "Basic bad", "bad", ""):
        answer = await post(shared_service, body, {**signed("old", body), "Authorization": authorization})

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_signature_is_accepted_for_callbacks_only(shared_service: Running) -> None:
    async with shared_service.client(None) as stranger:
        answers = [
            await stranger.put("/v1/verifications/bad", content=b"{}", headers=signed("old", b"{}")),
            await stranger.get("/v1/verifications", headers=signed("old", b"")),
            await stranger.post("/v1/redirects", content=b"{}", headers=signed("old", b"{}")),
        ]

    assert [answer.status_code for answer in answers] == [401] * 3


HEADER = st.binary(max_size=80).map(lambda value: value.translate(None, b"\0\r\n")).filter(bool)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.tuples(*[st.none() | HEADER] * 3), age=st.integers(-400, 400))
async def test_every_invalid_signature_gets_the_same_401(
    shared_service: Running, values: tuple[bytes | None, ...], age: int
) -> None:
    """Some headers are of a valid signature for another body, the others are arbitrary."""
    body = body_for("bad-signature")
    valid = signed("old", body_for("another"), age=timedelta(seconds=age))
    sent = {
        name: valid[name].encode() if value is None else value
        for name, value in zip(SIGNATURE_HEADERS, values, strict=True)
    }

    headers = [(b"X-Request-Id", b"the-same-for-all"), (b"Content-Type", b"application/json")]
    answer = await post(shared_service, body, [*headers, *((name.encode(), value) for name, value in sent.items())])

    assert (answer.status_code, answer.headers["WWW-Authenticate"], answer.json()) == (
        401,
        "Bearer",
        {
            "type": "/docs/errors#unauthenticated",
            "title": "Unauthorized",
            "status": 401,
            "detail": "The signature is unknown, malformed or out of date.",
            "code": "unauthenticated",
            "request_id": "the-same-for-all",
        },
    )


async def test_rejected_callbacks_are_not_stored(shared_api: httpx.AsyncClient) -> None:
    assert not [known for known in await list_tokens(shared_api) if known.startswith("bad")]
