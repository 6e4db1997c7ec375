"""The API description: complete, correct, and compared with the service by generated requests."""

import asyncio
import hashlib
import re
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.config import Settings
from app.domain.events import EventType
from app.factory import open_services
from app.main import create_app
from app.routers import openapi
from app.routers.problem_types import CODES
from tests.support.api import EXAMPLE
from tests.support.operations import DOCUMENT, OPERATIONS, ROWS, Operation
from tests.support.service import Running, actor, everything, settings_for
from tests.support.simulator import LiveSimulator

VENDORED = Path(openapi.__file__).parent / "swagger_ui"
OPERATION_IDS = [
    "change_webhook_endpoint",
    "check_liveness",
    "check_readiness",
    "create_redirect_state",
    "create_webhook_endpoint",
    "delete_webhook_endpoint",
    "erase_verification",
    "export_verifications",
    "follow_redirect",
    "get_current_key",
    "get_delivery",
    "get_identity",
    "get_media",
    "get_metrics",
    "get_stats",
    "get_verification",
    "get_webhook_endpoint",
    "head_media",
    "lift_legal_hold",
    "list_audit_events",
    "list_deliveries",
    "list_events",
    "list_verifications",
    "list_webhook_endpoints",
    "register_verification",
    "replay_events",
    "retrieve_verification",
    "retry_delivery",
    "rotate_webhook_secret",
    "search_verifications",
    "send_callback",
    "send_test_event",
    "set_legal_hold",
]
COMPONENTS = DOCUMENT["components"]
schema = schemathesis.openapi.from_dict(DOCUMENT)


def nodes(value: object) -> Iterator[dict[str, Any]]:
    """Yields every object within a JSON value."""
    children: list[object] = []
    if isinstance(value, dict):
        yield value
        children = list(value.values())
    elif isinstance(value, list):
        children = value
    for child in children:
        yield from nodes(child)


def test_references_resolve() -> None:
    references = {node["$ref"] for node in nodes(DOCUMENT) if isinstance(node.get("$ref"), str)}
    places = {f"#/components/{kind}/{name}" for kind in ("schemas", "examples", "headers") for name in COMPONENTS[kind]}

    assert references <= places
    assert "#/components/schemas/Problem" in references


def test_operation_ids_are_the_recorded_names_of_generated_methods() -> None:
    """They are public: another name breaks the code that uses a generated client."""
    ids = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    webhooks = [item["post"]["operationId"] for item in DOCUMENT["webhooks"].values()]

    assert sorted(ids) == OPERATION_IDS
    assert webhooks == [kind.replace(".", "_") for kind in EventType]
    assert DOCUMENT["servers"][0]["url"] == "/"


def test_every_body_has_an_example_that_matches_its_schema() -> None:
    operations = [
        operation for kind in ("paths", "webhooks") for item in DOCUMENT[kind].values() for operation in item.values()
    ]
    bodies = [body for each in operations for body in (each.get("requestBody"), *each["responses"].values()) if body]
    contents = [content.get("schema", {}) for body in bodies for content in body.get("content", {}).values()]
    names = {node["$ref"].rpartition("/")[2] for content in contents for node in nodes(content) if "$ref" in node}
    examples = {name: COMPONENTS["schemas"][name].get("examples") for name in names}
    examples |= {
        f"EventView {kind}": [item["post"]["requestBody"]["content"]["application/json"]["example"]]
        for kind, item in DOCUMENT["webhooks"].items()
    }
    examples |= {f"Problem {code}": [known["value"]] for code, known in COMPONENTS["examples"].items()}

    assert [name for name, known in examples.items() if not known] == []
    for name, known in examples.items():
        schema_ = {"$ref": f"#/components/schemas/{name.partition(' ')[0]}", "components": COMPONENTS}
        for example in known:
            jsonschema_rs.validate(schema_, example)


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_operation_says_which_scope_it_needs(operation: Operation) -> None:
    row, (method, path) = ROWS[operation], operation
    last = DOCUMENT["paths"][path][method]["description"].rpartition("\n\n")[2]
    scope = row.scope or row.optional

    assert last.startswith("Needs an API key." if row.scope or row.any_key else "Needs no API key.")
    assert re.findall("`(.+?)`", last) == ([scope.value] if scope else [])


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_errors_are_declared_as_problems(operation: Operation) -> None:
    method, path = operation
    answers = DOCUMENT["paths"][path][method]["responses"]
    errors = {status for status in answers if status.startswith(("4", "5"))}

    for status in errors:
        (content,) = answers[status]["content"].values()
        codes = [example["$ref"].rpartition("/")[2] for example in content.get("examples", {}).values()]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        assert codes == [code.code for code in CODES if status in code.status.split(", ")]
    if DOCUMENT["paths"][path][method].get("security"):
        assert errors >= {"401", "403", "413", "422", "500", "503"}
    # A registration or callback of an unknown token creates its verification.
    assert ("404" in errors) == (
        "_id}" in path or ("biz_token" in path and operation != ("put", "/v1/verifications/{biz_token}"))
    )


def test_security_schemes_are_bearer_key_and_signature() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]

    assert {name: (scheme["type"], scheme.get("scheme"), scheme.get("name")) for name, scheme in schemes.items()} == {
        "ApiKey": ("http", "bearer", None),
        "Signature": ("apiKey", None, "webhook-signature"),
    }


def test_biz_token_has_the_example() -> None:
    callback = DOCUMENT["components"]["schemas"]["Callback"]["properties"]
    tokens = [
        parameter["schema"]["examples"]
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
        if (parameter["name"], parameter["in"]) == ("biz_token", "path")
    ]

    assert callback["BizToken"]["examples"] == [EXAMPLE]
    assert tokens
    assert all(examples == [EXAMPLE] for examples in tokens)


def test_webhooks_describe_every_type_of_event() -> None:
    webhooks = DOCUMENT["webhooks"]
    bodies = {
        kind: item["post"]["requestBody"]["content"]["application/json"]["schema"] for kind, item in webhooks.items()
    }
    headers = [parameter["name"] for parameter in webhooks["test"]["post"]["parameters"]]

    assert bodies == {kind: {"$ref": "#/components/schemas/EventView"} for kind in EventType}
    assert headers == ["webhook-id", "webhook-timestamp", "webhook-signature"]
    assert {status for item in webhooks.values() for status in item["post"]["responses"]} == {"204"}


def test_timestamps_are_declared_as_date_time() -> None:
    fields = {
        name: property_
        for model in DOCUMENT["components"]["schemas"].values()
        for name, property_ in model.get("properties", {}).items()
        if name.endswith("_at")
    }

    assert all("date-time" in str(property_) for property_ in fields.values())
    assert len(fields) >= 7


async def test_service_returns_its_description(shared_api: httpx.AsyncClient) -> None:
    assert (await shared_api.get("/openapi.json")).json() == DOCUMENT


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, faceid: LiveSimulator) -> Iterator[httpx.Client]:
    """A client of a service behind a real server that has the result of the description's example."""
    settings = settings_for(tmp_path_factory.mktemp("served"), faceid.url)
    key = asyncio.run(key_for(settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, access_log=False))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(
                base_url=address, headers={"Authorization": f"Bearer {key}", "X-Purpose": "test"}
            ) as client:
                client.post("/v1/callbacks", json={"BizToken": EXAMPLE})
                client.get(f"/v1/verifications/{EXAMPLE}", params={"wait": 20}, timeout=30)
                yield client
        finally:
            server.should_exit = True
            thread.join()


async def key_for(settings: Settings) -> str:
    async with open_services(settings) as services:
        _, text = await services.api_keys.create(
            actor(), "test", everything(), client="default", valid_for=timedelta(days=1)
        )
    return text


@schema.parametrize()
@settings(max_examples=12, derandomize=True, suppress_health_check=list(HealthCheck))
def test_generated_requests_are_answered_as_described(case: schemathesis.Case[Any], served: httpx.Client) -> None:
    query = case.query or {}
    # A token that is only registered stays pending for the whole wait.
    if isinstance(query.get("wait"), (int, float)) and 1 < query["wait"] <= 60:
        query["wait"] = 0.5
    case.call_and_validate(
        base_url=str(served.base_url),
        headers={"Authorization": served.headers["Authorization"]},
        # Creation times in the future and invalid cursors match the schema and are rejected.
        excluded_checks=[positive_data_acceptance],
    )


async def test_documentation_page_loads_local_files_only(shared_service: Running) -> None:
    async with shared_service.client(None) as client:
        page = await client.get("/docs")
        links = re.findall(r'(?:src|href|url)[=:] ?[\'"]([^\'"]+)', page.text)
        answers = [await client.get(link) for link in links]

    assert sorted(links) == [
        "/docs/assets/favicon-32x32.png",
        "/docs/assets/swagger-ui-bundle.js",
        "/docs/assets/swagger-ui.css",
        "/openapi.json",
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


async def test_documentation_page_serves_the_recorded_files(shared_service: Running) -> None:
    lines = (VENDORED / "SHA256SUMS").read_text().splitlines()
    recorded = {name: digest for digest, name in (line.split() for line in lines)}
    async with shared_service.client(None) as client:
        served = {name: hashlib.sha256((await client.get(f"/docs/assets/{name}")).content) for name in recorded}

    assert {name: digest.hexdigest() for name, digest in served.items()} == recorded
    assert {path.name for path in VENDORED.iterdir()} == {*recorded, "SHA256SUMS"}


@pytest.mark.parametrize("path", ["/livez", "/docs/errors", "/v1/callbacks/done", "/v1/me", "/nowhere"])
async def test_answer_forbids_active_content_and_framing(shared_service: Running, path: str) -> None:
    async with shared_service.client(None) as client:
        answer = await client.get(path)

    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    assert answer.headers["Content-Security-Policy"] == policy


async def test_default_redirect_page_confirms_the_completion(shared_service: Running) -> None:
    async with shared_service.client(None) as client:
        page = await client.get("/v1/callbacks/done")

    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "核身已完成" in page.text
