"""Visitors of the console: clients that behave like a browser, and what a page shows."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from html import unescape

import httpx

from app.domain.audit import AuditFilter
from tests.support.service import Running, actor

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Accept-Language": "en"}
BASE = "https://console.test"
LIST = "/admin/verifications"
_HIDDEN = re.compile(r"<(svg|head|dialog|script)\b.*?</\1>|<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


def browser(service: Running, headers: Mapping[str, str] = SAME_ORIGIN, *, base_url: str = BASE) -> httpx.AsyncClient:
    """Returns a client that keeps cookies, and says with each form that it comes from the console."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url=base_url, headers=dict(headers))


@asynccontextmanager
async def visiting(service: Running, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client that has signed in with a key."""
    async with browser(service) as client:
        answer = await client.post("/admin/login", data={"key": key})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")
        yield client


def path(biz_token: str, *parts: str) -> str:
    """Returns the address of a verification, or of what one of its forms does."""
    return "/".join((LIST, biz_token, *parts))


def words_of(answer: httpx.Response) -> str:
    """Returns the text that a page shows, with single blanks."""
    return " ".join(unescape(_TAG.sub(" ", _HIDDEN.sub(" ", answer.text))).split())


async def audited(service: Running) -> Sequence[tuple[str, str, str | None, str]]:
    """Returns action, fields, purpose and outcome of all rows of the audit, oldest first, without created keys."""
    await service.services.audit.aclose()
    page = await service.services.audit.search(actor(), AuditFilter(), None, limit=200, cursor=None)
    rows = [(str(record.action), record.fields, record.purpose, record.outcome) for record, _ in reversed(page.records)]
    return [row for row in rows if row[0] != "key_created"]
