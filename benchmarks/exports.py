"""The cost of exports: memory, rows per second, and how long a page stops the event loop."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.domain.detection import Outcome
from app.domain.listing import VerificationFilter
from app.domain.verification import State, Verification
from app.factory import Services, open_services
from app.services.export import new_table
from app.tabular import Format
from benchmarks.figures import Line, measured
from benchmarks.upstream import answer_of, decoded
from tests.support.service import actor, set_up, settings_for

_BATCH = 500
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_DETECTION = decoded(answer_of(0, parts=frozenset("1")))


async def lines(folder: Path, *, rows: int) -> AsyncIterator[Line]:
    """Measures exports of so many sealed verifications on SQLite, in this process."""
    settings = settings_for(folder, "http://127.0.0.1:9", media_url=(folder / "media").as_uri())
    await set_up(settings)
    async with open_services(settings) as services:
        for start in range(0, rows, _BATCH):
            await _fill(services, range(start, min(start + _BATCH, rows)))
        for of in Format:
            for is_revealed in (False, True):
                what = f"export of {rows:,} verifications, {of}{', revealed' if is_revealed else ''}"
                async for line in _measured(services, what, of, is_revealed=is_revealed):
                    yield line


async def _fill(services: Services, numbers: range) -> None:
    async with services.database.write() as tx:
        new = [_verification(services, number) for number in numbers]
        await tx.verifications.add_all(new)
        found = await tx.verifications.find_all([one.biz_token for one in new])
        texts = [services.cipher.seal_text(one, _DETECTION) for one in found]
        changes = [
            (before, services.cipher.with_digest(before, _retrieved(before), text=text))
            for before, text in zip(found, texts, strict=True)
        ]
        await tx.verifications.save_all(changes, _AT)
        await tx.results.add_all([(one.id, text, ()) for one, text in zip(found, texts, strict=True)])


def _verification(services: Services, number: int) -> Verification:
    client, biz_token = "default", f"export-{number}"
    key = services.cipher.new_key(client, biz_token)
    return Verification(
        client=client, biz_token=biz_token, rule_id="1", received_at=_AT, sealed_key=key, due_at=None, deadline_at=_AT
    )


def _retrieved(before: Verification) -> Verification:
    at = _AT + timedelta(seconds=1)
    return replace(before, state=State.RETRIEVED, outcome=Outcome.PASSED, retrieved_at=at, attempts=1)


async def _measured(services: Services, what: str, of: Format, *, is_revealed: bool) -> AsyncIterator[Line]:
    table = new_table(of, is_revealed=is_revealed)
    caller = replace(actor(), purpose="benchmark")
    longest, before = 0.0, time.thread_time()
    with measured() as cost:
        async for _ in services.export.write(caller, VerificationFilter(), table, is_revealed=is_revealed):
            longest = max(longest, time.thread_time() - before)
            await asyncio.sleep(0)
            before = time.thread_time()
    yield Line.plain(what, "MB more", cost.peak_mb, most=16)
    yield Line.plain(what, "rows/s", table.count / cost.seconds, least=None if is_revealed else 5000)
    yield Line.plain(f"{what}: longest page", "ms CPU", longest * 1000)
