"""Problem details: every error has the same form, the request's id and nothing of what was sent."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.domain.api_key import Scope
from app.main import create_app
from app.routers.problems import Problem
from app.storage.database import Database
from tests.support.operations import DOCUMENT, OPERATIONS, ROWS, VALUES, Operation, call
from tests.support.service import Running, settings_for

MARK = "000000199001011234"


def problem_of(answer: httpx.Response) -> Problem:
    """Returns the problem after checking its form and its headers."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.content, strict=True)
    assert problem.status == answer.status_code
    assert problem.request_id == answer.headers["X-Request-Id"]
    assert answer.headers["Cache-Control"] == "no-store"
    return problem


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/verifications/", 404, "not_found"),
        ("GET", "/v1/verifications/unknown", 404, "not_found"),
        ("GET", "/v1/verifications/unknown/", 404, "not_found"),
        ("GET", "/v1/verifications/a/media/nose", 422, "invalid_input"),
        ("GET", "/v1/verifications?cursor=x", 400, "invalid_cursor"),
        ("PATCH", "/v1/verifications/unknown", 405, "method_not_allowed"),
        ("BREW", "/v1/callbacks", 405, "method_not_allowed"),
        ("POST", "/v1/callbacks", 422, "invalid_input"),
    ],
)
async def test_error_is_a_problem(
    shared_api: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    problem = problem_of(await shared_api.request(method, path))

    assert (problem.status, problem.code) == (status, code)


async def test_validation_problem_has_locations_and_types(shared_api: httpx.AsyncClient) -> None:
    answer = await shared_api.post("/v1/callbacks", json={"RuleId": [MARK], "Rule": MARK, MARK: MARK})

    assert answer.json() == {
        "type": "/docs/errors#invalid_input",
        "title": answer.json()["title"],  # depends on Python's version
        "status": 422,
        "detail": "BizToken is required. There are 3 more errors.",
        "code": "invalid_input",
        "request_id": answer.headers["X-Request-Id"],
        "errors": [
            {"location": ["body", "BizToken"], "type": "missing", "message": "BizToken is required."},
            {"location": ["body", "RuleId"], "type": "string_type", "message": "RuleId must be a text."},
            {"location": ["body", "Rule"], "type": "extra_forbidden", "message": "Rule is not known."},
            {"location": ["body"], "type": "extra_forbidden", "message": "The body has a field that is not known."},
        ],
    }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=201", "limit must be at most 200."),
        ("limit=0", "limit must be at least 1."),
        ("limit=many", "limit must be a whole number."),
        ("limit=1&limit=2", "limit may be given only once."),
        ("state=open", "state must be 'pending', 'retrieved', 'failed', 'expired' or 'erased'."),
        ("rule_id=a%20b", "rule_id must have 1 to 64 letters, digits, underscores or hyphens."),
        ("subject_ref=", "subject_ref must have 1 to 256 characters, without control characters."),
        ("received_from=2026-11-23", "received_from must be an instant with its time zone, like 2026-11-23T08:00:00Z."),
        ("received_from=1999-12-31T00:00:00Z", "received_from must be at least 2000-01-01T00:00:00Z."),
        (f"cursor={'x' * 65}", "cursor must have at most 64 characters."),
        ("stat=pending", "stat is not known; the nearest name is state."),
        ("colour=red", "colour is not known."),
        (f"{MARK}=1", "The query has a field that is not known."),
    ],
)
async def test_rejection_says_the_limit_in_words(shared_api: httpx.AsyncClient, query: str, message: str) -> None:
    answer = await shared_api.get(f"/v1/verifications?{query}")

    problem = problem_of(answer)
    assert (problem.status, problem.code, problem.detail) == (422, "invalid_input", message)
    assert [each.message for each in problem.errors or ()] == [message]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{", 400, "The body is not valid JSON from character 1 on."),
        (b"\xff{", 400, "The body cannot be read."),
        (b"[]", 422, "The body must be a JSON object, sent as application/json."),
        (b'{"created_at": "2999-01-01T00:00:00Z"}', 400, "created_at must not be in the future."),
        (b'{"purpose": "\\ud800"}', 422, "purpose must be valid Unicode."),
    ],
)
async def test_rejected_body_is_explained(shared_api: httpx.AsyncClient, body: bytes, status: int, detail: str) -> None:
    headers = {"Content-Type": "application/json"}

    problem = problem_of(await shared_api.put("/v1/verifications/rejected", content=body, headers=headers))

    assert (problem.status, problem.detail) == (status, detail)


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
async def test_unknown_parameter_is_rejected_and_named(shared_api: httpx.AsyncClient, operation: Operation) -> None:
    method, template = operation
    path = template.format(**VALUES)

    answer = await shared_api.request(method, path, params={"colour": "red"}, **ROWS[operation].request)

    # Tencent and load balancers add parameters of their own to these.
    if template in {"/livez", "/readyz", "/metrics", "/v1/callbacks/redirect"}:
        assert answer.status_code == ROWS[operation].status
    else:
        assert answer.status_code == 422
        assert method == "head" or problem_of(answer).detail == "colour is not known."


@pytest.mark.parametrize("path", sorted({path for _, path in OPERATIONS}))
async def test_405_lists_the_allowed_methods(shared_api: httpx.AsyncClient, path: str) -> None:
    answer = await shared_api.request("TRACE", path.format(**VALUES))

    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {method.upper() for method in DOCUMENT["paths"][path]}


@pytest.mark.parametrize("request_id", ["12345678", "a-B_9" * 12, "0f96cf39-1f9c-4b9c-a1b5-6f3a6e0f4c11"])
async def test_valid_request_id_of_the_caller_is_kept(shared_api: httpx.AsyncClient, request_id: str) -> None:
    answer = await shared_api.get("/v1/verifications/unknown", headers={"X-Request-Id": request_id})

    assert problem_of(answer).request_id == request_id


@pytest.mark.parametrize("request_id", ["", "1234567", "a" * 65, "a b c d e f", "12345678\n", '"><script>', "坏" * 8])
async def test_invalid_request_id_is_replaced(shared_api: httpx.AsyncClient, request_id: str) -> None:
    headers = {b"X-Request-Id": request_id.encode()}
    answers = [await shared_api.get("/v1/verifications/unknown", headers=headers) for _ in range(2)]

    given = {problem_of(answer).request_id for answer in answers}
    assert len(given) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in given)


def marked(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields requests to an operation with the mark in each place where it is invalid: the path and the arguments."""
    method, template = operation
    path, valid = template.format(**VALUES), ROWS[operation].request
    for name in re.findall("{(.*?)}", template):
        yield template.replace(f"{{{name}}}", f"!{MARK}").format(**VALUES), valid
    for parameter in DOCUMENT["paths"][template][method].get("parameters", ()):
        name, place = parameter["name"], {"query": "params", "header": "headers"}.get(parameter["in"])
        if place:
            yield path, valid | {place: valid.get(place, {}) | {name: f"\x01{MARK}"}}
    yield (
        path,
        valid | {"params": {MARK: MARK}, "headers": valid.get("headers", {}) | {MARK: MARK, "X-Request-Id": MARK}},
    )
    if "requestBody" in DOCUMENT["paths"][template][method]:
        headers = {"Content-Type": "application/json"}
        yield from ((path, {"content": body, "headers": headers}) for body in bodies())


def bodies() -> Iterator[bytes]:
    yield f'{{"{MARK}'.encode()
    fields = ("BizToken", "biz_token", "RuleId", "Extra", "rule_id", "subject_ref", "created_at", "purpose", MARK)
    for value in (f"\x00{MARK}", {MARK: MARK}, [MARK], int("9" + MARK)):
        yield json.dumps(value).encode()
        yield from (json.dumps({name: value}).encode() for name in fields)


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
async def test_rejected_input_is_neither_returned_nor_logged(
    shared_api: httpx.AsyncClient,
    operation: Operation,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # At INFO the client of this test logs the URLs of its requests.
    caplog.set_level("WARNING", "httpx")
    for path, request in marked(operation):
        headers = request.get("headers", {}) | {"X-Request-Id": f"!{MARK}"}
        answer = await shared_api.request(operation[0], path, **request | {"headers": headers})

        assert answer.status_code < 500
        assert MARK not in answer.text + str(answer.headers)
    assert MARK not in caplog.text + "".join(capsys.readouterr())


async def test_crash_is_a_problem_without_the_exception_text(capsys: pytest.CaptureFixture[str]) -> None:
    def crash() -> None:
        raise ValueError(MARK)

    app = create_app(settings_for(Path(), "http://127.0.0.1:9"))
    app.add_api_route("/crash", crash)
    async with Running(app).client(None) as browser:
        answer = await browser.get("/crash")

    problem = problem_of(answer)
    assert (problem.status, problem.code, problem.detail) == (
        500,
        "internal_error",
        "An internal error occurred.",
    )
    logged = "".join(capsys.readouterr())
    assert "request_crashed" in logged
    assert "error=ValueError" in logged
    assert MARK not in logged + answer.text


async def test_application_that_was_not_started_returns_a_problem() -> None:
    app = create_app(settings_for(Path(), "http://127.0.0.1:9"))
    async with Running(app).client(None) as client:
        assert problem_of(await client.get("/readyz")).status == 500


async def test_without_the_database_only_operations_that_need_it_are_503(idle_service: Running) -> None:
    key = await idle_service.key(Scope.ADMIN)
    # Caches the key.
    await idle_service.services.api_keys.authenticate(key)
    await make_unavailable(idle_service.services.database)

    for operation in OPERATIONS:
        answer = await call(idle_service, key, operation, "a", is_made_up=True)

        is_independent = operation[1] in {"/livez", "/metrics", "/v1/callbacks/redirect", "/v1/redirects", "/v1/me"}
        assert answer.status_code == (ROWS[operation].status if is_independent else 503), operation
        assert is_independent or not answer.content or problem_of(answer).code == "unavailable"
    async with idle_service.client(None) as browser:
        assert (await browser.get("/v1/callbacks/redirect", params={"BizToken": "a"})).status_code == 303


async def make_unavailable(database: Database) -> None:
    """Makes the database unavailable."""
    await database.aclose()
    url = database.engine.url
    if database.is_embedded:
        replace_by_a_folder(Path(url.database or ""))
        return
    engine = create_async_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false"))
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": url.database}
        )
    await engine.dispose()


def replace_by_a_folder(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    path.mkdir()
