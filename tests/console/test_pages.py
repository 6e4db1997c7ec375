"""The pages over HTTP: what they show in both languages, what forms do, and what nobody sees."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from html import unescape

import httpx
import pytest
from fastapi import APIRouter

from app.config import Settings
from app.console.visits import PageRoute
from app.domain.api_key import Scope
from app.domain.pause import begin
from app.domain.webhook_endpoint import EndpointState
from app.services.clock import now
from simulator.options import DEMO_CREDENTIALS
from simulator.people import person_of
from tests.console.conftest import Console
from tests.support.api import call_back, get, list_tokens, retrieve_new, token
from tests.support.console import audited, browser, visiting, words_of
from tests.support.service import Running, actor, changed, everything, running, settings_for

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
LIST = "/admin/verifications"
THEMES = ("system", "light", "dark")
INLINE = re.compile(
    r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:|hx-on|(?:src|href|action)=\"(?:https?:)?//"
)
MAX_BYTES = 60_000
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def path(biz_token: str, *parts: str) -> str:
    return "/".join((LIST, biz_token, *parts))


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


async def test_failed_verification_is_explained(console: Console, admin: httpx.AsyncClient) -> None:
    words = words_of(await admin.get(path(console.failed)))

    assert (
        "Not passed 2016 比对相似度低于通过标准 Comparison with the ID photo Not the same person for certain" in words
    )
    assert "Liveness detection 0 成功 Face comparison 2016" in words
    assert "Provisional: it may still change" in words
    for entry in (
        "Callback received: the person is done",
        "Called GetDetectInfo",
        "RequestId",
        "Result stored: Not passed",
    ):
        assert entry in words
    assert words.index("Callback received") < words.index("Called GetDetectInfo") < words.index("Result stored")


@ON_SQLITE
async def test_list_filters_by_links_and_keeps_them_over_pages(settings: Settings) -> None:
    async with running(settings, with_worker=False) as service:
        async with service.client(await service.key(*everything())) as api:
            for _ in range(53):
                await call_back(api)
            newest = await list_tokens(api)
        async with visiting(service, await service.key(Scope.RESULTS_READ)) as client:
            first = await client.get(LIST, params={"standing": "pending", "from": "2026-01-01"})
            (following,) = re.findall(r'href="([^"]+)" rel="next"', first.text)
            second = await client.get(following.replace("&amp;", "&"))
            other = await client.get(LIST, params={"standing": "passed"})

    assert [
        re.findall(r'<td class="token"><a href="/admin/verifications/([^"]+)">', page.text) for page in (first, second)
    ] == [
        newest[:50],
        newest[50:],
    ]
    assert "standing=pending" in following
    assert "First page" in second.text
    assert "No verification matches these filters" in other.text


async def test_list_is_exported_as_it_is_filtered(console: Console, admin: httpx.AsyncClient) -> None:
    page = await admin.get(LIST, params={"standing": "passed"})
    address = re.findall(r'href="([^"]+)" download>CSV', page.text)[0].replace("&amp;", "&")
    table = await admin.get(address)
    unknown = await admin.get(f"{LIST}/export", params={"format": "pdf"})

    assert (table.status_code, table.headers["Content-Type"].partition(";")[0]) == (200, "text/csv")
    assert table.headers["Content-Disposition"].startswith("attachment; filename=")
    assert (console.passed in table.text, console.failed in table.text) == (True, False)
    assert person_of(console.passed).id_card not in table.text
    assert unknown.status_code == 400


async def test_search_box_finds_tokens_and_references(console: Console, admin: httpx.AsyncClient) -> None:
    async with console.service.client(console.key) as api:
        referenced = token()
        await api.put(f"/v1/verifications/{referenced}", json={"subject_ref": "loan 4711"})
    by_token = await admin.get(LIST, params={"q": console.passed})
    by_reference = await admin.get(LIST, params={"q": "loan 4711"})
    unknown = await admin.get(LIST, params={"q": "nothing-like-it"})
    number = await admin.get(LIST, params={"q": person_of(console.passed).id_card})
    hint = await admin.get(number.headers["Location"])

    assert (by_token.status_code, by_token.headers["Location"]) == (303, path(console.passed))
    assert re.findall(r'class="token"><a href="([^"]+)"', by_reference.text) == [path(referenced)]
    assert "No verification matches these filters" in unknown.text
    assert (number.status_code, number.headers["Location"]) == (303, f"{LIST}?notice=number")
    assert "An ID number must not be in an address." in hint.text


async def test_person_is_found_by_number_which_no_page_repeats(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
    person = person_of(biz_token)
    async with visiting(service, await service.key(Scope.RESULTS_READ)) as client:
        found = await client.post(f"{LIST}/search", data={"id_card": person.id_card, "name": person.name})
        missed = await client.post(f"{LIST}/search", data={"id_card": "000000199001010000"})
        empty = await client.post(f"{LIST}/search", data={})

    assert re.findall(r'class="token"><a href="([^"]+)"', found.text) == [path(biz_token)]
    assert person.id_card not in found.text
    assert person.name not in found.text
    assert "Nobody found" in missed.text
    assert empty.status_code == 400
    assert [row for row in await audited(service) if row[0] == "search"] == [
        ("search", "id_card name", None, "found 1"),
        ("search", "id_card", None, "found 0"),
    ]


@ON_SQLITE
async def test_retrieval_hold_and_erasure_are_forms_that_lead_back(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
    async with visiting(service, await service.key(Scope.ADMIN)) as client:
        answers = [
            await client.post(path(biz_token, *action), data=data)
            for action, data in (
                (["retrieve"], {}),
                (["hold"], {"held": "yes", "purpose": "court"}),
                (["erase"], {"confirmation": biz_token[-6:], "purpose": "request"}),
                (["hold"], {"held": "no", "purpose": "court ended"}),
                (["erase"], {"confirmation": "abcdef", "purpose": "request"}),
                (["erase"], {"confirmation": biz_token[-6:]}),
                (["erase"], {"confirmation": biz_token[-6:], "purpose": "request"}),
            )
        ]
        erased = await client.get(answers[-1].headers["Location"])
    rows = [row for row in await audited(service) if row[0] != "sign_in"]

    assert [
        (answer.status_code, answer.headers.get("Location", "").removeprefix(path(biz_token))) for answer in answers
    ] == [
        (303, "?done=retrieve"),
        (303, "?done=hold"),
        (409, ""),
        (303, "?done=release"),
        (303, "?problem=confirmation#erase"),
        (400, ""),
        (303, "?done=erase"),
    ]
    assert "Lift the hold first" in answers[2].text
    assert "Text, media and keys are erased." in words_of(erased)
    assert "Text, media and keys erased" in words_of(erased)
    assert person_of(biz_token).id_card[0] + "*" not in erased.text
    assert rows == [
        ("retrieve", "", None, "done"),
        ("hold", "", "court", "done"),
        ("release", "", "court ended", "done"),
        ("erase", "", "request", "done"),
    ]


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


@ON_SQLITE
async def test_token_of_several_clients_is_chosen_in_the_list(idle_service: Running) -> None:
    biz_token = token()
    for client in ("bank", "shop"):
        async with idle_service.client(await idle_service.key(*everything(), client=client)) as api:
            await api.post("/v1/callbacks", json={"BizToken": biz_token})
    async with visiting(idle_service, await idle_service.key(Scope.ADMIN)) as admin:
        bare = await admin.get(path(biz_token))
        named = await admin.get(path(biz_token), params={"client": "shop"})

    assert (bare.status_code, "Several clients have this token" in bare.text) == (409, True)
    assert "Client shop" in words_of(named)


@ON_SQLITE
async def test_key_is_shown_once_and_revoked_by_its_name(idle_service: Running) -> None:
    service = idle_service
    form = {"name": "till", "client": "shop", "days": "30", "networks": "10.0.0.0/8", "scope_results:read": "on"}
    async with visiting(service, await service.key(Scope.ADMIN)) as admin:
        created = await admin.post("/admin/keys", data=form)
        (secret,) = re.findall(r"<pre[^>]*>(frk_\w+)</pre>", created.text)
        later = await admin.get("/admin/keys")
        key_id = secret.split("_")[1]
        wrong = await admin.post(f"/admin/keys/{key_id}/revoke", data={"name": "other"})
        right = await admin.post(f"/admin/keys/{key_id}/revoke", data={"name": "till"})
        bad = [
            await admin.post("/admin/keys", data=form | change)
            for change in ({"days": "0"}, {"days": "x"}, {"name": ""}, {"networks": "10.0.0.1/8"})
        ]
        (known,) = [key for key in await service.services.api_keys.list(actor()) if key.id == key_id]

    assert (known.client, sorted(known.scopes), [*map(str, known.networks)]) == (
        "shop",
        ["results:read"],
        ["10.0.0.0/8"],
    )
    assert secret not in later.text
    assert known.revoked_at is not None
    assert [answer.headers["Location"] for answer in (wrong, right)] == [
        "/admin/keys?problem=name",
        "/admin/keys?done=revoke",
    ]
    assert [answer.status_code for answer in bad] == [400] * 4


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


@pytest.fixture
async def troubled(settings: Settings) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    async with running(settings, with_worker=False) as service:
        async with service.services.database.write() as tx:
            await tx.pauses.begin(begin("default", None, "UnauthorizedOperation.Arrears", now()))
        endpoint = await service.services.webhook_endpoints.get(actor(), await service.endpoint_id())
        failing = replace(endpoint, state=EndpointState.FAILING, failures=3, failing_since=now(), last_fault="tls")
        async with service.services.database.write() as tx:
            await tx.webhook_endpoints.save(endpoint, failing)
        async with visiting(service, await service.key(Scope.ADMIN, valid_for=timedelta(days=3))) as client:
            yield service, client


@ON_SQLITE
async def test_overview_and_health_say_what_needs_a_person(troubled: tuple[Running, httpx.AsyncClient]) -> None:
    service, client = troubled
    pages = [words_of(await client.get(url)) for url in ("/admin", "/admin/health")]
    endpoint = words_of(await client.get(f"/admin/webhook-endpoints/{await service.endpoint_id()}"))
    chinese = words_of(await client.get("/admin", params={"lang": "zh"}))

    for words in pages:
        assert "Account default is paused since" in words
        assert "UnauthorizedOperation.Arrears. The Tencent Cloud account is in arrears. Pay in the Billing" in words
        assert "What waits" in words
        assert "expires on" in words
        assert "Webhook endpoints that receive no events: 1." in words
    assert "Webhook endpoints 1 endpoint is failing" in pages[1]
    assert "3 failures in a row since" in endpoint
    assert "The certificate is not trusted Renew the certificate" in endpoint
    assert "腾讯云账号欠费：请在腾讯云控制台的“费用中心”充值" in chinese


@ON_SQLITE
async def test_verification_says_that_it_waits_for_its_account(troubled: tuple[Running, httpx.AsyncClient]) -> None:
    service, client = troubled
    async with service.client(await service.key(*everything())) as api:
        waiting = await call_back(api)
    overview = await client.get("/admin")
    (what_waits,) = re.findall(r'href="([^"]+)">What waits', overview.text)
    listed = await client.get(unescape(what_waits))
    page = await client.get(path(waiting))
    async with service.services.database.write() as tx:
        await tx.pauses.end(begin("default", None, "", now()))
    resumed = words_of(await client.get(path(waiting)))

    assert f'href="{path(waiting)}"' in listed.text
    assert "so nothing is called until the cause is solved" in words_of(page)
    assert "Waits: account default is paused" in words_of(page)
    assert "It is due now: the next free worker calls Tencent." in resumed
    assert "Due now: the next free worker calls Tencent" in resumed


async def test_audit_of_a_verification_is_a_link_for_admins(console: Console, admin: httpx.AsyncClient) -> None:
    async with visiting(console.service, await console.service.key(*everything())) as client:
        for_others = await client.get(path(console.failed))
    await admin.post(path(console.failed, "reveal"), data={"identity": "on", "purpose": "who saw it"})
    page = await admin.get(path(console.failed))
    (url,) = re.findall(r'href="(/admin/audit[?][^"]+)"', page.text)
    audit = words_of(await admin.get(unescape(url)))

    assert "/admin/audit" not in for_others.text
    assert "who saw it ID number, Name" in audit


async def test_figures_count_results_of_the_caller_by_day_and_reason(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        for scenario in ("passed", "passed", "failed-2016", "failed-1002"):
            await retrieve_new(api, scenario)
        waiting = await call_back(api, "unfinished")
        await get(api, waiting)
    async with service.client(await service.key(*everything(), client="other")) as api:
        await retrieve_new(api)
    async with visiting(service, await service.key(Scope.RESULTS_READ)) as client:
        words = words_of(await client.get("/admin"))
    async with visiting(service, await service.key(Scope.ADMIN)) as admin:
        all_words = words_of(await admin.get("/admin"))

    assert "Results today 4 yesterday at this time: 0 Passed today 50.0% of 4 with a verdict" in words
    assert "Calls in the last minute" not in words
    assert "1 1002 Probably no living person 1 2016 Not the same person for certain" in words
    assert "Passed today 60.0% of 5 with a verdict" in all_words


@ON_SQLITE
async def test_settings_show_no_secrets(settings: Settings) -> None:
    hidden = changed(settings, aws_access_key_id="AKID-not-for-eyes", redirect_page_url="https://user:pass@word/x")
    async with running(hidden, with_worker=False) as service:
        key = await service.key(Scope.ADMIN)
        async with visiting(service, key) as client:
            page = await client.get("/admin/settings")

    values = [DEMO_CREDENTIALS.secret_id, DEMO_CREDENTIALS.secret_key, "AKID-not-for-eyes", "pass@word"]
    assert [value for value in values if value in page.text] == []
    assert "FACEID_REQUESTS_PER_SECOND 1000" in words_of(page)
    assert "TENCENTCLOUD_SECRET_KEY set, not shown" in words_of(page)


async def test_audit_is_filtered_by_links_and_shows_the_chain(console: Console, admin: httpx.AsyncClient) -> None:
    await console.service.services.audit.link()
    everything_ = words_of(await admin.get("/admin/audit"))
    signed_in = words_of(await admin.get("/admin/audit", params={"action": "sign_in"}))
    nothing = words_of(await admin.get("/admin/audit", params={"biz_token": "unknown"}))

    assert "rows are linked, until" in everything_
    assert "API key created" in everything_
    assert "Signed in" in signed_in
    assert "No row matches these filters" in nothing


async def test_empty_console_shows_how_to_begin(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = settings_for(tmp_path_factory.mktemp("empty"), "http://127.0.0.1:9")
    async with running(settings, with_worker=False) as service:
        key = await service.key(Scope.RESULTS_READ)
        async with visiting(service, key) as client:
            pages = [await client.get(url) for url in ("/admin", LIST)]

    assert "https://console.test/v1/callbacks" in pages[0].text
    assert "No verifications yet" in pages[1].text
