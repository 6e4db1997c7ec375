"""Webhook endpoints: listed, created, changed, tested and removed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from fastapi import APIRouter, Response

from app.console.language import marked as _
from app.console.rendering import Notice, with_query
from app.console.visits import Fields, PageRoute, SignedInVisit, Visit, fields_of, see_other
from app.domain.deliveries import Answer, DeliveryFilter, Signals
from app.domain.detection import Outcome
from app.domain.events import EventType
from app.domain.webhook_endpoint import MAX_PER_CLIENT, EndpointState, WebhookEndpoint
from app.errors import ConflictError, InvalidRequestError
from app.services.deliveries import DeliveryRecord
from app.services.webhook_endpoints import MAX_COUNTED, EndpointFacts, Held

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PATH = "/admin/webhook-endpoints"
_ONE = f"{PATH}/{{endpoint_id}}"
_PAGE_LENGTH, _NEWEST = 30, 10
_ATTEMPTS, _LISTED_ATTEMPTS = 10_000, 1000
_MAX_URL, _MAX_LINE, _MAX_RULES, _MAX_RATE = 2048, 256, 20, 1000
_RULE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEEP = (
    ("24h", timedelta(hours=24), _("24 hours")),
    ("1h", timedelta(hours=1), _("1 hour")),
    ("7d", timedelta(days=7), _("7 days")),
    ("0s", timedelta(), _("Not at all: it was disclosed")),
)
_NONE = Notice()
_DONE = {
    "change": _("The endpoint is changed."),
    "enable": _("The endpoint is enabled: events are sent."),
    "disable": _("The endpoint is disabled: events are held until it is enabled."),
    "delete": _("The endpoint is deleted, with its deliveries."),
}
_INCOMPLETE = _(
    "Enter a URL. A RuleId has letters, digits, hyphens and underscores; separate several by blanks. The rate is 1 to "
    "1000 per second."
)
_WRONG_URL = _("Events cannot be sent to this URL.")
_TOO_MANY = _("The client has as many endpoints as it may. Delete one.")
_WRONG_HOST = _("The host of the endpoint is not this one, so it was not deleted.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointsPage:
    """The endpoints with their signals, and the form for a new one with what was entered.

    Signals are of at most `attempt_limit` attempts.
    """

    endpoints: Sequence[tuple[WebhookEndpoint, Signals]]
    attempt_limit: int
    entered: Fields
    is_admin: bool
    at_most: int
    first_url: str | None
    next_url: str | None
    notice: Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A test event and what came back. Both are stored nowhere."""

    kind: EventType
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPage:
    """One endpoint with its newest deliveries and its signals, of at most `attempt_limit` attempts.

    `pending` events wait for it, counted up to `count_limit`.

    `fault` and `status` are those of the last failure. `secret` is a new one, which is shown only now. `entered` are
    the values of the form, which is open if the problem is about it.
    """

    endpoint: WebhookEndpoint
    pending: int
    count_limit: int
    signals: Signals
    attempt_limit: int
    deliveries: Sequence[DeliveryRecord]
    entered: Fields
    fault: str | None
    status: str | None
    now: datetime
    secret: str | None = None
    is_new: bool = False
    tested: Tested | None = None
    notice: Notice

    @property
    def is_paused(self) -> bool:
        """Whether nothing is sent at the moment because of a failure."""
        return self.endpoint.paused_until is not None and self.now < self.endpoint.paused_until

    @property
    def keeps(self) -> Sequence[tuple[str, str]]:
        """How long an earlier secret may sign: the values of the form and their words."""
        return [(name, word) for name, _span, word in _KEEP]


@router.get(PATH)
async def show_list(visit: SignedInVisit) -> Response:
    """Shows the endpoints, without their URLs, because paths may contain secrets."""
    return await _list_page(visit, notice=Notice(done=_DONE.get(visit.request.query_params.get("done", ""))))


@router.post(PATH)
async def create(visit: SignedInVisit) -> Response:
    """Creates an endpoint. This answer is the only one that has its secret, so it is a page and no redirect."""
    entered = await fields_of(visit.request)
    facts = _facts(entered)
    if facts is None:
        return await _list_page(visit, entered=entered, notice=Notice(problem=_INCOMPLETE), status=400)
    try:
        endpoint, secret = await visit.services.webhook_endpoints.create(
            visit.actor, facts, client=entered.get("client", "")[:_MAX_LINE] or None
        )
    except InvalidRequestError as error:
        return await _list_page(
            visit, entered=entered, notice=Notice(problem=_WRONG_URL, detail=error.detail), status=400
        )
    except ConflictError:
        return await _list_page(visit, entered=entered, notice=Notice(problem=_TOO_MANY), status=409)
    return await _page(visit, endpoint, secret=secret, is_new=True)


@router.get(_ONE)
async def show(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Shows an endpoint."""
    query = visit.request.query_params
    endpoint = await visit.services.webhook_endpoints.get(visit.actor, endpoint_id)
    problem = _WRONG_HOST if query.get("problem") == "host" else None
    return await _page(visit, endpoint, notice=Notice(done=_DONE.get(query.get("done", "")), problem=problem))


@router.post(f"{_ONE}/change")
async def change(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Changes the values of an endpoint that differ from the entered ones."""
    entered, service = await fields_of(visit.request), visit.services.webhook_endpoints
    endpoint, facts = await service.get(visit.actor, endpoint_id), _facts(entered)
    if facts is None:
        return await _page(visit, endpoint, entered=entered, notice=Notice(problem=_INCOMPLETE), status=400)
    changes = {
        field.name: value
        for field in fields(EndpointFacts)
        if (value := getattr(facts, field.name)) != getattr(endpoint, field.name)
    }
    try:
        await service.change(visit.actor, endpoint_id, changes)
    except InvalidRequestError as error:
        return await _page(
            visit, endpoint, entered=entered, notice=Notice(problem=_WRONG_URL, detail=error.detail), status=400
        )
    return see_other(_url(endpoint_id, done="change"))


@router.post(f"{_ONE}/enable")
async def enable(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Enables an endpoint, with the answer to the question what becomes of the events that it holds."""
    choice = (await fields_of(visit.request)).get("held", "")
    held = Held(choice) if choice in set(Held) else None
    await visit.services.webhook_endpoints.change(visit.actor, endpoint_id, {}, state=EndpointState.ENABLED, held=held)
    return see_other(_url(endpoint_id, done="enable"))


@router.post(f"{_ONE}/disable")
async def disable(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Disables an endpoint."""
    await visit.services.webhook_endpoints.change(visit.actor, endpoint_id, {}, state=EndpointState.DISABLED)
    return see_other(_url(endpoint_id, done="disable"))


@router.post(f"{_ONE}/rotate")
async def rotate(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Replaces the secret. This answer is the only one that has the new one, so it is a page and no redirect."""
    wanted = (await fields_of(visit.request)).get("keep_for", "")
    spans = [span for name, span, _word in _KEEP if name == wanted]
    if not spans:
        raise InvalidRequestError("The time that the earlier secret still signs is missing.")
    endpoint, secret = await visit.services.webhook_endpoints.rotate(visit.actor, endpoint_id, keep_for=spans[0])
    return await _page(visit, endpoint, secret=secret)


@router.post(f"{_ONE}/test")
async def send_test(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Sends a test event and shows what came back, which is stored nowhere, so it is a page and no redirect."""
    chosen = (await fields_of(visit.request)).get("type", "")
    kind = EventType(chosen) if chosen in set(EventType) else EventType.TEST
    answer = await visit.services.webhook_endpoints.test(visit.actor, endpoint_id, kind)
    endpoint = await visit.services.webhook_endpoints.get(visit.actor, endpoint_id)
    return await _page(visit, endpoint, tested=Tested(kind=kind, answer=answer))


@router.post(f"{_ONE}/delete")
async def delete(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Deletes an endpoint, after its host was entered as a confirmation."""
    entered = await fields_of(visit.request)
    endpoint = await visit.services.webhook_endpoints.get(visit.actor, endpoint_id)
    if entered.get("host") != endpoint.host:
        return see_other(_url(endpoint_id, problem="host"))
    await visit.services.webhook_endpoints.delete(visit.actor, endpoint_id)
    return see_other(f"{PATH}?done=delete")


def _url(endpoint_id: str, **query: str) -> str:
    return with_query(f"{PATH}/{endpoint_id}", **query)


def _facts(entered: Fields) -> EndpointFacts | None:
    """Returns the values of the form; None if one is missing or malformed. The service checks the URL."""
    url, description, rate = (entered.get(name, "") for name in ("url", "description", "max_per_second"))
    rule_ids = entered.get("rule_ids", "").split()
    is_line = len(description) <= _MAX_LINE and (description.isprintable() or not description)
    is_rate = not rate or (rate.isascii() and rate.isdigit() and 1 <= int(rate[:5]) <= _MAX_RATE)
    if not 0 < len(url) <= _MAX_URL or not is_line or not is_rate or len(rule_ids) > _MAX_RULES:
        return None
    if not all(map(_RULE_ID.fullmatch, rule_ids)):
        return None
    return EndpointFacts(
        url=url,
        events=frozenset(kind for kind in EventType if f"event_{kind}" in entered),
        outcomes=frozenset(outcome for outcome in Outcome if f"outcome_{outcome}" in entered),
        rule_ids=frozenset(rule_ids),
        description=description or None,
        max_per_second=int(rate) if rate else None,
    )


def _entered(endpoint: WebhookEndpoint) -> Fields:
    """Returns the values of an endpoint as those of the form."""
    return {
        "url": endpoint.url,
        "description": endpoint.description or "",
        "rule_ids": " ".join(sorted(endpoint.rule_ids)),
        "max_per_second": str(endpoint.max_per_second or ""),
        **{f"event_{kind}": "on" for kind in endpoint.events},
        **{f"outcome_{outcome}": "on" for outcome in endpoint.outcomes},
    }


async def _list_page(
    visit: Visit,
    *,
    entered: Fields | None = None,
    notice: Notice = _NONE,
    status: int = 200,
) -> Response:
    cursor = visit.request.query_params.get("cursor") or None
    found = await visit.services.webhook_endpoints.list(visit.actor, limit=_PAGE_LENGTH, cursor=cursor)
    ids = [endpoint.id for endpoint in found.endpoints]
    signals = await visit.services.deliveries.signals(visit.actor, ids, at_most=_LISTED_ATTEMPTS)
    empty = dict.fromkeys(("url", "description", "rule_ids", "max_per_second", "client"), "")
    page = EndpointsPage(
        endpoints=[(endpoint, signals[endpoint.id]) for endpoint in found.endpoints],
        attempt_limit=_LISTED_ATTEMPTS,
        entered=empty | dict(entered or {}),
        is_admin=visit.actor.caller.visible_client is None,
        at_most=MAX_PER_CLIENT,
        first_url=PATH if cursor else None,
        next_url=with_query(PATH, cursor=found.next_cursor) if found.next_cursor else None,
        notice=notice,
    )
    return visit.page("webhooks.html", page, status=status)


async def _page(
    visit: Visit,
    endpoint: WebhookEndpoint,
    *,
    entered: Fields | None = None,
    secret: str | None = None,
    is_new: bool = False,
    tested: Tested | None = None,
    notice: Notice = _NONE,
    status: int = 200,
) -> Response:
    deliveries = visit.services.deliveries
    newest = DeliveryFilter(endpoint_id=endpoint.id)
    found = await deliveries.list(visit.actor, newest, limit=_NEWEST, cursor=None)
    fault, _separator, last_status = (endpoint.last_fault or "").partition(":")
    empty = dict.fromkeys(("url", "description", "rule_ids", "max_per_second"), "")
    page = EndpointPage(
        endpoint=endpoint,
        pending=await deliveries.count_pending(visit.actor, endpoint.id, at_most=MAX_COUNTED),
        count_limit=MAX_COUNTED,
        signals=(await deliveries.signals(visit.actor, [endpoint.id], at_most=_ATTEMPTS))[endpoint.id],
        attempt_limit=_ATTEMPTS,
        deliveries=found.records,
        entered=empty | dict(entered if entered is not None else _entered(endpoint)),
        fault=fault or None,
        status=last_status or None,
        now=visit.services.clock(),
        secret=secret,
        is_new=is_new,
        tested=tested,
        notice=notice,
    )
    return visit.page("webhook.html", page, status=status, place=_url(endpoint.id))
