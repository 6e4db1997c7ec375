"""Sign-in at providers that others have written: a certified one in Chromium, and another one without a browser.

The certified one is the npm package oidc-provider. `make test-oidc` also installs oidc-provider-mock from PyPI, in an
environment of its own.
"""

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

from app.cli.server import listen, serving, url_of
from app.domain.audit import AuditFilter
from app.main import create_app
from app.oidc.settings import CALLBACK_PATH
from tests.support.console import SAME_ORIGIN
from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, SETTINGS
from tests.support.packages import environment_with, install
from tests.support.service import Running, actor, settings_for
from tests.support.simulator import LiveSimulator

PROVIDER = Path(__file__).parent / "provider"
MOCK = "oidc-provider-mock==0.3.4"
CHROMIUM, NODE, NPM = (shutil.which(name) for name in ("chromium", "node", "npm"))
RUN_MOCK = """
import time

from oidc_provider_mock import run_server_in_thread

with run_server_in_thread() as server:
    print(f"http://localhost:{server.server_port}", flush=True)
    time.sleep(600)
"""
PERSON = ("Anna Example", "oidc:anna")


@asynccontextmanager
async def printing(*command: str | Path) -> AsyncIterator[str]:
    """Runs a program during the block; yields its first line."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def served(folder: Path, faceid_url: str, *command: str | Path) -> AsyncIterator[tuple[Running, str]]:
    """Serves the console with the provider that a command runs; yields the service and its address.

    The command gets id and secret of the client and the address to return to, and prints the issuer.
    """
    with listen("127.0.0.1", 0) as listener:
        url = url_of(listener)
        async with printing(*command, CLIENT_ID, CLIENT_SECRET, f"{url}{CALLBACK_PATH}") as issuer:
            values = SETTINGS | {"public_url": url}
            app = create_app(settings_for(folder, faceid_url, oidc_issuer=issuer, **values), with_worker=False)
            async with serving(app, listener):
                yield Running(app), url


async def audited(service: Running) -> list[tuple[str, str, str, str]]:
    """Returns action, name, id and outcome of all rows of the audit, oldest first."""
    await service.services.audit.aclose()
    page = await service.services.audit.search(actor(), AuditFilter(), None, limit=50, cursor=None)
    return [(str(row.action), row.who, row.key_id, row.outcome) for row, _ in reversed(page.records)]


@pytest.fixture(scope="module")
def node_provider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the program of the certified provider, with its packages beside it."""
    folder = tmp_path_factory.mktemp("provider")
    shutil.copytree(PROVIDER, folder, dirs_exist_ok=True)
    options = (
        "--ignore-scripts",
        "--prefer-offline",
        "--fetch-retries=0",
        "--fetch-timeout=20000",
        "--no-audit",
        "--no-fund",
    )
    install("npm", "ci", *options, folder=folder)
    return folder / "provider.js"


@asynccontextmanager
async def visiting(browser: Browser, url: str) -> AsyncIterator[Page]:
    """Yields the page of the sign-in. Fails at the end if there was a message on a page of the console."""
    context = await browser.new_context(locale="zh-CN")
    context.set_default_timeout(15_000)
    # The certified provider has a font of another host.
    await context.route(lambda wanted: not wanted.startswith("http://127.0.0.1:"), lambda route: route.abort())
    page = await context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if page.url.startswith(url) else None)
    await page.goto(f"{url}/admin/audit")
    assert (await Axe().run(page)).violations_count == 0
    await page.click("text=用单位账号登录")
    yield page
    await context.close()
    # The browser reports what it removed at the sign-out, and each page with an error status.
    assert [text for text in troubles if not text.startswith(("Clear-Site-Data", "Failed to load resource"))] == []


async def log_in(page: Page, name: str) -> None:
    """Signs in at the provider, and consents."""
    await page.fill("[name=login]", name)
    await page.fill("[name=password]", "x")
    await page.click("button[type=submit]")
    await page.click("button[type=submit]:has-text('Continue')")


@pytest.mark.skipif(None in {CHROMIUM, NODE, NPM}, reason="chromium, node or npm is not installed")
async def test_people_sign_in_at_a_certified_provider(
    tmp_path: Path, faceid: LiveSimulator, node_provider: Path
) -> None:
    async with (
        served(tmp_path, faceid.url, "node", node_provider) as (service, url),
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        async with visiting(browser, url) as page:
            await log_in(page, "anna")
            await page.wait_for_url(f"{url}/admin/audit")
            anna = await page.inner_text("body")
            await page.click("form[action='/admin/logout'] button")
            await page.wait_for_url(f"{url}/admin/login")
        async with visiting(browser, url) as page:
            await log_in(page, "bert")
            await page.wait_for_url(f"{url}/admin/login?problem=oidc_role")
            bert = await page.inner_text("[role=alert]")
        async with visiting(browser, url) as page:
            await page.click("text=Cancel")
            await page.wait_for_url(f"{url}/admin/login?problem=oidc_denied")
            cancelled = await page.inner_text("[role=alert]")
        rows = await audited(service)

    assert PERSON[0] in anna
    assert PERSON[1] in anna
    assert "您在本控制台没有任何权限" in bert
    assert "单位登录已取消或被拒绝" in cancelled
    assert rows == [
        ("sign_in", *PERSON, "done"),
        ("sign_out", *PERSON, "done"),
        ("authentication", "", "oidc:bert", "oidc_role"),
        ("authentication", "", "", "oidc_denied"),
    ]


@pytest.mark.skipif("TEST_OIDC" not in os.environ, reason="make test-oidc needs PyPI")
async def test_person_signs_in_at_another_provider(tmp_path: Path, faceid: LiveSimulator) -> None:
    python = environment_with(MOCK, tmp_path) / "python"
    async with (
        served(tmp_path, faceid.url, python, "-W", "ignore", "-c", RUN_MOCK) as (service, url),
        httpx.AsyncClient(base_url=url, headers=SAME_ORIGIN) as client,
    ):
        begin = await client.get("/admin/login/oidc")
        place = begin.headers["Location"]
        person = {"name": PERSON[0], "groups": ["faceid-admins"]}
        await client.put(httpx.URL(place).join("/users/anna"), json=person)
        approved = await client.post(place, data={"sub": "anna"})
        # httpx keeps a Secure cookie away from plain HTTP, which browsers allow on their own machine.
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)
        answer = await client.get(approved.headers["Location"], headers={"Cookie": cookies})
        rows = await audited(service)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")
    assert rows == [("sign_in", *PERSON, "done")]
