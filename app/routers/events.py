"""The change feed: events in the order of their positions, for back ends that poll."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.domain.events import body
from app.domain.rate import RateClass
from app.routers.connections import while_connected
from app.routers.dependencies import Reader, services_of
from app.routers.event_schemas import EventFilters, EventPageView
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=StrictRoute)


@router.get(
    "",
    response_model=EventPageView,
    responses=declared(*AUTH_ERRORS, 410),
    openapi_extra=limited(RateClass.LISTS),
)
async def list_events(request: Request, actor: Reader, wanted: Annotated[EventFilters, Query()]) -> Response:
    """Lists what has changed, oldest first: each event once, in an order that never changes.

    Continue with `after=` the `next_after` of the page, also after a page without events. Events are kept for 30 days.
    An older position is answered with 410 `position_gone`.
    """
    events = services_of(request).events
    found = events.list(actor, wanted.filter(), after=wanted.after, limit=wanted.limit, wait_seconds=wanted.wait)
    page = await (while_connected(request, found) if wanted.wait else found)
    items = b",".join(map(body, page.events))
    content = b'{"items":[%b],"next_after":%d}' % (items, page.next_after)
    return Response(content, media_type="application/json")
