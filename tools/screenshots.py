"""Makes the pictures of the documentation: the console with the history of the demo, at a fixed instant.

`make screenshots` runs it. It needs Debian's chromium and fonts-noto-cjk. People, outcomes and instants are the same at
every run; the ids of API keys and events, and the durations of calls, are not.
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, Page, async_playwright

from app.cli.demo import create_admin_key, demo_settings
from app.cli.demo_history import create_history
from app.cli.demo_receiver import DemoReceiver
from app.cli.server import listen, serving, url_of
from app.main import create_app
from app.observability import configure_logging

FOLDER = Path(__file__).parents[1] / "docs" / "images"
AT = datetime(2026, 11, 26, 8, 12, tzinfo=UTC)
SEED, DAYS = "1", 30
LANGUAGES: Mapping[str, str] = {"zh": "zh-CN", "en": "en"}
WIDTH, _PHONE = 1200, 390


async def main() -> int:
    """Creates the history, serves the console without a worker, and takes the pictures."""
    configure_logging("CRITICAL")
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.stderr.write("chromium is not installed.\n")
        return 2
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        listen("127.0.0.1", 0) as receiver_listener,
        listen("127.0.0.1", 0) as listener,
    ):
        settings = demo_settings(Path(folder), "http://127.0.0.1:9")
        receiver = DemoReceiver(url_of(receiver_listener))
        async with serving(receiver, receiver_listener):
            await create_history(settings, receiver, end=AT, days=DAYS, seed=SEED)
        key = await create_admin_key(settings, valid_for=timedelta(days=30), clock=lambda: AT)
        app = create_app(settings, with_worker=False, clock=lambda: AT)
        async with serving(app, listener), async_playwright() as playwright:
            # Without a report the overview would warn that no worker runs.
            await app.state.services.workers.report()
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            )
            for language in LANGUAGES:
                async with _signed_in(browser, url_of(listener), key, language) as page:
                    await _take_all(page, language)
                async with _signed_in(browser, url_of(listener), key, language, width=_PHONE, scheme="dark") as page:
                    await _take(page, f"walk-phone.{language}", width=_PHONE, height=620)
            await browser.close()
    return 0


@asynccontextmanager
async def _signed_in(
    browser: Browser,
    url: str,
    key: str,
    language: str,
    *,
    width: int = WIDTH,
    scheme: Literal["dark", "light"] = "light",
) -> AsyncIterator[Page]:
    context = await browser.new_context(
        base_url=url,
        locale=LANGUAGES[language],
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        timezone_id="Asia/Shanghai",
        reduced_motion="reduce",
    )
    page = await context.new_page()
    # The console compares its times with the clock of the browser.
    await page.clock.set_fixed_time(AT)
    await page.goto("/admin")
    await page.fill("#key", key)
    await page.click("button[type=submit]")
    await page.wait_for_url("**/admin")
    yield page
    await context.close()


async def _take_all(page: Page, language: str) -> None:
    await _take(page, f"overview.{language}", height=880)
    await page.goto("/admin/verifications?standing=not_passed")
    await _take(page, f"list.{language}", height=640)
    # The steps of docs/walk.md: each follows a link of the page before it.
    await page.goto("/admin")
    await page.click(".reasons a")
    await page.wait_for_url("**err_code=2016*")
    await page.click("table.rows a")
    await page.wait_for_url("**client=loans")
    await _take(page, f"verification.{language}", height=820)
    await _take(page, f"walk-timeline.{language}", height=820, part="section:has(.timeline)")
    await page.click("a[href^='/admin/audit?biz_token=']")
    await page.wait_for_url("**/admin/audit?*")
    await _take(page, f"walk-audit.{language}", height=480)
    await page.goto("/admin")
    await page.click(".notice-bad a")
    await page.wait_for_url("**/admin/verifications?*")
    await page.click("table.rows a")
    await page.wait_for_url("**client=wallet")
    await _take(page, f"walk-waiting.{language}", height=840)


async def _take(page: Page, name: str, *, height: int, width: int = WIDTH, part: str | None = None) -> None:
    await page.set_viewport_size({"width": width, "height": height})
    await page.wait_for_load_state("networkidle")
    path, what = FOLDER / f"{name}.png", page.locator(part) if part else page
    await what.screenshot(path=path, animations="disabled")
    sys.stdout.write(f"{path.name}: {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
