"""All pages over HTTP: language, theme and policy, rejected requests, crashes, and the data of other clients."""

import re
from html import unescape

import httpx
import pytest
from fastapi import APIRouter

from app.console.visits import PageRoute
from app.domain.api_key import Scope
from simulator.people import person_of
from tests.console.conftest import Console
from tests.support.api import call_back
from tests.support.console import LIST, browser, path, visiting, words_of
from tests.support.service import Running, everything, running, settings_for

PAGES = {
    "/admin": ("Overview", "概览"),
    "/admin/verifications": ("Verifications", "核身记录"),
    "/admin/verifications/{failed}": ("Verdict", "核身结论"),
    "/admin/webhook-endpoints": ("Create an endpoint", "新建接收地址"),
    "/admin/webhook-endpoints/{endpoint}": ("Rotate the secret", "更换签名密钥"),
    "/admin/webhook-endpoints/{endpoint}/deliveries": ("Last answer", "最近应答"),
    "/admin/webhook-endpoints/{endpoint}/replay": ("Send events again", "重新投递事件"),
    "/admin/deliveries/{delivery}": ("Body of the event", "事件内容"),
    "/admin/events": ("Events are kept for 30 days", "事件保存 30 天"),
    "/admin/audit": ("Purpose and fields", "用途与字段"),
    "/admin/keys": ("Create a key", "新建密钥"),
    "/admin/health": ("Tencent accounts", "腾讯云账号"),
    "/admin/settings": ("In effect for this process", "本进程正在使用的设置"),
    "/admin/login": ("Sign in", "登录"),
    "/admin/nothing": ("There is no such page", "页面不存在"),
}
THEMES = ("system", "light", "dark")
INLINE = re.compile(
    r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:|hx-on|(?:src|href|action)=\"(?:https?:)?//"
)
MAX_BYTES = 60_000
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize("template", PAGES)
async def test_page_is_shown_in_both_languages(console: Console, admin: httpx.AsyncClient, template: str) -> None:
    url = template.format(**{name: getattr(console, name) for name in ("failed", "endpoint", "delivery")})
    english, chinese = [await admin.get(url, params={"lang": language}) for language in ("en", "zh")]
    persons = [person_of(biz_token) for biz_token in (console.passed, console.failed)]

    assert {english.status_code, chinese.status_code} == {404 if "nothing" in template else 200}
    assert [words in words_of(page) for page, words in zip((english, chinese), PAGES[template], strict=True)] == [
        True
    ] * 2
    assert [re.findall('<html lang="([^"]+)"', page.text) for page in (english, chinese)] == [["en"], ["zh-CN"]]
    for page in (english, chinese):
        assert INLINE.search(page.text) is None
        assert len(page.content) < MAX_BYTES
        assert page.headers["Referrer-Policy"] == "same-origin"
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 's")
        assert page.headers["Cache-Control"] == "no-store"
        assert not any(text in page.text for person in persons for text in (person.id_card, person.name))


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        (None, "en-GB,en;q=0.9", "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        (None, "fr-FR,en;q=0.5", "en"),
        (None, "fr", "zh-CN"),
        (None, "", "zh-CN"),
        ("en", "zh-CN", "en"),
        ("xx", "en", "en"),
    ],
)
async def test_language_is_the_cookies_then_the_browsers_then_chinese(
    console: Console, cookie: str | None, accepted: str, language: str
) -> None:
    headers = {"Accept-Language": accepted} | ({"Cookie": f"__Host-lang={cookie}"} if cookie else {})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(console.service.app), base_url="https://c") as client:
        page = await client.get("/admin/login", headers=headers)

    assert f'<html lang="{language}">' in page.text


async def test_switch_of_the_language_is_remembered(admin: httpx.AsyncClient) -> None:
    await admin.get("/admin/keys", params={"lang": "zh"})

    assert "新建密钥" in (await admin.get("/admin/keys")).text


async def test_theme_is_chosen_by_a_link_and_remembered(admin: httpx.AsyncClient) -> None:
    before = await admin.get("/admin/keys", params={"done": "revoke"})
    (dark,) = re.findall(r'href="([^"]+theme=dark)"', before.text)
    chosen = await admin.get(unescape(dark))
    after = await admin.get("/admin/health", params={"theme": "none"})
    system = await admin.get("/admin/health", params={"theme": "system"})

    assert unescape(dark) == "/admin/keys?done=revoke&theme=dark"
    assert [
        re.findall(r'<html[^>]*data-theme="(\w+)"|name="color-scheme" content="([^"]+)"', page.text)
        for page in (before, chosen, after, system)
    ] == [[("", "light dark")], [("dark", ""), ("", "dark")], [("dark", ""), ("", "dark")], [("", "light dark")]]
    assert re.findall(r'theme=(\w+)" aria-current', after.text) == ["dark"]


async def test_switches_of_a_page_that_answers_a_form_lead_to_the_page_of_the_form(
    console: Console, admin: httpx.AsyncClient
) -> None:
    endpoint = f"/admin/webhook-endpoints/{console.endpoint}"
    forms = {
        f"{LIST}/search": ({"id_card": "110101199001011237"}, LIST),
        "/admin/keys": ({"name": ""}, "/admin/keys"),
        "/admin/webhook-endpoints": ({"url": ""}, "/admin/webhook-endpoints"),
        f"{endpoint}/change": ({"url": ""}, endpoint),
        f"{endpoint}/rotate": ({}, "/admin"),
        "/admin/login": ({"key": "wrong"}, "/admin/login"),
    }
    answers = {url: await admin.post(url, data=data) for url, (data, _) in forms.items()}
    switches = {url: re.findall(r'href="([^"]+[?&](?:lang|theme)=\w+)"', page.text) for url, page in answers.items()}

    assert switches == {
        url: [f"{place}?{choice}" for choice in (*(f"theme={each}" for each in THEMES), "lang=zh", "lang=en")]
        for url, (_, place) in forms.items()
    }
    assert {(await admin.get(unescape(link))).status_code for links in switches.values() for link in links} == {200}


async def test_visitor_sees_its_own_client_only(idle_service: Running) -> None:
    async with idle_service.client(await idle_service.key(*everything(), client="bank")) as api:
        foreign = await call_back(api)
    async with visiting(idle_service, await idle_service.key(*everything(), client="shop")) as client:
        pages = [await client.get(path(foreign)), await client.get(path("unknown"))]
        named = await client.get(path(foreign), params={"client": "bank"})
        listed = await client.get(LIST)
        menu = await client.get("/admin")
        refused = [await client.get(f"/admin/{name}") for name in ("audit", "keys", "health", "settings")]
    async with visiting(idle_service, await idle_service.key(Scope.ADMIN, client="shop")) as admin:
        seen = await admin.get(LIST)

    assert [page.status_code for page in (*pages, named)] == [404, 404, 403]
    assert foreign not in listed.text
    assert "Health" not in words_of(menu)
    assert [page.status_code for page in refused] == [403] * 4
    assert f'{path(foreign)}?client=bank"' in seen.text


async def test_switches_keep_parameters_of_every_name(admin: httpx.AsyncClient) -> None:
    page = await admin.get("/admin/health", params={"path": "1", "self": "2", "query": "3"})

    assert page.status_code == 200
    assert 'href="/admin/health?path=1&amp;self=2&amp;query=3&amp;theme=dark"' in page.text


async def test_nul_is_rejected_before_the_database_fails_over_it(idle_service: Running) -> None:
    filters = {
        "/admin/audit": ("key_id", "biz_token", "action"),
        "/admin/events": ("client", "biz_token"),
        LIST: ("q", "client", "rule_id", "subject_ref"),
    }
    forms = {
        "/admin/login": {"key": "a\0"},
        "/admin/keys": {"name": "x", "client": "\0", "days": "1", "scope_admin": "on"},
        f"{LIST}/search": {"id_card": "110101199001011237", "client": "\0"},
    }
    async with visiting(idle_service, await idle_service.key(Scope.ADMIN)) as client:
        found = [await client.get(url, params={name: "a\0"}) for url, names in filters.items() for name in names]
        found += [await client.get(f"{url}/a%00") for url in (LIST, "/admin/webhook-endpoints", "/admin/deliveries")]
        found += [await client.post(url, data=data) for url, data in forms.items()]

    assert {answer.url: answer.status_code for answer in found if answer.status_code != 400} == {}
    assert "The request contains a NUL character." in words_of(found[0])


@ON_SQLITE
async def test_crash_is_a_page_without_the_exception_text(
    idle_service: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    router = APIRouter(route_class=PageRoute)

    @router.get("/crash")
    def crash() -> None:
        raise ValueError("secret")

    idle_service.app.include_router(router)
    async with browser(idle_service) as client:
        answer = await client.get("/crash")
    logged = "".join(capsys.readouterr())

    assert (answer.status_code, "An internal error occurred. The log of" in words_of(answer)) == (500, True)
    assert ("request_crashed" in logged, "error=ValueError" in logged) == (True, True)
    assert "secret" not in logged + answer.text


async def test_empty_console_shows_how_to_begin(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = settings_for(tmp_path_factory.mktemp("empty"), "http://127.0.0.1:9")
    async with running(settings, with_worker=False) as service:
        key = await service.key(Scope.RESULTS_READ)
        async with visiting(service, key) as client:
            pages = [await client.get(url) for url in ("/admin", LIST)]

    assert "https://console.test/v1/callbacks" in pages[0].text
    assert "No verifications yet" in pages[1].text
