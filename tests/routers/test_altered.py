"""Altered rows: each is marked in lists and named by one alarm, and costs no other row anything."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client import REGISTRY
from sqlalchemy import Integer, LargeBinary, String, text

from app.domain.api_key import Scope
from app.observability import digest_of
from app.storage.column_types import UtcDateTime
from app.storage.tables import verification
from simulator.people import person_of
from tests.support.api import get, retrieve_new, row_of, url
from tests.support.service import Running

ALTERATIONS = {
    "a lost mask": "UPDATE detection SET masked = NULL WHERE verification_id = :id",
    "another key": (
        "UPDATE verification SET sealed_key = (SELECT name FROM detection WHERE verification_id = :id) WHERE id = :id"
    ),
    "a lost key": "UPDATE verification SET sealed_key = NULL WHERE id = :id",
    "an unknown kind of media": "UPDATE media SET kind = 'zzz' WHERE verification_id = :id AND kind = 'best_frame'",
}


async def alter(service: Running, biz_token: str, statement: str) -> int:
    """Changes the database as an attacker could; returns the id of the verification."""
    row = await row_of(service.services, biz_token)
    async with service.services.database.write() as tx:
        await tx.connection.execute(text(statement), {"id": row.id})
    return row.id


def marked(view: dict[str, Any]) -> dict[str, Any]:
    """Returns the view of a passed verification as lists show it once it is altered."""
    nothing: dict[str, Any] = {"verdict": dict.fromkeys(view["verdict"]), "identity": dict.fromkeys(view["identity"])}
    return view | nothing | {"altered": True, "outcome": None, "liveness_attempts": [], "media": []}


@pytest.mark.parametrize("statement", ALTERATIONS.values(), ids=ALTERATIONS)
async def test_altered_row_is_marked_in_lists_and_searches(
    service: Running, api: httpx.AsyncClient, statement: str
) -> None:
    older, altered, newer = [await retrieve_new(api) for _ in range(3)]
    views = {biz_token: await get(api, biz_token) for biz_token in (older, altered, newer)}
    await alter(service, altered, statement)

    page = (await api.get("/v1/verifications")).json()
    found = await api.post("/v1/verifications/search", json={"id_card": person_of(altered).id_card})
    alone = [await api.get(url(altered, *parts)) for parts in ((), ("media", "id_card_back"))]

    assert page["items"] == [views[newer], marked(views[altered]), views[older]]
    assert found.json()["items"] == [marked(views[altered])]
    assert [(answer.status_code, answer.json()["code"]) for answer in alone] == [(500, "altered")] * 2


async def test_altered_row_raises_one_alarm_that_names_it(service: Running, api: httpx.AsyncClient) -> None:
    altered, other = await retrieve_new(api), await retrieve_new(api)
    number = await alter(service, altered, ALTERATIONS["a lost mask"])
    before = REGISTRY.get_sample_value("faceid_altered_total")

    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await api.get("/v1/verifications")
            assert (await api.get(url(altered))).status_code == 500
        statuses = [answer.status_code for answer in await asyncio.gather(*(api.get(url(other)) for _ in range(3)))]

    alarms = [entry for entry in logs if entry["event"] == "altered"]
    assert [(entry["verification"], entry["token"]) for entry in alarms] == [(number, digest_of(altered))]
    assert REGISTRY.get_sample_value("faceid_altered_total") == (before or 0) + 1
    assert statuses == [200] * 3


async def test_requests_in_one_batch_with_an_altered_row_succeed(service: Running, api: httpx.AsyncClient) -> None:
    altered, *others = [await retrieve_new(api) for _ in range(4)]
    await alter(service, altered, ALTERATIONS["an unknown kind of media"])

    answers = await asyncio.gather(*(api.get(url(biz_token)) for biz_token in (altered, *others)))

    assert [answer.status_code for answer in answers] == [500, 200, 200, 200]


@pytest.mark.parametrize("statement", ALTERATIONS.values(), ids=ALTERATIONS)
async def test_altered_row_can_be_erased(service: Running, api: httpx.AsyncClient, statement: str) -> None:
    altered = await retrieve_new(api)
    await alter(service, altered, statement)

    async with service.client(await service.key(Scope.ADMIN)) as admin:
        held = [await call(url(altered, "legal-hold")) for call in (admin.put, admin.delete)]
    erased = await api.delete(url(altered))

    assert [answer.status_code for answer in (*held, erased)] == [204] * 3
    assert (await api.get(url(altered))).status_code == 410


def impossible_values(service: Running) -> Iterator[tuple[str, str]]:
    """Yields columns of `verification` with SQL for a value that no version of the service writes."""
    yield from ((name, "'zzz'") for name in ("state", "outcome", "pulled", "awaited_parts", "unreadable"))
    yield "priority", "99"
    is_sqlite = service.services.database.is_embedded
    for column in verification.columns:
        if isinstance(column.type, UtcDateTime):
            yield column.name, "'zzz'" if is_sqlite else "'4713-01-01 00:00:00+00 BC'"
            # Sums with these times leave Python's calendar.
            yield from ((column.name, value) for value in ("'0001-01-03 00:00:00'", "'9999-12-30 00:00:00'"))
        elif is_sqlite and isinstance(column.type, Integer) and not column.primary_key:
            yield column.name, "'zzz'"
        elif is_sqlite and type(column.type) is String:
            yield from ((column.name, value) for value in ("x'ff'", "CAST(x'ff' AS TEXT)"))
        elif is_sqlite and isinstance(column.type, LargeBinary):
            yield column.name, "'zzz'"


async def test_impossible_value_in_a_row_costs_no_other_row(service: Running, api: httpx.AsyncClient) -> None:
    intact = await retrieve_new(api)
    view = await get(api, intact)
    impossible = list(impossible_values(service))
    tokens = await asyncio.gather(*(retrieve_new(api) for _ in impossible))
    numbers = {}
    for altered, (column, value) in zip(tokens, impossible, strict=True):
        # It is due for a retrieval and for an erasure, so both find it.
        due = {"due_at": "'2026-01-01 00:00:00'", "erase_at": "'2026-01-01 00:00:00'"} | {column: value}
        changes = ", ".join(f"{name} = {new}" for name, new in due.items())
        numbers[altered] = await alter(service, altered, f"UPDATE verification SET {changes} WHERE id = :id")

    async with service.client(await service.key(Scope.ADMIN)) as admin:
        ranges: list[dict[str, str]] = [{}, {"received_from": "2026-01-01T00:00:00Z"}]
        pages = [await admin.get("/v1/verifications", params={"limit": 200, **wanted}) for wanted in ranges]
        alone = await asyncio.gather(*(api.get(url(biz_token)) for biz_token in (*tokens, intact)))
        await retrieve_new(api)
        await service.services.erase.erase_expired()
        for (column, _), altered in zip(impossible, tokens, strict=True):
            if column not in {"client", "biz_token"}:
                erased = await admin.delete(url(altered))
                assert (erased.status_code, await state_of(service, numbers[altered])) == (204, "erased"), column

    assert [[item for item in page.json()["items"] if item["biz_token"] == intact] for page in pages] == [[view]] * 2
    assert alone[-1].json() == view


async def state_of(service: Running, number: int) -> str:
    async with service.services.database.read() as tx:
        found = await tx.connection.execute(text("SELECT state FROM verification WHERE id = :id"), {"id": number})
        state: str = found.scalar_one()
        return state


async def test_result_that_lost_its_time_is_replaced_by_the_next_retrieval(
    service: Running, api: httpx.AsyncClient
) -> None:
    altered = await retrieve_new(api)
    await alter(service, altered, "UPDATE verification SET retrieved_at = NULL, called_at = NULL WHERE id = :id")

    assert (await api.post(url(altered, "retrieve"))).status_code == 202
    row = await row_of(service.services, altered)
    for _ in range(1000):
        if row.attempts > 1:
            break
        await asyncio.sleep(0.01)
        row = await row_of(service.services, altered)

    assert (row.attempts, row.last_error_code, row.retrieved_at is not None) == (2, None, True)
    assert (await api.get(url(altered))).json()["code"] == "altered"
