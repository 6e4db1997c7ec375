"""Problem details after RFC 9457: every error that a caller sees, with a stable `code` and the `request_id`.

What was rejected is never repeated: it may be an ID number.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.errors import RangeNotSatisfiableError, ServiceError, TooManyRequestsError, UnauthenticatedError

MEDIA_TYPE = "application/problem+json"
KEYED = (401, 403, 413, 422, 500, 503)
"""What every call that needs an API key may be answered with."""

_WHEN: dict[int | str, str] = {
    400: "The request is not JSON, or makes no sense.",
    401: "There is no API key, or it is unknown, expired, revoked or not for this network; or a signature is not good.",
    403: "The API key lacks the scope.",
    404: "There is no such thing for this API key; a foreign one looks the same.",
    409: "The request contradicts what is already known.",
    410: "It was erased.",
    413: "The body is too large.",
    416: "The range lies outside the medium, whose size is in `Content-Range`.",
    422: "The request does not fit this description; `errors` says where, and repeats nothing.",
    429: "The key asks too often; `Retry-After` says for how many seconds to wait.",
    500: "Something went wrong on our side.",
    503: "A store that the answer depends on does not answer.",
    "4XX": "The request cannot be read.",
}


class Rejection(BaseModel):
    """Where a request is wrong, and what is wrong there, as a stable word."""

    location: list[str | int]
    type: str


class Problem(BaseModel):
    """An error after RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[Rejection] | None = None


def problem(
    status: int, code: str, detail: str, *, errors: list[Rejection] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer that tells a caller of an error."""
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    content = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, request_id=request_id, errors=errors
    )
    return JSONResponse(content.model_dump(exclude_none=True), status, headers=headers, media_type=MEDIA_TYPE)


def declared(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """How the API's description says that a call may be answered with these errors."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _WHEN[status], "content": content} for status in statuses}


def on_service_error(_: Request, error: Exception) -> JSONResponse:
    """One of our own errors."""
    if not isinstance(error, ServiceError):
        raise error
    headers = {}
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeNotSatisfiableError):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(error.retry_after)
    return problem(error.status, error.code, error.detail, headers=headers)


def on_invalid_request(_: Request, error: Exception) -> JSONResponse:
    """FastAPI found the request not to fit the document."""
    if not isinstance(error, RequestValidationError):
        raise error
    rejections = [
        Rejection(location=_location(item["type"], item["loc"]), type=item["type"]) for item in error.errors()
    ]
    return problem(422, "invalid_input", "The request does not fit the API's description.", errors=rejections)


def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI or Starlette have no route for it, or could not read the body."""
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = _methods(request) or headers["Allow"]
    return problem(error.status_code, code, f"{phrase}.", headers=headers)


def _methods(request: Request) -> str:
    """All methods of the path; FastAPI names those of its first route only."""
    template = getattr(request.scope.get("route"), "path", None)
    return ", ".join(method.upper() for method in request.app.openapi()["paths"].get(template, ()))


def _location(kind: str, location: Sequence[str | int]) -> list[str | int]:
    """The place without the names that the caller made up."""
    return list(location[:-1] if kind == "extra_forbidden" else location)
