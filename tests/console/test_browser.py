"""The console in Chromium: a whole case, accessibility in both languages and schemes, and pages without scripts."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

from app.cli.server import listen, serving, url_of
from app.domain.api_key import Scope
from app.main import create_app
from simulator.people import person_of
from tests.support.api import retrieve_new, token
from tests.support.console import audited
from tests.support.receiver import answer, receiving
from tests.support.service import Running, everything, settings_for
from tests.support.simulator import LiveSimulator

CHROMIUM = shutil.which("chromium")
PURPOSE = "人工复核 4711"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@dataclass(frozen=True)
class Scene:
    """A served console, a browser, the key of an administrator, and tokens with a result."""

    service: Running
    browser: Browser
    url: str
    key: str
    failed: Sequence[str]
    pending: str
    endpoint: str
    delivery: str

    @asynccontextmanager
    async def page(
        self,
        *,
        language: str = "zh-CN",
        scheme: str = "light",
        width: int = 1440,
        has_scripts: bool = True,
    ) -> AsyncIterator[Page]:
        """Yields a page that has signed in. Fails at the end if there was a message or a request to another host."""
        context = await self.browser.new_context(
            locale=language,
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": width, "height": 900},
            java_script_enabled=has_scripts,
            timezone_id="Asia/Shanghai",
        )
        context.set_default_timeout(15_000)
        page = await context.new_page()
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(self.url) else troubles.append(request.url))
        await page.goto(f"{self.url}/admin")
        await page.fill("#key", self.key)
        await page.click("button[type=submit]")
        await page.wait_for_url(f"{self.url}/admin")
        yield page
        await context.close()
        # The browser reports what it removed at the sign-out.
        assert [text for text in troubles if not text.startswith("Clear-Site-Data")] == []


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory, faceid: LiveSimulator) -> AsyncIterator[Scene]:
    app = create_app(settings_for(tmp_path_factory.mktemp("browser"), faceid.url))
    with listen("127.0.0.1", 0) as listener:
        async with serving(app, listener), async_playwright() as playwright:
            service = Running(app)
            key = await service.key(*everything(), Scope.ADMIN)
            async with service.client(key) as api:
                failed = [await retrieve_new(api, "failed-2016") for _ in range(2)]
                await retrieve_new(api)
                pending = token("unfinished")
                await api.put(f"/v1/verifications/{pending}", json={"subject_ref": "loan-4711"})
            browser = await playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--lang=zh-CN", "--disable-gpu"]
            )
            delivery = await service.delivery_id()
            endpoint = await service.endpoint_id()
            yield Scene(service, browser, url_of(listener), key, failed, pending, endpoint, delivery)
            await browser.close()


async def fill_reveal(page: Page, *names: str) -> None:
    """Fills in the form of a disclosure and sends it."""
    for name in names:
        await page.check(f"form.reveal [name={name}]")
    await page.fill("#reveal-purpose", PURPOSE)
    await page.click("form.reveal button")


async def test_admin_works_through_a_whole_case(scene: Scene) -> None:
    biz_token = scene.failed[0]
    person = person_of(biz_token)
    before = await audited(scene.service)
    async with scene.page() as page:
        await page.keyboard.press("g")
        await page.keyboard.press("v")
        await page.wait_for_url("**/admin/verifications")
        await page.click("nav.tabs a:has-text('未通过')")
        await page.wait_for_url("**standing=not_passed")
        await expect(page.locator("table.rows tbody tr")).to_have_count(2)
        await page.click(f"a:has-text('{biz_token}')")
        await expect(page.locator(".verdict-word")).to_have_text("未通过")
        assert person.id_card not in await page.content()

        await fill_reveal(page, "pictures", "recordings")
        await expect(page.locator("dd.revealed").nth(1)).to_have_text(person.id_card)
        assert await page.evaluate(
            "Promise.all([...document.images].map((image) => (image.loading = 'eager', image.decode())))"
            ".then(() => [...document.images].every((image) => image.naturalWidth > 100))"
        )
        assert await page.evaluate(
            """async () => {
                const video = document.querySelector("video");
                video.muted = true;
                await video.play();
                await new Promise((resolve) => { video.ontimeupdate = () => video.currentTime > 0.2 && resolve(); });
                const sought = new Promise((resolve) => { video.onseeked = resolve; });
                video.currentTime = video.duration - 1;
                await sought;
                return video.duration > 1 && video.currentTime > video.duration - 2;
            }"""
        )
        await page.click("text=立即隐藏")
        await expect(page.locator("dd.revealed")).to_have_count(0)
        await page.go_back()

        await page.click("#erase summary")
        await page.fill("#confirmation", biz_token[-6:])
        await page.fill("#erase-purpose", PURPOSE)
        await page.click("#erase button")
        await expect(page.locator(".verdict-word")).to_have_text("已删除")
    rows = await audited(scene.service)

    assert [(action, purpose, outcome) for action, _, purpose, outcome in rows[len(before) :]] == [
        ("sign_in", None, "done"),
        ("identity", PURPOSE, "done"),
        ("media", PURPOSE, "done"),
        ("erase", PURPOSE, "done"),
    ]


async def test_events_follow_live_and_pause(scene: Scene) -> None:
    async with scene.service.client(scene.key) as api, scene.page(language="en") as page:
        await page.click("nav >> text=Events")
        await expect(page.locator("main .tag").first).to_have_text("Live")
        first = await retrieve_new(api)
        await expect(page.locator(f"table.events >> text={first}").first).to_be_visible()
        await page.fill("#biz_token", first)
        await page.click("button:has-text('Filter')")
        await retrieve_new(api)
        await api.delete(f"/v1/verifications/{first}")
        await expect(page.locator("table.events tbody tr")).to_have_count(2)
        await page.click("a:has-text('Pause')")
        await expect(page.locator("main .tag").first).to_have_text("Paused")
        assert await page.locator("[data-follow]").count() == 0


async def test_endpoint_is_created_tested_and_deleted(scene: Scene) -> None:
    before = await audited(scene.service)
    async with receiving() as receiver, scene.page(language="en", width=390) as page:
        receiver.answer = lambda _: answer(200, b"stored")
        await page.click("nav >> text=Webhooks")
        await page.click("summary:has-text('Create an endpoint')")
        await page.fill("#url", receiver.url())
        await page.check("[name='event_verification.retrieved']")
        await page.click("button:has-text('Create the endpoint')")
        await expect(page.locator(".created pre")).to_contain_text("whsec_")
        await page.click("summary:has-text('Send a test event')")
        await page.click("button:text-is('Send')")
        await expect(page.locator(".created")).to_contain_text("HTTP 200")
        await expect(page.locator(".created pre")).to_have_text("stored")
        assert "whsec_" not in await page.content()
        await page.click("summary:has-text('Delete')")
        await page.fill("#host", "127.0.0.1")
        await page.click("button:has-text('Delete for good')")
        await expect(page.locator(".notice-ok")).to_contain_text("deleted")
        assert [message.headers["webhook-id"][:4] for message in receiver.messages] == ["evt_"]
    rows = await audited(scene.service)

    actions = [action for action, *_ in rows[len(before) :]]
    assert actions == ["sign_in", "webhook_created", "webhook_deleted"]


async def test_keyboard_reaches_search_rows_and_help(scene: Scene) -> None:
    async with scene.page(language="en") as page:
        await page.goto(f"{scene.url}/admin/verifications")
        await page.keyboard.press("/")
        await page.keyboard.type("loan-4711")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**q=loan-4711**")
        await page.evaluate("document.activeElement.blur()")
        await page.keyboard.press("?")
        await expect(page.locator("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("dialog")).to_be_hidden()
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/{scene.pending}")


async def test_keys_work_in_the_moment_after_the_help_is_closed(scene: Scene) -> None:
    async with scene.page(language="en") as page:
        await page.goto(f"{scene.url}/admin/verifications")
        await page.keyboard.press("?")
        await expect(page.locator("dialog")).to_be_visible()
        # The focus leaves the button of the dialog with the next frame.
        await page.evaluate(
            """() => {
                document.querySelector("dialog").close();
                const target = document.querySelector("dialog button");
                target.dispatchEvent(new KeyboardEvent("keydown", {key: "j", bubbles: true}));
            }"""
        )

        await expect(page.locator("tr.is-chosen")).to_have_count(1)


async def test_theme_is_that_of_the_link_with_and_without_scripts(scene: Scene) -> None:
    for has_scripts in (True, False):
        async with scene.page(language="en", has_scripts=has_scripts) as page:
            light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            await page.click(".switch >> text=Dark")
            await page.click("nav >> text=Health")
            dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            await page.click(".switch >> text=Light")

            assert dark != light
            assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == light


@pytest.mark.parametrize(("language", "scheme", "width"), [("zh-CN", "light", 390), ("en-US", "dark", 1440)])
async def test_pages_are_accessible(scene: Scene, language: str, scheme: str, width: int) -> None:
    found: dict[str, object] = {}
    async with scene.page(language=language, scheme=scheme, width=width) as page:
        for path in (
            "",
            "/verifications",
            f"/verifications/{scene.failed[1]}",
            "/webhook-endpoints",
            f"/webhook-endpoints/{scene.endpoint}",
            f"/webhook-endpoints/{scene.endpoint}/deliveries",
            f"/webhook-endpoints/{scene.endpoint}/replay?which=all",
            f"/deliveries/{scene.delivery}",
            "/events",
            "/audit",
            "/keys",
            "/health",
            "/settings",
        ):
            await page.goto(f"{scene.url}/admin{path}")
            results = await Axe().run(page)
            for violation in results.response["violations"]:
                found[f"{path} {violation['id']}"] = [node["html"][:200] for node in violation["nodes"]]
            if await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                found[f"{path} width"] = await page.evaluate("document.documentElement.scrollWidth")

    assert found == {}


async def test_everything_works_without_scripts(scene: Scene, tmp_path: Path) -> None:
    biz_token = scene.failed[1]
    async with scene.page(language="en", has_scripts=False) as page:
        await page.click("nav >> text=Events")
        async with page.expect_request(lambda request: request.url.endswith("/admin/events"), timeout=30_000):
            await expect(page.locator("main .tag").first).to_have_text("Live")
        await page.click("nav >> text=Verifications")
        await page.click("nav.tabs >> text=Not passed")
        await page.click(f"text={biz_token}")
        await fill_reveal(page, "pictures")
        await expect(page.locator("dd.revealed").nth(1)).to_have_text(person_of(biz_token).id_card)
        await expect(page.locator("#keys-button")).to_be_hidden()
        await page.click("summary:has-text('Erase')")
        await page.fill("#confirmation", "wrong!")
        await page.fill("#erase-purpose", PURPOSE)
        await page.click("#erase button")
        await expect(page.locator(".notice-bad")).to_contain_text("Nothing was erased")
        await page.click("button:has-text('Sign out')")
        await expect(page.locator("h1")).to_have_text("Sign in")
        await page.screenshot(path=tmp_path / "page.png")
