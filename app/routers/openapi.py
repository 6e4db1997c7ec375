"""The OpenAPI document at `/openapi.json`, and Swagger UI at `/docs` without requests to other hosts."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from app.domain.api_key import Scope
from app.domain.events import EventType
from app.routers import rates
from app.routers.dependencies import SIGNATURE
from app.routers.examples import EVENTS, EXAMPLES
from app.routers.problem_types import CODES, PAGE_PATH
from app.routers.problems import Problem

SIGNED: dict[str, Any] = {"security": [{"Signature": []}]}
"""Marks an operation that accepts a signature instead of a key."""

_SIGNATURE_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": SIGNATURE,
    "description": "Standard Webhooks, with `webhook-id` and `webhook-timestamp`, by a secret of CALLBACK_SECRETS.",
}


_REQUEST_ID = {
    "description": "Names the request in the log and in the audit. The one of the request's header, or a new one.",
    "schema": {"type": "string"},
    "example": "0f96cf3950a54e0c8f1b4a1a2a3b4c5d",
}
_SCOPES: Mapping[Scope, str] = {
    Scope.CALLBACKS_WRITE: "registers verifications, reports them and retrieves them again",
    Scope.RESULTS_READ: "reads masked results, events and statistics",
    Scope.RESULTS_REVEAL: "reads unmasked identities",
    Scope.MEDIA_READ: "downloads pictures and videos",
    Scope.RESULTS_ERASE: "erases verifications",
    Scope.WEBHOOKS_MANAGE: "manages webhook endpoints and their deliveries",
    Scope.ADMIN: "may do everything, for all clients",
}


class DescribedApi(FastAPI):
    """An application whose document contains what FastAPI does not support.

    These are problem details with an example per status, signatures, examples, scopes in words, and webhooks without
    FastAPI's own answer to invalid input.
    """

    def openapi(self) -> dict[str, Any]:
        """Returns the OpenAPI document, built once."""
        if not self.openapi_schema:
            document = super().openapi()
            _, schemas = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
            components = document["components"]
            components["schemas"].update(schemas["$defs"])
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
            for name, example in EXAMPLES.items():
                components["schemas"][name]["examples"] = [example]
            components["examples"] = _problems()
            components["securitySchemes"]["Signature"] = _SIGNATURE_SCHEME
            rates.describe(document["paths"])
            components["headers"] = {"X-Request-Id": _REQUEST_ID}
            for operation in (operation for item in document["paths"].values() for operation in item.values()):
                for answer in operation["responses"].values():
                    answer.setdefault("headers", {})["X-Request-Id"] = {"$ref": "#/components/headers/X-Request-Id"}
                _simplify_body(operation)
                operation["description"] = f"{operation.get('description', '')}\n\n{_access(operation)}".strip()
            for kind, item in document["webhooks"].items():
                del item["post"]["responses"]["422"]
                item["post"]["requestBody"]["content"]["application/json"]["example"] = EVENTS[EventType(kind)]
        return super().openapi()


def _simplify_body(operation: Mapping[str, Any]) -> None:
    """Describes an optional body without the alternative null: generated clients would send it, or fail without one."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if wanted := [each for each in content["schema"].get("anyOf", ()) if "$ref" in each]:
            content["schema"] = wanted[0]


def _problems() -> dict[str, dict[str, Any]]:
    """Returns an example of a problem for each error code."""
    return {
        known.code: {
            "summary": known.meaning,
            "value": {
                **EXAMPLES["Problem"],
                "type": f"{PAGE_PATH}#{known.code}",
                "title": HTTPStatus(status).phrase,
                "status": status,
                "detail": known.meaning,
                "code": known.code,
            },
        }
        for known in CODES
        for status in [int(known.status.partition(",")[0])]
    }


def _access(operation: Mapping[str, Any]) -> str:
    """Returns in words what a request needs."""
    ways: list[dict[str, list[str]]] = operation.get("security", [])
    if not ways:
        return "Needs no API key."
    scopes = [Scope(scope) for way in ways for scope in way.get("ApiKey", ())]
    words = " ".join(f"It must have the scope `{scope}`, which {_SCOPES[scope]}." for scope in scopes)
    if {} in ways:
        return f"Needs no API key. The answer contains more for a request with a key. {words}"
    signature = " Or a signature instead of a key." if {"Signature": []} in ways else ""
    return f"Needs an API key. {words}".strip() + signature


ASSETS_PATH = "/docs/assets"
_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)
assets = StaticFiles(directory=Path(__file__).parent / "swagger_ui")
"""Files of the npm package swagger-ui-dist, unchanged. ADR 0030 says why and how to update them."""


@router.get("/docs")
async def read_and_try() -> HTMLResponse:
    """Serves Swagger UI with our own copy of its scripts."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="faceid-results",
        swagger_js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS_PATH}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS_PATH}/favicon-32x32.png",
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page
