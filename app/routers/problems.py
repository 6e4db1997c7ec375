"""Problem details after RFC 9457: every error that callers see, with a stable `code` and the `request_id`.

Rejected input is never repeated, because it may be an ID number.
"""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.errors import ServiceError
from app.routers.problem_types import CODES, PAGE_PATH
from app.routers.rejections import Rejection, rejection_of

MEDIA_TYPE = "application/problem+json"
AUTH_ERRORS = (401, 403, 413, 422, 500, 503)
"""The errors of every call that needs an API key."""

_WHEN: dict[int | str, str] = {
    400: "The request is not JSON, or it makes no sense.",
    401: "The API key is missing, unknown, expired, revoked or not for this network; or the signature is invalid.",
    403: "The API key lacks the scope.",
    404: "It does not exist, or it belongs to another client.",
    409: "The request contradicts an earlier statement.",
    410: "It was erased, or it is no longer kept.",
    413: "The body is too large.",
    416: "The range lies outside the media item, whose size is in `Content-Range`.",
    422: "The request does not match this description; `errors` says where and why.",
    429: "A rate limit was exceeded; `Retry-After` says how many seconds to wait.",
    500: "An internal error.",
    503: "A database or store does not answer.",
    "4XX": "The request cannot be read.",
}


class Problem(BaseModel):
    """An error after RFC 9457. `type` is the address of the code's explanation, relative to the service."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[Rejection] | None = None


def problem(
    status: int, code: str, detail: str, *, errors: list[Rejection] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Returns the response for an error."""
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    content = Problem(
        type=f"{PAGE_PATH}#{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
        errors=errors,
    )
    return JSONResponse(content.model_dump(exclude_none=True), status, headers=headers, media_type=MEDIA_TYPE)


def declared(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI responses for these errors."""
    return {status: {"description": _WHEN[status], "content": {MEDIA_TYPE: _content(status)}} for status in statuses}


def _content(status: int | str) -> dict[str, Any]:
    """Returns the schema of a problem, and examples of all codes that have this status."""
    codes = [known.code for known in CODES if str(status) in known.status.split(", ")]
    examples = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
    return {"schema": {"$ref": "#/components/schemas/Problem"}} | ({"examples": examples} if examples else {})


def on_service_error(_: Request, error: Exception) -> JSONResponse:
    """Handles our own errors."""
    if not isinstance(error, ServiceError):
        raise error
    return problem(error.status, error.code, error.detail, headers=error.headers)


def on_invalid_request(_: Request, error: Exception) -> JSONResponse:
    """Handles a request that does not match the API description."""
    if not isinstance(error, RequestValidationError):
        raise error
    first, *others = errors = error.errors()
    if first["type"] == "json_invalid":
        return problem(400, "invalid_json", f"The body is not valid JSON from character {first['loc'][-1]} on.")
    rejections = [rejection_of(item) for item in errors]
    more = f" There are {len(others)} more errors." if others else ""
    return problem(422, "invalid_input", rejections[0].message + more, errors=rejections)


def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Handles a request without a route or with an unreadable body."""
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = _methods(request) or headers["Allow"]
    detail = "The body cannot be read." if error.status_code == HTTPStatus.BAD_REQUEST else f"{phrase}."
    return problem(error.status_code, code, detail, headers=headers)


def _methods(request: Request) -> str:
    """Returns all methods of the path; FastAPI names only those of its first route."""
    template = getattr(request.scope.get("route"), "path", None)
    return ", ".join(method.upper() for method in request.app.openapi()["paths"].get(template, ()))
