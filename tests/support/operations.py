"""Every operation of the API with its scope and a request that succeeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.domain.api_key import Scope
from app.main import create_app
from tests.support.api import STATEFUL
from tests.support.service import Running, settings_for

REQUEST_ID = "given-by-the-caller"
Operation = tuple[str, str]


@dataclass(frozen=True)
class Row:
    """The scope, status and request of a successful call, and whether it concerns one verification.

    Without a scope a call needs no key, or with `any_key` any key.
    """

    scope: Scope | None
    status: int
    request: dict[str, Any] = field(default_factory=dict)
    is_about_one: bool = True
    any_key: bool = False


MEDIA_ITEM = "/v1/verifications/{biz_token}/media/{kind}"
HOLD = "/v1/verifications/{biz_token}/legal-hold"
ROWS: dict[Operation, Row] = {
    ("post", "/v1/callbacks"): Row(Scope.CALLBACKS_WRITE, 202, {"json": {"BizToken": "{biz_token}"}}),
    ("get", "/v1/callbacks/redirect"): Row(None, 303),
    ("post", "/v1/redirects"): Row(Scope.CALLBACKS_WRITE, 201, {"json": {"rule_id": STATEFUL}}, is_about_one=False),
    ("put", "/v1/verifications/{biz_token}"): Row(Scope.CALLBACKS_WRITE, 200, {"json": {}}),
    ("get", "/v1/verifications/{biz_token}"): Row(Scope.RESULTS_READ, 200),
    ("get", "/v1/verifications"): Row(Scope.RESULTS_READ, 200, is_about_one=False),
    ("get", "/v1/verifications/{biz_token}/identity"): Row(
        Scope.RESULTS_REVEAL, 200, {"headers": {"X-Purpose": "test"}}
    ),
    ("post", "/v1/verifications/{biz_token}/retrieve"): Row(Scope.CALLBACKS_WRITE, 202),
    ("get", MEDIA_ITEM): Row(Scope.MEDIA_READ, 200),
    ("head", MEDIA_ITEM): Row(Scope.MEDIA_READ, 200),
    ("post", "/v1/verifications/search"): Row(
        Scope.RESULTS_READ, 200, {"json": {"id_card": "000000199001011234"}}, is_about_one=False
    ),
    ("put", HOLD): Row(Scope.ADMIN, 204),
    ("delete", HOLD): Row(Scope.ADMIN, 204),
    ("get", "/v1/audit"): Row(Scope.ADMIN, 200, is_about_one=False),
    ("delete", "/v1/verifications/{biz_token}"): Row(Scope.RESULTS_ERASE, 204),
    ("get", "/v1/me"): Row(None, 200, is_about_one=False, any_key=True),
    ("get", "/livez"): Row(None, 200),
    ("get", "/readyz"): Row(None, 200),
    ("get", "/metrics"): Row(None, 200),
}
DOCUMENT = create_app(settings_for(Path(), "http://127.0.0.1:9")).openapi()
OPERATIONS: Sequence[Operation] = [(method, path) for path, item in DOCUMENT["paths"].items() for method in item]


async def call(
    service: Running, key: str | None, operation: Operation, biz_token: str, *, scheme: str = "Bearer"
) -> httpx.Response:
    """Calls the operation with this key on this verification."""
    method, path = operation
    request = dict(ROWS[operation].request)
    if "json" in request:
        request["json"] = {name: value.format(biz_token=biz_token) for name, value in request["json"].items()}
    headers = {"X-Request-Id": REQUEST_ID} | ({} if key is None else {"Authorization": f"{scheme} {key}".encode()})
    request["headers"] = headers | request.get("headers", {})
    async with service.client(None) as client:
        return await client.request(method, path.format(biz_token=biz_token, kind="best_frame"), **request)
