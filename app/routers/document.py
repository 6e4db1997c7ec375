"""The API's description of itself: `/openapi.json`, and `/docs` for people, whose browsers are sent nowhere else."""

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from app.routers.dependencies import SIGNATURE
from app.routers.problems import Problem

SIGNED: dict[str, Any] = {"security": [{"Signature": []}]}
"""For the description of an operation that takes a signature in place of a key."""

_SIGNATURE_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": SIGNATURE,
    "description": "Standard Webhooks, with `webhook-id` and `webhook-timestamp`, by a secret of CALLBACK_SECRETS.",
}


class Api(FastAPI):
    """An application whose description knows problem details and signatures, which FastAPI has no place for."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; made once."""
        if not self.openapi_schema:
            _, schemas = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
            components = super().openapi()["components"]
            components["schemas"].update(schemas["$defs"])
            components["securitySchemes"]["Signature"] = _SIGNATURE_SCHEME
        return super().openapi()


ASSETS_PATH = "/docs/assets"
_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'"
)

router = APIRouter(include_in_schema=False)
assets = StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")


@router.get("/docs")
async def read_and_try() -> HTMLResponse:
    """Swagger UI, with scripts of our own instead of a content network's."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="faceid-results",
        swagger_js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS_PATH}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS_PATH}/favicon.png",
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page
