"""The console in a large database: time, CPU and size of each page, and the memory that the console needs."""

import asyncio
import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import asyncpg

from app.config import Settings
from app.domain.detection import Outcome
from app.domain.listing import VerificationFilter
from app.domain.verification import State, Verification
from app.services.webhook_endpoints import EndpointFacts
from benchmarks import harness, lists, rows
from benchmarks.figures import Line, resident_mb
from benchmarks.harness import Server
from tests.support.postgres import durable_postgres
from tests.support.service import actor, changed

_MOST_MS, _MOST_KB, _MOST_MB = 50, 60, 8
_LANGUAGES = ("zh", "en")
_FULL = 100
_FORM = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}

# One event, delivery, attempt, audit row and call for each verification. A few of each `step` are rare. The calls of
# the last instant are as many as a minute has. The first ids of the audit are those of the keys and the endpoint.
_STATEMENTS = (
    """
INSERT INTO event (
    id, public_id, position, type, client, at, verification_id, biz_token, rule_id, subject_ref, state, outcome,
    provisional, err_code, revision
)
SELECT
    id, 'evt_' || md5(biz_token), id,
    CASE WHEN id % $1 = 1 THEN 'verification.failed' ELSE 'verification.retrieved' END,
    client, updated_at, id, biz_token, rule_id, subject_ref, 'retrieved', 'passed', false, 0, 1
FROM verification WHERE $2::text <> ''
""",
    """
INSERT INTO delivery (
    id, endpoint_id, event_id, verification_id, position, state, priority, due_at, claim, is_leased, step, attempts,
    created_at, ended_at
)
SELECT
    id, $2, id, id, id, CASE id % $1 WHEN 2 THEN 'failed' WHEN 3 THEN 'pending' ELSE 'delivered' END, 0,
    CASE id % $1 WHEN 3 THEN now() + interval '1 hour' END, 1, false, 1, 1, at, at + interval '1 second'
FROM event
""",
    """
INSERT INTO delivery_attempt (id, delivery_id, endpoint_id, at, host, address, duration_ms, status, fault)
SELECT
    id, id, $2, created_at, 'shop.example', '203.0.113.7', 20 + id % 400,
    CASE WHEN id % $1 IN (2, 3) THEN 500 ELSE 204 END, CASE WHEN id % $1 IN (2, 3) THEN 'http_status' END
FROM delivery
""",
    """
INSERT INTO audit (id, at, who, key_id, client, action, verification_id, fields, purpose, request_id, outcome)
SELECT
    id + 100, updated_at, 'desk', md5((id % 50)::text), client,
    CASE WHEN id % $1 = 1 THEN 'hold' ELSE 'identity' END, id, 'name,id_card', 'review', md5(biz_token), 'done'
FROM verification WHERE $2::text <> ''
""",
    """
INSERT INTO upstream_call (id, verification_id, called_at, action, info_type, request_id, duration_ms, bytes_received)
SELECT id, id, updated_at, 'GetDetectInfoEnhanced', '0', md5(biz_token), 80, 700000
FROM verification WHERE $1::int > 0 AND $2::text <> ''
""",
)
_AFTERWARDS = (
    """
INSERT INTO event_counter (id, position) SELECT 1, max(id) FROM event
ON CONFLICT (id) DO UPDATE SET position = excluded.position
""",
    "INSERT INTO audit_link (position, audit_id, hash) SELECT row_number() OVER (ORDER BY id), id, '' FROM audit",
    "SELECT setval(pg_get_serial_sequence('audit', 'id'), max(id)) FROM audit",
    "VACUUM (ANALYZE)",
)
# The memory that they add to the other modules.
_MODULES = """
import os
import app.factory, app.routers.openapi, app.worker, uvicorn, uvloop, httptools
from benchmarks.figures import resident_mb
before = resident_mb(os.getpid())
import app.console.site
print(resident_mb(os.getpid()) - before)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A page to measure. `form` is sent by POST. `is_cached`: what the first one counts is kept for a minute."""

    what: str
    path: str
    form: str | None = None
    is_cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """An administrator who has signed in over one connection."""

    connection: http.client.HTTPConnection
    cookie: str

    @classmethod
    def signed_in(cls, port: int, key: str) -> "Visitor":
        """Signs in.

        Raises:
            RuntimeError: the console has refused the key.
        """
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/admin/login", urlencode({"key": key}), _FORM)
        answer = connection.getresponse()
        answer.read()
        cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        if answer.status != http.client.SEE_OTHER or not cookie:
            raise RuntimeError(f"The sign-in was answered by {answer.status}.")
        return cls(connection=connection, cookie=cookie)

    def open(self, wanted: Wanted, language: str) -> tuple[float, int]:
        """Requests a page; returns the milliseconds and the bytes.

        Raises:
            RuntimeError: the answer is no page.
        """
        headers = _FORM | {"Cookie": f"{self.cookie}; __Host-lang={language}"}
        start = time.perf_counter()
        self.connection.request("GET" if wanted.form is None else "POST", wanted.path, wanted.form, headers)
        answer = self.connection.getresponse()
        page = answer.read()
        ms = (time.perf_counter() - start) * 1000
        if answer.status != http.client.OK:
            raise RuntimeError(f"{wanted.what}: {answer.status}")
        return ms, len(page)


async def lines(folder: Path, *, count: int, rare: int, requests: int) -> AsyncIterator[Line]:
    """Measures on Postgres with so many verifications, events, deliveries, attempts, audit rows and calls."""
    # The server runs as another user.
    await asyncio.to_thread(folder.chmod, 0o711)
    begin = datetime.now(UTC) - rows.SPAN
    async with (
        durable_postgres(folder) as postgres,
        lists.filled_database(folder, postgres.url, count, rare, begin=begin) as (settings, filled),
    ):
        key = await lists.key_of(filled.services, lists.ADMIN)
        wanted = await _prepared(settings, filled)
        off = await _resident(changed(settings, console=False))
        async with harness.serving(settings, "--no-worker") as server:
            on = resident_mb(server.child.pid or 0)
            visitor = await asyncio.to_thread(Visitor.signed_in, server.port, key)
            for page in wanted:
                for line in await asyncio.to_thread(_measured, server, visitor, page, requests):
                    yield line
            used = resident_mb(server.child.pid or 0)
        modules = await _modules_mb()
        yield Line.plain("console: in an idle service", "MB more", max(on - off, 0) + modules, most=_MOST_MB)
        yield Line.plain(f"console: after {len(wanted) * requests:,} pages", "MB more", used - off + modules)


async def _modules_mb() -> float:
    """Returns the memory of the console's modules, which are also loaded where it is switched off."""
    output = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", _MODULES], text=True)
    return float(output)


async def _resident(settings: Settings) -> float:
    async with harness.serving(settings, "--no-worker") as server:
        return resident_mb(server.child.pid or 0)


def _measured(server: Server, visitor: Visitor, page: Wanted, requests: int) -> Sequence[Line]:
    # The first request also builds statements.
    first, _ = visitor.open(page, _LANGUAGES[0])
    before = server.cpu
    took, sizes = zip(*(visitor.open(page, _LANGUAGES[turn % 2]) for turn in range(requests)), strict=True)
    cpu = (server.cpu - before) / requests * 1000
    what = f"console, {page.what}"
    return [
        *([Line.plain(f"{what}: counted anew", "ms", first)] if page.is_cached else []),
        Line.plain(what, "ms", statistics.median(took), most=_MOST_MS),
        Line.plain(f"{what}: p95", "ms", statistics.quantiles(took, n=20, method="inclusive")[-1]),
        Line.plain(f"{what}: CPU of the service", "ms CPU", cpu),
        Line.plain(f"{what}: the larger of both languages", "kB", max(sizes) / 1000, most=_MOST_KB),
    ]


async def _prepared(settings: Settings, filled: rows.Filled) -> Sequence[Wanted]:
    """Fills the other tables, gives the rows that will be shown real contents, and returns the pages."""
    services, step = filled.services, filled.rows // filled.rare
    endpoint, _secret = await services.webhook_endpoints.create(
        actor(), EndpointFacts(url="http://127.0.0.1:9/"), client=rows.BIG
    )
    await _fill(settings, step, endpoint.id)
    shown: dict[int, Verification] = {}
    failed = VerificationFilter(outcome=(Outcome.FAILED,))
    person = services.cipher.find_by(rows.BIG, lists.ID_CARD, None)
    async with services.database.read() as tx:
        for wanted, of in ((VerificationFilter(), None), (failed, None), (VerificationFilter(client=rows.BIG), person)):
            found = await tx.verifications.search(wanted, limit=_FULL, after=None, person=of)
            shown |= {verification.id: verification for verification in found}
    await rows.complete(services, shown.values())
    one = next(each for each in shown.values() if each.state is State.RETRIEVED)
    month = (datetime.now(UTC) - rows.SPAN / 6).date().isoformat()
    endpoints = f"/admin/webhook-endpoints/{endpoint.id}"
    search = urlencode({"id_card": lists.ID_CARD, "client": rows.BIG})
    return [
        Wanted(what="overview", path="/admin", is_cached=True),
        Wanted(what="list", path="/admin/verifications"),
        Wanted(what="list of what did not pass", path="/admin/verifications?standing=not_passed"),
        Wanted(what="list of a month", path=f"/admin/verifications?by=retrieved_at&from={month}"),
        Wanted(what="search for a person", path="/admin/verifications/search", form=search),
        Wanted(what="one verification", path=f"/admin/verifications/{one.biz_token}?client={one.client}"),
        Wanted(what="webhook endpoints", path="/admin/webhook-endpoints"),
        Wanted(what="one endpoint", path=endpoints),
        Wanted(what="deliveries", path=f"{endpoints}/deliveries"),
        Wanted(what="deliveries that failed", path=f"{endpoints}/deliveries?state=failed"),
        Wanted(what="deliveries of a rare event", path=f"{endpoints}/deliveries?type=verification.failed"),
        Wanted(what="deliveries of an event without any", path=f"{endpoints}/deliveries?type=verification.expired"),
        Wanted(what="deliveries of an old month", path=f"{endpoints}/deliveries?to={month}"),
        Wanted(what="one delivery", path=f"/admin/deliveries/dlv_{filled.id_at(0)}"),
        Wanted(what="replay", path=f"{endpoints}/replay"),
        Wanted(what="events", path="/admin/events"),
        Wanted(what="events of a rare type", path="/admin/events?type=verification.failed"),
        Wanted(what="events of a type without any", path="/admin/events?type=verification.expired"),
        Wanted(what="events of a verification", path=f"/admin/events?biz_token={one.biz_token}"),
        Wanted(what="audit", path="/admin/audit"),
        Wanted(what="audit of a rare action", path="/admin/audit?action=hold"),
        Wanted(what="audit of an old month", path=f"/admin/audit?to={month}"),
        Wanted(what="keys", path="/admin/keys"),
        Wanted(what="health", path="/admin/health"),
        Wanted(what="settings", path="/admin/settings"),
    ]


async def _fill(settings: Settings, step: int, endpoint_id: str) -> None:
    address = settings.database.url().set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(address, timeout=60)
    try:
        # Without the checks of foreign keys, which would double the time.
        for setting in ("synchronous_commit = off", "session_replication_role = replica"):
            await connection.execute(f"SET {setting}")
        for statement in _STATEMENTS:
            await connection.execute(statement, step, endpoint_id)
        for statement in _AFTERWARDS:
            await connection.execute(statement)
    finally:
        await connection.close()
