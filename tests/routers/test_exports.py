"""Exports over HTTP: whole lists as tables, masked, or revealed and audited."""

import asyncio
import csv
import io
import json
from collections.abc import MutableMapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import openpyxl
import pytest
from sqlalchemy import text

from app.domain import export
from app.domain.api_key import Scope
from app.domain.audit import AuditFilter
from simulator.people import person_of
from tests.support.api import get, retrieve_new, row_of, url
from tests.support.rows import MINIMAL, NOW
from tests.support.service import Running, actor, everything

URL = "/v1/verifications/export"
PURPOSE = {"X-Purpose": "audit 2026-17"}


async def lines(api: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await api.get(URL, params={"format": "ndjson", **query})
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


async def add_rows(service: Running, count: int) -> None:
    rows = [
        replace(MINIMAL, biz_token=f"row-{number}", received_at=NOW + timedelta(seconds=number), due_at=None)
        for number in range(count)
    ]
    async with service.services.database.write() as tx:
        await tx.verifications.add_all(rows)


async def outcomes(service: Running) -> list[str]:
    page = await service.services.audit.search(actor(), AuditFilter(action=None), None, limit=50, cursor=None)
    return [record.outcome for record, _ in reversed(page.records) if record.action == "export"]


async def test_export_has_what_the_list_shows_in_each_format(api: httpx.AsyncClient) -> None:
    passed, failed = await retrieve_new(api), await retrieve_new(api, "failed-1001")
    views = [await get(api, biz_token) for biz_token in (failed, passed)]
    columns = list(export.columns(is_revealed=False))

    as_csv = await api.get(URL)
    as_xlsx = await api.get(URL, params={"format": "xlsx"})
    as_json = await lines(api)

    assert as_json[-1] == {"end": True, "count": 2}
    for line, view in zip(as_json[:-1], views, strict=True):
        assert list(line) == columns
        facts = view | view["verdict"] | view["identity"] | view["retrieval"] | {"created_at": None}
        media = " ".join(item["kind"] for item in view["media"]) or None
        assert line == {name: facts[name] for name in columns if name != "media"} | {"media": media}
    table = list(csv.reader(io.StringIO(as_csv.content.decode("utf-8-sig"), newline="")))
    texts = [["" if value is None else str(value) for value in line.values()] for line in as_json[:-1]]
    assert table == [columns, *texts]
    rows = list(openpyxl.load_workbook(io.BytesIO(as_xlsx.content)).active.values)
    assert rows == [tuple(columns), *(tuple(line.values()) for line in as_json[:-1])]
    assert as_csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert as_xlsx.headers["content-disposition"].endswith('.xlsx"')
    assert as_csv.headers["cache-control"] == "no-store"


async def test_export_has_all_pages_in_the_wanted_order(idle_service: Running, idle_api: httpx.AsyncClient) -> None:
    await add_rows(idle_service, 250)
    wanted = [f"row-{number}" for number in range(50, 250)]

    *ascending, end = await lines(idle_api, received_from="2026-01-02T03:04:55.678901Z", order="asc")
    *descending, _ = await lines(idle_api, received_from="2026-01-02T03:04:55.678901Z")

    assert [line["biz_token"] for line in ascending] == wanted
    assert [line["biz_token"] for line in descending] == wanted[::-1]
    assert end == {"end": True, "count": 200}


async def test_revealing_export_is_recorded_at_its_begin_and_its_end(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api)
    person = person_of(biz_token)

    answer = await api.get(URL, params={"format": "xlsx", "reveal": "true"}, headers=PURPOSE)

    header, row = openpyxl.load_workbook(io.BytesIO(answer.content)).active.values
    revealed = dict(zip(header, row, strict=True))
    identity = (await api.get(url(biz_token, "identity"))).json()
    for name in export.identity_columns(is_revealed=True):
        assert revealed[name] == identity[name]
    assert revealed["id_card"] == person.id_card
    assert await outcomes(service) == ["begun", "exported 1"]


async def test_revealing_needs_its_scope_and_a_purpose(service: Running, api: httpx.AsyncClient) -> None:
    await retrieve_new(api)
    async with service.client(await service.key(Scope.RESULTS_READ)) as reader:
        refused = await reader.get(URL, params={"reveal": "true"}, headers=PURPOSE)
    del api.headers["X-Purpose"]
    aimless = await api.get(URL, params={"reveal": "true"})

    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (aimless.status_code, aimless.json()["code"]) == (400, "invalid_request")
    assert await outcomes(service) == ["forbidden"]


async def test_clients_export_their_own_verifications_and_admins_all(service: Running, api: httpx.AsyncClient) -> None:
    biz_token = await retrieve_new(api)
    async with (
        service.client(await service.key(*everything(), client="other")) as other,
        service.client(await service.key(Scope.ADMIN, client="operations")) as admin,
    ):
        *nothing, _ = await lines(other)
        foreign = await other.get(URL, params={"client": "default"})
        *all_of_them, _ = await lines(admin)
        *of_one, _ = await lines(admin, client="other")

    assert nothing == of_one == []
    assert foreign.status_code == 403
    assert [(line["client"], line["biz_token"]) for line in all_of_them] == [("default", biz_token)]


@pytest.mark.parametrize("is_revealed", [False, True])
async def test_altered_row_is_marked_and_costs_no_other(
    service: Running, api: httpx.AsyncClient, is_revealed: bool
) -> None:
    altered, whole = await retrieve_new(api), await retrieve_new(api)
    row = await row_of(service.services, altered)
    async with service.services.database.write() as tx:
        statement = "UPDATE detection SET name = NULL, masked = NULL WHERE verification_id = :id"
        await tx.connection.execute(text(statement), {"id": row.id})

    first, second, _ = await lines(api, reveal=str(is_revealed).lower())

    assert (first["biz_token"], first["altered"]) == (whole, False)
    assert first["name"]
    assert (second["biz_token"], second["altered"], second["outcome"], second["name"]) == (altered, True, None, None)


async def test_error_in_the_middle_leaves_the_answer_without_its_end(
    idle_service: Running, idle_api: httpx.AsyncClient
) -> None:
    await add_rows(idle_service, 250)
    key = await idle_service.key(*everything())
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if len(sent) == 2:
            async with idle_service.services.database.write() as tx:
                await tx.connection.execute(text("ALTER TABLE media RENAME TO lost"))
                await tx.connection.execute(text("ALTER TABLE verification RENAME TO lost_too"))

    requests: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": b""}]

    async def receive() -> MutableMapping[str, Any]:
        return requests.pop() if requests else await asyncio.Future()

    headers = [(b"authorization", f"Bearer {key}".encode())]
    scope = idle_api.build_request("GET", URL)
    await idle_service.app(
        {
            "type": "http",
            "method": "GET",
            "path": scope.url.path,
            "query_string": b"format=ndjson",
            "headers": headers,
            "client": ("127.0.0.1", 1),
        },
        receive,
        send,
    )

    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["more_body"] is True


async def test_exports_are_limited(service: Running, api: httpx.AsyncClient) -> None:
    caller = await service.services.api_keys.authenticate(api.headers["Authorization"].split()[1], address=None)
    limits = service.services.limits

    with limits.exporting(caller), limits.exporting(caller):
        refused = await api.get(URL)
    answer = await api.get(URL)

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_exports")
    assert refused.headers["retry-after"] == "1"
    assert answer.status_code == 200
    assert answer.headers["ratelimit-policy"] == '"exports";q=20;w=100'
