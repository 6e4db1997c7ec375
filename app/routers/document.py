"""The API's description of itself, `/openapi.json`."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from app.routers.problems import Problem


class Api(FastAPI):
    """An application whose description knows the problem details, which FastAPI has no place for."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; made once."""
        if not self.openapi_schema:
            _, schemas = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
            super().openapi()["components"]["schemas"].update(schemas["$defs"])
        return super().openapi()
