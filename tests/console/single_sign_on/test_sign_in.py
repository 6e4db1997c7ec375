"""The sign-in at the provider: how it begins, where it leads, and what the log and the pages show of it."""

import asyncio
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.console import BASE, browser, words_of
from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, FLOW, Provider, signed_in
from tests.support.service import Running, running, settings_for
from tests.support.simulator import LiveSimulator


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
