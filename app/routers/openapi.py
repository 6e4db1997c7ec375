"""The OpenAPI document at `/openapi.json`, and Swagger UI at `/docs` without requests to other hosts."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from app.routers import rates
from app.routers.dependencies import SIGNATURE
from app.routers.problems import Problem

SIGNED: dict[str, Any] = {"security": [{"Signature": []}]}
"""Marks an operation that accepts a signature instead of a key."""

_SIGNATURE_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": SIGNATURE,
    "description": "Standard Webhooks, with `webhook-id` and `webhook-timestamp`, by a secret of CALLBACK_SECRETS.",
}


class DescribedApi(FastAPI):
    """An application whose document contains problem details and signatures, which FastAPI does not support."""

    def openapi(self) -> dict[str, Any]:
        """Returns the OpenAPI document, built once."""
        if not self.openapi_schema:
            _, schemas = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
            components = super().openapi()["components"]
            components["schemas"].update(schemas["$defs"])
            components["securitySchemes"]["Signature"] = _SIGNATURE_SCHEME
            rates.describe(super().openapi()["paths"])
        return super().openapi()


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
