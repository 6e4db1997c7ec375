"""The rates of operations: each limited route states its class. Services count, and the answer has the headers.

The headers follow draft-ietf-httpapi-ratelimit-headers: `"lists";q=500;w=10` and `"lists";r=499;t=1`.
"""

from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

from app.domain.rate import RateClass
from app.routers.problems import declared
from app.services.limits import LimitService

_MARK = "x-rate-class"
_HEADERS = {
    "RateLimit-Policy": (
        "The class, the requests `q` that are possible at once, and the seconds `w` until they are again.",
        '"lists";q=500;w=10',
    ),
    "RateLimit": (
        "The class, the requests `r` that are possible now, and the seconds `t` until all of them are.",
        '"lists";r=499;t=1',
    ),
}
_DECLARED: dict[str, Any] = {
    name: {"description": text, "schema": {"type": "string"}, "example": example}
    for name, (text, example) in _HEADERS.items()
}
_RETRY: dict[str, Any] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def limited(of: RateClass) -> dict[str, Any]:
    """Returns the `openapi_extra` of a route whose requests are counted in this class."""
    return {_MARK: of.value}


def describe(paths: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Adds the headers and the refusal to the limited operations of an OpenAPI document."""
    for operation in (operation for item in paths.values() for operation in item.values() if _MARK in operation):
        operation["responses"].update({str(status): answer for status, answer in declared(429).items()})
        for status, answer in operation["responses"].items():
            if status.startswith("2") or status == "429":
                answer["headers"] = answer.get("headers", {}) | _DECLARED | (_RETRY if status == "429" else {})


def headers_of(scope: Scope) -> Mapping[str, str]:
    """Returns the headers of the answer to an authenticated request of a limited route."""
    of = (getattr(scope.get("route"), "openapi_extra", None) or {}).get(_MARK)
    caller = scope.get("state", {}).get("caller")
    if of is None or caller is None:
        return {}
    limits: LimitService = scope["app"].state.services.limits
    found = limits.standing(caller, RateClass(of))
    if found is None:
        return {}
    rate, standing = found
    return {
        "RateLimit-Policy": f'"{of}";q={rate.burst};w={rate.window_seconds}',
        "RateLimit": f'"{of}";r={standing.remaining};t={standing.full_seconds}',
    }
