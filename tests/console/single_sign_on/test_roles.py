"""The roles of people: which claims give which rights, and who is refused."""

from pathlib import Path

import pytest

from app.console.visits import COOKIE
from app.domain.audit import AuditFilter, AuditRecord
from tests.support.console import browser, words_of
from tests.support.oidc import CLAIM, FLOW, NOT_VALID, SETTINGS, Provider, signed_in
from tests.support.service import Running, actor, running, settings_for
from tests.support.simulator import LiveSimulator

NO_ROLE = "you have no permission here"


async def records(service: Running) -> list[AuditRecord]:
    """Returns the rows of the audit, oldest first."""
    await service.services.audit.aclose()
    page = await service.services.audit.search(actor(), AuditFilter(), None, limit=200, cursor=None)
    return [record for record, _ in reversed(page.records)]


@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)
async def test_person_with_a_role_gets_a_session_and_the_audit_the_person(service: Running, provider: Provider) -> None:
    provider.claims = {"sub": "248289761001", "name": " Anna\u202e\x00  Example "}
    async with browser(service) as client:
        answer = await signed_in(client, provider, "/admin/audit?action=sign_in")
        page = await client.get(answer.headers["Location"])
        end = await client.post("/admin/logout")
        after = await client.get("/admin")
    rows = [(row.action, row.who, row.key_id, row.client, row.outcome) for row in await records(service)]

    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/audit?action=sign_in")
    cookies = answer.headers.get_list("Set-Cookie")
    assert cookies[0].startswith(f"{COOKIE}=")
    assert cookies[0].endswith("; HttpOnly; Max-Age=14400; Path=/; SameSite=lax; Secure")
    assert cookies[1].startswith(f'{FLOW}=""; expires=')
    assert "Anna Example" in words_of(page)
    assert "oidc:248289761001" in words_of(page)
    assert (end.status_code, after.status_code) == (303, 303)
    person = ("Anna Example", "oidc:248289761001", "default")
    assert rows == [("sign_in", *person, "done"), ("sign_out", *person, "done")]
    assert provider.paths == ["/.well-known/openid-configuration", "/token", "/jwks"]


@pytest.mark.parametrize(
    ("values", "client", "scopes"),
    [
        ("faceid-admins", "default", ["admin"]),
        (["support"], "shop", ["results:read"]),
        (["x", "reviewers", "support"], "shop", ["results:read", "results:reveal"]),
        (["bank", "support"], "shop", ["results:read"]),
        (["bank"], "bank", ["results:read", "media:read"]),
        (["bank", "faceid-admins"], "default", ["admin"]),
    ],
    ids=str,
)
async def test_values_of_the_claim_decide_client_and_scopes(
    service: Running, provider: Provider, values: object, client: str, scopes: list[str]
) -> None:
    provider.claims = {CLAIM: values}
    async with browser(service) as visitor:
        await signed_in(visitor, provider)
        found = await service.services.sessions.find(visitor.cookies[COOKIE], address=None, request_id="r")

    assert (found.caller.client, sorted(found.caller.scopes)) == (client, sorted(scopes))
    assert (found.caller.id, found.caller.name, found.session.key_id) == ("oidc:person-1", "oidc:person-1", None)


@pytest.mark.parametrize("values", [None, [], "", ["faceid-admin"], ["FACEID-ADMINS"], [1, {}], {"a": 1}, "support,x"])
async def test_person_without_a_role_is_refused_and_named_in_the_audit(
    service: Running, provider: Provider, values: object
) -> None:
    provider.claims, provider.user_info = {CLAIM: values}, {"sub": "person-1"}
    async with browser(service) as client:
        answer = await signed_in(client, provider)
    rows = [(row.action, row.key_id, row.outcome) for row in await records(service)]

    assert (answer.status_code, NO_ROLE in words_of(answer)) == (403, True)
    assert COOKIE not in client.cookies
    assert rows == [("authentication", "oidc:person-1", "oidc_role")]
    assert "person-1" not in answer.text


async def test_refused_people_of_one_network_are_recorded_once_each(service: Running, provider: Provider) -> None:
    async with browser(service) as client:
        for person in ("person-1", "person-2", "person-1"):
            provider.claims = {CLAIM: [], "sub": person}
            await signed_in(client, provider)
    rows = [(row.key_id, row.outcome) for row in await records(service)]

    assert rows == [("oidc:person-1", "oidc_role"), ("oidc:person-2", "oidc_role")]


async def test_nobody_has_a_role_by_default(tmp_path: Path, faceid: LiveSimulator, provider: Provider) -> None:
    provider.claims = {CLAIM: ["", "admin", "*"]}
    values = SETTINGS | {"oidc_admin_values": ""}
    settings = settings_for(tmp_path, faceid.url, oidc_issuer=provider.url, **values)
    async with running(settings, with_worker=False) as service, browser(service) as client:
        answer = await signed_in(client, provider)

    assert answer.status_code == 403


async def test_claims_that_the_id_token_lacks_come_from_the_user_info(service: Running, provider: Provider) -> None:
    provider.claims = {CLAIM: None}
    provider.user_info = {"sub": "person-1", CLAIM: ["support"], "preferred_username": "anna"}
    async with browser(service) as client:
        await signed_in(client, provider)
        found = await service.services.sessions.find(client.cookies[COOKIE], address=None, request_id="r")
        provider.user_info["sub"] = "person-2"
        other = await signed_in(client, provider)

    assert (found.caller.name, found.caller.client) == ("anna", "shop")
    assert (other.status_code, NOT_VALID in words_of(other)) == (401, True)


async def test_provider_without_user_info_needs_its_claims_in_the_token(service: Running, provider: Provider) -> None:
    provider.claims, provider.metadata = {CLAIM: None}, {"userinfo_endpoint": None}
    async with browser(service) as client:
        answer = await signed_in(client, provider)

    assert answer.status_code == 403


async def test_role_limits_what_a_person_sees_and_does(service: Running, provider: Provider) -> None:
    provider.claims = {CLAIM: ["support"]}
    async with browser(service) as client:
        await signed_in(client, provider)
        found = {path: (await client.get(path)).status_code for path in ("/admin", "/admin/audit", "/admin/settings")}
        form = await client.post("/admin/keys", data={"name": "x", "client": "shop", "days": "1"})

    assert found == {"/admin": 200, "/admin/audit": 403, "/admin/settings": 403}
    assert form.status_code == 403
