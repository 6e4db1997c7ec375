"""Answers with events as they happen, as server-sent events. API and console share it."""

import asyncio
import random
from contextlib import AsyncExitStack
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app import tasks
from app.domain.api_key import Actor
from app.domain.events import EventFilter
from app.services.streams import EventStream, StreamService

_RECONNECT_MS = (1000, 5000)
# No proxy may store, compress or collect the events.
_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
_RANDOM = random.SystemRandom()


class EventStreamResponse(Response):
    """A response that lasts as long as its stream. It sends the frames as they are, the same for all streams.

    Args:
        streams: opens the stream.
        actor: who reads it.
        wanted: the events.
        after: the position behind which it begins; None for those that are still to come.
        max_seconds: the time after which it ends, so the client must show again that it may read; None for no limit.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        streams: StreamService,
        actor: Actor,
        wanted: EventFilter,
        after: int | None,
        *,
        max_seconds: float | None = None,
    ) -> None:
        # Like Starlette's StreamingResponse: a response with a body would declare its length.
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._streams = streams
        self._request = (actor, wanted, after)
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Opens the stream, so an error is still answered as a problem.

        The outermost layer sends the rest of the response: what FastAPI keeps during a request takes 6 KiB, for each
        stream and as long as it is open.
        """
        actor, wanted, after = self._request
        async with AsyncExitStack() as opened:
            stream = await opened.enter_async_context(self._streams.open(actor, wanted, after=after))
            scope["state"]["stream"] = partial(self._follow, stream, opened.pop_all())

    async def _follow(self, stream: EventStream, opened: AsyncExitStack, receive: Receive, send: Send) -> None:
        async with opened:
            disconnect = asyncio.create_task(_end_on_disconnect(receive, stream))
            end = asyncio.get_running_loop().call_later(self._max_seconds, stream.end) if self._max_seconds else None
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await _send_all(stream, send)
            finally:
                if end:
                    end.cancel()
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
