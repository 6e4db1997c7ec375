"""Deliveries of events: the list of an endpoint, one delivery with its attempts, and the replay of a range of time."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import APIRouter, Response

from app.console import words
from app.console.dates import parse_day, parse_moment
from app.console.language import marked as _
from app.console.listing import choices_of, spans_of, zone_of
from app.console.rendering import Link, Notice, with_query
from app.console.visits import Fields, PageRoute, SignedInVisit, Visit, fields_of, see_other
from app.domain.deliveries import DeliveryFilter, DeliveryState, ReplayKind
from app.domain.events import EventType, body
from app.domain.statistics import day_span
from app.domain.webhook_endpoint import WebhookEndpoint
from app.errors import ConflictError, InvalidRequestError, NotFoundError
from app.services.deliveries import EXAMINED, MAX_REPLAY, DeliveryRecord, Replay

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_OF_ENDPOINT = "/admin/webhook-endpoints/{endpoint_id}"
_ONE = "/admin/deliveries/{delivery_id}"
_ID = re.compile(r"dlv_([1-9][0-9]{0,17})")
_PAGE_LENGTH, _ANSWERS = 50, 3
_FILTERS = ("state", "type", "from", "to")
_MAX_LINE = 64
_TABS = (
    ("", _("All")),
    (DeliveryState.PENDING, _("Waiting")),
    (DeliveryState.DELIVERED, _("Delivered")),
    (DeliveryState.FAILED, _("Delivery failed")),
    (DeliveryState.DROPPED, _("Dropped")),
)
_DEFAULT_SPAN = timedelta(hours=24)
_DONE = {"retry": _("The event is sent again now, with a new schedule.")}
_SENDING = _("The event is being sent right now. Wait for the answer.")
_NO_RANGE = _("Choose the begin and the end of the range, the end after the begin.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveriesPage:
    """A page of the deliveries of an endpoint. `replayed` is the number of events that a replay sends again.

    A page with a filter of types has examined the newest `examined`.
    """

    endpoint: WebhookEndpoint
    tabs: Sequence[Link]
    types: Sequence[Link]
    spans: Sequence[Link]
    filters: Fields
    is_filtered: bool
    records: Sequence[DeliveryRecord]
    url: str
    first_url: str | None
    next_url: str | None
    examined: int
    replayed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPage:
    """One delivery with its attempts. `payload` is the body of the event, `now` the time of the page.

    The answers of the last `answer_count` attempts are shown, so the page stays small.
    """

    record: DeliveryRecord
    endpoint: WebhookEndpoint
    payload: str
    now: datetime
    answer_count: int
    notice: Notice

    @property
    def is_sending(self) -> bool:
        """Whether an attempt is under way."""
        delivery = self.record.delivery
        return delivery.is_leased and delivery.due_at is not None and self.now < delivery.due_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPage:
    """The form of a replay, and with a range the plan: how many events it would send."""

    endpoint: WebhookEndpoint
    entered: Fields
    plan: Replay | None
    at_most: int
    notice: Notice


@router.get(f"{_OF_ENDPOINT}/deliveries")
async def show_list(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Shows the deliveries of an endpoint, newest first. The address contains all filters."""
    given, zone = visit.request.query_params, zone_of(visit)
    filters = {name: given[name][:_MAX_LINE] for name in _FILTERS if given.get(name)}
    start, end = parse_day(filters.get("from", "")), parse_day(filters.get("to", ""))
    state, kind = filters.get("state", ""), filters.get("type", "")
    wanted = DeliveryFilter(
        endpoint_id=endpoint_id,
        states=(DeliveryState(state),) if state in set(DeliveryState) else (),
        types=(EventType(kind),) if kind in set(EventType) else (),
        start=day_span(start, zone).start if start else None,
        end=day_span(end, zone).end if end else None,
    )
    cursor = given.get("cursor") or None
    found = await visit.services.deliveries.list(visit.actor, wanted, limit=_PAGE_LENGTH, cursor=cursor)
    url, replayed = visit.request.url.path, given.get("replayed", "")
    page = DeliveriesPage(
        endpoint=await visit.services.webhook_endpoints.get(visit.actor, endpoint_id),
        tabs=[
            Link(url=with_query(url, **filters | {"state": name}), word=word, is_current=state == name)
            for name, word in _TABS
        ],
        types=choices_of(url, filters, "type", words.EVENTS),
        spans=spans_of(url, filters, visit.services.clock().astimezone(zone).date()),
        filters=dict.fromkeys(_FILTERS, "") | filters,
        is_filtered=bool(filters),
        records=found.records,
        url=url,
        first_url=with_query(url, **filters) if cursor else None,
        next_url=with_query(url, **filters, cursor=found.next_cursor) if found.next_cursor else None,
        examined=EXAMINED,
        replayed=min(int(replayed[:6]), MAX_REPLAY) if replayed.isascii() and replayed.isdigit() else None,
    )
    return visit.page("deliveries.html", page)


@router.get(_ONE)
async def show(visit: SignedInVisit, delivery_id: str) -> Response:
    """Shows a delivery."""
    query = visit.request.query_params
    record = await visit.services.deliveries.get(visit.actor, _number(delivery_id))
    page = DeliveryPage(
        record=record,
        endpoint=await visit.services.webhook_endpoints.get(visit.actor, record.delivery.endpoint_id),
        payload=json.dumps(json.loads(body(record.event)), ensure_ascii=False, indent=2),
        now=visit.services.clock(),
        answer_count=_ANSWERS,
        notice=Notice(
            done=_DONE.get(query.get("done", "")), problem=_SENDING if query.get("problem") == "sending" else None
        ),
    )
    return visit.page("delivery.html", page)


@router.post(f"{_ONE}/retry")
async def retry(visit: SignedInVisit, delivery_id: str) -> Response:
    """Sends a delivery again now."""
    number, url = _number(delivery_id), f"/admin/deliveries/{delivery_id}"
    try:
        await visit.services.deliveries.retry(visit.actor, number)
    except ConflictError:
        return see_other(with_query(url, problem="sending"))
    return see_other(with_query(url, done="retry"))


@router.get(f"{_OF_ENDPOINT}/replay")
async def plan_replay(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Shows the form of a replay. With a range it also shows how many events would be sent."""
    query, now = visit.request.query_params, visit.services.clock().astimezone(zone_of(visit))
    default = {
        "from": _moment_text(now - _DEFAULT_SPAN),
        "to": _moment_text(now + timedelta(minutes=1)),
        "which": ReplayKind.FAILED,
        "type": "",
    }
    entered = default | {name: query[name][:_MAX_LINE] for name in default if query.get(name)}
    plan, problem = None, None
    if "which" in query:
        try:
            plan = await _replay(visit, endpoint_id, entered, is_dry_run=True)
        except InvalidRequestError:
            problem = _NO_RANGE
    page = ReplayPage(
        endpoint=await visit.services.webhook_endpoints.get(visit.actor, endpoint_id),
        entered=entered,
        plan=plan,
        at_most=MAX_REPLAY,
        notice=Notice(problem=problem),
    )
    return visit.page("replay.html", page, status=400 if problem else 200)


@router.post(f"{_OF_ENDPOINT}/replay")
async def replay(visit: SignedInVisit, endpoint_id: str) -> Response:
    """Sends the events of a range again."""
    done = await _replay(visit, endpoint_id, await fields_of(visit.request), is_dry_run=False)
    return see_other(with_query(f"/admin/webhook-endpoints/{endpoint_id}/deliveries", replayed=str(done.count)))


async def _replay(visit: Visit, endpoint_id: str, entered: Fields, *, is_dry_run: bool) -> Replay:
    """Sends the events of the form again, or counts them.

    Raises:
        InvalidRequestError: the range is malformed or empty, or a choice is unknown.
    """
    zone, which, kind = zone_of(visit), entered.get("which", ""), entered.get("type", "")
    start, end = parse_moment(entered.get("from", ""), zone), parse_moment(entered.get("to", ""), zone)
    if start is None or end is None or which not in set(ReplayKind) or (kind and kind not in set(EventType)):
        raise InvalidRequestError("The range or the choice of the replay is malformed.")
    return await visit.services.deliveries.replay(
        visit.actor,
        endpoint_id,
        ReplayKind(which),
        start=start,
        end=end,
        types=frozenset([EventType(kind)] if kind else []),
        is_dry_run=is_dry_run,
    )


def _moment_text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M}"


def _number(delivery_id: str) -> int:
    """Returns the number of a delivery's id.

    Raises:
        NotFoundError: it is no id.
    """
    if known := _ID.fullmatch(delivery_id):
        return int(known[1])
    raise NotFoundError("There is no such delivery.")
