"""Access control: every operation of the API description, with every kind of key."""

import re
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from ipaddress import ip_network

import httpx
import pytest

from app.config import Settings
from app.domain.api_key import Scope
from app.services.rule_settings import RuleSettings
from tests.support.api import STATEFUL, get, retrieve_new, token, url
from tests.support.operations import DOCUMENT, OPERATIONS, ROWS, Operation, Target, call
from tests.support.service import Running, actor, changed, everything, running

WITH_KEY = [operation for operation in ROWS if ROWS[operation].scope or ROWS[operation].any_key]
ABOUT_ONE = [operation for operation in WITH_KEY if ROWS[operation].is_about_one]
SIGNED = {("post", "/v1/callbacks")}
ABOUT_VERIFICATIONS = [operation for operation, row in ROWS.items() if not row.is_about_endpoints]
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
        [{"ApiKey": scopes}, *signed]
        if operation in WITH_KEY
        else [{"ApiKey": [row.optional]}, {}]
        if row.optional
        else None
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


async def test_admin_sees_the_verifications_of_all_clients(service: Running) -> None:
    async with service.client(await service.key(*everything(), client="owner")) as api:
        biz_token = await retrieve_new(api)
    admin = await service.key(Scope.ADMIN, client="operations")

    for operation in ABOUT_ONE:
        answer = await call(service, admin, operation, biz_token)

        assert answer.status_code == ROWS[operation].status, operation


async def test_admin_names_the_client_of_a_token_that_several_have(service: Running) -> None:
    biz_token = token()
    for client in ("owner", "stranger"):
        async with service.client(await service.key(*everything(), client=client)) as api:
            await api.post("/v1/callbacks", json={"BizToken": biz_token})
            await get(api, biz_token, wait=20)
    admin, own = [await service.key(Scope.ADMIN, client=client) for client in ("operations", "owner")]

    for operation in ABOUT_ONE:
        row = ROWS[operation]
        ambiguous = await call(service, admin, operation, biz_token)
        named = await call(
            service, admin, operation, biz_token, request={**row.request, "params": {"client": "stranger"}}
        )
        assert ambiguous.status_code == 409, operation
        assert not ambiguous.content or ambiguous.json()["code"] == "several_clients"
        assert (named.status_code, (await call(service, own, operation, biz_token)).status_code) == (row.status,) * 2


PRIVATE = "private"
PERSON, NOBODY = "000000199001011234", "000000199001011235"


@pytest.fixture(scope="module")
async def shared(module_settings: Settings) -> AsyncIterator[Running]:
    """Yields the service with a rule of the client `owner`, and rules that are open to all clients."""
    rules = dict(module_settings.rules.rules) | {PRIVATE: RuleSettings(clients=["owner"], redirect_state=True)}
    async with running(changed(module_settings, rules=rules, accept_unknown_rules=False)) as started:
        yield started


@pytest.fixture(scope="module")
async def owner(shared: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with shared.client(await shared.key(*everything(), client="owner")) as client:
        yield client


@pytest.fixture(scope="module")
async def foreign_targets(owner: httpx.AsyncClient) -> Mapping[str, Target]:
    """Returns a verification of `owner` for each rule. No call with a key of another client changes it."""
    return {rule_id: await retrieve_for(owner, rule_id) for rule_id in (PRIVATE, STATEFUL)}


async def retrieve_for(api: httpx.AsyncClient, rule_id: str) -> Target:
    """Registers and retrieves a verification of the client `owner`."""
    biz_token, subject_ref = token(), f"loan-{rule_id}"
    await api.put(url(biz_token), json={"rule_id": rule_id, "subject_ref": subject_ref})
    await api.post(url(biz_token, "retrieve"))
    assert (await get(api, biz_token, wait=20))["state"] == "retrieved"
    identity = (await api.get(url(biz_token, "identity"))).json()
    return Target(biz_token, "owner", rule_id, subject_ref, identity["id_card"])


def made_up(rule_id: str) -> Target:
    return Target(token(), "nobody", rule_id, "loan-of-nobody", NOBODY)


def anonymous(answer: httpx.Response, target: Target) -> tuple[int, str, list[tuple[str, str]]]:
    """Returns a whole answer without what differs for each token and each moment."""
    texts = [answer.text, *(value for _, value in answer.headers.items())]
    for value in (target.biz_token, target.rule_id, target.subject_ref, target.id_card, target.client):
        texts = [text.replace(value, "…") for text in texts]
    body, *values = [RANDOM.sub("…", text) for text in texts]
    headers = [(name, value) for name, value in zip(answer.headers, values, strict=True)]
    # Each request leaves less of the rate.
    return answer.status_code, body, [header for header in headers if header[0] not in {"content-length", "ratelimit"}]


# Instants, and the states, nonces and key ids that the service makes up.
RANDOM = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z|[A-Za-z0-9_-]{80,}\.[A-Za-z0-9_-]{20,}|\b[0-9a-f]{32}\b|[0-9]{8}-[0-9]{6}"
)
COUNTING = ("get", "/metrics")


@pytest.mark.parametrize("known_rule", [PRIVATE, STATEFUL], ids=["rule of others", "shared rule"])
@pytest.mark.parametrize("operation", ABOUT_VERIFICATIONS, ids=" ".join)
async def test_answers_for_foreign_and_for_unknown_verifications_are_equal(
    shared: Running,
    owner: httpx.AsyncClient,
    foreign_targets: Mapping[str, Target],
    operation: Operation,
    known_rule: str,
) -> None:
    # A public redirect is recorded later, and may then change the verification.
    known = await retrieve_for(owner, known_rule) if operation in PUBLIC else foreign_targets[known_rule]
    for request in ROWS[operation].requests:
        # A client that has named the token before would have a verification of its own.
        stranger = f"stranger-{secrets.token_hex(4)}"
        key = None if operation in PUBLIC else await shared.key(*everything(), client=stranger)
        unknown = made_up("made-up" if known_rule == PRIVATE else known_rule)
        before = await owner.get(url(known.biz_token))

        foreign, nobodys = [await call(shared, key, operation, target, request=request) for target in (known, unknown)]

        if operation == COUNTING:
            assert known.biz_token not in foreign.text
            assert foreign.headers["Content-Type"] == nobodys.headers["Content-Type"]
        else:
            assert anonymous(foreign, known) == anonymous(nobodys, unknown), request
        assert (await owner.get(url(known.biz_token))).content == before.content


@pytest.mark.parametrize("operation", ABOUT_VERIFICATIONS, ids=" ".join)
async def test_operation_succeeds_for_own_verifications(
    shared: Running, owner: httpx.AsyncClient, operation: Operation
) -> None:
    scopes = [Scope.ADMIN] if ROWS[operation].scope is Scope.ADMIN else everything()
    key = None if operation in PUBLIC else await shared.key(*scopes, client="owner")
    target = await retrieve_for(owner, PRIVATE)

    assert (await call(shared, key, operation, target)).status_code == ROWS[operation].status


def test_every_operation_names_what_belongs_to_a_verification() -> None:
    assert [operation for operation in ABOUT_VERIFICATIONS if not ROWS[operation].requests] == []


async def test_token_that_another_client_names_first_stays_its_owners(service: Running) -> None:
    biz_token, views = token(), {}
    for client in ("thief", "owner"):
        async with service.client(await service.key(*everything(), client=client)) as api:
            answers = [await api.post("/v1/callbacks", json={"BizToken": biz_token})]
            answers.append(await api.put(url(biz_token), json={"subject_ref": client}))
            await get(api, biz_token, wait=20)
            answers.append(await api.get(url(biz_token, "identity")))
            views[client] = await get(api, biz_token)
        assert [answer.status_code for answer in answers] == [202, 200, 200], client

    assert {client: (view["client"], view["subject_ref"]) for client, view in views.items()} == {
        "thief": ("thief", "thief"),
        "owner": ("owner", "owner"),
    }
    assert [view["retrieval"]["attempts"] for view in views.values()] == [1, 1]


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
async def test_optional_key_must_be_valid_and_reveals_only_to_admins(shared_service: Running, path: str) -> None:
    keys = [await shared_service.key(*everything()), "unknown", await shared_service.key(Scope.ADMIN)]

    answers = [await call(shared_service, key, ("get", path), "any") for key in keys]

    assert [answer.status_code for answer in answers] == [200, 401, 200]
    assert ["faceid_paused" in answer.text or '"warnings":[' in answer.text for answer in answers] == [
        False,
        False,
        True,
    ]


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

    fields = {"client", "biz_token", "rule_id", "subject_ref", "state", "retrieval", "registered_at", "received_at"}
    assert [set(answer.json()) for answer in answers] == [
        fields | {"retrieved_at"},
        {"biz_token", "state", "received_at"},
        fields | {"retrieved_at"},
    ]
