"""Events as they happen, as server-sent events. Not in the API description: clients generated from it cannot stream."""

import asyncio
import random
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app import tasks
from app.domain.api_key import Actor
from app.domain.events import EventFilter
from app.routers.dependencies import Reader, services_of
from app.routers.event_schemas import Position, StreamFilters
from app.routers.rejections import StrictRoute
from app.services.streams import EventStream, StreamService

_RECONNECT_MS = (1000, 5000)
# No proxy may store, compress or collect the events.
_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
_RANDOM = random.SystemRandom()

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
    return _EventStreamResponse(services_of(request).streams, actor, wanted.filter(), after)


class _EventStreamResponse(Response):
    """A response that lasts as long as its stream. It sends the frames as they are, the same for all streams."""

    media_type = "text/event-stream"

    def __init__(self, streams: StreamService, actor: Actor, wanted: EventFilter, after: int | None) -> None:
        # Like Starlette's StreamingResponse: a response with a body would declare its length.
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._streams = streams
        self._request = (actor, wanted, after)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Opens the stream, so an error is still answered as a problem, and sends until it ends."""
        actor, wanted, after = self._request
        async with self._streams.open(actor, wanted, after=after) as stream:
            scope["state"]["is_stream"] = True
            disconnect = asyncio.create_task(_end_on_disconnect(receive, stream))
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await _send_all(stream, send)
            finally:
                await tasks.end(disconnect)


async def _send_all(stream: EventStream, send: Send) -> None:
    """Sends until the stream ends.

    Raises:
        ClientDisconnect: the client accepts nothing.
    """
    try:
        # One deadline for all, because setting one for each frame costs as much as sending it.
        async with asyncio.timeout(None) as deadline:
            stream.on_stuck = partial(deadline.reschedule, 0)
            # Sent at once, so the headers pass the proxies. Clients reconnect at different times.
            await send(_body(b"retry: %d\n: ok\n\n" % _RANDOM.randint(*_RECONNECT_MS)))
            while (frames := await stream.next()) is not None:
                await send(_body(frames))
            await send(_body(b": bye\n\n", is_last=True))
    except TimeoutError:
        raise ClientDisconnect from None


def _body(content: bytes, *, is_last: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": not is_last}


async def _end_on_disconnect(receive: Receive, stream: EventStream) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()
    stream.end()
