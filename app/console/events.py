"""The newest events, which follow live."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Response

from app.console.visits import PageRoute, SignedInVisit
from app.domain.api_key import Scope
from app.domain.events import Event, EventFilter
from app.event_stream import EventStreamResponse
from app.services.visibility import require_scope

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PATH = "/admin/events"
_PAGE_LENGTH = 50
# Then the browser connects again, which needs a session that has not ended.
_STREAM_SECONDS = 60.0
_MAX_DIGITS = 18
_RELOAD_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsPage:
    """The newest events. Without scripts the browser loads the page again after `reload_seconds`, unless it is paused.

    With scripts `stream_url` says when there are new ones.
    """

    events: Sequence[Event]
    is_paused: bool
    stream_url: str
    reload_seconds: int


@router.get(_PATH)
async def show(visit: SignedInVisit) -> Response:
    """Shows the newest events."""
    page = EventsPage(
        events=await visit.services.events.newest(visit.actor, limit=_PAGE_LENGTH),
        is_paused="paused" in visit.request.query_params,
        stream_url=f"{_PATH}/stream",
        reload_seconds=_RELOAD_SECONDS,
    )
    return visit.page("events.html", page)


@router.get(f"{_PATH}/stream")
async def follow(
    visit: SignedInVisit, last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None
) -> Response:
    """Streams the events that are still to come, or those behind the last one that the browser has seen."""
    require_scope(visit.actor.caller, Scope.RESULTS_READ)
    is_position = last_event_id and last_event_id.isascii() and last_event_id.isdigit()
    after = int(last_event_id[:_MAX_DIGITS]) if last_event_id and is_position else None
    return EventStreamResponse(visit.services.streams, visit.actor, EventFilter(), after, max_seconds=_STREAM_SECONDS)
