"""The pages of an operator: overview, health, keys, audit and settings."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from html import unescape

import httpx
import pytest

from app.config import Settings
from app.domain.api_key import Scope
from app.domain.pause import begin
from app.domain.webhook_endpoint import EndpointState
from app.services.clock import now
from simulator.options import DEMO_CREDENTIALS
from tests.console.conftest import Console
from tests.support.api import call_back, get, retrieve_new
from tests.support.console import path, visiting, words_of
from tests.support.service import Running, actor, changed, everything, running

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


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
