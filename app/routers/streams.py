"""Events as they happen, as server-sent events. Not in the API description: clients generated from it cannot stream."""

import asyncio
import random
from typing import Annotated, Any

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

# A reader that accepts nothing for so long is disconnected. The server buffers 64 KiB before that.
_SEND_SECONDS = 30.0
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
    # Sent at once, so the headers pass the proxies. Clients reconnect at different times.
    await _send(send, b"retry: %d\n: ok\n\n" % _RANDOM.randint(*_RECONNECT_MS))
    while (frames := await stream.next()) is not None:
        await _send(send, frames)
    await _send(send, b": bye\n\n", is_last=True)


async def _send(send: Send, body: bytes, *, is_last: bool = False) -> None:
    """Sends a part of the body.

    Raises:
        ClientDisconnect: the client accepts nothing.
    """
    message: dict[str, Any] = {"type": "http.response.body", "body": body, "more_body": not is_last}
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            await send(message)
    except TimeoutError:
        raise ClientDisconnect from None


async def _end_on_disconnect(receive: Receive, stream: EventStream) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()
    stream.end()
