"""Every operation of the API with its scope and a request that succeeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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

    Without a scope a call needs no key, or with `any_key` any key. An optional key must have the scope
    `optional`. `naming` are further requests, which name all that a `Target` has and the operation accepts. An
    operation that is not about one verification must list them, unless it `is_about_endpoints`.
    """

    scope: Scope | None
    status: int
    request: dict[str, Any] = field(default_factory=dict)
    is_about_one: bool = True
    any_key: bool = False
    optional: Scope | None = None
    naming: Sequence[dict[str, Any]] | None = None
    is_about_endpoints: bool = False

    @property
    def requests(self) -> Sequence[dict[str, Any]]:
        """The requests that may reveal something about a target. The client can be named wherever a token is."""
        if not self.is_about_one:
            return self.naming or ()
        plain = [self.request, *(self.naming or ())]
        return [*plain, *({**request, "params": {"client": "{client}"}} for request in plain)]


def _about_endpoints(status: int, **request: object) -> Row:
    return Row(Scope.WEBHOOKS_MANAGE, status, request, is_about_one=False, is_about_endpoints=True)


@dataclass(frozen=True)
class Target:
    """A verification, known or made up, and what belongs to it."""

    biz_token: str
    client: str
    rule_id: str
    subject_ref: str
    id_card: str


MEDIA_ITEM = "/v1/verifications/{biz_token}/media/{kind}"
ENDPOINT = "/v1/webhook-endpoints/{endpoint_id}"
DELIVERY = "/v1/deliveries/{delivery_id}"
HOLD = "/v1/verifications/{biz_token}/legal-hold"
ROWS: dict[Operation, Row] = {
    ("post", "/v1/callbacks"): Row(
        Scope.CALLBACKS_WRITE,
        202,
        {"json": {"BizToken": "{biz_token}"}},
        naming=[{"json": {"BizToken": "{biz_token}", "RuleId": "{rule_id}"}}],
    ),
    ("get", "/v1/callbacks/redirect"): Row(
        None, 303, is_about_one=False, naming=[{"params": {"BizToken": "{biz_token}"}}]
    ),
    ("post", "/v1/redirects"): Row(
        Scope.CALLBACKS_WRITE,
        201,
        {"json": {"rule_id": STATEFUL}},
        is_about_one=False,
        naming=[{"json": {"rule_id": "{rule_id}"}}],
    ),
    ("put", "/v1/verifications/{biz_token}"): Row(
        Scope.CALLBACKS_WRITE, 200, {"json": {}}, naming=[{"json": {"rule_id": "{rule_id}"}}]
    ),
    ("get", "/v1/verifications/{biz_token}"): Row(Scope.RESULTS_READ, 200),
    ("get", "/v1/verifications"): Row(
        Scope.RESULTS_READ,
        200,
        is_about_one=False,
        naming=[{"params": {name: f"{{{name}}}"}} for name in ("rule_id", "subject_ref", "client")],
    ),
    ("get", "/v1/verifications/export"): Row(
        Scope.RESULTS_READ,
        200,
        is_about_one=False,
        naming=[{"params": {name: f"{{{name}}}"}} for name in ("rule_id", "subject_ref", "client")],
    ),
    ("get", "/v1/verifications/{biz_token}/identity"): Row(
        Scope.RESULTS_REVEAL, 200, {"headers": {"X-Purpose": "test"}}
    ),
    ("post", "/v1/verifications/{biz_token}/retrieve"): Row(Scope.CALLBACKS_WRITE, 202),
    ("get", MEDIA_ITEM): Row(Scope.MEDIA_READ, 200),
    ("head", MEDIA_ITEM): Row(Scope.MEDIA_READ, 200),
    ("post", "/v1/verifications/search"): Row(
        Scope.RESULTS_READ,
        200,
        {"json": {"id_card": "000000199001011234"}},
        is_about_one=False,
        naming=[
            {"json": {"id_card": "{id_card}"}},
            {"json": {"id_card": "{id_card}", "client": "{client}"}},
            {"json": {"id_card": "{id_card}", "rule_id": "{rule_id}"}},
        ],
    ),
    ("put", HOLD): Row(Scope.ADMIN, 204),
    ("delete", HOLD): Row(Scope.ADMIN, 204),
    ("get", "/v1/events"): Row(
        Scope.RESULTS_READ,
        200,
        is_about_one=False,
        naming=[{"params": {name: f"{{{name}}}"}} for name in ("biz_token", "client")],
    ),
    ("get", "/v1/stats"): Row(Scope.RESULTS_READ, 200, is_about_one=False, naming=[{"params": {"client": "{client}"}}]),
    ("get", "/v1/audit"): Row(Scope.ADMIN, 200, is_about_one=False, naming=[{"params": {"biz_token": "{biz_token}"}}]),
    ("delete", "/v1/verifications/{biz_token}"): Row(Scope.RESULTS_ERASE, 204),
    ("post", "/v1/webhook-endpoints"): _about_endpoints(201, json={"url": "http://127.0.0.1:9/"}),
    ("get", "/v1/webhook-endpoints"): _about_endpoints(200),
    ("get", ENDPOINT): _about_endpoints(200),
    ("patch", ENDPOINT): _about_endpoints(200, json={"description": "a"}),
    ("post", f"{ENDPOINT}/rotate"): _about_endpoints(200),
    ("post", f"{ENDPOINT}/test"): _about_endpoints(200),
    ("get", f"{ENDPOINT}/deliveries"): _about_endpoints(200),
    ("post", f"{ENDPOINT}/replay"): _about_endpoints(
        202, json={"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "which": "all"}
    ),
    ("get", DELIVERY): _about_endpoints(200),
    ("post", f"{DELIVERY}/retry"): _about_endpoints(202),
    ("delete", ENDPOINT): _about_endpoints(204),
    ("get", "/v1/me"): Row(None, 200, is_about_one=False, any_key=True, naming=[{}]),
    ("get", "/livez"): Row(None, 200, is_about_one=False, naming=[{}]),
    ("get", "/readyz"): Row(None, 200, is_about_one=False, naming=[{}], optional=Scope.ADMIN),
    ("get", "/metrics"): Row(None, 200, is_about_one=False, naming=[{}], optional=Scope.ADMIN),
}
VALUES = {
    "biz_token": "a",
    "kind": "best_frame",
    "endpoint_id": "we_0123456789abcdef01234567",
    "delivery_id": "dlv_4711",
}
"""Valid values of the parameters in paths."""
DOCUMENT = create_app(settings_for(Path(), "http://127.0.0.1:9")).openapi()
OPERATIONS: Sequence[Operation] = [(method, path) for path, item in DOCUMENT["paths"].items() for method in item]


async def call(
    service: Running,
    key: str | None,
    operation: Operation,
    target: str | Target,
    *,
    request: dict[str, Any] | None = None,
    scheme: str = "Bearer",
    is_made_up: bool = False,
) -> httpx.Response:
    """Calls the operation with this key on this verification, by default with the request that succeeds.

    The endpoint and the delivery exist unless they are made up.
    """
    method, path = operation
    values = VALUES | ({"biz_token": target} if isinstance(target, str) else asdict(target))
    if "{endpoint_id}" in path and not is_made_up:
        values["endpoint_id"] = await service.endpoint_id()
    if "{delivery_id}" in path and not is_made_up:
        values["delivery_id"] = await service.delivery_id()
    request = dict(ROWS[operation].request if request is None else request)
    for place in {"json", "params"} & request.keys():
        request[place] = {name: value.format(**values) for name, value in request[place].items()}
    headers = {"X-Request-Id": REQUEST_ID} | ({} if key is None else {"Authorization": f"{scheme} {key}".encode()})
    request["headers"] = headers | request.get("headers", {})
    async with service.client(None) as client:
        return await client.request(method, path.format(**values), **request)
