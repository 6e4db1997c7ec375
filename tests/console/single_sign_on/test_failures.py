"""A provider or a database that fails during the sign-in."""

import json
from collections.abc import Callable

import pytest

from app.domain.api_key import Scope
from app.errors import UnavailableError
from app.services.sessions import SessionService
from tests.support.console import audited, browser, words_of
from tests.support.oidc import CLAIM, Provider, json_answer, shown, signed_in
from tests.support.receiver import answer
from tests.support.service import Running


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
