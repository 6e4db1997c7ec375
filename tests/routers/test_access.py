"""Access control: every operation of the API description, with every kind of key."""

from datetime import timedelta
from ipaddress import ip_network

import pytest

from app.domain.api_key import Scope
from tests.support.api import retrieve_new
from tests.support.operations import DOCUMENT, OPERATIONS, REQUEST_ID, ROWS, Operation, call
from tests.support.service import Running, actor, everything

UNKNOWN = {
    "type": "/docs/errors#not_found",
    "title": "Not Found",
    "status": 404,
    "detail": "There is no such verification.",
    "code": "not_found",
    "request_id": REQUEST_ID,
}
WITH_KEY = [operation for operation in ROWS if ROWS[operation].scope or ROWS[operation].any_key]
REGISTERING = {("post", "/v1/callbacks"), ("put", "/v1/verifications/{biz_token}")}
SIGNED = {("post", "/v1/callbacks")}
PUBLIC = [operation for operation in ROWS if operation not in WITH_KEY]


def test_every_operation_has_a_row() -> None:
    assert set(ROWS) == set(OPERATIONS)


@pytest.mark.parametrize("operation", ROWS, ids=" ".join)
def test_description_names_the_scope(operation: Operation) -> None:
    method, path = operation
    row = ROWS[operation]
    scopes = [row.scope] if row.scope else []
    signed: list[dict[str, list[str]]] = [{"Signature": []}] if operation in SIGNED else []

    assert DOCUMENT["paths"][path][method].get("security") == (
        [{"ApiKey": scopes}, *signed] if operation in WITH_KEY else None
    )


async def test_invalid_expired_and_revoked_keys_are_rejected(idle_service: Running) -> None:
    valid = await idle_service.key(*everything())
    expired = await idle_service.key(*everything(), valid_for=timedelta(0))
    revoked_key, revoked = await idle_service.services.api_keys.create(
        actor(), "test", everything(), client="default", valid_for=timedelta(days=1)
    )
    await idle_service.services.api_keys.authenticate(revoked)
    await idle_service.services.api_keys.revoke(actor(), revoked_key.id)
    _, restricted = await idle_service.services.api_keys.create(
        actor(),
        "test",
        everything(),
        client="default",
        valid_for=timedelta(days=1),
        networks=[ip_network("203.0.113.0/24")],
    )
    mixed = valid[:17] + (await idle_service.key(Scope.ADMIN))[17:]
    texts = [None, "", "garbage", "ключ", valid[:-1], valid.upper(), mixed, expired, revoked, restricted]

    for operation in WITH_KEY:
        answers = [await call(idle_service, text, operation, "any") for text in texts]
        answers.append(await call(idle_service, valid, operation, "any", scheme="Basic"))

        assert {answer.status_code for answer in answers} == {401}, operation
        assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
        assert all(answer.json()["code"] == "unauthenticated" for answer in answers if answer.content)


async def test_operation_requires_its_scope_or_admin(service: Running) -> None:
    keys = {scope: await service.key(scope) for scope in Scope}
    async with service.client(keys[Scope.ADMIN]) as api:
        biz_token = await retrieve_new(api)

    for operation in WITH_KEY:
        row = ROWS[operation]
        answers = {scope: await call(service, key, operation, biz_token) for scope, key in keys.items()}

        allowed = {scope for scope, answer in answers.items() if answer.status_code == row.status}
        assert allowed == ({*Scope} if row.any_key else {row.scope, Scope.ADMIN}), operation
        refused = [answer for scope, answer in answers.items() if scope not in allowed]
        assert {answer.status_code for answer in refused} == (set() if row.any_key else {403})
        assert all(answer.json()["code"] == "forbidden" for answer in refused if answer.content)


async def test_foreign_verification_is_404_and_visible_to_admins(service: Running) -> None:
    async with service.client(await service.key(*everything(), client="owner")) as api:
        biz_token = await retrieve_new(api)
    stranger = await service.key(*everything(), client="stranger")
    admin = await service.key(Scope.ADMIN, client="operations")

    for operation in [operation for operation in WITH_KEY if ROWS[operation].is_about_one]:
        # Admins see the verifications of all clients.
        if ROWS[operation].scope is Scope.ADMIN:
            continue
        foreign = await call(service, stranger, operation, biz_token)
        assert (foreign.status_code, foreign.json() if foreign.content else UNKNOWN) == (404, UNKNOWN), operation
        assert (await call(service, admin, operation, biz_token)).status_code == ROWS[operation].status
        if operation not in REGISTERING:
            unknown = await call(service, stranger, operation, "unknown")
            assert (unknown.status_code, unknown.content, unknown.headers) == (404, foreign.content, foreign.headers)


@pytest.mark.parametrize("operation", PUBLIC, ids=" ".join)
async def test_public_operation_needs_no_key(shared_service: Running, operation: Operation) -> None:
    assert (await call(shared_service, None, operation, "any")).status_code == ROWS[operation].status


async def test_list_has_own_verifications_only_and_all_for_admins(idle_service: Running) -> None:
    for client in ("one", "two"):
        async with idle_service.client(await idle_service.key(*everything(), client=client)) as api:
            await api.put(f"/v1/verifications/of-{client}")

    seen = {}
    for client, scopes in {"one": everything(), "two": everything(), "three": [Scope.ADMIN]}.items():
        async with idle_service.client(await idle_service.key(*scopes, client=client)) as api:
            page = (await api.get("/v1/verifications")).json()
        seen[client] = [item["biz_token"] for item in page["items"]]

    assert seen == {"one": ["of-one"], "two": ["of-two"], "three": ["of-two", "of-one"]}


async def test_write_only_key_gets_no_personal_data(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
    async with service.client(await service.key(Scope.CALLBACKS_WRITE)) as api:
        answers = [
            await api.put(f"/v1/verifications/{biz_token}"),
            await api.post("/v1/callbacks", json={"BizToken": biz_token}),
            await api.post(f"/v1/verifications/{biz_token}/retrieve"),
        ]

    fields = {"biz_token", "rule_id", "subject_ref", "state", "retrieval", "registered_at", "received_at"}
    assert [set(answer.json()) for answer in answers] == [
        fields | {"retrieved_at"},
        {"biz_token", "state", "received_at"},
        fields | {"retrieved_at"},
    ]
