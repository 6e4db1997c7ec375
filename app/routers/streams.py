"""Events as they happen, as server-sent events. Not in the API description: clients generated from it cannot stream."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.event_stream import EventStreamResponse
from app.routers.dependencies import Reader, services_of
from app.routers.event_schemas import Position, StreamFilters
from app.routers.rejections import StrictRoute

router = APIRouter(prefix="/v1/events", route_class=StrictRoute, include_in_schema=False)


@router.get("/stream")
async def follow(
    request: Request,
    actor: Reader,
    wanted: Annotated[StreamFilters, Query()],
    last_event_id: Annotated[Position | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Streams the events behind `Last-Event-ID` or `after`, or without both those that are still to come."""
    after = wanted.after if last_event_id is None else last_event_id
    return EventStreamResponse(services_of(request).streams, actor, wanted.filter(), after)
