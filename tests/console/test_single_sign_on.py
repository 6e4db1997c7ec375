"""Sign-in with OpenID Connect: who gets in with which rights, and which answers are refused."""

import asyncio
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from sqlalchemy import update

from app.config import Settings
from app.console.visits import COOKIE
from app.domain.api_key import Scope
from app.domain.audit import AuditFilter, AuditRecord
from app.domain.session import GRANTED_LIFETIME
from app.domain.single_sign_on import FLOW_LIFETIME
from app.errors import UnavailableError
from app.sealing.keyring import KeyRing
from app.services.sessions import SessionService
from app.storage.tables import console_session
from tests.support.clocks import ShiftedClock
from tests.support.console import BASE, audited, browser, words_of
from tests.support.oidc import (
    CLAIM,
    CLIENT_ID,
    CLIENT_SECRET,
    SETTINGS,
    Provider,
    json_answer,
    new_key,
    providing,
    shown,
    signed_in,
    unsigned,
)
from tests.support.receiver import answer
from tests.support.service import Running, actor, running, settings_for
from tests.support.simulator import LiveSimulator

FLOW = "__Host-sign-in"
ROLES = {
    "support": {"client": "shop", "scopes": ["results:read"]},
    "reviewers": {"client": "shop", "scopes": ["results:read", "results:reveal"]},
    "bank": {"client": "bank", "scopes": ["results:read", "media:read"]},
}
NOT_VALID = "The answer of your organisation's sign-in is not valid."
NO_ROLE = "you have no permission here"
ELSEWHERE = "took longer than ten minutes, or began in another browser"
CLOCKS = "The clocks of this service and of your organisation's sign-in differ."


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with providing() as started:
        yield started


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Returns the URL of a database, on SQLite unless a test says otherwise."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def settings(tmp_path: Path, database_url: str, faceid: LiveSimulator, provider: Provider) -> Settings:
    KeyRing.create(tmp_path / "keyring.json")
    values = SETTINGS | {"database_url": database_url, "oidc_roles": ROLES}
    return settings_for(tmp_path, faceid.url, oidc_issuer=provider.url, **values)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings, with_worker=False) as started:
        yield started


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


async def test_request_to_the_provider_has_fresh_secrets_and_a_challenge(service: Running, provider: Provider) -> None:
    async with browser(service) as client:
        begins = [await client.get("/admin/login/oidc") for _ in range(2)]
    queries = [dict(parse_qsl(urlsplit(begin.headers["Location"]).query)) for begin in begins]
    random = [query.pop(name) for query in queries for name in ("state", "nonce", "code_challenge")]

    assert begins[0].headers["Location"].startswith(f"{provider.url}/authorize?")
    assert queries[0] == {
        "tenant": "1",
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": f"{BASE}/admin/login/oidc/callback",
        "scope": "openid profile",
        "code_challenge_method": "S256",
    }
    assert len({*random}) == 6
    assert {len(text) for text in random} == {43}
    flow = begins[0].headers["Set-Cookie"]
    assert flow.startswith(f"{FLOW}=")
    assert flow.endswith("; HttpOnly; Max-Age=600; Path=/; SameSite=lax; Secure")
    assert not any(text in flow for text in random)
    assert provider.paths == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    ("site", "begins"),
    [("same-origin", True), ("none", True), (None, True), ("same-site", False), ("cross-site", False)],
)
async def test_other_sites_cannot_begin_a_session(
    service: Running, provider: Provider, site: str | None, *, begins: bool
) -> None:
    headers = {"Sec-Fetch-Site": site} if site else {}
    async with browser(service, headers) as client:
        answer = await client.get("/admin/login/oidc?next=/admin/audit")

    place = answer.headers["Location"]
    assert place.startswith(provider.url) is begins
    assert begins or place == "/admin/login?next=%2Fadmin%2Faudit"


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


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"])
async def test_allowed_algorithms_are_accepted(service: Running, provider: Provider, algorithm: str) -> None:
    if algorithm != "ES256":
        is_rsa = algorithm.endswith("S256")
        provider.key = RSAKey.generate_key(2048) if is_rsa else OKPKey.generate_key("Ed25519")
        provider.key.ensure_kid()
        provider.published[:] = [provider.key]
    provider.algorithm, provider.header = algorithm, {"typ": "JWT", "x-vendor": "1"}
    async with browser(service) as client:
        answer = await signed_in(client, provider)

    assert answer.status_code == 303


Change = Callable[[Provider], None]


def with_claims(**claims: object) -> Change:
    """Returns a change of the claims. A function gets the time in seconds."""

    def change(provider: Provider) -> None:
        provider.claims = {name: made(time.time()) if callable(made) else made for name, made in claims.items()}

    return change


def with_header(**header: object) -> Change:
    return lambda provider: provider.header.update(header)


def without_signature(provider: Provider) -> None:
    claims = {"iss": provider.url, "sub": "x", "aud": CLIENT_ID, "exp": time.time() + 60, "iat": time.time()}
    provider.token = unsigned({"alg": "none"}, claims) + "."


def with_hmac(secret: Callable[[Provider], bytes]) -> Change:
    def change(provider: Provider) -> None:
        text = unsigned({"alg": "HS256", "kid": "first"}, {"iss": provider.url, "sub": "x", "aud": CLIENT_ID})
        signature = OctKey.import_key(hmac.digest(secret(provider), text.encode(), "sha256")).as_dict()["k"]
        provider.token = f"{text}.{signature}"

    return change


def with_another_key(provider: Provider) -> None:
    provider.key = new_key("first")


def with_a_symmetric_key(provider: Provider) -> None:
    provider.published.append(OctKey.import_key("0" * 32, {"kid": "shared"}))
    text = unsigned({"alg": "HS256", "kid": "shared"}, {"iss": provider.url, "sub": "x", "aud": CLIENT_ID})
    provider.token = f"{text}.{OctKey.import_key(hmac.digest(b'0' * 32, text.encode(), 'sha256')).as_dict()['k']}"


def with_an_embedded_key(provider: Provider) -> None:
    provider.key = new_key("mine")
    provider.header = {"kid": None, "jwk": provider.key.as_dict(private=False)}


def with_an_encryption_key(provider: Provider) -> None:
    provider.key = ECKey.generate_key("P-256", {"kid": "second"})
    provider.published.append(ECKey.import_key(provider.key.as_dict(private=False), {"use": "enc"}))


def with_token(token: str) -> Change:
    return lambda provider: setattr(provider, "token", token)


WRONG_TOKENS: dict[str, tuple[Change, str]] = {
    "no signature": (without_signature, "oidc_token"),
    "HMAC with the secret of the client": (with_hmac(lambda _: CLIENT_SECRET.encode()), "oidc_token"),
    "HMAC with the public key": (
        with_hmac(lambda provider: json.dumps(provider.key.as_dict(private=False)).encode()),
        "oidc_token",
    ),
    "HMAC with a published key": (with_a_symmetric_key, "oidc_token"),
    "signature of another key": (with_another_key, "oidc_token"),
    "key in the header": (with_an_embedded_key, "oidc_token"),
    "key for encryption": (with_an_encryption_key, "oidc_key"),
    "algorithm that the key is not for": (with_header(alg="RS256"), "oidc_token"),
    "unknown kid": (with_header(kid="unknown"), "oidc_key"),
    "unknown critical header": (with_header(crit=["b"], b=1), "oidc_token"),
    "access token": (with_header(typ="at+jwt"), "oidc_token"),
    "logout token": (with_header(typ="logout+jwt"), "oidc_token"),
    "not a token": (with_token("x"), "oidc_token"),
    "not JSON": (with_token("eyJhbGciOiJFUzI1NiJ9.e30.!"), "oidc_token"),
    "another issuer": (with_claims(iss="https://other.test"), "oidc_token"),
    "no issuer": (with_claims(iss=None), "oidc_token"),
    "another audience": (with_claims(aud="other"), "oidc_token"),
    "other audiences": (with_claims(aud=["other", "another"]), "oidc_token"),
    "no audience": (with_claims(aud=None), "oidc_token"),
    "further audience without azp": (with_claims(aud=[CLIENT_ID, "other"]), "oidc_token"),
    "another azp": (with_claims(azp="other"), "oidc_token"),
    "another nonce": (with_claims(nonce="other"), "oidc_token"),
    "no nonce": (with_claims(nonce=None), "oidc_token"),
    "no subject": (with_claims(sub=None), "oidc_token"),
    "empty subject": (with_claims(sub=""), "oidc_token"),
    "subject that is a number": (with_claims(sub=1), "oidc_token"),
    "subject of two lines": (with_claims(sub="a\nb"), "oidc_token"),
    "long subject": (with_claims(sub="a" * 251), "oidc_token"),
    "expired": (with_claims(exp=lambda now: now - 61), "oidc_clock"),
    "no expiry": (with_claims(exp=None), "oidc_clock"),
    "expiry as a text": (with_claims(exp="2999"), "oidc_clock"),
    "from the future": (with_claims(iat=lambda now: now + 90), "oidc_clock"),
    "old": (with_claims(iat=lambda now: now - 700), "oidc_clock"),
    "no time of issue": (with_claims(iat=None), "oidc_clock"),
    "not valid yet": (with_claims(nbf=lambda now: now + 90), "oidc_clock"),
}


@pytest.mark.parametrize("name", WRONG_TOKENS)
async def test_wrong_id_token_opens_no_session(service: Running, provider: Provider, name: str) -> None:
    change, reason = WRONG_TOKENS[name]
    change(provider)
    async with browser(service) as client:
        answer = await signed_in(client, provider)
    rows = await audited(service)

    assert answer.status_code == 401
    assert (CLOCKS if reason == "oidc_clock" else NOT_VALID) in words_of(answer)
    assert COOKIE not in client.cookies
    assert rows == [("authentication", "", None, reason)]


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": [CLIENT_ID]},
        {"aud": [CLIENT_ID, "other"], "azp": CLIENT_ID},
        {"azp": CLIENT_ID},
        {"nbf": 0},
        {"exp": lambda now: now - 30},
        {"iat": lambda now: now + 30},
    ],
    ids=lambda claims: next(iter(claims)),
)
async def test_claims_within_the_rules_are_accepted(
    service: Running, provider: Provider, claims: dict[str, object]
) -> None:
    with_claims(**claims)(provider)
    async with browser(service) as client:
        answer = await signed_in(client, provider)

    assert answer.status_code == 303


@pytest.mark.parametrize(
    ("changes", "status", "sentence", "reason"),
    [
        ({"state": "other"}, 401, ELSEWHERE, "oidc_state"),
        ({"state": None}, 401, ELSEWHERE, "oidc_state"),
        ({"iss": "https://other.test"}, 401, NOT_VALID, "oidc_answer"),
        ({"iss": None}, 401, NOT_VALID, "oidc_answer"),
        ({"code": None}, 401, NOT_VALID, "oidc_answer"),
        ({"code": "x" * 5000}, 401, NOT_VALID, "oidc_answer"),
        ({"code": "forged"}, 401, NOT_VALID, "oidc_code"),
        ({"error": "access_denied", "error_description": "Anna <b>"}, 403, "was cancelled or denied", "oidc_denied"),
        ({"error": "server_error", "code": None}, 401, NOT_VALID, "oidc_answer"),
        ({"error": "access_denied", "state": "other"}, 401, ELSEWHERE, "oidc_state"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_wrong_answer_of_the_browser_opens_no_session(
    service: Running, provider: Provider, changes: dict[str, str | None], status: int, sentence: str, reason: str
) -> None:
    async with browser(service) as client:
        answer = await signed_in(client, provider, "", **changes)
    rows = await audited(service)

    assert (answer.status_code, sentence in words_of(answer)) == (status, True)
    assert COOKIE not in client.cookies
    assert FLOW not in client.cookies
    assert rows == [("authentication", "", None, reason)]
    assert "Anna" not in answer.text


async def test_provider_that_does_not_announce_its_issuer_may_leave_it_out(
    service: Running, provider: Provider
) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": False}
    async with browser(service) as client:
        answers = [await signed_in(client, provider, iss=issuer) for issuer in (None, "https://other.test")]

    assert [answer.status_code for answer in answers] == [303, 401]


async def test_answer_is_bound_to_its_browser_and_used_once(service: Running, provider: Provider) -> None:
    async with browser(service) as client, browser(service) as victim:
        begin = await client.get("/admin/login/oidc")
        flow = client.cookies[FLOW]
        url = provider.approve(begin.headers["Location"])
        elsewhere = await shown(victim, await victim.get(url))
        await victim.get("/admin/login/oidc")
        forged = await shown(victim, await victim.get(url))
        first = await client.get(url)
        again = await shown(client, await client.get(url))
        replayed = await shown(client, await client.get(url, headers={"Cookie": f"{FLOW}={flow}"}))

    assert [answer.status_code for answer in (elsewhere, forged, first, again, replayed)] == [401, 401, 303, 401, 401]
    assert all(ELSEWHERE in words_of(answer) for answer in (elsewhere, forged, again, replayed))
    assert provider.paths.count("/token") == 1


@pytest.mark.parametrize("flow", ["", "x", "!", "密", "AAAA", "A" * 100, "A" * 5000])
async def test_forged_flow_is_refused(service: Running, provider: Provider, flow: str) -> None:
    async with browser(service) as client:
        headers = {b"Cookie": f"{FLOW}={flow}".encode()}
        answer = await shown(client, await client.get("/admin/login/oidc/callback?code=1&state=", headers=headers))

    assert (answer.status_code, provider.paths) == (401, [])


@asynccontextmanager
async def clocked(settings: Settings) -> AsyncIterator[tuple[Running, ShiftedClock]]:
    clock = ShiftedClock()
    async with running(settings, with_worker=False, clock=clock) as service:
        yield service, clock


async def test_sign_in_that_takes_too_long_begins_again(settings: Settings, provider: Provider) -> None:
    async with clocked(settings) as (service, clock), browser(service) as client:
        begin = await client.get("/admin/login/oidc")
        clock.ahead += FLOW_LIFETIME
        answer = await shown(client, await client.get(provider.approve(begin.headers["Location"])))

    assert (answer.status_code, ELSEWHERE in words_of(answer)) == (401, True)
    assert provider.paths == ["/.well-known/openid-configuration"]


async def test_session_of_a_person_ends_after_its_lifetime_however_much_it_is_used(
    settings: Settings, provider: Provider
) -> None:
    async with clocked(settings) as (service, clock), browser(service) as client:
        await signed_in(client, provider)
        found = []
        while clock.ahead < GRANTED_LIFETIME:
            found.append((await client.get("/admin")).status_code)
            clock.ahead += timedelta(minutes=20)
        end = await client.get("/admin")

    assert found == [200] * 12
    assert (end.status_code, end.headers["Location"]) == (303, "/admin/login")


@pytest.mark.parametrize(
    "change",
    [{"oidc_admin_values": "others"}, {"oidc_roles": {}}, {"oidc_issuer": None}, {"oidc_client_id": "other"}],
    ids=lambda change: next(iter(change)),
)
async def test_sessions_of_people_end_when_the_roles_change(
    settings: Settings, provider: Provider, change: dict[str, object]
) -> None:
    async with running(settings, with_worker=False) as service, browser(service) as client:
        await signed_in(client, provider)
        cookies = {COOKIE: client.cookies[COOKIE]}
    other = replace(settings, oidc=settings.oidc.model_copy(update=change))
    found = []
    for each in (settings, other):
        async with running(each, with_worker=False) as service, browser(service) as client:
            client.cookies.update(cookies)
            found.append((await client.get("/admin")).status_code)

    assert found == [200, 303]


async def test_session_of_a_person_that_was_changed_in_the_database_ends(service: Running, provider: Provider) -> None:
    provider.claims = {CLAIM: ["support"]}
    async with browser(service) as client:
        await signed_in(client, provider)
        async with service.services.database.write() as tx:
            await tx.connection.execute(update(console_session).values(scopes=[Scope.ADMIN]))
        answer = await client.get("/admin")

    assert answer.status_code == 303


async def test_role_limits_what_a_person_sees_and_does(service: Running, provider: Provider) -> None:
    provider.claims = {CLAIM: ["support"]}
    async with browser(service) as client:
        await signed_in(client, provider)
        found = {path: (await client.get(path)).status_code for path in ("/admin", "/admin/audit", "/admin/settings")}
        form = await client.post("/admin/keys", data={"name": "x", "client": "shop", "days": "1"})

    assert found == {"/admin": 200, "/admin/audit": 403, "/admin/settings": 403}
    assert form.status_code == 403


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/admin/verifications?q=x", "/admin/verifications?q=x"),
        ("https://evil.test/", "/admin"),
        ("//evil.test/", "/admin"),
        ("/admin/\\evil.test", "/admin"),
        ("/admin/login/oidc", "/admin"),
        ("/admin/" + "x" * 2000, "/admin"),
        ("/admin/" + "密" * 1000, "/admin"),
    ],
    ids=lambda text: text[:30],
)
async def test_sign_in_leads_to_pages_of_the_console_only(
    service: Running, provider: Provider, wanted: str, place: str
) -> None:
    async with browser(service) as client:
        answer = await signed_in(client, provider, wanted)

    assert (answer.status_code, answer.headers["Location"]) == (303, place)


def redirect(_: Provider) -> bytes:
    return answer(302, location="https://other.test")


def large(provider: Provider) -> bytes:
    return answer(200, json.dumps(provider.document()).encode() + b" " * 300_000)


BROKEN: dict[str, tuple[str, Callable[[Provider], bytes | None]]] = {
    "discovery fails": ("/.well-known/openid-configuration", lambda _: answer(500)),
    "discovery redirects": ("/.well-known/openid-configuration", redirect),
    "discovery is no JSON": ("/.well-known/openid-configuration", lambda _: answer(200, b"<html>")),
    "discovery is nested": ("/.well-known/openid-configuration", lambda _: answer(200, b"[" * 100_000)),
    "discovery is large": ("/.well-known/openid-configuration", large),
    "discovery is of another issuer": (
        "/.well-known/openid-configuration",
        lambda provider: json_answer(provider.document() | {"issuer": f"{provider.url}/"}),
    ),
    "discovery leads to plain HTTP": (
        "/.well-known/openid-configuration",
        lambda provider: json_answer(provider.document() | {"token_endpoint": "http://other.test/token"}),
    ),
    "discovery is no HTTP": ("/.well-known/openid-configuration", lambda _: b"nonsense\r\n\r\n"),
    "keys fail": ("/jwks", lambda _: answer(503)),
    "keys are malformed": ("/jwks", lambda _: json_answer({"keys": [1]})),
    "tokens fail": ("/token", lambda _: answer(502)),
    "tokens lack the ID token": ("/token", lambda _: json_answer({"access_token": "x"})),
    "client is unknown": ("/token", lambda _: json_answer({"error": "invalid_client"}, 401)),
    "refusal is malformed": ("/token", lambda _: answer(400, b"no")),
    "user info fails": ("/userinfo", lambda _: answer(500)),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_provider_leaves_the_sign_in_by_key(service: Running, provider: Provider, name: str) -> None:
    path, reply = BROKEN[name]
    provider.claims = {CLAIM: None}
    provider.user_info = {"sub": "person-1", CLAIM: "support"}
    provider.replies[path] = reply(provider)
    key = await service.key(Scope.RESULTS_READ)
    async with browser(service) as client:
        begin = await client.get("/admin/login/oidc")
        place = begin.headers["Location"]
        page = await shown(client, begin if place.startswith("/") else await client.get(provider.approve(place)))
        by_key = await client.post("/admin/login", data={"key": key})
        provider.replies.clear()
        later = await signed_in(client, provider)
    rows = await audited(service)

    assert (page.status_code, "does not answer" in words_of(page)) == (503, True)
    assert 'name="key"' in page.text
    assert (by_key.status_code, later.status_code) == (303, 303)
    assert [(action, outcome) for action, _, _, outcome in rows] == [("sign_in", "done")] * 2


async def test_code_is_in_no_address_if_the_database_fails(
    service: Running, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> str:
        raise UnavailableError("The database does not answer.")

    monkeypatch.setattr(SessionService, "open", fail)
    async with browser(service) as client:
        begin = await client.get("/admin/login/oidc")
        answer = await client.get(provider.approve(begin.headers["Location"]))
        page = await shown(client, answer)

    assert answer.headers["Location"] == "/admin/login?problem=database"
    assert (page.status_code, "A database or store does not answer" in words_of(page)) == (503, True)


async def test_network_with_failed_attempts_must_wait(service: Running, provider: Provider) -> None:
    async with browser(service) as client:
        statuses = [(await signed_in(client, provider, code="forged")).status_code for _ in range(6)]
        good = await signed_in(client, provider)
    rows = await audited(service)

    assert statuses == [401] * 5 + [429]
    assert good.status_code == 429
    assert rows == [("authentication", "", None, "oidc_code")]
    assert provider.paths.count("/token") == 5


async def test_answers_that_other_sites_send_use_up_no_attempts(service: Running, provider: Provider) -> None:
    async with browser(service) as client:
        url = "/admin/login/oidc/callback?code=1&state=1"
        forged = [(await shown(client, await client.get(url))).status_code for _ in range(6)]
        forged += [(await signed_in(client, provider, state="x")).status_code for _ in range(6)]
        good = await signed_in(client, provider)
    rows = await audited(service)

    assert (forged, good.status_code) == ([401] * 12, 303)
    assert [outcome for _, _, _, outcome in rows] == ["oidc_state", "done"]


async def test_sign_ins_at_the_same_time_share_discovery_and_keys(service: Running, provider: Provider) -> None:
    async def one() -> int:
        async with browser(service) as client:
            return (await signed_in(client, provider)).status_code

    statuses = await asyncio.gather(*(one() for _ in range(20)))

    assert statuses == [303] * 20
    assert {path: provider.paths.count(path) for path in ("/.well-known/openid-configuration", "/jwks")} == {
        "/.well-known/openid-configuration": 1,
        "/jwks": 1,
    }


async def test_page_links_to_the_provider(service: Running) -> None:
    async with browser(service) as client:
        page = await client.get("/admin/login?next=/admin/audit")
        chinese = await client.get("/admin/login?lang=zh")

    assert f'href="{BASE}/admin/login/oidc?next=%2Fadmin%2Faudit"' in page.text
    assert "Sign in with your organisation" in words_of(page)
    assert "用单位账号登录" in words_of(chinese)


async def test_sign_in_at_a_provider_exists_only_where_it_is_configured(tmp_path: Path, faceid: LiveSimulator) -> None:
    settings = settings_for(tmp_path, faceid.url)
    async with running(settings, with_worker=False) as service, browser(service) as client:
        page = await client.get("/admin/login")
        statuses = [(await client.get(f"/admin/login/oidc{end}")).status_code for end in ("", "/callback")]

    assert "oidc" not in page.text
    assert statuses == [404, 404]


async def test_log_has_no_secret_and_no_name(
    service: Running, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    provider.claims = {"name": "Anna Example"}
    async with browser(service) as client:
        begin = await client.get("/admin/login/oidc")
        flow, url = client.cookies[FLOW], provider.approve(begin.headers["Location"])
        secrets = [value for name, value in parse_qsl(urlsplit(url).query) if name in {"code", "state"}]
        secrets += [flow, CLIENT_SECRET, "Anna"]
        good = await client.get(url)
        provider.claims = {"nonce": "wrong", "name": "Anna Example"}
        bad = await signed_in(client, provider)
    logged = "".join(capsys.readouterr())

    assert (good.status_code, bad.status_code) == (303, 401)
    assert "route=/admin/login/oidc/callback" in re.sub("\x1b[^m]*m", "", logged)
    assert "fault" in logged
    assert [secret for secret in secrets if secret in logged] == []


async def test_settings_page_shows_the_provider_without_the_secret(service: Running, provider: Provider) -> None:
    async with browser(service) as client:
        await signed_in(client, provider)
        page = await client.get("/admin/settings")

    assert f"OIDC_ISSUER {provider.url}" in words_of(page)
    assert "OIDC_CLIENT_SECRET set, not shown" in words_of(page)
    assert CLIENT_SECRET not in page.text
    assert "oidc_roles.support" in words_of(page)
