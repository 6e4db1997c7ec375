"""Problem details after RFC 9457: every error that a caller sees, with a stable `code` and the `request_id`.

What was rejected is never repeated: it may be an ID number.
"""

from collections.abc import Sequence
from http import HTTPStatus

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.errors import RangeNotSatisfiableError, ServiceError, UnauthenticatedError

MEDIA_TYPE = "application/problem+json"


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


def on_service_error(_: Request, error: Exception) -> JSONResponse:
    """One of our own errors."""
    if not isinstance(error, ServiceError):
        raise error
    headers = {}
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeNotSatisfiableError):
        headers["Content-Range"] = f"bytes */{error.size}"
    return problem(error.status, error.code, error.detail, headers=headers)


def on_invalid_request(_: Request, error: Exception) -> JSONResponse:
    """FastAPI found the request not to fit the document."""
    if not isinstance(error, RequestValidationError):
        raise error
    rejections = [
        Rejection(location=_location(item["type"], item["loc"]), type=item["type"]) for item in error.errors()
    ]
    return problem(422, "invalid_input", "The request does not fit the API's description.", errors=rejections)


def on_http_error(_: Request, error: Exception) -> JSONResponse:
    """FastAPI or Starlette have no route for it, or could not read the body."""
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return problem(error.status_code, code, f"{phrase}.", headers=dict(error.headers or {}))


def _location(kind: str, location: Sequence[str | int]) -> list[str | int]:
    """The place without the names that the caller made up."""
    return list(location[:-1] if kind == "extra_forbidden" else location)
