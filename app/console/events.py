"""The newest events, which follow live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Response

from app.console import words
from app.console.listing import choices_of
from app.console.rendering import Link, with_query
from app.console.visits import Fields, PageRoute, SignedInVisit
from app.domain.api_key import Scope
from app.domain.events import Event, EventFilter, EventType
from app.event_stream import EventStreamResponse
from app.services.events import NEWEST_EXAMINED
from app.services.visibility import require_scope

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PATH = "/admin/events"
_PAGE_LENGTH = 50
# Then the browser connects again, which needs a session that has not ended.
_STREAM_SECONDS = 60.0
_MAX_DIGITS = 18
_RELOAD_SECONDS = 10
_FILTERS = ("type", "client", "biz_token")
_MAX_LINE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsPage:
    """The newest events. Without scripts the browser loads the page again after `reload_seconds`, unless it is paused.

    With scripts `stream_url` says when there are new ones. All addresses have the filters. `turn_url` pauses the page,
    or continues it. `examined` is the number of newest events among which those of a type are found.
    """

    events: Sequence[Event]
    filters: Fields
    types: Sequence[Link]
    is_paused: bool
    url: str
    turn_url: str
    stream_url: str
    reload_seconds: int
    examined: int
    is_admin: bool


@router.get(_PATH)
async def show(visit: SignedInVisit) -> Response:
    """Shows the newest events. The address contains all filters."""
    filters = _filters(visit.request.query_params)
    paused = {"paused": "yes"} if "paused" in visit.request.query_params else {}
    page = EventsPage(
        events=await visit.services.events.newest(visit.actor, _filter(filters), limit=_PAGE_LENGTH),
        filters=dict.fromkeys(_FILTERS, "") | filters,
        types=choices_of(_PATH, filters | paused, "type", words.EVENTS),
        is_paused=bool(paused),
        url=with_query(_PATH, **filters),
        turn_url=with_query(_PATH, **filters, paused="" if paused else "yes"),
        stream_url=with_query(f"{_PATH}/stream", **filters),
        reload_seconds=_RELOAD_SECONDS,
        examined=NEWEST_EXAMINED,
        is_admin=visit.actor.caller.visible_client is None,
    )
    return visit.page("events.html", page)


@router.get(f"{_PATH}/stream")
async def follow(
    visit: SignedInVisit, last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None
) -> Response:
    """Streams the wanted events that are still to come, or those behind the last one that the browser has seen."""
    require_scope(visit.actor.caller, Scope.RESULTS_READ)
    is_position = last_event_id and last_event_id.isascii() and last_event_id.isdigit()
    after = int(last_event_id[:_MAX_DIGITS]) if last_event_id and is_position else None
    wanted = _filter(_filters(visit.request.query_params))
    return EventStreamResponse(visit.services.streams, visit.actor, wanted, after, max_seconds=_STREAM_SECONDS)


def _filters(query: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_MAX_LINE] for name in _FILTERS if (value := query.get(name, "").strip())}


def _filter(filters: Fields) -> EventFilter:
    kind = filters.get("type", "")
    return EventFilter(
        client=filters.get("client"),
        types=(EventType(kind),) if kind in set(EventType) else (),
        biz_token=filters.get("biz_token"),
    )
